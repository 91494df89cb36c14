package render

import (
	"maps"
	"slices"
)

// Functions returns the names of all functions that templates may call beside those of text/template itself, sorted.
func Functions() []string {
	m := &machine{}
	names := slices.Collect(maps.Keys(m.functions()))
	names = slices.AppendSeq(names, maps.Keys(m.sprigFunctions()))
	slices.Sort(names)
	return names
}
