package render

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/Masterminds/sprig/v3"

	"leasehold/internal/spec"
)

// sprigs returns our functions of sprig, bound to a machine that runs.
func sprigs() template.FuncMap { return testMachine(execution{}).sprigFunctions() }

// sprigItself returns sprig's own functions under the names that they have here.
func sprigItself() template.FuncMap {
	functions := template.FuncMap{}
	for name, function := range sprig.TxtFuncMap() {
		functions[sprigPrefix+name] = function
	}
	return functions
}

// sprigText executes a template with some functions.
func sprigText(functions template.FuncMap, text string) (string, error) {
	parsed, err := template.New("test").Funcs(functions).Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = parsed.Execute(&out, map[string]any{
		"at":   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"bag":  map[string]any{"a": "1", "b": map[string]any{"c": []any{"x", 2, nil}}},
		"json": `{"a":[1,"<b>",{"c":null}],"e":{},"l":[]}`,
		"nil":  nil,
	})
	return out.String(), err
}

// Each function of sprig is available, or not available for a reason. A new version of sprig that has more of them does not
// hand them to templates unseen.
func TestEverySprigFunctionIsDecided(t *testing.T) {
	available := sprigs()
	for name := range sprigItself() {
		_, yes := available[name]
		reason, no := unavailableSprig[name]
		if yes == no || (no && reason == "") {
			t.Errorf("%s: available %t, unavailable %t because %q", name, yes, no, reason)
		}
	}
	if got, want := len(available)+len(unavailableSprig), len(sprigItself()); got != want {
		t.Errorf("%d functions are decided on, and sprig has %d", got, want)
	}
	for _, name := range []string{"now", "date", "env", "expandenv", "getHostByName", "randAlpha", "uuidv4"} {
		if _, found := hermetic[name]; found {
			t.Errorf("sprig takes %s for hermetic", name)
		}
	}
}

