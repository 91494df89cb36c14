package webhook

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWarningsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 300)
	many := func(n int, text string) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%03d %s", i, text))
		}
		return all
	}
	for name, row := range map[string]struct {
		warnings []string
		want     int
		last     string
		longest  int
	}{
		"none":                   {nil, 0, "", 0},
		"one":                    {[]string{"a"}, 1, "a", 1},
		"twice the same":         {[]string{"a", "a"}, 1, "a", 1},
		"empty":                  {[]string{" ", ""}, 0, "", 0},
		"several lines":          {[]string{"a\nb\tc\x00\n"}, 1, "a b c", 5},
		"a long one":             {[]string{long}, 1, long, 300},
		"long ones with room":    {many(13, long), 13, "012 " + long, 304},
		"long ones without room": {many(15, long), 15, "014 " + long[:2*(maxWarning-7)] + "...", maxWarning},
		"too many":               {many(1000, "short"), 449, "552 more warnings are not shown: mend these first", 49},
	} {
		t.Run(name, func(t *testing.T) {
			got := boundWarnings(row.warnings)
			if len(got) != row.want {
				t.Fatalf("got %d warnings, want %d", len(got), row.want)
			}
			total := 0
			for _, w := range got {
				n := utf8.RuneCountInString(w)
				if total += n; n > row.longest {
					t.Errorf("got one of %d characters, want %d at most", n, row.longest)
				}
			}
			if total > maxWarnings {
				t.Errorf("got %d characters, want %d at most", total, maxWarnings)
			}
			if len(got) > 0 && got[len(got)-1] != row.last {
				t.Errorf("got %q at the end, want %q", got[len(got)-1], row.last)
			}
		})
	}
}

func FuzzWarningsAreBounded(f *testing.F) {
	f.Add("a\nb", 3)
	f.Add(strings.Repeat("x", 300), 20)
	f.Add("\xff\u0085", 1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		got := boundWarnings(slices.Repeat([]string{text, text + "."}, min(max(n, 0), 100)))
		total := 0
		for _, w := range got {
			total += utf8.RuneCountInString(w)
			if w == "" || !utf8.ValidString(w) || oneLine(w) != w {
				t.Errorf("got %q, which no header may hold", w)
			}
		}
		if total > maxWarnings {
			t.Errorf("got %d characters in %d warnings", total, len(got))
		}
	})
}
