package render

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"text/template"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// sample is what the templates of these tests read.
var sample = vault{
	"db":  `{"username":"app","password":"p<&>\"'é","ttl":3600,"ratio":1.50,"none":null,"on":true}`,
	"kv":  `{"data":{"a":"1","b":{"c":["x",2,null,{"d":"e"}]},"empty":"","list":[]},"metadata":{"version":3}}`,
	"dot": `{"username":"app","n":1e3,"big":12345678901234567890,"s":"text","m":{"x":"y","z":null},"l":["b","a",1],"none":null}`,
}

// around is what an execution has around it: answers by path, of which "dot" is the object's own.
func around(t testing.TB, answers vault) execution {
	t.Helper()
	e := execution{ask: newBook(newPool(), answers.read).ask, at: time.Unix(1700000000, 0)}
	if data, found := answers["dot"]; found {
		dot, err := decode(grantOf(get("dot"), data))
		if err != nil {
			t.Fatal(err)
		}
		e.dot = &dot
	}
	return e
}

// made executes a template with its default delimiters.
func made(t testing.TB, text string, answers vault) (string, error) {
	t.Helper()
	contents, err := New().execute(spec.Template{Text: text}, around(t, answers))
	return string(contents), err
}

func TestTemplates(t *testing.T) {
	for name, row := range map[string]struct {
		spec.Template
		want string
	}{
		"text":        {spec.Template{Text: "a\n\tb\n"}, "a\n\tb\n"},
		"nothing":     {spec.Template{Text: "{{/* */}}"}, ""},
		"not UTF-8":   {spec.Template{Text: "\xff{{ \"\\xff\" }}\xc3"}, "\xff\xff\xc3"},
		"dot":         {spec.Template{Text: "{{ .Data.username }}"}, "app"},
		"whole data":  {spec.Template{Text: "{{ .Data.m }}"}, "map[x:y z:<nil>]"},
		"secret":      {spec.Template{Text: `{{ with secret "db" }}{{ .Data.username }}:{{ .Data.ttl }}{{ end }}`}, "app:3600"},
		"number":      {spec.Template{Text: "{{ .Data.n }} {{ .Data.big }}"}, "1e3 12345678901234567890"},
		"missing key": {spec.Template{Text: "{{ .Data.x }} {{ .Data.none }}"}, "<no value> <no value>"},
		"delimiters":  {spec.Template{Text: "{{ [[ .Data.s ]] }}", Left: "[[", Right: "]]"}, "{{ text }}"},
		"trimmed":     {spec.Template{Text: "a \n {{- 1 -}} \n b"}, "a1b"},
		"define": {
			spec.Template{Text: `{{ define "a" }}<{{ . }}>{{ end }}{{ template "a" .Data.s }}{{ template "a" 1 }}`},
			"<text><1>",
		},
		"block":          {spec.Template{Text: `{{ block "a" .Data }}{{ .s }}{{ end }}{{ template "a" .Data.m }}`}, "text<no value>"},
		"range and else": {spec.Template{Text: `{{ range .Data.l }}{{ . }}{{ else }}-{{ end }}{{ range .Data.none }}{{ else }}+{{ end }}`}, "ba1+"},
		"break": {
			spec.Template{Text: `{{ range $i, $e := .Data.l }}{{ if $i }}{{ break }}{{ end }}{{ $e }}{{ end }}`},
			"b",
		},
		"continue":    {spec.Template{Text: `{{ range $i, $e := .Data.l }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $e }}{{ end }}`}, "b1"},
		"assignments": {spec.Template{Text: `{{ $a := 1 }}{{ range 3 }}{{ $a = add $a . }}{{ end }}{{ $a }}`}, "4"},
		"key and value": {
			spec.Template{Text: "{{ range $k, $v := .Data.m }}{{ $k }}={{ $v }};{{ end }}"},
			"x=y;z=<no value>;",
		},
		"else if": {spec.Template{Text: `{{ if false }}a{{ else if .Data.s }}b{{ else }}c{{ end }}`}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := New().execute(row.Template, around(t, sample))
			if err != nil || string(got) != row.want {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestDotIsNilWithoutASource(t *testing.T) {
	for text, want := range map[string]string{"{{ . }}": "<no value>", "{{ .x }}": "<no value>", "{{ if . }}a{{ end }}": ""} {
		got, err := made(t, text, vault{})
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
}

// expressions have values of all kinds.
var expressions = []string{
	`1`, `-1`, `1.5`, `1i`, `'x'`, `"a"`, `"text"`, `""`, `true`, `false`, `.`, `.Data`, `.Data.n`, `.Data.s`, `.Data.m`, `.Data.m.x`,
	`.Data.l`, `.Data.none`, `.Data.nothing`, `.LeaseID`, `.Warnings`, `.Auth`, `$`, `$.Data.s`, `(secret "db")`,
	`(secret "kv").Data.data`, `(secret "kv").Data.data.b.c`, `(parseUint "7")`, `(parseInt "7")`, `(parseFloat "1e300")`,
	`(parseJSON "[1,\"b\",{\"c\":null}]")`, `(parseYAML "a: [1, b]")`, `(sprig_list 1 "a" nil)`, `(sprig_dict "a" 1)`, `(sprig_list)`,
	`(split "," "a,b")`, `(sprig_toDate "2006-01-02" "2020-05-06")`, `(loop 3)`, `(loop 5000)`, `scratch`, `(1 | add 2)`, `(sprig_b64enc "a")`,
}

// compared are the values of expressions that text/template compares with others.
var compared = []string{
	`1`, `1.5`, `1i`, `"text"`, `true`, `nil`, `.Data.n`, `.Data.s`, `.Data.m`, `.Data.l`, `.Data.none`, `(parseUint "7")`, `(loop 3)`,
}

// TestHiddenCommandsDoNotShow executes templates with and without what the engine puts into them: the bytes are the same,
// and so is whether there is an error.
func TestHiddenCommandsDoNotShow(t *testing.T) {
	t.Parallel()
	var texts []string
	for _, a := range expressions {
		for _, form := range []string{
			`{{ A }}`, `{{ print A }}`, `{{ println A 1 }}`, `{{ html A }}`, `{{ js A }}`, `{{ urlquery A }}`, `{{ len A }}`, `{{ not A }}`,
			`{{ if A }}y{{ else }}n{{ end }}`, `{{ with A }}{{ . }}{{ end }}`, `{{ range A }}{{ . }},{{ else }}-{{ end }}`,
			`{{ range $k, $v := A }}{{ $k }}={{ $v }},{{ end }}`, `{{ index A 0 }}`, `{{ index A "x" }}`, `{{ 1 | index A }}`, `{{ slice A 0 1 }}`,
			`{{ printf "%v|%d|%s|%q|%5.2f|%x|%#v|%+v|%t|%c" A A A A A A A A A A }}`, `{{ A | printf "%s" }}`, `{{ $x := A }}{{ $x }}{{ $x = 1 }}{{ $x }}`,
			`{{ and A 1 }}`, `{{ or A 1 }}`, `{{ call A }}`, `{{ A.x }}`, `{{ (A).x }}`, `{{ (A).Data }}`, `{{ toJSON A }}`,
			`{{ define "d" }}[{{ . }}]{{ end }}{{ template "d" A }}`, `{{ A | scratch.Set "k" }}{{ scratch.Get "k" }}`, `{{ scratch.Set "k" A }}`,
		} {
			texts = append(texts, strings.ReplaceAll(form, "A", a))
		}
		for _, b := range compared {
			for _, function := range []string{"eq", "lt", "ge"} {
				texts = append(texts, fmt.Sprintf(`{{ %s %s %s }}`, function, a, b))
			}
			texts = append(texts, fmt.Sprintf(`{{ %s | ne %s }}`, a, b), fmt.Sprintf(`{{ eq %s 1 %s "a" }}`, a, b), fmt.Sprintf(`{{ index %s %s }}`, a, b))
		}
	}
	r := New()
	errs := 0
	for _, text := range texts {
		got, err := r.execute(spec.Template{Text: text}, around(t, sample))
		want, plainErr := plain(t, text)
		if (err == nil) != (plainErr == nil) || err == nil && string(got) != want {
			t.Errorf("%s:\ngot  %q, %v\nwant %q, %v", text, got, err, want, plainErr)
		}
		if err != nil {
			errs++
		}
	}
	if errs == 0 || errs > len(texts)*9/10 {
		t.Errorf("%d of %d templates fail: there is nothing to compare", errs, len(texts))
	}
}

// plain executes a template by text/template alone.
func plain(t testing.TB, text string) (made string, err error) {
	t.Helper()
	m := testMachine(around(t, sample))
	parsed, err := template.New("").Option("missingkey=zero").Funcs(m.functions()).Funcs(m.sprigFunctions()).Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	defer func() {
		if recover() != nil { // text/template panics for some values
			err = errors.New("a panic")
		}
	}()
	dot, err := secretOf(*m.run.dot)
	if err != nil {
		return "", err
	}
	err = parsed.Execute(&out, dot)
	return out.String(), err
}

// TestCheck has templates that are refused before they are executed.
func TestCheck(t *testing.T) {
	chain := "{{ if 0 }}" + strings.Repeat("{{ else if 0 }}", 1000) + "{{ end }}"
	for name, row := range map[string]struct {
		spec.Template
		want string // "" for none
	}{
		"sound":          {spec.Template{Text: `{{ range secrets "kv" }}{{ . }}{{ end }}`}, ""},
		"long else if":   {spec.Template{Text: chain}, ""},
		"not closed":     {spec.Template{Text: "a\n{{ if 1 }}"}, `template line 2: unexpected EOF`},
		"started before": {spec.Template{Text: "{{ 1\n2\n"}, `template line 3: unclosed action started at line 1`},
		"unknown":        {spec.Template{Text: "a\n  {{ nosuch 1 }}"}, `template line 2, column 6: function "nosuch" is not known`},
		"misspelt":       {spec.Template{Text: `{{ secert "db" }}`}, `template line 1, column 4: function "secert" is not known: did you mean "secret"?`},
		"case":           {spec.Template{Text: `{{ toJson 1 }}`}, `template line 1, column 4: function "toJson" is not known: did you mean "toJSON"?`},
		"several": {spec.Template{Text: "{{ aaaaa }}{{ if bbbbb }}{{ end }}"}, `template line 1, column 4: function "aaaaa" is not known; ` +
			`template line 1, column 18: function "bbbbb" is not known`},
		"hidden":        {spec.Template{Text: `{{ _step }}`}, `template line 1, column 4: function "_step" is not known`},
		"not available": {spec.Template{Text: `{{ file "/etc/passwd" }}`}, `template line 1, column 4: function "file" is not available: it would read files of the node`},
		"of sprig":      {spec.Template{Text: `{{ sprig_env "A" }}`}, `template line 1, column 4: function "sprig_env" is not available: ` + ofNode},
		"method": {
			spec.Template{Text: `{{ (sprig_semver "1.2.3").Scan "2" }}`},
			`template line 1, column 26: method "Scan" is not available: few take arguments, such as Format and Compare`,
		},
		"method in a pipe": {
			spec.Template{Text: `{{ $v := sprig_semver "1" }}{{ "2" | $v.UnmarshalText }}`},
			`template line 1, column 40: method "UnmarshalText" is not available: few take arguments, such as Format and Compare`,
		},
		"sound methods": {spec.Template{Text: `{{ scratch.Set "a" 1 }}{{ 2 | (sprig_toDate "2006" "2020").AddDate 1 1 }}`}, ""},
		"itself": {
			spec.Template{Text: `{{ define "a" }}{{ template "a" }}{{ end }}`},
			`template line 1, column 29: a template must not call itself: "a" calls "a"`,
		},
		"through others": {
			spec.Template{Text: `{{ define "a" }}{{ if 1 }}{{ template "b" }}{{ end }}{{ end }}{{ define "b" }}{{ template "c" }}{{ end }}` +
				`{{ define "c" }}{{ range 1 }}{{ template "a" }}{{ end }}{{ end }}`},
			`template line 1, column 147: a template must not call itself: "a" calls "b" calls "c" calls "a"`,
		},
		"from outside": {spec.Template{Text: `{{ template "" }}`}, `template line 1, column 13: a template must not call itself: "" calls ""`},
		"by a block":   {spec.Template{Text: `{{ block "a" . }}{{ template "a" . }}{{ end }}`}, `template line 1, column 30: a template must not call itself: "a" calls "a"`},
		"no define":    {spec.Template{Text: `{{ if 0 }}{{ template "x" }}{{ end }}`}, `template line 1, column 23: there is no define of the name "x"`},
		"too long":     {spec.Template{Text: strings.Repeat("x", 64<<10+1)}, `template: it has 65537 bytes, more than 65536: make several files of it`},
		"just not":     {spec.Template{Text: strings.Repeat("x", 64<<10)}, ""},
		"delimiter":    {spec.Template{Text: "x", Left: strings.Repeat("<", 65), Right: ">"}, `template: a delimiter has more than 64 bytes`},
		"nested 100":   {spec.Template{Text: strings.Repeat("{{ if 1 }}", 100) + strings.Repeat("{{ end }}", 100)}, ""},
		"nested 101":   {spec.Template{Text: strings.Repeat("{{ range 1 }}", 101) + strings.Repeat("{{ end }}", 101)}, `template line 1, column 1310: if, with and range are nested deeper than 100`},
		"by else": {
			spec.Template{Text: strings.Repeat("{{ range 0 }}{{ else }}", 101) + strings.Repeat("{{ end }}", 101)},
			`template line 1, column 2310: if, with and range are nested deeper than 100`,
		},
		"parentheses": {spec.Template{Text: "{{ " + strings.Repeat("(", 101) + "1" + strings.Repeat(")", 101) + " }}"}, `template line 1, column 105: parentheses are nested deeper than 100`},
		"many nodes":  {spec.Template{Text: strings.Repeat("{{.}}", 13000)}, `template: it has more than 32768 actions and operands: make several files of it`},
		"not text":    {spec.Template{Text: "{{ \x00\xff }}"}, `template line 1: unrecognized character in action: U+0000`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := New().Check(row.Template); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			if _, err := New().execute(row.Template, around(t, sample)); row.want != "" && (err == nil || err.Error() != row.want) {
				t.Errorf("executed: got error %v\nwant      %s", err, row.want)
			}
		})
	}
}

// TestFailures has templates that fail when they are executed: the error tells place and kind.
func TestFailures(t *testing.T) {
	for name, row := range map[string]struct {
		spec.Template
		want string
	}{
		"missing key": {spec.Template{Text: "a\n {{ .Data.x }}", ErrorOnMissingKey: true}, `template line 2, column 10: map has no entry for key "x"`},
		"one deeper":  {spec.Template{Text: "{{ .Data.x.y }}", ErrorOnMissingKey: true}, `template line 1, column 9: map has no entry for key "x"`},
		"of a null":   {spec.Template{Text: "{{ .Data.none.y }}"}, `template line 1, column 9: nil pointer evaluating interface {}.y`},
		"of a text":   {spec.Template{Text: "{{ .Data.s.y }}"}, `template line 1, column 9: can't evaluate field y in type interface {}`},
		"no data":     {spec.Template{Text: `{{ range .Data.m }}{{ .x }}{{ end }}`}, `template line 1, column 23: can't evaluate field x in type interface {}`},
		"range": {
			spec.Template{Text: "{{ range .Data.s }}{{ end }}"},
			`template line 1, column 15: range can't iterate over this value: it takes lists, maps and integers`,
		},
		"arguments":       {spec.Template{Text: `{{ trim "a" }}`}, `template line 1, column 4: wrong number of args for trim: want 2 got 1`},
		"least arguments": {spec.Template{Text: `{{ printf }}`}, `template line 1, column 4: wrong number of args for printf: want at least 1 got 0`},
		"argument":        {spec.Template{Text: `{{ trim 1 "a" }}`}, `template line 1, column 9: a constant of the wrong type; expected string`},
		"value":           {spec.Template{Text: `{{ trim .Data.n "a" }}`}, `template line 1, column 14: wrong type for value; expected string; got json.Number`},
		"nil value":       {spec.Template{Text: `{{ trim .Data.none "a" }}`}, `template line 1, column 14: wrong type for value; expected string; got interface {}`},
		"index":           {spec.Template{Text: `{{ index .Data.l 7 }}`}, `template line 1, column 4: index: index out of range`},
		"comparison":      {spec.Template{Text: `{{ if eq .Data.s 1 }}{{ end }}`}, `template line 1, column 7: eq: incompatible types for comparison: string and int`},
		"function":        {spec.Template{Text: `{{ parseInt .Data.s }}`}, `template line 1, column 4: parseInt: the text is no decimal integer`},
		"method":          {spec.Template{Text: `{{ .Data.n.Int64 }}`}, `template line 1, column 9: Int64: it cannot be executed with the values that there are`},
		"channel":         {spec.Template{Text: `{{ loop 1 }}`}, `template line 1, column 4: a value of type render.queue cannot be printed`},
		"in a define":     {spec.Template{Text: "{{ define \"a>: b\" }}\n{{ .Data.s.y }}{{ end }}{{ template \"a>: b\" . }}"}, `template line 2, column 9: can't evaluate field y in type interface {}`},
		"nothing called":  {spec.Template{Text: `{{ call .Data.s }}`}, `template line 1, column 4: call: non-function of type string`},
		"missing":         {spec.Template{Text: `{{ secret "no" }}`}, `template line 1, column 4: read "no": nothing found (404)`},
		"fail":            {spec.Template{Text: `{{ sprig_fail "x" }}`}, `template line 1, column 4: sprig_fail: the template ends itself; its words are not shown, for they may hold a secret`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := New().execute(row.Template, around(t, sample))
			if err == nil || err.Error() != row.want {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
			if got != nil {
				t.Errorf("got %q beside the error, want nothing", got)
			}
		})
	}
}

func TestUnreadSourceIsFound(t *testing.T) {
	_, err := made(t, `{{ with secret "no" }}{{ end }}`, sample)
	unread, ok := errors.AsType[*unreadError](err)
	if want := (spec.Source{Method: "GET", Path: "no", Lenient: true}); !ok || unread.source != want || client.KindOf(err) != client.Missing {
		t.Errorf("got error %v, want one of kind Missing for %v", err, want)
	}
}

// TestTemplateErrorsShowNoValue lets each expression that has a secret in it fail in each way.
func TestTemplateErrorsShowNoValue(t *testing.T) {
	t.Parallel()
	answers := vault{
		"dot": fmt.Sprintf(`{"s":%q,"m":{%q:%[1]q},"l":[%[1]q],"n":1234567890123456,"f":12345678.5,"deep":{"s":{%[1]q:[%[1]q]}}}`, canary, canary),
		"kv":  fmt.Sprintf(`{"data":{"s":%q}}`, canary),
	}
	forms := []string{
		`{{ range A }}{{ .x.y }}{{ end }}`, `{{ range $a, $b := A }}{{ $a.x.y }}{{ end }}`, `{{ range $a, $b := 5 }}{{ end }}{{ A }}`, `{{ A.x.y.z }}`, `{{ (A).x.y.z }}`,
		`{{ A 1 }}`, `{{ 1 | A }}`, `{{ A.Foo 1 }}`, `{{ template "x" A }}`, `{{ define "x" }}{{ .y.z }}{{ end }}{{ template "x" A }}`,
		`{{ index A 99 }}`, `{{ index A "x" "y" }}`, `{{ index 1 A }}`, `{{ index "a" A }}`, `{{ slice A 99 }}`, `{{ slice "a" A }}`, `{{ slice A A }}`, `{{ len 1 A }}`,
		`{{ call A }}`, `{{ call A 1 }}`, `{{ eq A 1 }}`, `{{ eq 1 A }}`, `{{ eq A }}`, `{{ lt A 1 }}`, `{{ eq A A }}`, `{{ ge A A A }}`, `{{ A | eq 1 }}`,
		`{{ trim 1 A }}`, `{{ trim A }}`, `{{ A | trim 1 }}`, `{{ parseInt A }}`, `{{ parseFloat A }}`, `{{ parseBool A }}`, `{{ parseUint A }}`, `{{ parseJSON A }}`,
		`{{ parseYAML (printf "%s: [" A) }}`, `{{ base64Decode A }}`, `{{ base64URLDecode A }}`, `{{ add A 1 }}`, `{{ add 1 A }}`, `{{ divide A A }}`, `{{ modulo 0 1 }}{{ A }}`,
		`{{ regexMatch A "(" }}`, `{{ regexMatch (print "(" A) "a" }}`, `{{ regexReplaceAll (print A "[") "a" "b" }}`, `{{ in 1 A 1 }}`,
		`{{ split 1 A }}`, `{{ join A A }}`, `{{ indent A 1 }}`, `{{ loop A }}`, `{{ explodeMap A }}`, `{{ mergeMap A A }}`, `{{ toTOML A A }}`, `{{ toYAML A | parseInt }}`, `{{ toJSON A A }}`,
		`{{ containsAll A A }}`, `{{ scratch.MapSet "a" A }}`, `{{ scratch.Set "a" A }}{{ scratch.MapSet "a" "b" 1 }}`, `{{ scratch.Nope A }}`, `{{ scratch A }}`,
		`{{ timestamp A A }}`, `{{ env A }}`, `{{ mustEnv A }}`, `{{ envOrDefault A A }}`, `{{ secrets A A }}`, `{{ pkiCert "kv" A }}`, `{{ secret "a" A }}`, `{{ secret A }}`,
		`{{ sprig_fail A }}`, `{{ sprig_semver A }}`, `{{ sprig_semverCompare A A }}`, `{{ sprig_atoi A }}{{ sprig_mustToDate "2006" A }}`, `{{ sprig_mustFromJson A }}`,
		`{{ sprig_mustRegexMatch (print "(" A) A }}`, `{{ sprig_first A }}`, `{{ sprig_mustFirst A }}`, `{{ sprig_dict A | parseInt }}`, `{{ sprig_set A "a" A }}`, `{{ sprig_urlParse (print "%z" A) }}`,
		`{{ sprig_b32dec A | parseInt }}`, `{{ sprig_repeat A A }}`, `{{ sprig_repeat -1 A }}`, `{{ sprig_substr 1 A A }}`, `{{ sprig_ternary A A A }}`, `{{ sprig_div A 0 }}`,
		`{{ sprig_toDecimal A | index A }}`, `{{ sprig_decryptAES A A }}`, `{{ sprig_dig A A A }}`, `{{ sprig_chunk 0 A }}`, `{{ sprig_get A A }}`, `{{ sprig_merge A A }}`, `{{ sprig_slice A 1 2 3 }}`,
		`{{ printf A 1 | parseInt }}`, `{{ printf "%*d" A 1 | parseInt }}`, `{{ printf 1 A }}`, `{{ range printf "%s" A }}{{ end }}`, `{{ range 1 }}{{ printf "%1000000000s" A | parseInt }}{{ end }}`,
		`{{ html A | parseInt }}`, `{{ urlquery A | len 1 }}`, `{{ not }}{{ A }}`, `{{ and }}{{ A }}`, `{{ or A A | index A }}`, `{{ if A }}{{ .x.y.z.w }}{{ end }}`, `{{ with A }}{{ .x.y.z }}{{ end }}`,
		`{{ $x := A }}{{ $x.y.z }}`, `{{ $x := A }}{{ range $x }}{{ range . }}{{ .y }}{{ end }}{{ end }}`, `{{ nil | print A | parseInt }}`, `{{ .Data.f.Int64 }}{{ A }}`, `{{ A | parseInt }}`, `{{ sprig_list A | parseInt }}`,
	}
	values := []string{`.Data.s`, `.Data.m`, `.Data.l`, `.Data.n`, `.Data.deep`, `.Data`, `.`, `(secret "kv")`, `(secret "kv").Data.data.s`, `(sprig_list .Data.s .)`, `(sprig_dict .Data.s .Data.l)`}
	r := New()
	failed := make(map[string]bool)
	for _, form := range forms {
		for _, value := range values {
			for _, strict := range []bool{false, true} {
				text := strings.ReplaceAll(form, "A", value)
				e := around(t, answers)
				ask := e.ask
				e.ask = func(s spec.Source) (answer, error) {
					if _, found := answers[s.Path]; !found { // what Vault does not have is named, as it must be
						return answer{}, &unreadError{s, errors.New("nothing found"), false}
					}
					return ask(s)
				}
				got, err := r.execute(spec.Template{Text: text, ErrorOnMissingKey: strict}, e)
				if err == nil {
					continue
				}
				failed[form] = true
				if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), canary[:6]) || strings.Contains(err.Error(), "12345678") {
					t.Errorf("%s shows a value: %v", text, err)
				}
				if got != nil {
					t.Errorf("%s: got %q beside an error", text, got)
				}
			}
		}
	}
	for _, form := range forms {
		if !failed[form] {
			t.Errorf("%s fails with no value: it tests nothing", form)
		}
	}
}

// TestValuesAreCopied lets a template change what it read: no other one, and no other volume, sees that.
func TestValuesAreCopied(t *testing.T) {
	const change = `{{ range $k, $v := (sprig_set .Data "s" "changed") }}{{ end }}{{ sprig_set (index .Data "m") "x" "changed" | len }}` +
		`{{ with secret "dot" }}{{ sprig_set .Data "s" "changed" | len }}{{ sprig_unset .Data.m "x" | len }}{{ end }}`
	const look = `{{ .Data.s }} {{ .Data.m.x }} {{ with secret "dot" }}{{ .Data.s }} {{ .Data.m.x }}{{ end }}`
	r := New()
	e := around(t, sample)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			text := look
			if i%2 == 0 {
				text = change
			}
			got, err := r.execute(spec.Template{Text: text}, e)
			if err != nil || text == look && string(got) != "text y text y" {
				t.Errorf("got %q, %v; want %q", got, err, "text y text y")
			}
		})
	}
	group.Wait()
}

