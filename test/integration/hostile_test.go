package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// TestHostileSecretsEndNoProvider: a secret can take fifty times as much memory once it is decoded, and whoever may
// write some of them may write a class that names them. The provider lives on within what the chart gives it, and serves
// others. Vault, too, takes seconds to write such secrets and to tell of them in its audit log, so no test with leases of
// seconds is beside this one.
func TestHostileSecretsEndNoProvider(t *testing.T) {
	const (
		secrets = 20
		most    = 256 << 20 // bytes; decoded, these secrets have 330 MiB
	)
	list := slices.Repeat([]any{map[string]any{"": 0}}, 9000) // Vault takes no longer ones than 10000
	data := map[string]any{"word": "xyzzy", "lists": slices.Repeat([]any{list}, 5)}
	name, path := role(t, bed.Role{}), ""
	var hostile strings.Builder
	for i := range secrets {
		path = putKV1(t, data)
		hostile.WriteString(object(fmt.Sprint("word-", i), path, "word"))
	}
	p := startProvider(t, bed.ProviderOptions{})
	fails(t, newVolume(t, p, class(name, hostile.String())), codes.FailedPrecondition, "more than 32 MiB of memory", "split the class in two")
	v := newVolume(t, p, class(name, object("word", path, "word")+credentials(name)))
	mustMount(t, v)
	logIn(t, v)
	if took := peak(t, p); took > most {
		t.Errorf("the provider has had %d MiB, want %d at most", took>>20, most>>20)
	}
}

// peak is the most memory that a provider has had so far, in bytes.
func peak(t *testing.T, p *bed.Provider) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	must(t, "status", err)
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			must(t, "VmHWM", err)
			return kib << 10
		}
	}
	t.Fatal("the kernel does not tell VmHWM")
	return 0
}
