package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is what a figure is called, and what it has to be.
type target struct {
	name, unit string
	op         operator
	value      float64
}

// operator is how a figure is held against its target.
type operator int

const (
	atMost operator = iota + 1
	atLeast
)

// reading is one figure as it was measured, with what there is to know about it.
type reading struct {
	value float64
	notes []string // how much was measured, and the absolute times behind a ratio
}

// holds tells whether a value reaches the target.
func (t target) holds(value float64) bool {
	switch t.op {
	case atMost:
		return value <= t.value
	case atLeast:
		return value >= t.value
	}
	return false
}

// bound is the target as the line has it: <=1.5, say.
func (t target) bound() string {
	sign := "<="
	if t.op == atLeast {
		sign = ">="
	}
	return sign + strconv.FormatFloat(t.value, 'f', -1, 64)
}

// report is the line of a figure, and below it its notes.
func (t target) report(r reading) string {
	verdict := "short"
	if t.holds(r.value) {
		verdict = "ok"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "bench %s %s %s target %s %s\n", t.name, number(r.value), t.unit, t.bound(), verdict)
	for _, note := range r.notes {
		fmt.Fprintf(&b, "#     %s\n", note)
	}
	return b.String()
}

// number writes a value with as many digits as mean something.
func number(value float64) string {
	switch size := math.Abs(value); {
	case size >= 100:
		return strconv.FormatFloat(value, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return strconv.FormatFloat(value, 'f', 3, 64)
}

// note is one line about a figure.
func note(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// median returns the middle of the values, or the mean of the two in the middle. There must be one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// percentile returns the smallest value that at least a part p of the values do not exceed. There must be one.
func percentile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(p*float64(len(sorted))))-1, 0)]
}

// timed returns how long a piece of work took, in seconds.
func timed(work func() error) (seconds float64, err error) {
	began := time.Now()
	err = work()
	return time.Since(began).Seconds(), err
}

// span is the least and the most of the values, for a note.
func span(values []float64) string {
	return number(slices.Min(values)) + " to " + number(slices.Max(values))
}

// rounds are what was measured of two things in turns.
type rounds struct{ ours, theirs []float64 } // a figure of each for each round, in seconds

// ratio is the median over the rounds of how the two compare.
func (r rounds) ratio() (ratio float64, each []float64) {
	for i := range r.ours {
		each = append(each, r.ours[i]/r.theirs[i])
	}
	return median(each), each
}
