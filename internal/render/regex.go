package render

import (
	"errors"
	"io"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// Go's regular expressions take a time that grows with the product of text and pattern for one match, and for all of them
// with the square of the text. Nothing interrupts the package that looks for a match, but it can read the text rune by rune,
// and here there are only so many.
const (
	maxPattern     = 4096    // bytes
	maxPatternSize = 5000    // steps that a pattern can be at, once its repetitions are written out
	maxRegexWork   = 1 << 26 // steps and groups for each rune that is read: half a second or so
)

// search looks for a regular expression in one text, with bounds.
type search struct {
	tree  *syntax.Regexp // the pattern
	first *regexp.Regexp // finds a match from the beginning of the text on
	later *regexp.Regexp // finds one behind the first rune of what it reads, as its first group; nil before it is needed
	text  string
	at    int // where the rune to read next is
	left  int // how many runes may still be read; less than none when more were asked for
}

// newSearch reads a pattern, for the function that it names in its errors.
func newSearch(function, pattern, text string) (*search, error) {
	if len(pattern) > maxPattern {
		return nil, fault(function + ": the pattern is too long: shorten it")
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		cause := "it cannot be read"
		if e, ok := errors.AsType[*syntax.Error](err); ok {
			cause = e.Code.String() // a fixed phrase, without the place in the pattern
		}
		return nil, fault(function + ": the pattern is no regular expression of Go: " + cause)
	}
	size := patternSize(tree)
	if size > maxPatternSize {
		return nil, fault(function + ": the pattern is too large: use fewer or smaller repetitions")
	}
	first, err := regexp.Compile(pattern)
	if err != nil { // what was parsed can be compiled
		return nil, fault(function + ": the pattern cannot be compiled")
	}
	return &search{tree: tree, first: first, text: text, left: maxRegexWork / (size * (1 + tree.MaxCap()))}, nil
}

// patternSize is about how many steps of a program a pattern makes.
func patternSize(tree *syntax.Regexp) int {
	size := 1
	if tree.Op == syntax.OpLiteral {
		size += len(tree.Rune)
	}
	for _, inner := range tree.Sub {
		size += patternSize(inner)
	}
	if tree.Op == syntax.OpRepeat {
		size *= max(tree.Min, tree.Max, 1)
	}
	return min(size, maxPattern*maxPatternSize) // more of them cannot wrap around
}

// ReadRune makes the search what package regexp reads from.
func (s *search) ReadRune() (rune, int, error) {
	if s.at >= len(s.text) {
		return 0, 0, io.EOF
	}
	if s.left--; s.left < 0 {
		return 0, 0, io.EOF
	}
	r, width := utf8.DecodeRuneInString(s.text[s.at:])
	s.at += width
	return r, width, nil
}

const faultRegexWork fault = "the regular expression takes too long on that text: use a simpler one, or a shorter text"

// matches tells whether there is a match.
func (s *search) matches() (bool, error) {
	found := s.first.MatchReader(s)
	if s.left < 0 {
		return false, faultRegexWork
	}
	return found, nil
}

// find returns the first match that begins at a place in the text or behind it: pairs of offsets into the text, for the match
// and for each group; nil if there is none.
func (s *search) find(from int) ([]int, error) {
	base, skip, expression := 0, 0, s.first
	if from > 0 {
		// What is before a match decides whether ^ and \b are. So a search that goes on begins one rune earlier.
		if s.later == nil {
			later, err := regexp.Compile(`\A(?s:.)(?s:.*?)(` + s.tree.String() + `)`)
			if err != nil { // a part of a pattern can be a whole one
				return nil, fault("regexReplaceAll: the pattern cannot be compiled")
			}
			s.later = later
		}
		_, width := utf8.DecodeLastRuneInString(s.text[:from])
		base, skip, expression = from-width, 2, s.later
	}
	s.at = base
	match := expression.FindReaderSubmatchIndex(s)
	if s.left < 0 {
		return nil, faultRegexWork
	}
	if match == nil {
		return nil, nil
	}
	match = match[skip:]
	for i := range match {
		if match[i] >= 0 {
			match[i] += base
		}
	}
	return match, nil
}

func regexMatch(pattern, text string) (bool, error) {
	s, err := newSearch("regexMatch", pattern, text)
	if err != nil {
		return false, err
	}
	return s.matches()
}

// regexReplaceAll replaces each match, of those that do not overlap, by a text in which $1 or ${name} stands for a group. An
// empty match next to the one before it counts for nothing.
func (m *machine) regexReplaceAll(pattern, replacement, text string) (string, error) {
	s, err := newSearch("regexReplaceAll", pattern, text)
	if err != nil {
		return "", err
	}
	if err := m.run.room(len(text)); err != nil {
		return "", err
	}
	references := strings.Count(replacement, "$")
	var out []byte
	done := 0 // how much of the text is in out, or was replaced there
	for from := 0; from <= len(text); {
		match, err := s.find(from)
		if err != nil {
			return "", err
		}
		if match == nil {
			break
		}
		start, end := match[0], match[1]
		out = append(out, text[done:start]...)
		if end > done || start == 0 {
			// No group is longer than the match.
			if err := m.run.room(len(replacement) + references*(end-start)); err != nil {
				return "", err
			}
			out = s.first.ExpandString(out, replacement, text, match)
		}
		done = end
		_, width := utf8.DecodeRuneInString(text[from:])
		from = max(from+max(width, 1), end)
	}
	return string(append(out, text[done:]...)), nil
}
