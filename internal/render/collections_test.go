package render

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestIn(t *testing.T) {
	check(t, []row{
		{template: `{{ in (split "," "a,b") "b" }} {{ in (split "," "a,b") "c" }} {{ "b" | in (parseJSON "[\"b\"]") }}`, want: "true false true"},
		{template: `{{ in "abc" "bc" }} {{ in "abc" "" }} {{ in "abc" 1 }} {{ in 1 1 }} {{ in nil "a" }}`, want: "true true false false false"},
		{template: `{{ in (parseJSON "[1, 2]") 1.0 }} {{ in (parseJSON "[1, 2]") 1 }} {{ in (parseYAML "[1, 2]") 1 }}`, want: "true false true"},
		{template: `{{ in (parseYAML "[1]") (parseInt "1") }} {{ in (parseYAML "[1]") (parseUint "1") }} {{ in (parseJSON "[true, null]") true }}`, want: "true false false"},
		{template: `{{ in "5432" .number }} {{ in (split "," "5432") .number }}`, want: "false false"},
		{template: `{{ split "," "a,b" | contains "a" }} {{ "abc" | contains "z" }} {{ contains "a" (parseJSON "{\"a\": 1}") }}`, want: "true false false"},
		{template: `{{ in "abc" nil }}`, fails: "a value that is missing cannot be looked for"},
		{template: `{{ in (split "," .canary) nil }}`, fails: "a value that is missing cannot be looked for"},
		{template: `{{ in (parseJSON "[1]") nil }}`, want: "false"},
	})
}

func TestContainsSome(t *testing.T) {
	const lists = `{{ $none := parseJSON "[]" }}{{ $ab := parseJSON "[\"a\", \"b\"]" }}{{ $abc := split "," "a,b,c" }}`
	check(t, []row{
		{template: lists + `{{ containsAll $ab $abc }} {{ containsAny $ab $abc }} {{ containsNone $ab $abc }} {{ containsNotAll $ab $abc }}`, want: "true true false false"},
		{template: lists + `{{ containsAll $ab "a" }} {{ containsAny $ab "a" }} {{ containsNone $ab "a" }} {{ containsNotAll $ab "a" }}`, want: "false true false true"},
		{template: lists + `{{ containsAll $ab "z" }} {{ containsAny $ab "z" }} {{ containsNone $ab "z" }} {{ containsNotAll $ab "z" }}`, want: "false false true true"},
		{template: lists + `{{ containsAll $none $abc }} {{ containsAny $none $abc }} {{ containsNone $none $abc }} {{ containsNotAll $none $abc }}`, want: "true false true false"},
		{template: lists + `{{ containsAll $abc $ab }}`, fails: "wrong type for value"},
		{template: lists + `{{ containsAny (parseJSON "[null]") $abc }}`, fails: "a value that is missing"},
		{template: `{{ containsNone (parseJSON "[1,2,3,4,5,6,7,8,9]") .long }}`, fails: "two lists that long"},
	})
}

func TestExplodeMap(t *testing.T) {
	check(t, []row{
		{template: `{{ parseJSON "{\"a/b/c\": 1, \"a/b/d\": 2, \"e\": 3}" | explodeMap | toJSON }}`, want: `{"a":{"b":{"c":1,"d":2}},"e":3}`},
		{template: `{{ parseJSON "{\"/a\": 1, \"b/\": 2, \"\": 3, \"c//d\": 4, \"/\": 5}" | explodeMap | toJSON }}`, want: `{"":{"a":1},"b":{},"c":{"":{"d":4}}}`},
		{template: `{{ parseJSON "{\"a\": {\"x\": 1}, \"a/b\": 2}" | explodeMap | toJSON }} {{ explodeMap (parseJSON "{}") }}`, want: `{"a":{"b":2,"x":1}} map[]`},
		{template: `{{ parseJSON "{\"a\": 1, \"a/b\": 2}" | explodeMap }}`, fails: "explodeMap: of two keys"},
		{template: `{{ parseYAML "a/b: 1" | explodeMap }}`, fails: "wrong type for value"},
		{template: `{{ explodeMap "" }}`, fails: "can't handle"},
	})
	b := newBench(nil)
	if _, err := b.explodeMap(map[string]any{strings.Repeat("/", 2000): 1}); !errors.Is(err, faultDepth) {
		t.Errorf("a deep key: got error %v, want %v", err, faultDepth)
	}
	shared := map[string]any{}
	if got, err := b.explodeMap(map[string]any{"a": shared, "a/b": shared}); err != nil || len(shared) > 0 || isCyclic(got) {
		t.Errorf("a map below itself: got error %v, %d keys in what was given", err, len(shared))
	}
}