// What a function makes within its bounds is what sprig makes, and of the type that sprig gives it.
func TestSprigFunctionsMakeWhatSprigMakes(t *testing.T) {
	texts := []string{"", "a", "Now is  the time\nfor All good_men", "föö Bär", "a\x00\xffb", "  x ", strings.Repeat("word ", 40)}
	rows := []string{
		// of no arguments, of a point in time, of a bag
		`{{sprig_hello}}`,
		`{{sprig_unixEpoch .at}} {{sprig_mustDateModify "-90m" .at}} {{sprig_must_date_modify "36h" .at}}`,
		`{{sprig_duration "95"}} {{sprig_duration 3600}} {{sprig_duration "x"}}`,
		`{{sprig_durationRound "2h10m5s"}} {{sprig_durationRound "x"}} {{sprig_durationRound 3}}`,
		`{{sprig_mustToDate "2006-01-02 MST" "2026-01-02 UTC" | sprig_unixEpoch}} {{sprig_toDate "2006-01-02" "x" | sprig_unixEpoch}}`,
		`{{sprig_get .bag "a"}} {{sprig_get .bag "no"}} {{sprig_hasKey .bag "a"}} {{sprig_hasKey .bag "no"}}`,
		`{{sprig_set .bag "n" .at}} {{sprig_unset .bag "a"}} {{sprig_unset .bag "no"}}`,
		`{{sprig_pick .bag "a" "no"}} {{sprig_omit .bag "a" "no"}} {{sprig_pluck "a" .bag (sprig_dict "a" 2) (sprig_dict)}}`,
		`{{sprig_keys .bag | sprig_sortAlpha}} {{sprig_keys}} {{sprig_keys (sprig_dict)}} {{sprig_values (sprig_dict "a" 1)}}`,
		`{{sprig_values (sprig_dict) | sprig_toJson}} {{sprig_keys | sprig_toJson}}`,
		`{{sprig_dig "b" "c" "none" .bag}} {{sprig_dig "b" "x" "none" .bag}} {{sprig_dig "x" "y" "none" .bag}} {{sprig_dig "a" 0 .bag}}`,
		`{{$c := sprig_deepCopy .bag}}{{sprig_set .bag "a" 2}} {{$c}} {{sprig_mustDeepCopy "x"}} {{sprig_deepCopy (sprig_list 1 .bag)}}`,
		`{{sprig_merge .bag (sprig_dict "a" 2 "z" 3 "b" (sprig_dict "c" 1 "d" (sprig_list 4)))}} {{.bag}}`,
		`{{sprig_mustMerge .bag (sprig_dict "z" (sprig_dict "y" 1)) (sprig_dict "z" (sprig_dict "y" 2 "x" 3))}}`,
		`{{sprig_mergeOverwrite .bag (sprig_dict "a" 2 "b" (sprig_dict "c" "")) (sprig_dict "a" "")}} {{.bag}}`,
		`{{sprig_mustMergeOverwrite .bag (sprig_dict "a" (sprig_dict "q" 1) "b" 0)}} {{sprig_merge .bag}}`,
		`{{$d := sprig_dict "n" 1}}{{$_ := sprig_merge .bag (sprig_dict "d" $d)}}{{$_ = sprig_set $d "n" 2}}{{.bag}}`,
		`{{sprig_dict "a" 1 2 "b" "odd"}} {{sprig_dict}} {{sprig_list 1 nil "x"}} {{sprig_tuple 1 2}}`,

		// lists
		`{{$l := sprig_list 3 "b" nil "" "b" 1.5}}{{sprig_append $l 1}} {{sprig_push $l 1}} {{sprig_prepend $l 1}} {{$l}}`,
		`{{$l := sprig_list 3}}{{sprig_mustAppend $l nil}} {{sprig_mustPush $l 1}} {{sprig_mustPrepend $l "x"}}`,
		`{{$l := sprig_list 3 "b" nil}}{{sprig_first $l}} {{sprig_last $l}} {{sprig_rest $l}} {{sprig_initial $l}} {{sprig_reverse $l}}`,
		`{{$l := sprig_list}}{{sprig_first $l}} {{sprig_last $l}} {{sprig_rest $l}} {{sprig_initial $l}} {{sprig_reverse $l}}`,
		`{{$l := sprig_list 3 4}}{{sprig_mustFirst $l}}{{sprig_mustLast $l}}{{sprig_mustRest $l}}{{sprig_mustInitial $l}}{{sprig_mustReverse $l}}`,
		`{{$l := sprig_list 3 "b" nil "" "b" 3 (sprig_list 1) (sprig_list 1)}}{{sprig_uniq $l}} {{sprig_mustUniq $l}} {{sprig_compact $l}}`,
		`{{$l := sprig_list 3 "b" nil 3}}{{sprig_mustCompact $l}} {{sprig_without $l 3}} {{sprig_without $l}} {{sprig_mustWithout $l nil "b"}}`,
		`{{$l := sprig_list 3 "b"}}{{sprig_has 3 $l}} {{sprig_has "3" $l}} {{sprig_mustHas "b" $l}} {{sprig_has 1 .nil}} {{sprig_mustHas 1 .nil}}`,
		`{{$l := sprig_list 1 2 3 4 5}}{{sprig_slice $l}} {{sprig_slice $l 1}} {{sprig_slice $l 1 3}} {{sprig_mustSlice $l 5}} {{sprig_slice (sprig_slice $l 1 2) 0 3}}`,
		`{{sprig_slice sprig_list 7}} {{sprig_slice (sprig_list 1) "0" 1 9}}`,
		`{{$l := sprig_list 1 2 3 4 5}}{{sprig_chunk 2 $l}} {{sprig_chunk 5 $l}} {{sprig_mustChunk 9223372036854775807 $l}} {{sprig_chunk 1 sprig_list}} {{sprig_chunk -4 $l}} {{sprig_chunk -9223372036854775808 $l}}`,
		`{{sprig_concat (sprig_list 1) (sprig_list) (sprig_splitList "," "a,b")}} {{sprig_concat}}`,
		`{{sprig_sortAlpha (sprig_list "b" "a" 3 nil)}} {{sprig_sortAlpha "x"}} {{sprig_sortAlpha 7}}`,
		`{{sprig_join "-" (sprig_list 1 "b" nil 2.5 true)}} {{sprig_join "" .nil}} {{sprig_join "-" "one"}} {{sprig_toStrings (sprig_list 1 nil "x")}}`,
		`{{sprig_until 5}} {{sprig_until -3}} {{sprig_until 0}} {{sprig_untilStep 3 10 3}} {{sprig_untilStep 3 -5 -4}} {{sprig_untilStep 1 5 0}} {{sprig_untilStep 1 5 -1}}`,
		`{{sprig_seq}}|{{sprig_seq 3}}|{{sprig_seq -3}}|{{sprig_seq 2 5}}|{{sprig_seq 5 2}}|{{sprig_seq 0 5 12}}|{{sprig_seq 12 -5 0}}|{{sprig_seq 12 5 0}}|{{sprig_seq 1 2 3 4}}|{{sprig_seq 9223372036854775807}}`,

		// numbers
		`{{sprig_add}} {{sprig_add 1 "2" 3.9}} {{sprig_add1 4}} {{sprig_sub 3 5}} {{sprig_mul 2 3 4}} {{sprig_div 7 2}} {{sprig_mod -7 3}} {{sprig_div -9223372036854775808 -1}}`,
		`{{sprig_addf}} {{sprig_addf 0.1 0.2}} {{sprig_add1f 1.5}} {{sprig_subf 1 0.9 "0.1"}} {{sprig_mulf 1.1 1.1}} {{sprig_divf 1 3 7}} {{sprig_divf 0 3}}`,
		`{{sprig_max 1 "7" 3}} {{sprig_biggest 1 2}} {{sprig_min 3 2}} {{sprig_maxf 1 2.5}} {{sprig_minf 1 "0.5"}} {{sprig_ceil 1.2}} {{sprig_floor "1.9"}} {{sprig_round 1.255 2}} {{sprig_round 1.25 1 0.6}}`,
		`{{sprig_atoi "12"}} {{sprig_atoi "x"}} {{sprig_int "7"}} {{sprig_int64 7.9}} {{sprig_float64 "1e3"}} {{sprig_toDecimal "0777"}} {{sprig_toDecimal 9}} {{sprig_plural "one" "many" 1}} {{sprig_plural "one" "many" 2}}`,

		// choices and types
		`{{sprig_default 1 ""}} {{sprig_default 1}} {{sprig_default 1 2}} {{sprig_empty 0}} {{sprig_empty .bag}} {{sprig_empty .nil}} {{sprig_coalesce 0 "" "c"}} {{sprig_coalesce}} {{sprig_all 1 ""}} {{sprig_any 0 1}} {{sprig_ternary 1 2 true}} {{sprig_ternary 1 2 false}}`,
		`{{sprig_typeOf .bag}} {{sprig_typeIs "string" "x"}} {{sprig_typeIsLike "int" 1}} {{sprig_kindOf .at}} {{sprig_kindOf .nil}} {{sprig_kindIs "map" .bag}} {{sprig_deepEqual .bag .bag}} {{sprig_deepEqual 1 "1"}}`,

		// formats
		`{{sprig_fromJson .json}} {{sprig_mustFromJson .json}} {{sprig_fromJson "{"}} {{sprig_toJson (sprig_fromJson .json)}} {{sprig_mustToJson .bag}} {{sprig_toRawJson "<"}} {{sprig_mustToRawJson .bag}}`,
		`{{sprig_toPrettyJson (sprig_fromJson .json)}} {{sprig_mustToPrettyJson "\\\"{[,"}} {{sprig_toPrettyJson .at.Location}}`,
		`{{sprig_b64dec "eA=="}} {{sprig_b64dec "?"}} {{sprig_b32dec "PA======"}} {{sprig_b32dec "?"}}`,
		`{{sprig_urlParse "https://u:p@h:1/p%20q?a=b#f"}} {{sprig_urlJoin (sprig_urlParse "https://u:p@h:1/p%20q?a=b#f")}} {{sprig_urlJoin (sprig_dict "host" "h")}}`,
		`{{sprig_semver "v1.2.3-rc.1+b"}} {{(sprig_semver "1.2.3").Major}} {{sprig_semverCompare ">=1.2, <2 || ^3" "1.9.9"}} {{sprig_semverCompare "~1.2" "1.3.0"}}`,
		`{{sprig_decryptAES "secretkey" "30tEfhuJSVRhpG97XCuWgz2okj7L8vQ1s6V9zVUPeDQ="}}|{{sprig_decryptAES "key" ""}}`,
		`{{sprig_cat 1 nil "x" .bag}} {{sprig_cat}} {{sprig_quote 1 nil "a\"\n"}} {{sprig_squote "it's" 2 nil}} {{sprig_toString .at}} {{sprig_toString .nil}}`,
	}
	for _, name := range strings.Fields(`trim upper lower title untitle nospace initials swapcase snakecase camelcase kebabcase sha1sum
		sha256sum sha512sum adler32sum toString b64enc b64dec b32enc b32dec base dir clean ext isAbs osBase osDir osClean osExt
		osIsAbs regexQuoteMeta quote squote cat toJson`) {
		for _, text := range texts {
			rows = append(rows, fmt.Sprintf("{{sprig_%s %q}}", name, text))
		}
	}
	for _, name := range strings.Fields(`trimAll trimall trimPrefix trimSuffix contains hasPrefix hasSuffix split splitList`) {
		for _, by := range []string{"", "o", "Now", "ö", "wd "} {
			for _, text := range texts {
				rows = append(rows, fmt.Sprintf("{{sprig_%s %q %q}}", name, by, text))
			}
		}
	}
	for _, name := range strings.Fields(`abbrev trunc indent nindent repeat wrap`) {
		for _, n := range []int{0, 1, 3, 4, 9, 70} {
			for _, text := range texts {
				rows = append(rows, fmt.Sprintf("{{sprig_%s %d %q}}", name, n, text))
			}
		}
	}
	for _, text := range texts {
		rows = append(rows,
			fmt.Sprintf(`{{sprig_trunc -3 %q}} {{sprig_abbrevboth 5 10 %q}} {{sprig_abbrevboth -9 3 %q}} {{sprig_abbrev -1 %q}}`, text, text, text, text),
			fmt.Sprintf(`{{sprig_wrapWith 5 "<br>" %q}} {{sprig_wrapWith 0 "" %q}} {{sprig_wrap -4 %q}}`, text, text, text),
			fmt.Sprintf(`{{sprig_splitn " " 2 %q}} {{sprig_splitn "o" 0 %q}} {{sprig_splitn "" -1 %q}}`, text, text, text),
			fmt.Sprintf(`{{sprig_replace "o" "00" %q}} {{sprig_replace "" "." %q}} {{sprig_replace "ime" "" %q}}`, text, text, text),
			fmt.Sprintf(`{{sprig_substr 0 0 %q}} {{sprig_substr 0 -1 %q}} {{sprig_substr 0 9999 %q}} {{sprig_substr -1 0 %q}}`, text, text, text, text),
		)
		for _, pattern := range []string{"", "o", "(?m)^", "(o+)|(?P<name>[A-Z])", "^.", `\b`, "$", "[^a-z]*", "ö", "("} {
			rows = append(rows, fmt.Sprintf(`{{sprig_regexMatch %q %q}}`, pattern, text))
			if pattern == "(" {
				continue
			}
			for _, must := range []string{"r", "mustR"} {
				rows = append(rows,
					fmt.Sprintf(`{{sprig_%segexMatch %q %q}} {{sprig_%segexFind %q %q}}`, must, pattern, text, must, pattern, text),
					fmt.Sprintf(`{{sprig_%segexFindAll %q %q -1}} {{sprig_%segexFindAll %q %q 1}}`, must, pattern, text, must, pattern, text),
					fmt.Sprintf(`{{sprig_%segexSplit %q %q -1}} {{sprig_%segexSplit %q %q 2}}`, must, pattern, text, must, pattern, text),
					fmt.Sprintf(`{{sprig_%segexReplaceAll %q %q "<$1${name}$0>"}}`, must, pattern, text),
					fmt.Sprintf(`{{sprig_%segexReplaceAllLiteral %q %q "$1"}}`, must, pattern, text),
				)
			}
		}
	}

	ours, theirs := sprigs(), sprigItself()
	for _, row := range rows {
		want, err := sprigText(theirs, row)
		if err != nil {
			t.Fatalf("sprig itself: %s: %v", row, err)
		}
		if got, err := sprigText(ours, row); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", row, got, err, want)
		}
	}
	all := strings.Join(rows, "\n")
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if name != "sprig_fail" && !strings.Contains(all, "{{"+name+" ") && !strings.Contains(all, "{{"+name+"}}") &&
			!strings.Contains(all, name+" ") {
			t.Errorf("%s: no row calls it", name)
		}
		if name == "sprig_fail" {
			continue
		}
		if f, g := reflect.TypeOf(ours[name]), reflect.TypeOf(theirs[name]); f.Out(0) != g.Out(0) ||
			!slices.Equal(slices.Collect(f.Ins()), slices.Collect(g.Ins())) || f.IsVariadic() != g.IsVariadic() {
			t.Errorf("%s: got %v, want what sprig has, %v", name, f, g)
		}
	}
}

