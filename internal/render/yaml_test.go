package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"
)

func TestParseYAML(t *testing.T) {
	check(t, []row{
		{template: `{{ with parseYAML "a: [1, 2.5, x, ~, yes, 2001-01-01]\nb: &x {c: d}\ne: *x" }}{{ .a }} {{ .b.c }} {{ .e }}{{ end }}`, want: "[1 2.5 x <nil> true 2001-01-01] d map[c:d]"},
		{template: `{{ parseYAML "" }} {{ parseYAML "1" }} {{ parseYAML "- a\n- b" }} {{ parseYAML "a" }}`, want: "map[] 1 [a b] a"},
		{template: `{{ index (parseYAML "1: one") 1 }} {{ parseYAML "a: 1\n---\nb: 2" }}`, want: "one map[a:1]"},
		{template: `{{ parseYAML (print "a: [" .canary) }}`, fails: "parseYAML: the text is not YAML"},
		{template: `{{ parseYAML (print "*" .canary) }}`, fails: "parseYAML: the text is not YAML"},
		{template: `{{ parseYAML .long }}`, fails: "parseYAML: the text is longer than 128 KiB"},
		{template: `{{ parseYAML (indent 5001 "a" | replaceAll " " "[") }}`, fails: "more than 5000 opening brackets"},
	})
}

// A text of YAML that stands for billions of values, or for itself, is refused before they are made.
func TestParseYAMLRefusesBombs(t *testing.T) {
	level := func(name, of string, n int) string {
		return name + ": &" + name + " [" + strings.TrimSuffix(strings.Repeat(of+",", n), ",") + "]\n"
	}
	filler := "f: [" + strings.TrimSuffix(strings.Repeat("x,", 40_000), ",") + "]\n" // by which the package itself measures
	for name, tt := range map[string]struct{ text, fails string }{
		"billions":       {level("a", "x", 9) + level("b", "*a", 9) + level("c", "*b", 9) + level("d", "*c", 9) + level("e", "*d", 9) + level("g", "*e", 9), "50000 values"},
		"hidden":         {filler + level("a", "x", 200) + level("b", "*a", 200), "50000 values"},
		"of itself":      {level("a", "*a", 1), "50000 values"},
		"of merges":      {"a: &a {x: &x {y: 1}, <<: *x}\n" + level("b", "*a", 300) + level("c", "*b", 300), "50000 values"},
		"not YAML":       {"a: &a [*b]", "not YAML"},
		"as many":        {level("a", "x", 100) + level("b", "*a", 400), ""},
		"no alias":       {"a: 'x & y * z'", ""},
		"merged":         {"a: &a {x: 1}\nb:\n  <<: *a\n", ""},
		"two ampersands": {"- &a x\n- *a\n- &a y\n- *a", ""},
	} {
		_, err := newBench(nil).parseYAML(tt.text)
		if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.fails)
		}
	}
}

func TestToYAML(t *testing.T) {
	check(t, []row{
		{template: `{{ parseJSON "{\"b\": [1, {\"c\": null}, []], \"a\": \"x\\ny\\n\", \"n\": \"5432\", \"y\": \"yes\"}" | toYAML }}`, want: "a: |\n  x\n  y\nb:\n- 1\n- c: null\n- []\n\"n\": \"5432\"\n\"y\": \"yes\""},
		{template: `{{ toYAML .number }} {{ toYAML "" }} {{ toYAML nil }} {{ toYAML (split "," "") }}`, want: `5432 "" null []`},
		{template: `{{ toYAML (loop 3) }}`, fails: "cannot marshal type"},
	})
}

// FuzzToYAML holds what is written in pieces to what the package writes at once.
func FuzzToYAML(f *testing.F) {
	for _, seed := range []string{`{"a":["b",{"c":"d\ne"}]}`, `"x"`, `[[],{},null,1.5,""]`, `{"a b":"- x","":{" ":"#"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			return
		}
		got, err := newBench(nil).toYAML(value)
		want, wantErr := yaml.Marshal(value)
		if got != string(bytes.TrimSpace(want)) || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: got %q, error %v; want %q, error %v", text, got, err, want, wantErr)
		}
	})
}

// FuzzParseYAML looks for a text that is taken and cannot be handed on, or that is refused with its own words.
func FuzzParseYAML(f *testing.F) {
	for _, seed := range []string{"a: &a [1, yes, ~]\nb: *a", "- ? x\n  : y", "<<: {a: 1}", "&a [*a]", "!!binary aGk=", "2001-01-01", "{[1]: 2}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := newBench(nil)
		value, err := b.parseYAML(text)
		if err != nil {
			if _, isFault := errors.AsType[fault](err); !isFault {
				t.Errorf("%q: got error %v, want a fault", text, err)
			}
			return
		}
		if err := b.run.returns(reflect.ValueOf(value), b.run.built); err != nil {
			t.Errorf("%q: got a value that is refused: %v", text, err)
		}
	})
}
