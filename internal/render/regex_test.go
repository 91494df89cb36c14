package render

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestRegex(t *testing.T) {
	t.Parallel()
	check(t, []row{
		{template: `{{ "foo-bar" | regexMatch "o-b" }} {{ regexMatch "^b" "ab" }} {{ regexMatch "" "" }} {{ regexMatch "^$" "" }}`, want: "true false true true"},
		{template: `{{ regexMatch "(?i)^A\\d+$" "a12" }} {{ regexMatch "a.c" "a\nc" }}`, want: "true false"},
		{template: `{{ "user@host:80" | regexReplaceAll "(\\w+)@(?P<host>\\w+)" "${host}/$1" }}`, want: "host/user:80"},
		{template: `{{ regexReplaceAll "a*" "-" "baac" }}|{{ regexReplaceAll "" "-" "äb" }}|{{ regexReplaceAll "" "x" "" }}`, want: "-b-c-|-ä-b-|x"},
		{template: `{{ regexReplaceAll "^a" "" "aaa" }}|{{ regexReplaceAll "(?m)^" "> " "a\nb" }}|{{ regexReplaceAll "\\b" "'" "a b" }}`, want: "aa|> a\n> b|'a' 'b'"},
		{template: `{{ regexReplaceAll "a" "$$1$x${y}$0" "bab" }}|{{ regexReplaceAll "\n" "\\n" "a\nb\n" }}`, want: "b$1ab|a\\nb\\n"},
		{template: `{{ regexReplaceAll "(a)|b" "<$1>" "ab" }}|{{ regexReplaceAll "z" "y" "ab" }}`, want: "<a><>|ab"},
		{template: `{{ regexMatch .canary .canary }}`, want: "true"},
		{template: `{{ regexMatch (print "(" .canary) "" }}`, fails: "regexMatch: the pattern is no regular expression of Go: missing closing )"},
		{template: `{{ regexReplaceAll "a{1001}" "" "" }}`, fails: "regexReplaceAll: the pattern is no regular expression of Go: invalid repeat count"},
		{template: `{{ regexMatch .long "" }}`, fails: "regexMatch: the pattern is too long"},
		{template: `{{ regexMatch "((ab){100}c{50}){20}" "" }}`, fails: "regexMatch: the pattern is no regular expression of Go: invalid repeat count"},
		{template: `{{ regexMatch "(abcdef){1000}" "" }}`, fails: "regexMatch: the pattern is too large"},
		{template: `{{ len (regexReplaceAll "a" .long .long) }}`, fails: "builds more than 32 MiB"},
		{template: `{{ len (regexReplaceAll ".*" (replaceAll " " "$0" (indent 40 "a")) .long) }}`, fails: "builds more than 32 MiB"},
		{template: `{{ regexReplaceAll "[ab]*c|a" "" .long }}`, fails: "the regular expression takes too long on that text"},
		{template: `{{ regexMatch "(a|b|ab|ba|aba|bab)*(x{500})" .long }}`, fails: "the regular expression takes too long on that text"},
		{template: `{{ len (regexReplaceAll "b+" "" .long) }}`, want: "524288"},
	})
}

// However long the text and bad the pattern, a call comes to an end.
func TestRegexEnds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab", 1<<19)
	for _, pattern := range []string{
		`[ab]*c|a`, `((((a*)*)*)*)*c|a`, `(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)c`, `(a?){1000}`, strings.Repeat("(a?)", 1000), `.{1000}c`,
		strings.Repeat(`\b`, 1000),
	} {
		if got, err := newBench(nil).regexReplaceAll(pattern, "", long); !errors.Is(err, faultRegexWork) {
			t.Errorf("%.40s: got a text of %d bytes, error %v; want error %v", pattern, len(got), err, faultRegexWork)
		}
	}
}

// FuzzRegexReplaceAll holds our way of replacing to that of package regexp.
func FuzzRegexReplaceAll(f *testing.F) {
	for _, seed := range [][3]string{
		{`a*`, "-", "baac"},
		{`\b`, "|", "ab cd"},
		{`(?m)^$`, "x", "a\n\nb\n"},
		{`(?i)(é)|\B`, "$1.", "aÉb\xff\xc3"},
		{`$`, "!", ""},
		{`(?s).`, "${0}${0}", "\xe4\xb8A\xe4\xb8\xad"},
		{`(?P<x>a)?b??`, "$x", "abab"},
		{`\Aa`, "", "aa"},
		{`\Qa.b`, "", "a.b"},
		{`(?U)a+(a|$)`, "<$1>", "aaaa"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, pattern, replacement, text string) {
		got, err := newBench(nil).regexReplaceAll(pattern, replacement, text)
		if err != nil {
			return
		}
		if want := regexp.MustCompile(pattern).ReplaceAllString(text, replacement); got != want {
			t.Errorf("pattern %q, replacement %q, text %q: got %q, want %q", pattern, replacement, text, got, want)
		}
		matches, err := regexMatch(pattern, text)
		if want := regexp.MustCompile(pattern).MatchString(text); err == nil && matches != want {
			t.Errorf("pattern %q, text %q: matches %t, want %t", pattern, text, matches, want)
		}
	})
}
