package spec

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Faults are all the faults of a request, so that its author mends them in one go. Each is one sentence that says what
// is wrong, where, and how to mend it. Their order is stable: equal requests have equal Faults. Tenants' words in them
// are quoted and shortened; no token, key or argument is ever in them.
type Faults []string

// Error lists the faults in one line, numbered when there are several.
func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults: ", len(f))
	for i, fault := range f {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "(%d) %s", i+1, fault)
	}
	return b.String()
}

// maxFaults bounds an answer that a tenant can make long, and which ends in logs and events.
const maxFaults = 100

// findings gathers faults while a request is read.
type findings struct {
	faults Faults // up to maxFaults of them
}

func (f *findings) add(format string, args ...any) {
	if f.full() {
		return
	}
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

// count tells how many faults are kept so far, so that a reader of one part knows whether that part added any.
func (f *findings) count() int { return len(f.faults) }

// full tells that no more faults are kept. Who reads what a tenant can make long stops then: a fault costs more than the
// few bytes that make it.
func (f *findings) full() bool { return len(f.faults) == maxFaults }

// err returns the faults, or nil when there are none.
func (f *findings) err() error {
	if f.count() == 0 {
		return nil
	}
	if f.full() {
		return append(f.faults, "there may be more faults: mend these first")
	}
	return f.faults
}

const maxQuoted = 80

// quote makes a tenant's text fit for a fault: one line, no control characters, bounded in length.
func quote(text string) string {
	if len(text) <= maxQuoted {
		return strconv.Quote(text)
	}
	end := maxQuoted
	for end > maxQuoted-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return strconv.Quote(text[:end]) + "..."
}

// Nearest returns the candidate that was probably meant by word, or "" when none is close: at most two typing errors
// (a letter too many, too few, wrong, or swapped with its neighbour), one in short words. Case does not count.
func Nearest(word string, candidates []string) string {
	limit := 2
	if len(word) < 6 {
		limit = 1
	}
	best := ""
	for _, candidate := range candidates {
		if len(candidate) > len(word)+limit || len(word) > len(candidate)+limit {
			continue // each letter more is an error: no need to compare, and a tenant's word may be long
		}
		if d := Distance(strings.ToLower(word), strings.ToLower(candidate)); d <= limit {
			best, limit = candidate, d-1
		}
	}
	return best
}

// Distance counts the typing errors between two words (optimal string alignment): letters too many, too few or wrong, or
// swapped with their neighbour. It takes time and memory by the product of their lengths.
func Distance(a, b string) int {
	before, last, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			substitution := last[j-1]
			if a[i-1] != b[j-1] {
				substitution++
			}
			current[j] = min(last[j]+1, current[j-1]+1, substitution)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, last, current = last, current, before
	}
	return last[len(b)]
}

// hasControl tells whether a text holds a control character. None belongs into a name, a path or a header.
func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) })
}
