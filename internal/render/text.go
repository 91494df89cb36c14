package render

import (
	"fmt"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// These functions have the text that they work on as their last argument, so that it may come through a pipe. They return
// errors, where they cannot fail, for the sake of one form.

func trim(cutset, text string) (string, error) {
	if len(cutset) > maxCutset {
		return "", fault(fmt.Sprintf("the set of characters has more than %d bytes", maxCutset))
	}
	return strings.Trim(text, cutset), nil
}

func trimPrefix(prefix, text string) (string, error) { return strings.TrimPrefix(text, prefix), nil }

func trimSuffix(suffix, text string) (string, error) { return strings.TrimSuffix(text, suffix), nil }

func trimSpace(text string) (string, error) { return strings.TrimSpace(text), nil }

func toLower(text string) (string, error) { return strings.ToLower(text), nil }

func toUpper(text string) (string, error) { return strings.ToUpper(text), nil }

// toTitle makes the first letter of each word an upper-case one and leaves the others alone.
func toTitle(text string) (string, error) {
	return cases.Title(language.Und, cases.NoLower).String(text), nil
}

// sizeOfText and sizeOfPair are what a text takes in a list and a pair of them in a map, beside their bytes.
const (
	sizeOfText = 16
	sizeOfPair = 48
)

// split cuts a text, without the space around it, at each separator. An empty text has no parts.
func (m *machine) split(separator, text string) ([]string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return []string{}, nil
	}
	if err := m.run.room(sizeOfText * (strings.Count(text, separator) + 1)); err != nil {
		return nil, err
	}
	return strings.Split(text, separator), nil
}

// splitToMap splits a text into pairs and each of them into a key and a value. What has no second separator is left out.
func (m *machine) splitToMap(separator, inner, text string) (map[string]string, error) {
	parts, err := m.split(separator, text)
	if err != nil {
		return nil, err
	}
	if err := m.run.room(sizeOfPair * len(parts)); err != nil {
		return nil, err
	}
	pairs := make(map[string]string, len(parts))
	for _, part := range parts {
		if key, value, found := strings.Cut(part, inner); found {
			pairs[key] = value
		}
	}
	return pairs, nil
}

func (m *machine) join(separator string, parts []string) (string, error) {
	size := len(separator) * max(0, len(parts)-1)
	for _, part := range parts {
		size += len(part)
	}
	if err := m.run.room(size); err != nil {
		return "", err
	}
	return strings.Join(parts, separator), nil
}

func (m *machine) replaceAll(from, to, text string) (string, error) {
	if growth := len(to) - len(from); growth > 0 {
		if err := m.run.room(len(text) + strings.Count(text, from)*growth); err != nil {
			return "", err
		}
	}
	return strings.ReplaceAll(text, from, to), nil
}

// indent puts spaces in front of each line that is not empty.
func (m *machine) indent(spaces int, text string) (string, error) {
	if spaces < 0 {
		return "", fault("indent: the number of spaces is negative")
	}
	lines := 0
	for line := range strings.Lines(text) {
		if line != "\n" {
			lines++
		}
	}
	if lines > 0 && spaces > maxBuilt/lines {
		return "", fault("indent: that many spaces cannot be meant")
	}
	if err := m.run.room(len(text) + lines*spaces); err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(len(text) + lines*spaces)
	prefix := strings.Repeat(" ", min(spaces, lines*spaces))
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(prefix)
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// maxBuilt is more than any text may have: it keeps the products of sizes from wrapping around.
const maxBuilt = 1 << 40
