package main

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
	width  = 100
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

// page is where the story appears. A step appears whole when it has ended, since only then is known how long it took;
// meanwhile a terminal shows, in one line, what is going on.
type page struct {
	out    io.Writer
	live   bool // a terminal, which can take a line back
	colour bool

	steps int
	told  bytes.Buffer // all that was written
	err   error        // of the first write that failed
}

// newPage looks at what out is. NO_COLOR is honoured: https://no-color.org.
func newPage(out *os.File) *page {
	live := term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"
	return &page{out: out, live: live, colour: live && os.Getenv("NO_COLOR") == ""}
}

// write writes, unless an earlier write has failed.
func (p *page) write(text string) {
	p.told.WriteString(text)
	if p.err == nil {
		_, p.err = io.WriteString(p.out, text)
	}
}

// paint colours what follows no other colour.
func (p *page) paint(colour, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return colour + text + plain
}

// paragraph writes text over the whole width, and an empty line.
func (p *page) paragraph(text string) {
	p.write(wrap(text, "", "") + "\n")
}

// step plays a step of the story: title says what is done, and why says why, in a sentence or two.
func (p *page) step(ctx context.Context, title, why string, play func(context.Context, *sheet) error) error {
	p.steps++
	s := &sheet{page: p, title: title}
	s.now("")
	start := time.Now()
	err := play(ctx, s)
	outcome, colour := clock(time.Since(start)), faint
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
	gap := strings.Repeat(" ", max(1, width-length(heading)-length(outcome)))
	p.write(p.paint(bold, heading) + gap + p.paint(colour, outcome) + "\n" + wrap(why, indent, indent) + s.text.String() + "\n")
	if err != nil {
		return fmt.Errorf("step %d, %q: %w", p.steps, title, err)
	}
	return p.err
}

// sheet is the text of a step, as it grows.
type sheet struct {
	page  *page
	title string
	text  strings.Builder
	where int // what the text ends with: a gap belongs between two kinds
}

// now tells a terminal what is going on.
func (s *sheet) now(what string) {
	if s.page.live {
		line := []rune(fmt.Sprintf("%2d  %s … %s", s.page.steps, s.title, what))
		s.page.write(eraseLine + s.page.paint(faint, string(line[:min(len(line), 78)])))
	}
}

// The kinds of text that a step is made of.
const (
	figures = iota + 1
	quotes
	proofs
)

// begin sets a kind of text apart from what comes before.
func (s *sheet) begin(kind int) {
	if s.where != kind {
		s.text.WriteString("\n")
	}
	s.where = kind
}

// gap is an empty line.
func (s *sheet) gap() { s.where = 0 }

// line writes a line as it is.
func (s *sheet) line(text string) {
	s.begin(figures)
	s.text.WriteString(indent + "  " + text + "\n")
}

// table writes rows whose columns stand below each other.
func (s *sheet) table(rows ...[]string) {
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
		s.line(strings.TrimRight(line.String(), " "))
	}
}

// quote writes what stands in a file, line by line.
func (s *sheet) quote(text string) {
	s.begin(quotes)
	for line := range strings.Lines(text) {
		s.text.WriteString(indent + "  " + s.page.paint(cyan, strings.TrimRight(line, "\n")) + "\n")
	}
}

// complaint writes the text of an error.
func (s *sheet) complaint(text string) {
	s.gap()
	s.begin(quotes)
	for line := range strings.Lines(wrap(text, indent+"  ", indent+"  ")) {
		s.text.WriteString(s.page.paint(yellow, strings.TrimRight(line, "\n")) + "\n")
	}
	s.gap()
}

// proved writes what has just been verified. Whoever calls it has done so.
func (s *sheet) proved(format string, args ...any) {
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
		case length(line)+1+length(word) <= width:
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

// clock shows a duration in two or three digits.
func clock(d time.Duration) string {
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
