package page

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

func TestStepThatFails(t *testing.T) {
	var out bytes.Buffer
	p := &Page{out: &out}
	cause := errors.New("broken")
	err := p.Step(t.Context(), "Try", "Why not.", func(_ context.Context, text *Sheet) error {
		text.Line("so far")
		return cause
	})
	if !errors.Is(err, cause) || err.Error() != `step 1, "Try": broken` {
		t.Errorf("got error %v", err)
	}
	if got := out.String(); !strings.Contains(got, "failed\n") || !strings.Contains(got, "so far") {
		t.Errorf("got %q, want what there was and that it failed", got)
	}
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &Page{out: &out, live: true, colour: true}
	err := p.Step(t.Context(), "Try", "Why not.", func(_ context.Context, text *Sheet) error {
		text.Now(strings.Repeat("long ", 100))
		text.Proved("It works.")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before, final, _ := cut(out.String(), eraseLine)
	if !strings.Contains(before, "Try … long") || strings.Contains(before, "\n") {
		t.Errorf("while it works: got %q, want one line", before)
	}
	if want := bold + " 1  Try" + plain; !strings.HasPrefix(final, want) {
		t.Errorf("in the end: got %q, want it to begin with %q", final, want)
	}
	if !strings.Contains(final, green+"✓"+plain+" It works.\n") {
		t.Errorf("in the end: got %q, want a green sign", final)
	}
}

// cut slices text around the last separator.
func cut(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return "", text, false
}

func TestFullDiskFailsTheStep(t *testing.T) {
	p := &Page{out: fullDisk{}}
	if err := p.Step(t.Context(), "Try", "Why not.", func(context.Context, *Sheet) error { return nil }); err == nil {
		t.Error("nothing could be written: got no error")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestLayout(t *testing.T) {
	var out bytes.Buffer
	p := Plain(&out)
	err := p.Step(t.Context(), "Try", "Why not.", func(_ context.Context, text *Sheet) error {
		text.Table([]string{"a", "1"}, []string{"long", "2"})
		text.Command("first \\\n  second")
		text.Quote("answer\n\n  indented  \n")
		text.Command("third")
		text.Complaint("bad")
		text.Command("silent")
		text.Proved("It %s.", "works")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Paragraph("Go on:")
	if err := p.Pointers([2]string{"here", "what"}, [2]string{"elsewhere"}); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(out.String(), "Why not.\n")
	want := `
      a      1
      long   2

      $ first \
          second
      answer

        indented

      $ third
      bad

      $ silent

    ✓ It works.

Go on:

    here        what
    elsewhere
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if string(p.Told()) != out.String() {
		t.Error("what was told is not what was written")
	}
}
