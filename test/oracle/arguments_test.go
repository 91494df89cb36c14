package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// argumentsDiffer has the functions whose results differ on purpose, with the id of the reason. Templates in the archives
// show how.
var argumentsDiffer = map[string]string{
	"env":                 "environment",
	"envOrDefault":        "environment",
	"scratch":             "addresses",
	"secrets":             "paths",
	"sprig_durationRound": "clock",
	"sprig_keys":          "order",
	"sprig_values":        "order",
	"timestamp":           "timestamp",
}

// builtins are the functions of text/template. Some of ours take their place.
var builtins = strings.Fields("and call eq ge gt html index js le len lt ne not or print printf println slice urlquery")

// arguments are values of every kind that a template can have, as it would write them. Every pair of the first many is
// tried, and every three of the first few.
var arguments = []string{
	`""`, `"a"`, `2`, `(sprig_list 1 "a" nil)`, `(sprig_dict "a" 1)`,

	`1.5`, `nil`, `0`, `-3`, `" b,c "`, `(secret "secret/numbers").Data.int`,

	`true`, `'x'`, `"12"`, `"-7.5"`, `"0x1F"`, `"1e3"`, `"true"`, `"{}"`, `"[1, 2.5, \"x\", null]"`, `"{\"a\": [1, {\"b\": true}]}"`,
	`"a: [1, x]\nb: ~\n"`, `"aGVsbG8="`, `"NBSWY3DP"`, `"https://user:word@host:8443/path?q=1#part"`, `"1.2.3-rc.1+7"`,
	`"2026-03-04T05:06:07Z"`, `"26h10m"`, `"a/b/../c.tar.gz"`, `"FooBar baz_qux-quux"`, `"<a href='x'>&\"</a>"`, `"%s %[1]d %5.2f"`,
	`"e\u0301 ß İ 密码 👩‍🚀"`, `"\xff\x00"`, `"one\n  two\r\n\n"`, `300`, `1e21`, `(parseFloat "inf")`, `(parseUint "7")`,
	`(sprig_list)`, `(sprig_dict)`, `(sprig_dict "b" (sprig_dict "c" "") "a/b" nil)`, `(split "," "x,y")`, `(splitToMap "," ":" "a:1,b:2")`,
	`(secrets "kv/teams")`, `(secret "secret/numbers").Data.exponent`, `(secret "secret/shapes").Data.map`,
	`(secret "secret/shapes").Data.null`, `(secret "secret/shapes").Data.list`, `(secret "secret/shapes").Data.mixed`,
	`(sprig_urlParse "https://h/p")`, `(sprig_toDate "2006-01-02" "2026-03-04")`,
}

const (
	many = 11
	few  = 5
)

// TestArguments calls each function with values of every kind: what consul-template makes of them we make too, of the same
// type, and where it fails so do we.
func TestArguments(t *testing.T) {
	v := readVault(t)
	theirs, ours := newTheirs(t, v), newOurs(v)
	for _, name := range slices.Concat(render.Functions(), builtins) {
		if argumentsDiffer[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, lists := range argumentLists {
				for _, list := range lists {
					call := fmt.Sprintf("{{ $x := %s %s }}{{ $x }} {{ printf `%%#v` $x }}", name, list)
					they, we := resultOf(theirs.render, spec.Template{Text: call}), resultOf(ours.render, spec.Template{Text: call})
					if (they.err != nil) != (we.err != nil) || they.text != we.text {
						t.Errorf("%s\ntheirs: %s\nours:   %s", call, they, we)
					}
					if they.err != nil && strings.Contains(they.err.Error(), "wrong number of args for "+name) {
						break // the other lists of that length are as long
					}
				}
			}
		})
	}
}

// argumentLists has lists of arguments, by their length.
var argumentLists = func() [4][]string {
	lists := [4][]string{{""}, arguments}
	for _, a := range arguments[:many] {
		for _, b := range arguments[:many] {
			lists[2] = append(lists[2], a+" "+b)
		}
	}
	for _, a := range arguments[:few] {
		for _, b := range arguments[:few] {
			for _, c := range arguments[:few] {
				lists[3] = append(lists[3], a+" "+b+" "+c)
			}
		}
	}
	return lists
}()
