package oracle

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// fewest is how many templates there must be.
const fewest = 150

// result is what came of a template.
type result struct {
	text string
	err  error
}

// verdict is what two results of one template say.
type verdict int

// The verdicts.
const (
	equal verdict = iota + 1
	onPurpose
	differ
)

// judge compares what both made of a template with what its archive says, and tells what is wrong.
func judge(s sample, theirs, ours result) (verdict, error) {
	if got := howOurs(ours.err); got != s.fails {
		return differ, fmt.Errorf("ours: %s, want that it %v", ours, s.fails)
	}
	if s.onPurpose == "" {
		switch theyFail := theirs.err != nil; {
		case theyFail != (ours.err != nil):
			return differ, fmt.Errorf("theirs: %s\nours: %s", theirs, ours)
		case theirs.text != ours.text:
			return differ, fmt.Errorf("theirs: %q\nours:   %q", theirs.text, ours.text)
		}
		return equal, nil
	}
	switch {
	case s.theirs != (theirs.err != nil):
		return differ, fmt.Errorf("theirs: %s, want that it fails: %t", theirs, s.theirs)
	case ours.text != s.ours:
		return differ, fmt.Errorf("ours: %q\nwant: %q", ours.text, s.ours)
	case theirs.err == nil && ours.err == nil && theirs.text == ours.text:
		return differ, fmt.Errorf("both are equal (%q), and marked as different by %q", ours.text, s.onPurpose)
	}
	return onPurpose, nil
}

// String returns the text or the error.
func (r result) String() string {
	if r.err != nil {
		return "fails: " + r.err.Error()
	}
	return fmt.Sprintf("%q", r.text)
}

func howOurs(err error) failure {
	switch {
	case err == nil:
		return renders
	case errors.Is(err, errUnparsed):
		return failsToParse
	}
	return failsToExecute
}

// TestTemplates renders every template of the archives by both, and ends with a line that counts them.
func TestTemplates(t *testing.T) {
	v := readVault(t)
	theirs, ours := newTheirs(t, v), newOurs(v)
	count := make(map[verdict]int)
	exercised := make(map[string]bool)
	all := samples(t)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			got, err := judge(s, resultOf(theirs.render, s.template), resultOf(ours.render, s.template))
			count[got]++
			if err != nil {
				t.Errorf("%v\nof the template\n%s", err, s.template.Text)
				return
			}
			if s.fails != renders {
				return
			}
			names, err := calls(s.template)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(exercised, names)
		})
	}
	if !t.Failed() && sum(count) == len(all) { // else a single template was asked for, or there is enough to do
		for _, name := range render.Functions() {
			if !exercised[name] {
				t.Errorf("no template renders with the function %s: write one", name)
			}
		}
	}
	if len(all) < fewest {
		t.Errorf("got %d templates, want at least %d", len(all), fewest)
	}
	fmt.Printf("oracle templates=%d equal=%d on_purpose=%d differ=%d\n", sum(count), count[equal], count[onPurpose], count[differ])
}

func resultOf(render func(spec.Template) (string, error), t spec.Template) result {
	text, err := render(t)
	return result{text, err}
}

func sum(count map[verdict]int) int {
	n := 0
	for _, some := range count {
		n += some
	}
	return n
}

// TestDifferencesAreDocumented compares the ids of the differences with the table that tells them to the reader.
func TestDifferencesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := rows(string(page))
	shown := make(map[string]bool)
	for _, s := range samples(t) {
		if s.onPurpose != "" {
			shown[s.onPurpose] = true
		}
	}
	for function, id := range argumentsDiffer {
		if !shown[id] {
			t.Errorf("%s differs by the reason %q, and no template shows that", function, id)
		}
	}
	if got, want := slices.Sorted(maps.Keys(shown)), slices.Sorted(slices.Values(documented)); !slices.Equal(got, want) {
		t.Errorf("the templates show the differences\n%q, want those of docs/templates.md\n%q", got, want)
	}
}

var (
	tableOfDifferences = regexp.MustCompile(`(?m)^#+ Where it differs from consul-template\n([^#]*)`)
	idOfRow            = regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\|")
)

// rows returns the ids of the table of differences in a page.
func rows(page string) []string {
	var ids []string
	if section := tableOfDifferences.FindStringSubmatch(page); section != nil {
		for _, row := range idOfRow.FindAllStringSubmatch(section[1], -1) {
			ids = append(ids, row[1])
		}
	}
	return ids
}

