package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for _, row := range []struct {
		target target
		value  float64
		want   string
	}{
		{target{"a_ratio", "x", atMost, 1.10}, 1.1, "bench a_ratio 1.100 x target <=1.1 ok"},
		{target{"a_ratio", "x", atMost, 1.10}, 1.101, "bench a_ratio 1.101 x target <=1.1 short"},
		{target{"a_rate", "1/s", atLeast, 500}, 500, "bench a_rate 500 1/s target >=500 ok"},
		{target{"a_rate", "1/s", atLeast, 500}, 499.4, "bench a_rate 499 1/s target >=500 short"},
		{target{"a_size", "MiB", atMost, 48}, 47.26, "bench a_size 47.3 MiB target <=48 ok"},
		{target{"a_time", "s/min", atMost, 0.5}, 0.01234, "bench a_time 0.012 s/min target <=0.5 ok"},
	} {
		if got := row.target.report(reading{value: row.value}); got != row.want+"\n" {
			t.Errorf("%v: got %q, want %q", row.value, got, row.want)
		}
	}
	got := target{"a", "x", atMost, 1}.report(reading{1, []string{"one", "two"}})
	if want := "bench a 1.000 x target <=1 ok\n#     one\n#     two\n"; got != want {
		t.Errorf("with notes: got %q, want %q", got, want)
	}
}

func TestMedianAndPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for _, row := range []struct {
		what      string
		got, want float64
	}{
		{"median of five", median(values), 3},
		{"median of four", median(values[:4]), 3},
		{"p50 of five", percentile(values, 0.5), 3},
		{"p99 of five", percentile(values, 0.99), 5},
		{"p20 of five", percentile(values, 0.2), 1},
		{"p21 of five", percentile(values, 0.21), 2},
		{"p99 of one", percentile(values[:1], 0.99), 5},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %v, want %v", row.what, row.got, row.want)
		}
	}
	if values[0] != 5 {
		t.Error("the values were put in another order")
	}
}

func TestRatio(t *testing.T) {
	got, each := rounds{ours: []float64{2, 3, 40}, theirs: []float64{1, 2, 10}}.ratio()
	if got != 2 || len(each) != 3 {
		t.Errorf("got %v of %v, want the median of the rounds, 2", got, each)
	}
}

func TestChoose(t *testing.T) {
	for names, want := range map[string]int{
		"":                                   len(measurements),
		"rss_250_mib":                        1,
		"anon_250_mib,rss_250_mib":           1, // the two are one measurement
		" mount_again_* ":                    3,
		"render_template_us,mount_storm_*":   2,
		"mount_first_ratio,nothing_of_that":  -1,
		"mount_first_ratio,,mount_storm_rat": -1,
	} {
		got, err := choose(measurements, names)
		if want < 0 {
			if err == nil || !strings.Contains(err.Error(), "no figure is named") {
				t.Errorf("%q: got error %v, want one that says which name there is not", names, err)
			}
			continue
		}
		if err != nil || len(got) != want {
			t.Errorf("%q: got %d measurements, %v; want %d", names, len(got), err, want)
		}
	}
}

// Names are what "make bench NAME=" takes, and what docs/performance.md lists.
func TestNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range measurements {
		for _, target := range m.targets {
			if seen[target.name] {
				t.Errorf("two figures are named %q", target.name)
			}
			seen[target.name] = true
		}
	}
}