// callSprig calls a function as a template does. A nil is nothing, of whatever type the function takes.
func callSprig(t testing.TB, name string, args ...any) (any, error) {
	t.Helper()
	f := reflect.ValueOf(sprigs()[name])
	if !f.IsValid() {
		t.Fatalf("there is no function %s", name)
	}
	in := make([]reflect.Value, len(args))
	for i, arg := range args {
		in[i] = reflect.ValueOf(arg)
		if arg == nil {
			in[i] = reflect.Zero(reflect.TypeFor[any]())
		}
	}
	out := f.Call(in)
	if len(out) == 2 && !out[1].IsNil() {
		err, _ := out[1].Interface().(error)
		return nil, err
	}
	return out[0].Interface(), nil
}

// Each bounded function refuses what is too much, or what sprig would panic of, by a sentence, and without building it.
func TestSprigFunctionsAreBounded(t *testing.T) {
	var (
		mega   = strings.Repeat("x", 1<<20)
		tooBig = "the text would have more than 1048576 bytes"
		many   = "there are more than 100000 values"
		long   = make([]any, 100_000)
		some   = make([]any, 4000)
		square = "the list is too long to compare its values with so many others"
		noList = "a list is needed, not a value of the kind string"
		inside = "the positions are not in the list, or not in order"
		within = "the positions are not in the text, or not in order"
		beyond = "the range ends beyond the integers"
		deep   any
		floats = slices.Repeat([]any{1.5}, 101)
		zero   = "the divisor is zero"
		padded = "the text is not encrypted, or with another password"
		noPath = "a value on the way is not a dict"
		slow   = "the regular expression takes too long on that text: use a simpler one, or a shorter text"
		tail   = strings.Repeat("a", 1<<20)

		noPattern = "the pattern is no regular expression of Go: missing closing )"
	)
	for range 900 {
		deep = []any{deep}
	}
	type row struct {
		args []any
		want string
	}
	rows := map[string][]row{
		"repeat":   {{[]any{1 << 62, "xx"}, tooBig}, {[]any{2, mega}, tooBig}, {[]any{-1, "x"}, "the count is negative"}},
		"indent":   {{[]any{math.MaxInt, "a\nb"}, tooBig}, {[]any{1000, strings.Repeat("\n", 2000)}, tooBig}, {[]any{-1, ""}, "the number of spaces is negative"}},
		"nindent":  {{[]any{math.MaxInt, "a"}, tooBig}, {[]any{math.MinInt, ""}, "the number of spaces is negative"}},
		"replace":  {{[]any{"x", mega, "xx"}, tooBig}, {[]any{"", "yy", mega}, tooBig}},
		"wrap":     {{[]any{1, strings.Repeat("a ", 1<<20)}, tooBig}},
		"wrapWith": {{[]any{1, mega, "a b c"}, tooBig}, {[]any{0, "\n\n\n", mega}, tooBig}},
		"cat":      {{[]any{mega, "x"}, tooBig}},
		"quote":    {{[]any{mega, "x"}, tooBig}},
		"squote":   {{[]any{mega, "x"}, tooBig}},
		"join":     {{[]any{mega, []string{"", "", ""}}, tooBig}, {[]any{"x", []any{mega, ""}}, tooBig}},

		"split":     {{[]any{"", mega}, many}, {[]any{"x", mega}, many}},
		"splitList": {{[]any{"", mega}, many}},
		"splitn":    {{[]any{"", math.MaxInt, mega}, many}, {[]any{"", -1, mega}, many}},
		"trimAll":   {{[]any{mega, mega}, "the set of characters has more than 256 bytes"}},
		"trimall":   {{[]any{mega, mega}, "the set of characters has more than 256 bytes"}},
		"substr": {
			{[]any{-1, -1, "abc"}, within},
			{[]any{-1, 4, "abc"}, within},
			{[]any{4, 9, "abc"}, within},
			{[]any{4, -1, "abc"}, within},
			{[]any{2, 1, "abc"}, within},
			{[]any{math.MaxInt, math.MinInt, ""}, within},
		},
		"semver":        {{[]any{mega}, "a version has more than 1024 bytes"}},
		"semverCompare": {{[]any{mega, "1.0.0"}, "a version has more than 1024 bytes"}, {[]any{"^1", mega}, "a version has more than 1024 bytes"}},

		"div": {{[]any{1, 0}, zero}, {[]any{1, "x"}, zero}, {[]any{1, 0.9}, zero}, {[]any{1, nil}, zero}},
		"mod": {{[]any{1, 0}, zero}},
		"divf": {
			{[]any{1, 0}, zero},
			{[]any{1, 2, nil}, zero},
			{floats, "there are more than 100 numbers"},
			{[]any{1, "NaN"}, "a number is not finite"},
			{[]any{math.Inf(1), 1}, "a number is not finite"},
		},
		"add1f": {{[]any{"inf"}, "a number is not finite"}},
		"addf":  {{floats, "there are more than 100 numbers"}, {[]any{1, "-Inf"}, "a number is not finite"}},
		"subf":  {{floats, "there are more than 100 numbers"}, {[]any{math.NaN()}, "a number is not finite"}},
		"mulf":  {{floats, "there are more than 100 numbers"}, {[]any{1, math.NaN()}, "a number is not finite"}},
		"until": {{[]any{math.MaxInt}, many}, {[]any{math.MinInt}, many}, {[]any{100_001}, many}, {[]any{-100_001}, many}},
		"untilStep": {
			{[]any{math.MinInt, math.MaxInt, 1}, many},
			{[]any{math.MaxInt, math.MinInt, -1}, many},
			{[]any{0, math.MaxInt, math.MaxInt - 1}, beyond},
			{[]any{0, math.MinInt, math.MinInt + 1}, beyond},
			{[]any{math.MinInt, math.MaxInt, math.MaxInt}, beyond},
			{[]any{math.MaxInt, math.MinInt, math.MinInt}, beyond},
		},
		"seq": {
			{[]any{math.MaxInt - 1}, many},
			{[]any{math.MinInt + 1}, many},
			{[]any{1, math.MaxInt - 1}, many},
			{[]any{5, math.MinInt + 1}, many},
			{[]any{0, 1, 100_000}, many},
			{[]any{0, -1, -100_000}, many},
			{[]any{0, math.MaxInt - 1, math.MaxInt - 1}, beyond},
		},

		"append":  {{[]any{long, 1}, many}, {[]any{"x", 1}, noList}, {[]any{nil, 1}, "a list is needed, not nothing"}},
		"push":    {{[]any{long, 1}, many}, {[]any{"x", 1}, noList}},
		"prepend": {{[]any{long, 1}, many}, {[]any{"x", 1}, noList}},
		"concat":  {{[]any{long, []any{1}}, many}, {[]any{[]any{1}, "x"}, noList}},
		"uniq":    {{[]any{some}, square}, {[]any{slices.Repeat([]any{mega[:1<<14]}, 200)}, square}, {[]any{"x"}, noList}},
		"without": {{slices.Concat([]any{some}, some[1:]), square}, {[]any{"x"}, noList}},
		"has":     {{[]any{1, "x"}, noList}},
		"chunk":   {{[]any{0, []any{1}}, "the size is less than 1"}, {[]any{math.MinInt, []any{}}, "the size is less than 1"}, {[]any{1, "x"}, noList}},
		"slice": {
			{[]any{[]any{1, 2}, 0, 3}, inside},
			{[]any{[]any{1, 2}, -1}, inside},
			{[]any{[]any{1, 2}, 2, 1}, inside},
			{[]any{"x"}, noList},
			{[]any{[]any{1, 2}, 3}, inside},
		},
		"first": {{[]any{"x"}, noList}}, "last": {{[]any{"x"}, noList}}, "rest": {{[]any{"x"}, noList}}, "initial": {{[]any{"x"}, noList}},
		"reverse": {{[]any{"x"}, noList}}, "compact": {{[]any{"x"}, noList}},

		"dig": {
			{[]any{"a", map[string]any{}}, "keys, a default and a dict are needed"},
			{[]any{"a", 1, "x"}, noPath},
			{[]any{1, 1, map[string]any{}}, "a key is not a text"},
			{[]any{"a", "b", 1, map[string]any{"a": "x"}}, noPath},
		},
		"deepCopy":     {{[]any{nil}, "there is nothing to copy"}},
		"fromJson":     {{[]any{strings.Repeat("[", 100_000)}, many}, {[]any{"[" + strings.Repeat("0,", 100_000) + "0]"}, many}},
		"toPrettyJson": {{[]any{[]any{deep, deep}}, tooBig}},
		"urlParse":     {{[]any{"http://[::1"}, "the text is not a URL"}},
		"urlJoin": {
			{[]any{map[string]any{"path": 1}}, "the value of path is not a text"},
			{[]any{map[string]any{"host": nil}}, "the value of host is not a text"},
			{[]any{map[string]any{"userinfo": "%"}}, "the value of userinfo does not fit into a URL"},
		},
		"decryptAES": {
			{[]any{"k", "?"}, "the text is not base64"},
			{[]any{"k", "eA=="}, padded},
			{[]any{"k", strings.Repeat("A", 64)}, padded},
			{[]any{"other", "30tEfhuJSVRhpG97XCuWgz2okj7L8vQ1s6V9zVUPeDQ="}, padded},
			{[]any{"k", "AAAAAAAAAAAAAAAAAAAAAA=="}, padded},
		},
		"durationRound": {{[]any{time.Now()}, "how long ago a time was depends on the clock, so the file would change without cause"}},
		"mustToDate":    {{[]any{"2006", "x"}, "the text is not a date of that layout"}},
		"fail":          {{[]any{canary}, "the template ends itself; its words are not shown, for they may hold a secret"}},

		// The last row of each is for the function with must, too.
		"regexMatch":             {{[]any{strings.Repeat("a", 5000), ""}, "the pattern is too long: shorten it"}},
		"regexFind":              {{[]any{"(a?){900}b", tail}, slow}, {[]any{"(", ""}, noPattern}},
		"regexFindAll":           {{[]any{"a(.*b)?", tail, -1}, slow}, {[]any{"", tail, -1}, many}, {[]any{"(", "", 1}, noPattern}},
		"regexSplit":             {{[]any{"", tail, -1}, many}, {[]any{"(", "", 1}, noPattern}},
		"regexReplaceAll":        {{[]any{"a(.*b)?", tail, ""}, slow}, {[]any{"a", "aa", mega}, tooBig}, {[]any{".*", mega, "$0$0"}, tooBig}, {[]any{"(", "", ""}, noPattern}},
		"regexReplaceAllLiteral": {{[]any{"", "aa", mega}, tooBig}, {[]any{"(", "", ""}, noPattern}},
	}
	for name, list := range maps.Clone(rows) {
		must := "must" + strings.ToUpper(name[:1]) + name[1:]
		if _, found := hermetic[must]; found && rows[must] == nil {
			rows[must] = list[len(list)-1:] // the check is the same
		}
	}
	for name, list := range rows {
		for i, row := range list {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := callSprig(t, sprigPrefix+name, row.args...)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, fault(row.want)) && !errors.Is(err, fault(sprigPrefix+name+": "+row.want)) {
				t.Errorf("%s, row %d: got %v, want %s", name, i, err, row.want)
			}
			most := uint64(16 << 20)
			if strings.Contains(name, "egex") { // under the race detector, package regexp does not use again what it has made
				most = 256 << 20
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > most {
				t.Errorf("%s, row %d: it took %d bytes to refuse that", name, i, made)
			}
		}
	}
	m := testMachine(execution{})
	for name := range m.sprigChecks() {
		if _, found := rows[name]; !found && name != "set" {
			t.Errorf("%s has a check, and no row shows it", name)
		}
	}
	for name := range m.sprigSearches() {
		if _, found := rows[name]; !found {
			t.Errorf("%s has a check, and no row shows it", name)
		}
	}
}

