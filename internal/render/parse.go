package render

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"
	"unicode"
	"unicode/utf8"

	"leasehold/internal/spec"
)

// parsed is a template that is fit to be executed: its trees, with the hidden commands that count and weigh.
type parsed struct {
	source    spec.Template
	trees     map[string]*parse.Tree // by the names of its defines; "" is the template itself
	functions []string               // those that it calls and that are bound to a machine
	size      int                    // bytes that all this takes, about
	used      int64                  // when it was used last: guarded by the cache
	idle      []*machine             // guarded by the cache
}

// parseTemplate parses a template and refuses what must not be executed.
func parseTemplate(t spec.Template) (p *parsed, err error) {
	defer func() {
		if cause := recover(); cause != nil { // a fault in package parse
			p, err = nil, fmt.Errorf("template: it cannot be parsed (a panic of type %T)", cause)
		}
	}()
	if len(t.Text) > mostText {
		return nil, fmt.Errorf("template: it has %d bytes, more than %d: make several files of it", len(t.Text), mostText)
	}
	if len(t.Left) > mostDelimiter || len(t.Right) > mostDelimiter {
		return nil, fmt.Errorf("template: a delimiter has more than %d bytes", mostDelimiter)
	}
	trees := make(map[string]*parse.Tree)
	root := parse.New("")
	// The inspector knows more of the functions than the parser: where an unknown one is, and what was probably meant.
	root.Mode = parse.SkipFuncCheck
	if _, err := root.Parse(t.Text, t.Left, t.Right, trees); err != nil {
		return nil, parseFailure(err)
	}
	i := inspector{text: t.Text, trees: trees, functions: make(map[string]bool), calls: make(map[string][]invocation)}
	if err := i.inspect(); err != nil {
		return nil, err
	}
	return &parsed{
		source:    t,
		trees:     trees,
		functions: slices.Sorted(maps.Keys(i.functions)),
		size:      len(t.Text) + i.nodes*sizeOfNode + mostIdle*len(i.functions)*sizeOfFunction,
	}, nil
}

// parserLine is how package parse begins its errors. Nothing else of them is read: they quote the template, and no value is
// known yet.
var parserLine = regexp.MustCompile(`^template: :(\d+): (?:template: )?`)

// parseFailure returns an error of package parse as a line of bounded length.
func parseFailure(err error) error {
	text := err.Error()
	if match := parserLine.FindStringSubmatch(text); match != nil {
		text = strings.ReplaceAll(text[len(match[0]):], " started at :", " started at line ")
		return fmt.Errorf("template line %s: %s", match[1], shortened(text))
	}
	return fmt.Errorf("template: %s", shortened(text))
}

// mostQuoted is how many bytes of a template an error quotes in a row.
const mostQuoted = 160

// shortened returns a text as one line of bounded length.
func shortened(text string) string {
	tail := ""
	if len(text) > mostQuoted {
		text, tail = text[:mostQuoted], "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, strings.ToValidUTF8(text, "")) + tail
}
