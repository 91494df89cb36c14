package render

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// Sources that differ in anything are requests of their own, and each object gets the answer to its own.
func TestDistinctSources(t *testing.T) {
	sources := []spec.Source{
		{Method: "GET", Path: "p"},
		{Method: "PUT", Path: "p"},
		{Method: "PUT", Path: "p", Args: `{"a":"1"}`},
		{Method: "GET", Path: "q"},
		{Method: "GET", Path: "p", Lenient: true},
	}
	var objects []spec.Object
	for i, source := range sources {
		objects = append(objects, spec.Object{Name: fmt.Sprint(i), Source: source, Key: "said", Encoding: spec.UTF8})
	}
	said := func(s spec.Source) string { return fmt.Sprintf("%s %s %s %t", s.Method, s.Path, s.Args, s.Lenient) }
	var reads atomic.Int32
	files, made, err := New().Files(Volume{Objects: objects, Read: func(s spec.Source) (client.Grant, error) {
		reads.Add(1)
		return grantOf(s, fmt.Sprintf(`{"said":%q}`, said(s))), nil
	}})
	if err != nil || int(reads.Load()) != len(sources) || len(made) != len(sources) {
		t.Fatalf("got %d reads, %d sources and error %v; want one for each of %d", reads.Load(), len(made), err, len(sources))
	}
	for i, f := range files {
		if got := string(f.Contents); got != said(sources[i]) {
			t.Errorf("file %s: got the answer to %q, want that to %q", f.Path, got, said(sources[i]))
		}
	}
}

// A template may ask for paths that it makes up as it goes, but for no more than a volume may hold.
func TestMostSources(t *testing.T) {
	for _, row := range []struct {
		asks int
		want string // in the error; "" for none
	}{
		{maxSources, ""},
		{maxSources + 1, "the volume's files need more than 100 requests to Vault: split the class in two"},
		{5 * maxSources, "the volume's files need more than 100 requests to Vault: split the class in two"},
	} {
		text := fmt.Sprintf(`{{ range $i := loop %d }}{{ (secret (printf "kv/%%d" $i)).Data.k }}{{ end }}`, row.asks)
		var reads atomic.Int32
		_, _, err := New().Files(Volume{
			Objects: []spec.Object{{Name: "o", Template: spec.Template{Text: text}}},
			Read: func(s spec.Source) (client.Grant, error) {
				reads.Add(1)
				return grantOf(s, `{"k":"v"}`), nil
			},
		})
		switch failure := (*Error)(nil); {
		case reads.Load() > maxSources:
			t.Errorf("%d asked for: Vault was asked for %d, want at most %d", row.asks, reads.Load(), maxSources)
		case row.want == "" && err != nil:
			t.Errorf("%d asked for: got error %v", row.asks, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !errors.As(err, &failure) || !failure.Unfit):
			t.Errorf("%d asked for: got error %v, want an unfit one with %q", row.asks, err, row.want)
		}
	}
}