// TestTimeIsThatOfTheLatestAnswer lets a template ask for the time before and after it reads.
func TestTimeIsThatOfTheLatestAnswer(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const at = "2030-01-01T00:00:0"
	for name, row := range map[string]struct{ text, want string }{
		"alone":    {`{{ timestamp }}`, at + "0Z"},
		"first":    {`{{ timestamp }} {{ (secret "3").Data.a }}`, at + "3Z 3"},
		"last":     {`{{ (secret "3").Data.a }} {{ timestamp }}`, "3 " + at + "3Z"},
		"latest":   {`{{ timestamp }}{{ $_ := secret "3" }}{{ $_ = secret "5" }}{{ $_ = secret "4" }}`, at + "5Z"},
		"earlier":  {`{{ timestamp }}{{ $_ := secret "-3" }}`, at + "0Z"},
		"by time":  {`{{ timestamp }}{{ if eq (timestamp) "` + at + `0Z" }}{{ $_ := secret "3" }}{{ else }}{{ $_ := secret "5" }}{{ end }}`, at + "5Z"},
		"unused":   {`{{ $_ := secret "5" }}-`, "-"},
		"no end":   {`{{ $_ := secret (timestamp "5") }}{{ timestamp "5" }}`, "2"},
		"in a mix": {`{{ range sprig_list "1" "2" }}{{ $_ := secret . }}{{ timestamp "05" }}{{ end }}`, "0202"},
	} {
		t.Run(name, func(t *testing.T) {
			passes := 0
			ask := func(s spec.Source) (answer, error) {
				passes++
				var seconds int
				if _, err := fmt.Sscan(s.Path, &seconds); err != nil {
					return answer{}, err
				}
				if name == "no end" {
					seconds++
				}
				a, err := decode(grantOf(s, fmt.Sprintf(`{"a":%d}`, seconds)))
				a.grant.Obtained = start.Add(time.Duration(seconds) * time.Second)
				return a, err
			}
			got, err := New().execute(spec.Template{Text: row.text}, execution{at: start, ask: ask})
			if err != nil || string(got) != row.want {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
			if name == "unused" && passes != 1 {
				t.Errorf("executed %d times without asking for the time, want once", passes)
			}
		})
	}
}

// TestWaitingForVault: what an execution waits is no time that it computes, and it does not keep others from computing.
func TestWaitingForVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		waiting := 10 * cap(r.pool.slots)
		e := around(t, sample)
		read := e.ask
		e.ask = func(s spec.Source) (answer, error) {
			time.Sleep(time.Hour)
			return read(s)
		}
		var group sync.WaitGroup
		for range waiting {
			group.Go(func() {
				got, err := r.execute(spec.Template{Text: `{{ $a := secret "db" }}{{ range 10 }}{{ . }}{{ end }}{{ (secret "kv").Data.data.a }}`}, e)
				if err != nil || string(got) != "01234567891" {
					t.Errorf("got %q, %v; want 01234567891", got, err)
				}
			})
		}
		start := time.Now()
		synctest.Wait()
		if n := len(r.pool.slots); n != 0 {
			t.Errorf("%d slots are taken while all wait, want none", n)
		}
		if got, err := r.execute(spec.Template{Text: "a"}, execution{}); err != nil || string(got) != "a" {
			t.Errorf("beside those that wait: got %q, %v; want a", got, err)
		}
		group.Wait()
		if took := time.Since(start); took != 2*time.Hour {
			t.Errorf("all took %v, want 2h: they wait one after another", took)
		}
	})
}

