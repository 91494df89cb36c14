package spec

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A tenant writes the parameter objects, and every Mount of the node reads such texts in one process. The longest of them
// must be read in a moment, with little memory.
func TestHostileObjects(t *testing.T) {
	fill := func(before, unit string) string {
		return before + strings.Repeat(unit, (maxObjectsText-len(before))/len(unit))
	}
	const (
		object     = "- objectName: a\n  secretPath: b\n  method: PUT\n  "
		noYAML     = "parameter objects is not valid YAML"
		expand     = "the aliases expand to too much"
		brackets   = "opening brackets, more than 2000"
		mayBeMore  = "there may be more faults: mend these first"
		noMapping  = "an object must have keys and values"
		tooDeep    = "exceeded max depth of 10000"
		tooManyOf  = "parameter objects lists "
		maxTime    = 2 * time.Second // a tenth of it on an idle machine, but with the race detector on a busy one
		maxMemory  = 32 << 20        // bytes allocated in all, most of them the YAML package's
		longestKey = maxObjectsText / 2
	)
	for name, row := range map[string]struct{ text, want string }{
		"unknown keys, by aliases": {
			"- &a {objectName: o, secretPath: p" + manyKeys(98) + "}\n" + strings.Repeat("- *a\n", 900), mayBeMore,
		},
		"unknown keys":            {fill("", "- {"+manyKeys(9)[2:]+"}\n"), mayBeMore},
		"a name, by aliases":      {"- {objectName: &n '" + strings.Repeat("a/", 2047) + "a', secretPath: p}\n" + strings.Repeat("- {objectName: *n, secretPath: p}\n", 999), expand},
		"a path, by aliases":      {"- {objectName: n, secretPath: &p '" + strings.Repeat("a/", 2047) + "a'}\n" + strings.Repeat("- {objectName: n, secretPath: *p}\n", 999), expand},
		"long names":              {longNames(), "needs a directory where objects[15]"},
		"keys, by merges":         {object + "secretArgs:\n    x: &x {" + strings.Repeat("k: v, ", 999) + "}\n    y: [" + strings.Repeat("{<<: *x}, ", 999) + "]\n", mayBeMore},
		"wrong merges":            {object + "secretArgs:\n    x: {<<: &x [" + strings.Repeat("1,", 9999) + "]}\n    y: [" + strings.Repeat("{<<: *x}, ", 999) + "]\n", mayBeMore},
		"tags, by aliases":        {object + "secretArgs:\n    x: &x [" + strings.Repeat("!x 1,", 99) + "]\n    y: [" + strings.Repeat("*x, ", 9999) + "]\n", mayBeMore},
		"aliases in aliases":      {object + explosion, expand},
		"an alias in itself":      {object + "secretArgs: {a: &a [*a, " + strings.Repeat("x, ", 20000) + "]}", "nested deeper than 64"},
		"a long key, by aliases":  {"- &a\n  ? " + strings.Repeat("k", longestKey) + "\n  : v\n" + strings.Repeat("- *a\n", 999), expand},
		"open maps":               {strings.Repeat("{", 5000), brackets},
		"maps with hidden ends":   {fill("- ", "{#}\n"), brackets},
		"maps with quoted ends":   {fill("- ", "{'}',"), brackets},
		"open lists, at the most": {fill(strings.Repeat("[", maxBrackets), "a,"), noYAML},
		"open maps, at the most":  {fill(strings.Repeat("{", maxBrackets), "a: b,"), noYAML},
		"maps as keys":            {fill(strings.Repeat("{? ", maxBrackets), "a,"), noYAML},
		"comments":                {fill("", "- a #\n#\n"), tooManyOf},
		"comments in a list":      {fill("- [", "a #\n,"), noYAML},
		"nested lists":            {fill("", "- "), tooDeep},
		"nested keys":             {fill("", "? "), tooDeep},
		"empty lines":             {fill("- a", "\n"), noMapping},
		"documents":               {fill("- a\n", "---\n"), "has more after its first YAML document"},
		"anchors":                 {fill("", "- &a a\n"), tooManyOf},
		"numbers, by aliases":     {object + "secretArgs:\n    x: &x " + strings.Repeat("9", maxNumber) + "\n    y: [" + strings.Repeat("*x, ", 9999) + "]\n", expand},
	} {
		t.Run(name, func(t *testing.T) {
			if len(row.text) > maxObjectsText {
				t.Fatalf("%d bytes are refused unread", len(row.text))
			}
			var f findings
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			parseObjects(row.text, 0o644, &f)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if memory := after.TotalAlloc - before.TotalAlloc; memory > maxMemory || took > maxTime {
				t.Errorf("took %v and %d MiB, want at most %v and %d", took, memory>>20, maxTime, maxMemory>>20)
			}
			if err := errorText(f.err()); !strings.Contains(err, row.want) {
				t.Errorf("got  %.400s\nwant %s", err, row.want)
			}
		})
	}
}

// longNames are objects with names of many parts, and one with the directory of another.
func longNames() string {
	var b strings.Builder
	for i := range 15 {
		b.WriteString("- {objectName: " + strconv.Itoa(i) + strings.Repeat("/a", 2040) + ", secretPath: p" + strconv.Itoa(i) + "}\n")
	}
	return b.String() + "- {objectName: 0/a, secretPath: p}\n"
}
