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
	// lines is fill, with no more lines than there may be.
	lines := func(before, unit string) string {
		n := min((maxObjectsText-len(before))/len(unit), (maxLines-countLines(before))/strings.Count(unit, "\n"))
		return before + strings.Repeat(unit, n)
	}
	const (
		object     = "- objectName: a\n  secretPath: b\n  method: PUT\n  "
		noYAML     = "parameter objects is not valid YAML"
		expand     = "the aliases expand to too much"
		brackets   = "opening brackets, more than 20000"
		manySigns  = "more than 16 of the signs"
		moreLines  = "lines, more than 10000"
		mayBeMore  = "there may be more faults: mend these first"
		noMapping  = "an object must have keys and values"
		tooDeep    = "exceeded max depth of 10000"
		tooManyOf  = "parameter objects lists "
		maxTime    = 4 * time.Second // a twentieth of it on an idle machine, but with the race detector on a busy one
		maxMemory  = 32 << 20        // bytes allocated in all, most of them the YAML package's
		longestKey = maxObjectsText / 2
		deepest    = 9990 // nearly what the YAML package's own bound is
	)
	for name, row := range map[string]struct{ text, want string }{
		"unknown keys, by aliases": {
			"- &a {objectName: o, secretPath: p" + manyKeys(98) + "}\n" + strings.Repeat("- *a\n", 900), mayBeMore,
		},
		"unknown keys":            {strings.Repeat("- {"+manyKeys(9)[2:]+"}\n", maxObjects), mayBeMore},
		"a name, by aliases":      {"- {objectName: &n '" + strings.Repeat("a/", 2047) + "a', secretPath: p}\n" + strings.Repeat("- {objectName: *n, secretPath: p}\n", 999), expand},
		"a path, by aliases":      {"- {objectName: n, secretPath: &p '" + strings.Repeat("a/", 2047) + "a'}\n" + strings.Repeat("- {objectName: n, secretPath: *p}\n", 999), expand},
		"long names":              {longNames(), "needs a directory where objects[15]"},
		"keys, by merges":         {object + "secretArgs:\n    x: &x {" + strings.Repeat("k: v, ", 999) + "}\n    y: [" + strings.Repeat("{<<: *x}, ", 999) + "]\n", mayBeMore},
		"wrong merges":            {object + "secretArgs:\n    x: {<<: &x [" + strings.Repeat("1,", 9999) + "]}\n    y: [" + strings.Repeat("{<<: *x}, ", 999) + "]\n", mayBeMore},
		"tags, by aliases":        {object + "secretArgs:\n    x: &x [" + strings.Repeat("!x 1,", 99) + "]\n    y: [" + strings.Repeat("*x, ", 9999) + "]\n", mayBeMore},
		"aliases in aliases":      {object + explosion, expand},
		"an alias in itself":      {object + "secretArgs: {a: &a [*a, " + strings.Repeat("x, ", 20000) + "]}", "nested deeper than 64"},
		"a long key, by aliases":  {"- &a\n  ? " + strings.Repeat("k", longestKey) + "\n  : v\n" + strings.Repeat("- *a\n", 999), expand},
		"open maps":               {fill("", "{"), brackets},
		"maps with hidden ends":   {lines("- ", "{#}\n"), noYAML},
		"maps with quoted ends":   {fill("- ", "{'}',      "), tooDeep},
		"open lists, at the most": {fill(strings.Repeat("[", deepest), "a,"), noYAML},
		"open maps, at the most":  {fill(strings.Repeat("{", deepest), "a: b,"), noYAML},
		"maps as keys":            {fill(strings.Repeat("{? ", deepest), "a,"), noYAML},
		"lists as keys":           {"- [" + strings.Repeat(strings.Repeat("[", 330)+strings.Repeat("]:", 330)+",", maxBrackets/330) + "]", noMapping},
		"comments":                {lines("", "- a #\n#\n"), tooManyOf},
		"comments in a list":      {lines("- [", "a #\n,"), noYAML},
		"comments, nested":        {lines(nested(), "#\n #\n"), noMapping},
		"lines of every kind":     {fill("- a", "#\u2028 #\u0085"), moreLines},
		"nested lists":            {fill("", "- "), manySigns},
		"nested keys":             {fill("#\u2028\t", "?\t: - "), manySigns},
		"empty lines":             {lines("- a", "\n"), noMapping},
		"documents":               {lines("- a\n", "---\n"), "has more after its first YAML document"},
		"anchors":                 {lines("", "- &a a\n"), tooManyOf},
		"templates, by aliases":   {"- {objectName: n, template: &t '" + strings.Repeat("{{ x }} ,", maxTemplate/9) + "'}\n" + strings.Repeat("- {objectName: n, template: *t}\n", 999), expand},
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
			parseObjects(row.text, 0o644, nil, &f)
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

// nested are lists in lists, as deep as half of the text can say.
func nested() string {
	const one = "- - - - - - - - - - - - - - - -"
	var b strings.Builder
	for i := 0; b.Len() < maxObjectsText/2; i++ {
		b.WriteString(strings.Repeat(" ", i*(len(one)+1)) + one + "\n")
	}
	return b.String()
}

// longNames are objects with names of many parts, and one with the directory of another.
func longNames() string {
	var b strings.Builder
	for i := range 15 {
		b.WriteString("- {objectName: " + strconv.Itoa(i) + strings.Repeat("/a", 2040) + ", secretPath: p" + strconv.Itoa(i) + "}\n")
	}
	return b.String() + "- {objectName: 0/a, secretPath: p}\n"
}
