package render

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"leasehold/internal/spec"
)

// addTemplates gives a fuzz target templates of all kinds: sound ones, faulty ones and hostile ones.
func addTemplates(add func(text string)) {
	for _, text := range documented {
		add(text)
	}
	for _, row := range hostile() {
		if len(row.text) < 2000 && !strings.Contains(row.text, "range") { // the others are tested, and take time
			add(row.text)
		}
	}
	for _, text := range []string{
		`{{ range $k, $v := .Data }}{{ $k }}={{ $v | toJSON }}{{ else }}-{{ end }}`, `{{ define "a" }}{{ . }}{{ end }}{{ template "a" .Data.s }}`,
		`{{ if eq .Data.s "a" }}x{{ else if and .Data.n (gt 2 1) }}y{{ end }}`, `{{ block "b" . }}{{ index .Data.l 0 }}{{ end }}`, `{{- /* c */ -}} a {{- "\x00" -}}`,
		`{{ $a := .Data.s }}{{ range 3 }}{{ $a = print $a . }}{{ end }}{{ printf "%q %-10.3s %[1]*d" $a 5 }}`, `{{ .Data.m.x.y.z }}`, `{{ range .Data.s }}{{ end }}`,
		`{{ scratch.Set "a" (secret "kv") }}{{ (scratch.Get "a").Data.data.s | sprig_b64enc }}`, `{{ call .Data.s 1 }}{{ slice .Data.s 1 99 }}`, `{{ parseInt .Data.s }}`,
	} {
		add(text)
	}
}

// FuzzCheck checks any text with any delimiters: the error is one short line.
func FuzzCheck(f *testing.F) {
	addTemplates(func(text string) { f.Add(text, "", "") })
	f.Add(`<% secret "db" %>`, "<%", "%>")
	f.Add("aab", "a", "b")
	f.Add("{{ 1 }}", " ", "\n")
	f.Fuzz(func(t *testing.T, text, left, right string) {
		err := New().Check(spec.Template{Text: text, Left: left, Right: right})
		if err != nil && (len(err.Error()) > 10_000 || strings.ContainsAny(err.Error(), "\n\r\x00") || !strings.HasPrefix(err.Error(), "template")) {
			t.Errorf("got error %q, want a short line about the template", err)
		}
	})
}

// FuzzExecute executes any text, with secrets around it that no error may show.
func FuzzExecute(f *testing.F) {
	addTemplates(func(text string) { f.Add(text, false); f.Add(text, true) })
	data := fmt.Sprintf(`{"s":%q,"n":1e3,"m":{"x":%[1]q,%[1]q:1},"l":[%[1]q,2,null],"keys":[%[1]q],"data":{"s":%[1]q}}`, canary)
	r := New()
	f.Fuzz(func(t *testing.T, text string, strict bool) {
		if strings.Contains(text, canary[:4]) {
			return
		}
		ask := func(s spec.Source) (answer, error) {
			if strings.Contains(s.Path, "x") {
				return answer{}, &unreadError{s, errors.New("nothing found"), false}
			}
			return decode(grantOf(s, data))
		}
		dot, err := ask(get("dot"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.execute(spec.Template{Text: text, ErrorOnMissingKey: strict}, execution{dot: &dot, ask: ask})
		if err != nil && (got != nil || strings.Contains(err.Error(), canary) || strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 10_000) {
			t.Errorf("got %d bytes and error %q, want none and a short line without a value", len(got), err)
		}
		if err != nil && strings.Contains(err.Error(), "internal error") {
			t.Logf("a panic was caught: %v", err)
		}
		if len(got) > mostOutput {
			t.Errorf("got %d bytes, want at most %d", len(got), mostOutput)
		}
		if n := r.pool.borrowed.Load(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
		again, errAgain := r.execute(spec.Template{Text: text, ErrorOnMissingKey: strict}, execution{dot: &dot, ask: ask})
		if isTimely(err, errAgain) && (string(got) != string(again) || fmt.Sprint(err) != fmt.Sprint(errAgain)) {
			t.Errorf("executed twice, got\n%q, %v\n%q, %v", got, err, again, errAgain)
		}
	})
}

// isTimely tells that no execution was ended by the clock.
func isTimely(errs ...error) bool {
	for _, err := range errs {
		if err != nil && strings.Contains(err.Error(), string(faultTime)) {
			return false
		}
	}
	return true
}

// FuzzPrintf prints with any format: the length that is expected is never too low.
func FuzzPrintf(f *testing.F) {
	for _, format := range []string{
		"%d %s", "%5.3f|%-8q|%+v", "%[2]*[1]d", "%[3]d%[1]d", "%[9]d %d", "%[x]d%d", "%[1", "%!", "%", "%*d", "%.*f", "%.", "%6.", "%#v%x% x%#X", "%[2].[1]*d", "%[1]5d",
		"%.3.4d", "%08b%U%c", "%[2]d%d%d%d", "%0*d", "%.[2]*f", "%99999999999d", "%9999999d", "%t%T%e%g", "é%é", "%-", "%+q", "%[1][2]d", "%[+1]d", "%[]d", "%[1]*%", "%.[1]100A", "%.[5]100A", "%900d", "%10000010[", "%[10000010][1]d%d%d", "%[13]90d", "%[13]900t", "%[14]w%[14]w%[14]w",
	} {
		f.Add(format, 7, "a\"é\U0010ffff\x00\xff", 1e300)
	}
	f.Fuzz(func(t *testing.T, format string, number int, text string, float float64) {
		values := []any{number, text, float, []any{text, number, nil}, map[string]any{text: float}, []byte(text), complex(float, -float), int8(1), named(text), failing{}, nil, true, time.Unix(int64(number), 0).In(time.FixedZone(text, number)), &scratch{values: map[string]any{text: text}}}
		for count := range values {
			for first := range min(count, 2) + 1 {
				compareWithFmt(t, format, values[first:count])
			}
		}
	})
}

// compareWithFmt fails if package fmt makes more of a format than was expected at most.
func compareWithFmt(t *testing.T, format string, args []any) {
	t.Helper()
	weight := formatting{format: format}
	for _, arg := range args {
		s := scale{most: mostPrinted}
		s.add(arg)
		weight.args = append(weight.args, weighed{arg, s})
	}
	if weight.measure() != nil {
		return // package fmt is not asked
	}
	if got := fmt.Sprintf(format, args...); len(got) > weight.length {
		t.Errorf("%q of %d values has %d bytes, expected at most %d: %.200q", format, len(args), len(got), weight.length, got)
	}
}

// TestEveryFormat goes through all that can stand between a percent sign and its verb, in each order that package fmt reads.
func TestEveryFormat(t *testing.T) {
	indices := []string{"", "[1]", "[2]", "[9]", "[x]", "[", "[10000010]"}
	numbers := []string{"", "*", "3000", "10000010"}
	parts := [][]string{{"%"}, {"", "#"}, indices, numbers, {"", "."}, indices, numbers, indices, {"", "d", "A", "s", "%"}, {"", "%v"}}
	args := []any{3000, strings.Repeat("é", 1000), []byte("\x00é")} // each more than is expected of a value anyway
	var of func(format string, parts [][]string)
	of = func(format string, parts [][]string) {
		if len(parts) > 0 {
			for _, part := range parts[0] {
				of(format+part, parts[1:])
			}
			return
		}
		for count := range len(args) + 1 {
			compareWithFmt(t, format, args[:count])
		}
	}
	of("", parts)
}
