package client

import (
	"strconv"
	"strings"
	"testing"

	"leasehold/internal/spec"
)

func TestShim(t *testing.T) {
	for _, tt := range []struct{ method, mount, path, want string }{
		{"GET", "kv", "kv/app", "kv/data/app"},
		{"GET", "kv", "kv/a/b?version=3", "kv/data/a/b?version=3"},
		{"GET", "kv", "kv/data/app", "kv/data/app"},
		{"GET", "kv", "kv/metadata/app?x=1", "kv/metadata/app?x=1"},
		{"GET", "kv", "kv/subkeys/app", "kv/subkeys/app"},
		{"GET", "kv", "kv/database", "kv/data/database"},
		{"GET", "kv", "kv/data", "kv/data/data"},
		{"GET", "kv", "kv/metadata", "kv/data/metadata"},
		{"GET", "kv", "kv/config", "kv/data/config"},
		{"GET", "kv", "kv", "kv/data"},
		{"GET", "kv", "kv?version=3", "kv/data?version=3"},
		{"GET", "team/kv", "team/kv/app", "team/kv/data/app"},
		{"LIST", "kv", "kv", "kv/metadata"},
		{"LIST", "kv", "kv/app", "kv/metadata/app"},
		{"LIST", "kv", "kv/metadata", "kv/metadata"},
		{"LIST", "kv", "kv/metadata/app", "kv/metadata/app"},
		{"LIST", "kv", "kv/metadatas", "kv/metadata/metadatas"},
		{"LIST", "kv", "kv/data/app", "kv/data/app"},
	} {
		if got := shim(tt.mount, spec.Source{Method: tt.method, Path: tt.path}); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}

// Whatever the path: the mount, the query and every part of the path stay.
func FuzzShim(f *testing.F) {
	f.Add("kv", "app", "version=1", false)
	f.Add("a/b", "data/../x", "", true)
	f.Fuzz(func(t *testing.T, mount, rest, query string, list bool) {
		src := spec.Source{Method: "GET", Path: strings.Trim(mount+"/"+rest, "/")}
		if list {
			src.Method = "LIST"
		}
		if query != "" {
			src.Path += "?" + query
		}
		name := nameOf(src.Path)
		if !isBelow(name, mount) {
			return
		}
		got := shim(mount, src)
		if !isBelow(nameOf(got), mount) {
			t.Errorf("%q: got %q, which is not below %q", src.Path, got, mount)
		}
		if strings.TrimPrefix(got, nameOf(got)) != strings.TrimPrefix(src.Path, name) {
			t.Errorf("%q: got %q, with another query", src.Path, got)
		}
		if a, b := strings.Count(nameOf(got), ".."), strings.Count(name, ".."); a != b {
			t.Errorf("%q: got %q, with %d \"..\" for %d", src.Path, got, a, b)
		}
	})
}

func TestKnownMountsAreBounded(t *testing.T) {
	var m versionedMounts
	v := spec.Vault{Address: "https://vault.example"}
	for i := range 3 * mostMounts {
		mount := "kv" + strconv.Itoa(i)
		m.add(v, mount)
		m.add(v, mount)
		if got, known := m.find(v, mount+"/app"); !known || got != mount {
			t.Fatalf("the mount just learnt: got %q, %v, want %q", got, known, mount)
		}
	}
	if n := len(m.known); n != mostMounts {
		t.Errorf("got %d known mounts, want %d", n, mostMounts)
	}
}

func TestKnownMountsAreApart(t *testing.T) {
	var m versionedMounts
	v := spec.Vault{Address: "https://vault.example", Namespace: "team"}
	m.add(v, "a/kv")
	for _, tt := range []struct {
		address, namespace, name string
		want                     bool
	}{
		{v.Address, "team", "a/kv", true},
		{v.Address, "team", "a/kv/b/c", true},
		{v.Address, "team", "a/kvs/b", false},
		{v.Address, "team", "a", false},
		{v.Address, "team", "b/a/kv", false},
		{v.Address, "", "a/kv/b", false},
		{"https://other.example", "team", "a/kv/b", false},
	} {
		if _, known := m.find(spec.Vault{Address: tt.address, Namespace: tt.namespace}, tt.name); known != tt.want {
			t.Errorf("%s at %s in %q: got known %v, want %v", tt.name, tt.address, tt.namespace, known, tt.want)
		}
	}
}