func TestNoMoreExecutionsComputeThanThereAreProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		pool := r.pool
		for range cap(pool.slots) {
			pool.enter()
		}
		done := false
		go func() {
			if _, err := r.execute(spec.Template{Text: "a"}, execution{}); err != nil {
				t.Error(err)
			}
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("a template was executed without a slot")
		}
		pool.leave()
		synctest.Wait()
		if !done {
			t.Error("a template waits though there is a slot")
		}
	})
}

func TestTemplatesAreKept(t *testing.T) {
	var c cache
	texts := []spec.Template{
		{Text: "a"}, {Text: "a", Left: "<", Right: ">"}, {Text: "a", Left: "<", Right: "}"}, {Text: "a", ErrorOnMissingKey: true}, {Text: "b"},
	}
	first := make(map[*parsed]bool)
	for _, text := range texts {
		p, err := c.get(text)
		if err != nil {
			t.Fatal(err)
		}
		first[p] = true
	}
	if len(first) != len(texts) {
		t.Errorf("%d templates have %d trees", len(texts), len(first))
	}
	for _, text := range texts {
		if p, err := c.get(text); err != nil || !first[p] || p.source != text {
			t.Errorf("%v is parsed again, or is another one: %v", text, err)
		}
	}
	p, err := c.get(texts[0])
	if err != nil {
		t.Fatal(err)
	}
	m := c.take(p)
	if other := c.take(p); other == m {
		t.Error("two executions have one machine")
	}
	c.give(p, m)
	if c.take(p) != m {
		t.Error("an idle machine is not used again")
	}
}

