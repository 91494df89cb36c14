package render

import (
	"regexp"
	"testing"
)

func TestVersion(t *testing.T) {
	key := [32]byte{1}
	file := File{Path: "a", Mode: 0o644, Contents: []byte("bc")}
	version := Version(key, file)
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`).MatchString(version) {
		t.Errorf("Version = %q, want 22 characters of base64url", version)
	}
	if again := Version(key, File{Path: "a", Mode: 0o644, Contents: []byte("bc")}); again != version {
		t.Errorf("an equal file has version %q, want %q", again, version)
	}
	seen := map[string]string{version: "the file"}
	for name, v := range map[string]string{
		"another key":            Version([32]byte{2}, file),
		"another path":           Version(key, File{Path: "b", Mode: 0o644, Contents: []byte("bc")}),
		"another mode":           Version(key, File{Path: "a", Mode: 0o600, Contents: []byte("bc")}),
		"other contents":         Version(key, File{Path: "a", Mode: 0o644, Contents: []byte("bd")}),
		"a byte moved":           Version(key, File{Path: "ab", Mode: 0o644, Contents: []byte("c")}),
		"contents as the path":   Version(key, File{Path: "bc", Mode: 0o644, Contents: []byte("a")}),
		"no contents, long path": Version(key, File{Path: "abc", Mode: 0o644}),
	} {
		if other, ok := seen[v]; ok {
			t.Errorf("%s has the version of %s", name, other)
		}
		seen[v] = name
	}
}
