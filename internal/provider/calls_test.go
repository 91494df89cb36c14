package provider

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/spec"
)

// parser counts what is parsed.
type parser struct{ count int }

func (p *parser) parse(r spec.Request) (spec.Mount, error) {
	p.count++
	if r.Attributes == "bad" {
		return spec.Mount{}, errors.New("refused")
	}
	return spec.Mount{Volume: r.TargetPath, Ignored: []string{r.Attributes, r.Secrets, r.Permission}}, nil
}

// Calls that differ in anything are two, wherever one part ends and the next begins.
func TestCallsThatDiffer(t *testing.T) {
	var c calls
	p := &parser{}
	requests := []spec.Request{
		{},
		{Attributes: "a", Secrets: "s", Permission: "420", TargetPath: "/v"},
		{Attributes: "b", Secrets: "s", Permission: "420", TargetPath: "/v"},
		{Attributes: "a", Secrets: "t", Permission: "420", TargetPath: "/v"},
		{Attributes: "a", Secrets: "s", Permission: "384", TargetPath: "/v"},
		{Attributes: "a", Secrets: "s", Permission: "420", TargetPath: "/w"},
		{Attributes: "as", Permission: "420", TargetPath: "/v"},
		{Secrets: "as", Permission: "420", TargetPath: "/v"},
	}
	for round := range 3 {
		for _, r := range requests {
			m, err := c.parse(r, p.parse)
			want, _ := (&parser{}).parse(r)
			if err != nil || fmt.Sprint(m) != fmt.Sprint(want) {
				t.Errorf("round %d: %+v was parsed to %+v, %v; want %+v", round, r, m, err, want)
			}
		}
	}
	if p.count != len(requests) {
		t.Errorf("%d calls were parsed, want each of %d once", p.count, len(requests))
	}
}

func TestRefusedCallIsParsedAgain(t *testing.T) {
	var c calls
	p := &parser{}
	for range 3 {
		if _, err := c.parse(spec.Request{Attributes: "bad"}, p.parse); err == nil {
			t.Error("got no error")
		}
	}
	if p.count != 3 {
		t.Errorf("it was parsed %d times, want 3: what is wrong with it may be mended meanwhile", p.count)
	}
}

// What is polled stays; what is not asked for any more goes, and with it its tokens.
func TestCallsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		p := &parser{}
		ask := func(name string) { _, _ = c.parse(spec.Request{TargetPath: name}, p.parse) }
		ask("gone")
		for range 10 {
			time.Sleep(90 * time.Second)
			ask("polled")
		}
		if p.count != 2 {
			t.Errorf("%d calls were parsed, want 2", p.count)
		}
		if n := len(c.parsed.now) + len(c.parsed.before); n > 2 {
			t.Errorf("%d calls are remembered, want the polled one alone, in this turn and the last", n)
		}
		ask("gone")
		if p.count != 3 {
			t.Error("a call that nobody had asked for in a quarter of an hour was remembered")
		}
	})
}

func TestCallsAreBounded(t *testing.T) {
	var c calls
	p := &parser{}
	for i := range 3 * mostRecent {
		_, _ = c.parse(spec.Request{TargetPath: fmt.Sprint(i)}, p.parse)
	}
	if n := len(c.parsed.now) + len(c.parsed.before); n > 2*mostRecent {
		t.Errorf("%d calls are remembered, want %d at most", n, 2*mostRecent)
	}
}