// TestJudge: whatever is not as an archive says is a difference.
func TestJudge(t *testing.T) {
	rendered := func(text string) result { return result{text: text} }
	failed := result{err: errors.New("some reason")}
	unparsed := result{err: errUnparsed}
	for name, row := range map[string]struct {
		archive      string
		theirs, ours result
		want         verdict
	}{
		"equal":                     {"-- a --\n", rendered("x"), rendered("x"), equal},
		"other bytes":               {"-- a --\n", rendered("x"), rendered("x\n"), differ},
		"ours fails":                {"-- a --\n", rendered("x"), failed, differ},
		"theirs fails":              {"-- a --\n", failed, rendered(""), differ},
		"both fail unexpectedly":    {"-- a --\n", failed, failed, differ},
		"both fail":                 {"-- a fails --\n", failed, failed, equal},
		"both fail too early":       {"-- a fails --\n", unparsed, unparsed, differ},
		"both are refused":          {"-- a fails=parse --\n", failed, unparsed, equal},
		"ours should fail":          {"-- a fails --\n", failed, rendered(""), differ},
		"theirs should fail":        {"-- a fails --\n", rendered(""), failed, differ},
		"known difference":          {"-- a on_purpose=b --\n.\n-- a ours --\ny\n", rendered("x\n"), rendered("y\n"), onPurpose},
		"known difference is none":  {"-- a on_purpose=b --\n.\n-- a ours --\nx\n", rendered("x\n"), rendered("x\n"), differ},
		"another difference":        {"-- a on_purpose=b --\n.\n-- a ours --\ny\n", rendered("x\n"), rendered("z\n"), differ},
		"ours fails on purpose":     {"-- a on_purpose=b fails --\n", rendered("x"), failed, onPurpose},
		"they fail after all":       {"-- a on_purpose=b fails --\n", failed, failed, differ},
		"ours renders after all":    {"-- a on_purpose=b fails --\n", rendered("x"), rendered("y"), differ},
		"theirs fails on purpose":   {"-- a on_purpose=b theirs=fails --\n.\n-- a ours --\nx\n", failed, rendered("x\n"), onPurpose},
		"theirs renders after all":  {"-- a on_purpose=b theirs=fails --\n.\n-- a ours --\nx\n", rendered("y\n"), rendered("x\n"), differ},
		"ours is unparsed by plan":  {"-- a on_purpose=b fails=parse --\n", rendered("x"), unparsed, onPurpose},
		"ours is unparsed too late": {"-- a on_purpose=b fails=parse --\n", rendered("x"), failed, differ},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := parseSamples("test", txtar.Parse([]byte(row.archive)))
			if err != nil || len(list) != 1 {
				t.Fatalf("got %d templates and error %v, want one", len(list), err)
			}
			got, err := judge(list[0], row.theirs, row.ours)
			if got != row.want || (err != nil) != (row.want == differ) {
				t.Errorf("got verdict %d (%v), want %d", got, err, row.want)
			}
		})
	}
}

// TestArchive: a header that says something unknown is an error, for it would be no header of what was meant.
func TestArchive(t *testing.T) {
	for _, archive := range []string{
		"-- a fail --\n", "-- a on_purpose --\n", "-- a delimiters=[[ --\n", "-- a --\n-- a --\n", "-- a theirs=fails --\n",
		"-- a on_purpose=b --\n", "-- a on_purpose=b theirs=fails fails --\n", "-- a on_purpose=b --\n-- c --\n",
	} {
		if list, err := parseSamples("test", txtar.Parse([]byte(archive))); err == nil {
			t.Errorf("%q: got %v, want an error", strings.TrimSpace(archive), list)
		}
	}
}

// TestCalls: no function is overlooked, wherever in a template it is called.
func TestCalls(t *testing.T) {
	text := `{{ a1 }}{{ if a2 }}{{ a3 }}{{ else if a4 (a5) }}{{ a6 | a7 }}{{ else }}{{ a8 }}{{ end }}{{ with $x := a9 }}{{ (a10).F }}{{ end }}` +
		`{{ range a11 }}{{ else }}{{ a12 }}{{ end }}{{ template "t" a13 }}{{ define "t" }}{{ a14 .a15 "a16" }}{{ break }}{{ end }}`
	text = strings.Replace(text, "{{ break }}", "", 1)
	names, err := calls(spec.Template{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 16; i++ {
		name := fmt.Sprintf("a%d", i)
		if want := i < 15; names[name] != want {
			t.Errorf("%s: got %t, want %t", name, names[name], want)
		}
	}
}
