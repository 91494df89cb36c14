package render

import (
	"strings"
	"testing"
)

func TestScratch(t *testing.T) {
	check(t, []row{
		{template: `{{ scratch.Set "a" 1 }}{{ scratch.Get "a" }} {{ scratch.Key "a" }} {{ scratch.Key "b" }} {{ scratch.Get "b" }}`, want: "1 true false <no value>"},
		{template: `{{ scratch.SetX "a" 1 }}{{ scratch.SetX "a" 2 }}{{ scratch.Get "a" }}{{ scratch.Set "a" 3 }}{{ scratch.Get "a" }}`, want: "13"},
		{template: `{{ scratch.SetX "a" nil }}{{ scratch.SetX "a" 2 }}{{ scratch.Get "a" }}`, want: "<no value>"},
		{template: `{{ scratch.MapSet "m" "b" 2 }}{{ scratch.MapSet "m" "a" 1 }}{{ scratch.MapSetX "m" "a" 9 }}{{ scratch.Get "m" }} {{ scratch.MapValues "m" }}`, want: "map[a:1 b:2] [1 2]"},
		{template: `{{ scratch.Set "m" (parseJSON "{\"a\": 1}") }}{{ scratch.MapSet "m" "a" 2 }}{{ scratch.Get "m" }}`, want: "map[a:2]"},
		{template: `{{ scratch.MapValues "m" }} {{ scratch.Set "m" 1 }}{{ scratch.MapValues "m" }} {{ scratch.Key "" }}`, want: "[] [] false"},
		{template: `{{ with scratch }}{{ .Set "a" "x" }}{{ .Get "a" }}{{ end }} {{ "y" | scratch.Set "a" }}{{ scratch.Get "a" }}`, want: "x y"},
		{template: `{{ scratch }} {{ print scratch }} {{ printf "%+v" scratch }}`, want: "scratch scratch scratch"},
		{template: `{{ scratch.Set "a" .canary }}{{ scratch.MapSet "a" "b" 1 }}`, fails: "scratch: what is stored under the key is not a map"},
		{template: `{{ scratch.Set "a" scratch }}`, fails: "what scratch returns cannot be kept"},
		{template: `{{ scratch.MapSet "a" "b" scratch }}`, fails: "what scratch returns cannot be kept"},
		{template: `{{ scratch.Lock }}`, fails: "can't evaluate field Lock"},
		{template: `{{ scratch.run }}`, fails: "run"},
		{template: `{{ range $i := loop 10001 }}{{ scratch.Set (print $i) 1 }}{{ end }}`, fails: "scratch: more than 10000 entries"},
		{template: `{{ range $i := loop 10001 }}{{ scratch.MapSet "m" (print $i) 1 }}{{ end }}`, fails: "scratch: more than 10000 entries"},
		{template: `{{ range $i := loop 20000 }}{{ scratch.MapSet "m" "a" $i }}{{ end }}{{ scratch.Get "m" }}`, want: "map[a:19999]"},
	})
}

// What one execution stores the next does not see.
func TestScratchIsOfOneExecution(t *testing.T) {
	for range 2 {
		got, err := newBench(nil).execute(`{{ scratch.Key "a" }}{{ scratch.Set "a" 1 }}`, nil)
		if err != nil || got != "false" {
			t.Errorf("got %q, error %v; want false", got, err)
		}
	}
}

// A chain of maps cannot be made longer from its end, step by step, until nobody could walk it.
func TestScratchIsNotDeep(t *testing.T) {
	b := newBench(nil)
	var deep any
	for range mostDepth - 5 {
		deep = []any{deep}
	}
	got, err := b.execute(`{{ scratch.MapSet "0" "inner" . }}{{ range $i := loop 1 20 }}{{ scratch.MapSet (print $i) "inner" (scratch.Get (print (subtract 1 $i))) }}{{ end }}`, deep)
	if err == nil || !strings.Contains(err.Error(), string(faultDepth)) {
		t.Errorf("got %q, error %v; want one of depth", got, err)
	}
}
