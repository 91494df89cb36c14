package facts

import (
	"strings"
	"testing"
)

// A demo that tells the same whatever happened is none: every fact can fail it.
func TestFactsCanFail(t *testing.T) {
	a, b := Login{"v-a", "1"}, Login{"v-b", "2"}
	for name, row := range map[string]struct {
		err  error
		says string // "": it is as it should be
	}{
		"two logins":    {Distinct([]Login{a, b}), ""},
		"same user":     {Distinct([]Login{a, {"v-a", "2"}}), "same user"},
		"same password": {Distinct([]Login{a, {"v-b", "1"}}), "same password"},
		"no password":   {Distinct([]Login{a, {"v-b", ""}}), "no password"},
		"no user":       {Distinct([]Login{{"", "1"}, b}), "no user"},
		"the users":     {Exactly("users", []string{"y", "x"}, []string{"x", "y"}), ""},
		"one more":      {Exactly("users", []string{"x", "y", "z"}, []string{"x", "y"}), "there are 3"},
		"another":       {Exactly("users", []string{"x", "z"}, []string{"x", "y"}), "z"},
		"the cure":      {Mentions("did you mean x?", "x"), ""},
		"no cure":       {Mentions("no", "x"), `does not say "x"`},
	} {
		switch {
		case row.says == "" && row.err != nil:
			t.Errorf("%s: got error %v, want none", name, row.err)
		case row.says != "" && (row.err == nil || !strings.Contains(row.err.Error(), row.says)):
			t.Errorf("%s: got error %v, want one with %q", name, row.err, row.says)
		}
	}
}

func TestFigure(t *testing.T) {
	const metrics = "# TYPE a histogram\n" + `a_count{x="1"} 3` + "\n" + `a_count{x="1 2"} 4` + "\nab_count 9\na_count_x 9\nb 0.5\n"
	for name, want := range map[string]float64{"a_count": 7, "b": 0.5} {
		if got, err := Figure(metrics, name); err != nil || got != want {
			t.Errorf("%s: got %g, %v, want %g", name, got, err, want)
		}
	}
	if got, err := Figure(metrics, "c"); err == nil {
		t.Errorf("a metric that is not there: got %g, want an error", got)
	}
}