// TestFewTemplatesAreKept parses many, small and large: neither their number nor their size is without bounds, and the one
// that is in use all the time stays.
func TestFewTemplatesAreKept(t *testing.T) {
	for name, row := range map[string]struct {
		count int
		text  string
	}{
		"many": {mostParsed + 200, "a"}, "large": {40, strings.Repeat("{{ 1 }}", 5000)},
	} {
		t.Run(name, func(t *testing.T) {
			var c cache
			used := spec.Template{Text: "used"}
			first, err := c.get(used)
			if err != nil {
				t.Fatal(err)
			}
			for i := range row.count {
				if _, err := c.get(spec.Template{Text: fmt.Sprint(row.text, i)}); err != nil {
					t.Fatal(err)
				}
				if p, _ := c.get(used); p != first {
					t.Fatalf("the template that is in use was parsed again after %d others", i)
				}
			}
			size := 0
			for _, p := range c.entries {
				size += p.size
			}
			if len(c.entries) > mostParsed || size > mostParsedBytes || size != c.size || len(c.entries) >= row.count || len(c.entries) < 2 {
				t.Errorf("%d templates of %d bytes are kept, counted as %d bytes", len(c.entries), size, c.size)
			}
		})
	}
}

// TestConcurrentExecutions executes few templates many times at once.
func TestConcurrentExecutions(t *testing.T) {
	r := New()
	e := around(t, sample)
	templates := map[string]string{
		`{{ .Data.s }}{{ range .Data.l }}{{ . }}{{ end }}`:                                                      "textba1",
		`{{ scratch.Set "a" .Data.s }}{{ scratch.Get "a" }}{{ with secret "db" }}{{ .Data.username }}{{ end }}`: "textapp",
		`{{ range 100 }}{{ $x := printf "%d" . }}{{ if eq $x "99" }}{{ $x }}{{ end }}{{ end }}`:                 "99",
	}
	var group sync.WaitGroup
	for text, want := range templates {
		for range 20 {
			group.Go(func() {
				for range 1 + rand.IntN(5) {
					if got, err := r.execute(spec.Template{Text: text}, e); err != nil || string(got) != want {
						t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
					}
				}
			})
		}
	}
	group.Wait()
}
