package render

import (
	"maps"
	"slices"
	"strings"
)

// closest returns the name of a function that was probably meant by an unknown one, or "" if there is none: a name that
// differs in a single letter too many, too few or wrong, in two that are swapped, or in case.
func closest(word string) string {
	names := slices.Concat(slices.Collect(maps.Keys(bindable())), slices.Collect(maps.Keys(builtins)))
	slices.Sort(names)
	for _, name := range names {
		if isClose(strings.ToLower(word), strings.ToLower(name)) {
			return name
		}
	}
	return ""
}

// isClose tells whether at most one typing error is between two words. It looks at what is left of them without their common
// beginning and end.
func isClose(a, b string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	isSwapped := len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
	return isSwapped || len(a) <= 1 && len(b) <= 1
}
