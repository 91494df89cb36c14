package render

import (
	"time"

	"leasehold/internal/spec"
)

// execution is what one execution of a template has around it.
type execution struct {
	pod   spec.Pod
	dot   *answer   // the object's own source; nil without
	at    time.Time // what the function timestamp tells
	ask   func(spec.Source) (answer, error)
	spent *time.Duration // what it computes is added to this; nil: nobody counts it
}

// Check returns what is wrong with a template: all that can be known without executing it. Its error is one line; it
// quotes the template, shortened, and nothing else.
func (r *Renderer) Check(t spec.Template) error {
	_, err := r.templates.get(t)
	return err
}

// execute returns what a template makes. Its errors are one line, tell the place in the template, and never a value.
func (r *Renderer) execute(t spec.Template, e execution) ([]byte, error) {
	r.pool.enter()
	defer r.pool.leave()
	p, err := r.templates.get(t)
	if err != nil {
		return nil, err
	}
	m := r.templates.take(p)
	defer r.templates.give(p, m)

	deadline := time.Now().Add(mostTime)
	defer func() {
		if e.spent != nil {
			*e.spent += mostTime - time.Until(deadline)
		}
	}()
	for pass := 1; ; pass++ {
		state := &run{execution: e, budget: budget{pool: r.pool}, deadline: deadline, rest: time.Now().Add(mostTurn), latest: e.at}
		contents, err := m.once(state)
		deadline = state.deadline // it is later by what it waited
		if err != nil {
			return nil, err
		}
		// The time is that of the latest answer, which may have come after the template asked for the time. With the same
		// answers the next volume, or this one when it is looked at again, gets the same bytes.
		if !state.usedTime || !state.latest.After(e.at) || pass == mostPasses {
			return contents, nil
		}
		e.at = state.latest
	}
}
