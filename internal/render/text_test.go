package render

import (
	"strings"
	"testing"
)

func TestTexts(t *testing.T) {
	check(t, []row{
		{template: `{{ trim "- " " - a- b --" }}|{{ trimPrefix "ab" "abab" }}|{{ trimSuffix "ab" "abab" }}|{{ trimSpace " \t a\n" }}`, want: "a- b|ab|ab|a"},
		{template: `{{ trim "" " a " }}|{{ trimPrefix "" "a" }}|{{ trimSuffix "x" "" }}|{{ trimSpace "" }}`, want: " a |a||"},
		{template: `{{ "aB ç" | toUpper }} {{ "AB Ç" | toLower }} {{ "hello wORLD o'neil ǆ" | toTitle }}`, want: "AB Ç ab ç Hello WORLD O'neil ǅ"},
		{template: `{{ toUpper "" }}{{ toTitle "" }}{{ toLower "\xff" }}`, want: "�"},
		{template: `{{ toUpper 1 }}`, fails: "expected string"},
		{template: `{{ trim "a" }}`, fails: "wrong number of args"},
		{template: `{{ trim (indent 257 "a") "a" }}`, fails: "the set of characters has more than 256 bytes"},
	})
}

func TestSplitAndJoin(t *testing.T) {
	check(t, []row{
		{template: `{{ "a,b,,c" | split "," | join "-" }}`, want: "a-b--c"},
		{template: `{{ len (split "," " \n") }} {{ len (split "," "") }} {{ len (split "," "a") }}`, want: "0 0 1"},
		{template: `{{ split "," " a, b " }} {{ split "" "äb" }} {{ split "" "" }}`, want: "[a  b] [ä b] []"},
		{template: `{{ join "," (split "," "a") }}{{ join "" (split "," "") }}`, want: "a"},
		{template: `{{ range split "," "x,y" }}{{ . }};{{ end }}`, want: "x;y;"},
		{template: `{{ "a=1, b=2,c" | splitToMap "," "=" }} {{ splitToMap "," "=" " " }}`, want: "map[ b:2 a:1] map[]"},
		{template: `{{ "a=1=2,a=3,=4" | splitToMap "," "=" }} {{ splitToMap "," "" "ab,c" }}`, want: "map[:4 a:3] map[:c]"},
		{template: `{{ join "," .canary }}`, fails: "wrong type for value"},
		{template: `{{ split "," .number }}`, fails: "wrong type for value"},
	})
}

func TestReplaceAll(t *testing.T) {
	check(t, []row{
		{template: `{{ "a.b.c" | replaceAll "." "/" }}`, want: "a/b/c"},
		{template: `{{ replaceAll "" "-" "äb" }}|{{ replaceAll "a" "" "banana" }}|{{ replaceAll "x" "y" "" }}`, want: "-ä-b-|bnn|"},
		{template: `{{ replaceAll "aa" "a" "aaaa" }}`, want: "aa"},
		{template: `{{ $x := replaceAll "a" .long .long }}{{ len $x }}`, fails: "builds more than 32 MiB"},
		{template: `{{ $x := replaceAll "" .long .long }}{{ len $x }}`, fails: "builds more than 32 MiB"},
	})
}

func TestIndent(t *testing.T) {
	check(t, []row{
		{template: `{{ "a\n\nb\n" | indent 2 }}|{{ indent 0 "a\nb" }}|{{ indent 3 "" }}|{{ indent 1 "\n" }}`, want: "  a\n\n  b\n|a\nb||\n"},
		{template: `{{ indent 2 "\r\na" }}`, want: "  \r\n  a"},
		{template: `{{ indent 9223372036854775807 "" }}`, want: ""},
		{template: `{{ indent -1 "a" }}`, fails: "indent: the number of spaces is negative"},
		{template: `{{ indent 9223372036854775807 "a" }}`, fails: "indent: that many spaces cannot be meant"},
		{template: `{{ indent 1000000000 "a" }}`, fails: "builds more than 32 MiB"},
		{template: `{{ indent "2" "a" }}`, fails: "expected integer"},
	})
}

// What makes much of little is refused before it is made.
func TestTextsHaveBounds(t *testing.T) {
	long := strings.Repeat("a", 4<<20)
	b := newBench(nil)
	for name, build := range map[string]func() error{
		"join":       func() error { _, err := b.join(long, make([]string, 1000)); return err },
		"split":      func() error { _, err := b.split("", long); return err },
		"splitToMap": func() error { _, err := b.splitToMap("", "", long); return err },
		"replaceAll": func() error { _, err := b.replaceAll("", long, long); return err },
		"indent":     func() error { _, err := b.indent(1<<30, "a"); return err },
	} {
		b.machine = newBench(nil).machine
		var err error
		if size := testing.AllocsPerRun(1, func() { err = build() }); err == nil || size > 100 {
			t.Errorf("%s: got error %v after %v allocations, want one at once", name, err, size)
		}
	}
}