// What is harmless takes a time in proportion to a text. A function whose time grows with its square takes far longer here.
func TestHarmlessSprigFunctionsAreLinear(t *testing.T) {
	long := []string{
		strings.Repeat("aB1 _", 1<<15), strings.Repeat("\xff", 1<<17), strings.Repeat("ß\n", 1<<15),
	}
	for _, name := range harmless {
		f := hermetic[name]
		in := slices.Collect(reflect.TypeOf(f).Ins())
		if reflect.TypeOf(f).IsVariadic() {
			in = in[:len(in)-1]
		}
		for _, text := range long {
			args := make([]reflect.Value, len(in))
			for i, parameter := range in {
				args[i] = reflect.Zero(parameter)
				if reflect.TypeFor[string]().AssignableTo(parameter) {
					args[i] = reflect.ValueOf(text)
				}
			}
			start := time.Now()
			func() {
				defer func() { _ = recover() }() // a guard is around each function
				reflect.ValueOf(f).Call(args)
			}()
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s took %v", name, took)
			}
		}
	}
}

func TestNoDictHoldsItself(t *testing.T) {
	const (
		itself = "sprig_set: a dict cannot hold itself"
		deep   = "a value is nested deeper than 1000, or contains itself"
		large  = "values of more than 16 MiB are too large here"
	)
	for _, row := range []struct{ text, want string }{
		{`{{$a := sprig_dict}}{{sprig_set $a "a" $a}}`, itself},
		{`{{$a := sprig_dict}}{{$b := sprig_dict "a" $a}}{{sprig_set $a "b" $b}}`, itself},
		{`{{$a := sprig_dict}}{{$b := sprig_dict}}{{$_ := sprig_set $a "b" $b}}{{sprig_set $b "a" $a}}`, itself},
		{`{{$a := sprig_dict}}{{sprig_set $a "l" (sprig_list 1 (sprig_list $a))}}`, itself},
		{`{{$a := sprig_dict}}{{sprig_set $a "l" (sprig_append (sprig_chunk 1 (sprig_list $a)) 2)}}`, itself},
		{`{{sprig_set .Data "self" .}}`, itself},
		{`{{$a := sprig_dict}}{{$l := sprig_list}}{{range sprig_until 1001}}{{$l = sprig_list $l}}{{end}}{{sprig_set $a "l" $l}}`, deep},
		{`{{$a := sprig_dict}}{{$l := sprig_list 1}}{{range sprig_until 40}}{{$l = sprig_list $l $l}}{{end}}{{sprig_set $a "l" $l}}`, large},
		{`{{$b := sprig_dict}}{{$l := sprig_list 1}}{{range sprig_until 40}}{{$l = sprig_list $l $l}}{{end}}{{sprig_merge $b (sprig_dict "l" $l)}}`, large},
	} {
		if _, err := executed(row.text); err == nil || !strings.HasSuffix(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %s", row.text, err, row.want)
		}
	}
	for _, row := range []struct{ text, want string }{
		{`{{$a := sprig_dict}}{{$b := sprig_dict}}{{$_ := sprig_set $a "x" $b}}{{$_ = sprig_set $a "y" $b}}{{$_ = sprig_set $b "z" 1}}{{$a}}`, "map[x:map[z:1] y:map[z:1]]"},
		{`{{$a := sprig_dict}}{{$_ := sprig_merge $a (sprig_dict "a" $a)}}{{$a}}`, "map[a:map[]]"},
		{`{{$a := sprig_dict "x" 1}}{{$_ := sprig_mergeOverwrite $a $a (sprig_dict "l" (sprig_list $a))}}{{$a}}`, "map[l:[map[x:1]] x:1]"},
		{`{{$a := sprig_dict "x" (sprig_dict)}}{{$_ := sprig_mustMerge $a (sprig_dict "x" $a)}}{{$a}}`, "map[x:map[x:map[]]]"},
	} {
		if got, err := executed(row.text); err != nil || got != row.want {
			t.Errorf("%s: got %q, %v, want %q", row.text, got, err, row.want)
		}
	}
}

