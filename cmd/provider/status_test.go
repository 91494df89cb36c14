package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"leasehold/internal/lease"
	"leasehold/internal/observe"
)

// noon is when the tests of what is printed take place.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func kubeletPath(uid, name string) string {
	return "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/" + name + "/mount"
}

// holdings are what a keeper may tell.
func holdings() []lease.Status {
	return []lease.Status{
		{Namespace: "bank", Pod: "api-0", UID: "u-3", Target: "/elsewhere/mount", Role: "bank", Error: "login: permission denied"},
		{
			Namespace: "shop", Pod: "web-0", UID: "u-1", Target: kubeletPath("u-1", "db"), Vault: "https://vault", Role: "shop",
			Items: []lease.Item{
				{Kind: "token", Source: "acc-1", State: "held", End: noon.Add(90 * time.Minute), Next: "renew", At: noon.Add(12 * time.Second)},
				{Kind: "lease", Source: "database/creds/app", State: "due", End: noon.Add(20 * time.Second), Next: "renew", At: noon},
				{Kind: "secret", Source: "kv/data/app", State: "held", Next: "replace", At: noon.Add(299 * time.Second)},
				{Kind: "certificate", Source: "pki/issue/web", State: "over", End: noon.Add(-time.Hour)},
			},
		},
		{
			Namespace: "shop", Pod: "web-1", UID: "u-2", Target: kubeletPath("u-2", "db"), Vault: "https://vault", Role: "shop",
			Ended: true,
			Items: []lease.Item{
				{Kind: "token", Source: "acc-2", State: "unwanted", End: noon.Add(time.Minute), Next: "revoke", At: noon.Add(-time.Second)},
			},
			Error: "revoke: Vault is\nunavailable \x1b[2J", ErrorAt: noon.Add(-12 * time.Second),
		},
	}
}

