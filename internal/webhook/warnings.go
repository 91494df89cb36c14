package webhook

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what the API server passes on to clients: from a total of 4096 characters on it cuts each warning to 256, and
// then drops what is too much, silently.
const (
	maxWarnings = 4096
	maxWarning  = 256
)

// boundWarnings makes warnings fit for the API server: each in one line, each once, and if it would drop some, cut so that
// all or most of them are read, and that it is told how many are not.
func boundWarnings(warnings []string) []string {
	var lines []string
	seen := make(map[string]bool)
	total := 0
	for _, w := range warnings {
		if w = oneLine(w); w != "" && !seen[w] {
			seen[w] = true
			lines = append(lines, w)
			total += utf8.RuneCountInString(w)
		}
	}
	if total <= maxWarnings {
		return lines
	}
	const rest = "%d more warnings are not shown: mend these first"
	room := maxWarnings - len(rest) - 10
	for i, line := range lines {
		lines[i] = cut(line, maxWarning)
		if room -= utf8.RuneCountInString(lines[i]); room < 0 {
			return append(lines[:i], fmt.Sprintf(rest, len(lines)-i))
		}
	}
	return lines
}

// oneLine replaces what no header may hold.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

// cut shortens a text to so many characters.
func cut(text string, most int) string {
	const mark = "..."
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-len(mark)]) + mark
}
