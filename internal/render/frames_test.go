package render

import (
	"strings"
	"testing"
)

// A file is more than its bytes in a row: what ends the path of one and begins the contents of another must count.
func TestVersionFramesItsParts(t *testing.T) {
	mode := strings.Repeat("\x00", 8) // as it is hashed, between path and contents
	one := File{Path: "a", Contents: []byte(mode + "b")}
	other := File{Path: "a" + mode, Contents: []byte("b")}
	if v, w := Version([32]byte{}, one), Version([32]byte{}, other); v == w {
		t.Errorf("two files have the version %s", v)
	}
}