func TestTable(t *testing.T) {
	want := `
POD                  VOLUME            ROLE  SOURCE              STATE     TIME LEFT  NEXT              LAST ERROR
bank/api-0           /elsewhere/mount  bank  -                   -         -          -                 login: permission denied
shop/web-0           db                shop  token acc-1         held      1h30m      renew in 12s      -
shop/web-0           db                shop  database/creds/app  due       20s        renew now         -
shop/web-0           db                shop  kv/data/app         held      -          replace in 4m59s  -
shop/web-0           db                shop  pki/issue/web       over      none       -                 -
shop/web-1 (ended)   db                shop  token acc-2         unwanted  1m0s       revoke now        revoke: Vault is unavailable  [2J (12s ago)

3 volumes of 3 pods: 2 held, 1 due, 1 over, 1 unwanted. The first end was 1h0m ago. An error in 2 volumes.
`
	got := "\n" + table(volumesOf(holdings()), "vault", noon)
	if squeeze(got) != squeeze(want) {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
	// Columns stand below each other, as far as each goes.
	lines := strings.Split(strings.TrimSpace(got), "\n")
	state := strings.Index(lines[0], "STATE")
	for _, line := range lines[1:7] {
		if line[state-1] != ' ' || line[state] == ' ' {
			t.Errorf("column STATE of %q does not begin below its head %q", line, lines[0])
		}
	}
}

// squeeze makes one space of many.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

// Most of the time nothing is over.
func TestSummaryOfWhatLasts(t *testing.T) {
	volumes := volumesOf(holdings())
	volumes[1].Items = volumes[1].Items[:3]
	want := "3 volumes of 3 pods: 2 held, 1 due, 0 over, 1 unwanted. Time left to the first end: 20s. An error in 2 volumes."
	if got := summary(volumes, noon); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableOfNothing(t *testing.T) {
	want := "Nothing is held: no pod of this node has a volume of the provider \"other\".\n"
	if got := table(volumesOf(nil), "other", noon); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRough(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                  "0s",
		999 * time.Millisecond:        "0s",
		59999 * time.Millisecond:      "59s",
		time.Minute:                   "1m0s",
		time.Hour - 1:                 "59m59s",
		time.Hour:                     "1h0m",
		24*time.Hour - 1:              "23h59m",
		24 * time.Hour:                "1d0h",
		32*24*time.Hour - time.Minute: "31d23h",
	} {
		if got := rough(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestHeld(t *testing.T) {
	want := observe.Held{
		Volumes: 3,
		Leases:  map[string]int{"held": 2, "due": 1, "over": 1, "unwanted": 1},
		End:     noon.Add(-time.Hour), // what is over is missed until there is something new; what is unwanted is not
	}
	if got := heldOf(volumesOf(holdings())); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// Nobody misses what is to be given back, nor a static role's password of before.
	quiet := []volumeStatus{{UID: "u-1", Items: []itemStatus{
		{Kind: "token", State: "held", End: noon.Add(time.Hour)},
		{Kind: "secret", State: "due"},
		{Kind: "token", State: "unwanted", End: noon.Add(time.Minute)},
		{Kind: "static", State: "over", End: noon.Add(-time.Second)},
		{Kind: "static", State: "held", End: noon.Add(time.Second)},
	}}}
	if got, want := heldOf(quiet).End, noon.Add(time.Hour); !got.Equal(want) {
		t.Errorf("what nobody misses: got the first end %v, want the token's, %v", got, want)
	}
	none := observe.Held{Leases: map[string]int{"held": 0, "due": 0, "over": 0, "unwanted": 0}}
	if got := heldOf(nil); !reflect.DeepEqual(got, none) {
		t.Errorf("nothing held: got %+v, want %+v", got, none)
	}
}

// serveStatus answers for a provider that holds these, until the test ends, and returns its state directory.
func serveStatus(t *testing.T, handler http.Handler) (stateDir string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(journalDir(dir, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenStatus(t.Context(), statusSocket(dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveHTTP(ctx, l, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ask runs "provider status" in this process.
func ask(t *testing.T, flags ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, complaints bytes.Buffer
	status = runStatus(t.Context(), flags, &out, &complaints)
	return status, out.String(), complaints.String()
}

func TestStatusIsAsked(t *testing.T) {
	dir := serveStatus(t, statusHandler(holdings))
	status, stdout, stderr := ask(t, "-state-dir="+dir)
	if status != 0 || stderr != "" || !strings.HasPrefix(stdout, "POD") || !strings.Contains(stdout, "3 volumes of 3 pods: 2 held,") {
		t.Errorf("got exit status %d, %q, %q; want 0 and the table", status, stdout, stderr)
	}

	status, stdout, stderr = ask(t, "-state-dir="+dir, "-o=json")
	var volumes []lease.Status // a program may read it into these as well
	if err := json.Unmarshal([]byte(stdout), &volumes); status != 0 || stderr != "" || err != nil {
		t.Fatalf("-o=json: got exit status %d, %q, %q, %v; want 0 and JSON", status, stdout, stderr, err)
	}
	got, want := volumesOf(volumes), volumesOf(holdings())
	if !reflect.DeepEqual(got, want) {
		t.Errorf("-o=json: got  %+v\nwant %+v", got, want)
	}
	for _, name := range []string{`"namespace"`, `"uid"`, `"items"`, `"errorAt"`, `"end": "2026-03-01T12:00:20Z"`} {
		if !strings.Contains(stdout, name) {
			t.Errorf("-o=json: got no %s in %s", name, stdout)
		}
	}
}

// A list is a list for a program, also when it is empty.
func TestStatusOfNothing(t *testing.T) {
	dir := serveStatus(t, statusHandler(func() []lease.Status { return nil }))
	if status, stdout, stderr := ask(t, "-state-dir="+dir, "-o=json"); status != 0 || stdout != "[]\n" || stderr != "" {
		t.Errorf("got exit status %d, %q, %q; want 0 and []", status, stdout, stderr)
	}
	if status, stdout, _ := ask(t, "-state-dir="+dir); status != 0 || !strings.HasPrefix(stdout, "Nothing is held") {
		t.Errorf("got exit status %d, %q; want 0 and a sentence", status, stdout)
	}
}

func TestStatusThatCannotBeAsked(t *testing.T) {
	left := t.TempDir() // by a provider that was killed
	if err := os.Mkdir(journalDir(left, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	leaveSocket(t, statusSocket(left, "vault"))
	other := serveStatus(t, http.NotFoundHandler())
	broken := serveStatus(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[{") }))
	for _, row := range []struct {
		flags  string
		status int
		stderr string
	}{
		{"-state-dir=" + t.TempDir(), 1, "provider status: no provider answers: dial unix"},
		{"-state-dir=" + left, 1, "connection refused; it runs on this node only if"},
		{"-state-dir=" + other, 1, "the provider answers 404 Not Found: is it of another version?"},
		{"-state-dir=" + broken, 1, "read the provider's answer: unexpected EOF"},
		{"-o=yaml", 2, `provider status: -o: "yaml" is neither table nor json`},
		{"-provider-name=../x", 2, `-provider-name: "../x" must be`},
		{"all", 2, `unexpected arguments: ["all"]`},
		{"-nonsense", 2, "flag provided but not defined: -nonsense"},
	} {
		status, stdout, stderr := ask(t, row.flags)
		if status != row.status || stdout != "" || !strings.Contains(stderr, row.stderr) {
			t.Errorf("%s: got exit status %d, %q, %q; want %d and %q", row.flags, status, stdout, stderr, row.status, row.stderr)
		}
	}
	if status, stdout, stderr := ask(t, "-help"); status != 0 || stdout != "" || !strings.Contains(stderr, "Usage of provider status") {
		t.Errorf("-help: got exit status %d, %q, %q; want 0 and the usage", status, stdout, stderr)
	}
}

// leaveSocket leaves a socket behind that nobody listens at.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStatusSocket(t *testing.T) {
	path := t.TempDir() + "/status.sock"
	leaveSocket(t, path)
	l, err := listenStatus(t.Context(), path)
	if err != nil {
		t.Fatalf("where a socket was left behind: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("got %v, %v; want a socket for this user only", info.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: got %v, want no socket", err)
	}
	if _, err := listenStatus(t.Context(), t.TempDir()+"/missing/status.sock"); err == nil {
		t.Error("in no directory: got no error")
	}
}
