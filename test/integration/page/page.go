// Package page is where a demo tells its story: numbered steps with the time that each took, figures, quotes and proofs,
// wrapped to one width, with colours and a live line on a terminal and plain text elsewhere.
package page

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	// Width is that of a page, in columns.
	Width = 100

	indent = "    "
)

// The colours, and the few signs beside them that a terminal takes.
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"

	eraseLine = "\r\x1b[K"
)

// Page is where the story appears. A step appears whole when it has ended, since only then is known how long it took;
// meanwhile a terminal shows, in one line, what is going on.
type Page struct {
	out    io.Writer
	live   bool // a terminal, which can take a line back
	colour bool

	steps int
	told  bytes.Buffer // all that was written
	err   error        // of the first write that failed
}

// New makes a page on a file. On a terminal it has colours and a live line; NO_COLOR is honoured: https://no-color.org.
func New(out *os.File) *Page {
	live := term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"
	return &Page{out: out, live: live, colour: live && os.Getenv("NO_COLOR") == ""}
}

// Plain makes a page without colours and without a live line.
func Plain(out io.Writer) *Page { return &Page{out: out} }

// Told returns all that was written, for whoever searches it.
func (p *Page) Told() []byte { return p.told.Bytes() }

// write writes, unless an earlier write has failed.
func (p *Page) write(text string) {
	p.told.WriteString(text)
	if p.err == nil {
		_, p.err = io.WriteString(p.out, text)
	}
}

// paint colours what follows no other colour.
func (p *Page) paint(colour, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return colour + text + plain
}

// Paragraph writes text over the whole width, and an empty line.
func (p *Page) Paragraph(text string) {
	p.write(wrap(text, "", "") + "\n")
}

// Gap is an empty line.
func (p *Page) Gap() { p.write("\n") }

// Pointers writes places to go to, each with what is there. Its error is that of the first write that failed, if any did.
func (p *Page) Pointers(rows ...[2]string) error {
	first := 0
	for _, row := range rows {
		first = max(first, length(row[0]))
	}
	for _, row := range rows {
		line := indent + row[0] + strings.Repeat(" ", first-length(row[0])+3) + row[1]
		p.write(strings.TrimRight(line, " ") + "\n")
	}
	return p.err
}

// Step plays a step of the story: title says what is done, and why says why, in a sentence or two.
func (p *Page) Step(ctx context.Context, title, why string, play func(context.Context, *Sheet) error) error {
	p.steps++
	s := &Sheet{page: p, title: title}
	s.Now("")
	start := time.Now()
	err := play(ctx, s)
	outcome, colour := Clock(time.Since(start)), faint
	switch {
	case err != nil && ctx.Err() != nil:
		outcome, colour = "interrupted", red
	case err != nil:
		outcome, colour = "failed", red
	}
	if p.live {
		p.write(eraseLine)
	}
	heading := fmt.Sprintf("%2d  %s", p.steps, title)
	gap := strings.Repeat(" ", max(1, Width-length(heading)-length(outcome)))
	p.write(p.paint(bold, heading) + gap + p.paint(colour, outcome) + "\n" + wrap(why, indent, indent) + s.text.String() + "\n")
	if err != nil {
		return fmt.Errorf("step %d, %q: %w", p.steps, title, err)
	}
	return p.err
}

// Sheet is the text of a step, as it grows.
type Sheet struct {
	page  *Page
	title string
	text  strings.Builder
	where int // what the text ends with: a gap belongs between two kinds
}

// Now tells a terminal what is going on.
func (s *Sheet) Now(what string) {
	if s.page.live {
		line := []rune(fmt.Sprintf("%2d  %s … %s", s.page.steps, s.title, what))
		s.page.write(eraseLine + s.page.paint(faint, string(line[:min(len(line), 78)])))
	}
}

// The kinds of text that a step is made of.
const (
	figures = iota + 1
	commands
	quotes
	proofs
)

// begin sets a kind of text apart from what comes before.
func (s *Sheet) begin(kind int) {
	answer := s.where == commands && kind == quotes
	if s.where != kind && !answer {
		s.text.WriteString("\n")
	}
	s.where = kind
}

// Gap is an empty line.
func (s *Sheet) Gap() { s.where = 0 }

// Line writes a line as it is.
func (s *Sheet) Line(text string) {
	s.begin(figures)
	s.text.WriteString(indent + "  " + text + "\n")
}

// Table writes rows whose columns stand below each other.
func (s *Sheet) Table(rows ...[]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], length(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-length(cell)+3))
		}
		s.Line(strings.TrimRight(line.String(), " "))
	}
}

// Quote writes what stands in a file, line by line.
func (s *Sheet) Quote(text string) {
	s.begin(quotes)
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			line = indent + "  " + s.page.paint(cyan, line)
		}
		s.text.WriteString(line + "\n")
	}
}

// Command writes a command as it was given to a shell. A quote or a complaint that follows is what it answered.
func (s *Sheet) Command(text string) {
	s.Gap()
	s.begin(commands)
	for i, line := range strings.Split(text, "\n") {
		prompt := "$ "
		if i > 0 {
			prompt = "  "
		}
		s.text.WriteString(indent + "  " + s.page.paint(bold, prompt+line) + "\n")
	}
}

// Complaint writes the text of an error.
func (s *Sheet) Complaint(text string) {
	if s.where == quotes {
		s.Gap()
	}
	s.begin(quotes)
	for line := range strings.Lines(wrap(text, indent+"  ", indent+"  ")) {
		s.text.WriteString(s.page.paint(yellow, strings.TrimRight(line, "\n")) + "\n")
	}
	s.Gap()
}

// Proved writes what has just been verified. Whoever calls it has done so.
func (s *Sheet) Proved(format string, args ...any) {
	s.begin(proofs)
	text := wrap(fmt.Sprintf(format, args...), indent+"✓ ", indent+"  ")
	s.text.WriteString(strings.Replace(text, "✓", s.page.paint(green, "✓"), 1))
}

// wrap breaks text into lines of the page's width. A word that is longer stands alone.
func wrap(text, first, rest string) string {
	var lines strings.Builder
	line, empty := first, true
	for word := range strings.FieldsSeq(text) {
		switch {
		case empty:
			line += word
		case length(line)+1+length(word) <= Width:
			line += " " + word
		default:
			lines.WriteString(line + "\n")
			line = rest + word
		}
		empty = false
	}
	lines.WriteString(line + "\n")
	return lines.String()
}

func length(text string) int { return utf8.RuneCountInString(text) }

// Clock shows a duration in two or three digits.
func Clock(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	default:
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
}