// executed executes a template with the engine, on an answer with a single field.
func executed(text string) (string, error) {
	contents, err := New().execute(spec.Template{Text: text}, execution{dot: &answer{data: map[string]any{"user": "app"}}})
	return string(contents), err
}

// A merge of dicts that share parts, in any way, ends, and no dict holds itself afterwards. Of dicts that share nothing it
// makes what sprig makes.
func TestMergesOfSharedDictsEnd(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // the same rounds each time
	theirs := sprigItself()
	for round := range 2000 {
		pool := make([]map[string]any, 2+random.IntN(8))
		for i := range pool {
			pool[i] = map[string]any{}
			for range random.IntN(4) { // what is made holds only what was made before
				key := string(rune('a' + random.IntN(3)))
				switch kind := random.IntN(6); {
				case kind == 0 || i == 0:
					pool[i][key] = random.IntN(2)
				case kind == 1:
					pool[i][key] = []any{pool[random.IntN(i)]}
				default:
					pool[i][key] = pool[random.IntN(i)]
				}
			}
		}
		pick := func() map[string]any { return pool[random.IntN(len(pool))] }
		name := []string{"merge", "mustMerge", "mergeOverwrite", "mustMergeOverwrite"}[round%4]
		dict, one, two := pick(), pick(), pick()

		m := testMachine(execution{})
		var apart, again [3]map[string]any // the same dicts, as trees
		for i, dict := range []map[string]any{dict, one, two} {
			for _, tree := range []*[3]map[string]any{&apart, &again} {
				var err error
				if tree[i], err = m.run.freshFields(dict); err != nil {
					t.Fatal(err)
				}
			}
		}
		merged, _ := m.sprigSubstitutes()[name].(merge)
		if _, err := merged(dict, one, two); err != nil {
			t.Fatalf("round %d: %s: %v", round, name, err)
		}
		for i, dict := range pool {
			s := scale{most: mostValue}
			if s.add(dict); s.err() != nil {
				t.Fatalf("round %d: %s made of dict %d one that does not end: %v", round, name, i, s.err())
			}
		}
		got, err := merged(apart[0], apart[1], apart[2])
		want := reflect.ValueOf(theirs[sprigPrefix+name]).Call([]reflect.Value{
			reflect.ValueOf(again[0]), reflect.ValueOf(again[1]), reflect.ValueOf(again[2]),
		})[0].Interface()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d: %s of trees: got %v, %v, want what sprig makes, %v", round, name, got, err, want)
		}
	}
}