func TestMergeMap(t *testing.T) {
	const maps = `{{ $a := parseJSON "{\"x\": 1, \"m\": {\"p\": 1, \"e\": \"\"}, \"l\": [1]}" }}{{ $b := parseJSON "{\"x\": 2, \"y\": 3, \"m\": {\"p\": 2, \"q\": 3, \"e\": \"e\"}, \"l\": [2]}" }}`
	check(t, []row{
		{template: maps + `{{ mergeMap $a $b | toJSON }}`, want: `{"l":[1],"m":{"e":"e","p":1,"q":3},"x":1,"y":3}`},
		{template: maps + `{{ mergeMapWithOverride $a $b | toJSON }}`, want: `{"l":[2],"m":{"e":"e","p":2,"q":3},"x":2,"y":3}`},
		{template: maps + `{{ $c := mergeMap $a $b }}{{ $a.y }} {{ $b.x }} {{ $a | mergeMap (parseJSON "{}") | toJSON }}`, want: `3 2 {"l":[1],"m":{"e":"e","p":1,"q":3},"x":1,"y":3}`},
		{template: `{{ mergeMap (parseJSON "{}") (parseJSON "{}") }} {{ mergeMap nil (parseJSON "{\"a\": 1}") }}`, want: "map[] map[a:1]"},
		{template: `{{ mergeMap (parseYAML "a: 1") (parseJSON "{}") }}`, fails: "wrong type for value"},
		{template: `{{ mergeMap .canary (parseJSON "{}") }}`, fails: "wrong type for value"},
	})
}

// However a template merges, stores and explodes, no value comes to hold itself: printing such a value would end the provider.
func TestNoValueHoldsItself(t *testing.T) {
	for _, text := range []string{
		`{{ $s := secret "a" }}{{ scratch.MapSet "w" "s" $s }}{{ $x := mergeMap $s.Data (scratch.Get "w") }}`,
		`{{ $s := secret "a" }}{{ scratch.MapSet "w" "d" $s.Data }}{{ $x := mergeMap $s.Data (scratch.Get "w") }}`,
		`{{ scratch.MapSet "w" "w" 1 }}{{ scratch.MapSet "w" "w" (scratch.Get "w") }}{{ scratch.MapSet "w" "w" (scratch.Get "w") }}`,
		`{{ scratch.MapSet "w" "a" 1 }}{{ scratch.Set "v" (scratch.Get "w") }}{{ scratch.MapSet "v" "w" (scratch.Get "w") }}{{ scratch.MapSet "w" "v" (scratch.Get "v") }}`,
		`{{ scratch.MapSet "w" "a" 1 }}{{ $w := scratch.Get "w" }}{{ $x := mergeMapWithOverride $w (explodeMap $w) }}{{ scratch.MapSet "w" "l" (scratch.MapValues "w") }}`,
	} {
		b := newBench(map[string]string{"a": `{"m": {"n": {}}}`})
		if _, err := b.execute(text, nil); err != nil {
			t.Errorf("%s: got error %v", text, err)
		}
		if isCyclic(b.run.scratch.values) {
			t.Errorf("%s: a value holds itself", text)
		}
	}
}

// isCyclic tells whether a value is deeper than any that a test makes.
func isCyclic(value any) bool {
	var deeper func(value any, depth int) bool
	deeper = func(value any, depth int) bool {
		switch value := value.(type) {
		case map[string]any:
			for _, inner := range value {
				if depth > 50 || deeper(inner, depth+1) {
					return true
				}
			}
		case []any:
			for _, inner := range value {
				if depth > 50 || deeper(inner, depth+1) {
					return true
				}
			}
		case *vaultSecret:
			return depth > 50 || deeper(value.Data, depth+1)
		}
		return false
	}
	return deeper(value, 0)
}

func TestFreshCopiesAll(t *testing.T) {
	build := func() (value map[string]any, change func()) {
		inMap, inSecret := map[string]any{"a": 1}, map[string]any{"a": json.Number("1")}
		texts, pairs := []string{"a"}, map[string]string{"a": "b"}
		value = map[string]any{
			"m": map[any]any{1: []any{inMap, nil}}, "l": [][]string{texts, nil}, "p": pairs, "s": &vaultSecret{Data: inSecret},
			"n": []any(nil), "i": 1, "e": map[string]any(nil), "f": &vaultSecret{},
		}
		return value, func() { inMap["a"], inSecret["a"], texts[0], pairs["a"], value["i"] = 2, 2, "b", "c", 2 }
	}
	value, change := build()
	want, _ := build()
	copied, err := newBench(nil).run.fresh(value)
	change()
	if err != nil || !reflect.DeepEqual(copied, any(want)) {
		t.Errorf("got %v, error %v; want %v", copied, err, want)
	}
}

func TestFreshHasBounds(t *testing.T) {
	var deep any
	for range 2000 {
		deep = []any{deep}
	}
	var wide any = "x"
	for range 40 { // a trillion values, though only forty lists
		wide = []any{wide, wide}
	}
	b := newBench(nil)
	if err := b.run.room(mostBuilt - 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run.fresh(deep); !errors.Is(err, faultDepth) {
		t.Errorf("a deep value: got error %v, want %v", err, faultDepth)
	}
	if _, err := b.run.fresh(wide); err == nil {
		t.Error("a wide value: got no error")
	}
	if _, err := b.run.fresh(b.machine.scratch()); err == nil {
		t.Error("scratch: got no error")
	}
}
