package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"leasehold/internal/spec"
)

// sample is one template of the archives.
type sample struct {
	name      string // archive and section, such as "corpus/postgres-url"
	template  spec.Template
	fails     failure // of ours; of both unless onPurpose is set
	onPurpose string  // id of a row in the table of differences, or ""
	ours      string  // with onPurpose: what we render unless we fail
	theirs    bool    // with onPurpose: consul-template fails
}

// failure is how a rendering ends that ends badly.
type failure int

// The ways to fail, or not.
const (
	renders failure = iota + 1
	failsToParse
	failsToExecute
)

func (f failure) String() string {
	switch f {
	case renders:
		return "renders"
	case failsToParse:
		return "is refused by the parser"
	case failsToExecute:
		return "fails"
	}
	return fmt.Sprintf("failure(%d)", int(f))
}

// samples reads all templates. A section that cannot be understood is the end of the test: a template that is left out
// shows nothing.
func samples(t *testing.T) []sample {
	t.Helper()
	archives, err := filepath.Glob("testdata/templates/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("got no archives of templates (error %v), want some", err)
	}
	var all []sample
	for _, path := range archives {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		some, err := parseSamples(strings.TrimSuffix(filepath.Base(path), ".txtar"), txtar.Parse(text))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, some...)
	}
	return all
}

func parseSamples(group string, archive *txtar.Archive) ([]sample, error) {
	var list []sample
	seen := make(map[string]bool)
	for i := 0; i < len(archive.Files); i++ {
		section := archive.Files[i]
		s, err := parseSample(section)
		if err != nil {
			return nil, fmt.Errorf("section %q: %w", section.Name, err)
		}
		if seen[s.name] {
			return nil, fmt.Errorf("section %q: there are two of that name", s.name)
		}
		seen[s.name] = true
		if s.onPurpose != "" && s.fails == renders {
			i++
			if i == len(archive.Files) || archive.Files[i].Name != s.name+" ours" {
				return nil, fmt.Errorf("section %q: want a section %q behind it", section.Name, s.name+" ours")
			}
			s.ours = string(archive.Files[i].Data)
			if !strings.HasSuffix(s.template.Text, "\n") {
				s.ours = strings.TrimSuffix(s.ours, "\n")
			}
		}
		s.name = group + "/" + s.name
		list = append(list, s)
	}
	return list, nil
}

func parseSample(section txtar.File) (sample, error) {
	fields := strings.Fields(section.Name)
	s := sample{name: fields[0], template: spec.Template{Text: string(section.Data)}, fails: renders}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		switch {
		case field == "fails":
			s.fails = failsToExecute
		case field == "fails=parse":
			s.fails = failsToParse
		case field == "theirs=fails":
			s.theirs = true
		case field == "missing_key=error":
			s.template.ErrorOnMissingKey = true
		case field == "newline=no":
			s.template.Text = strings.TrimSuffix(s.template.Text, "\n")
		case key == "delimiters" && strings.Count(value, ",") == 1:
			s.template.Left, s.template.Right, _ = strings.Cut(value, ",")
		case key == "on_purpose" && value != "":
			s.onPurpose = value
		default:
			return sample{}, fmt.Errorf("cannot read %q", field)
		}
	}
	switch {
	case s.theirs && s.onPurpose == "":
		return sample{}, fmt.Errorf("theirs=fails needs an on_purpose")
	case s.theirs && s.fails != renders:
		return sample{}, fmt.Errorf("both fail: that is no difference")
	}
	return s, nil
}
