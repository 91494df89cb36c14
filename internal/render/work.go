package render

import (
	"errors"
	"fmt"
	"time"

	"leasehold/internal/spec"
)

// work is the making of one volume's files. Whoever may write a class may name a thousand objects in it, so a volume as a
// whole has bounds, too: it has one of its files made at a time, and others wait for a slot no longer than their turn is.
type work struct {
	*Renderer
	Volume
	book  *book
	begun chan struct{} // one for each template that is being executed, or waits for Vault meanwhile

	turn  chan struct{} // has one: the object whose file is made. It guards what follows
	made  int           // bytes of the files that are made
	spent time.Duration // what templates have computed
}

func (r *Renderer) newWork(v Volume) *work {
	return &work{Renderer: r, Volume: v, book: newBook(r.pool, v.Read), begun: make(chan struct{}, mostBegun), turn: make(chan struct{}, 1)}
}

// errLeftOut is why a file is not made: the others are too many bytes already.
var errLeftOut = errors.New("the volume has too many bytes without it")

const faultSpent = fault("the templates of the volume compute for more than 20 seconds together: make them simpler")

// file returns the bytes of an object's file. An [*unreadError] can be found in its error if a source gave nothing.
func (w *work) file(o spec.Object) ([]byte, error) {
	var dot *answer
	if o.Source != (spec.Source{}) {
		a, err := w.book.ask(o.Source)
		if err != nil {
			return nil, err
		}
		dot = &a
	}
	if o.Template.Text != "" {
		w.begun <- struct{}{}
		defer func() { <-w.begun }()
	}
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	if w.made > maxTotal {
		return nil, errLeftOut
	}
	contents, err := w.contents(o, dot)
	w.made += len(contents)
	return contents, err
}

// contents makes a file in the object's turn.
func (w *work) contents(o spec.Object, dot *answer) ([]byte, error) {
	if o.Template.Text == "" {
		w.pool.enter()
		defer w.pool.leave()
		return dot.render(o)
	}
	if w.spent > mostSpent {
		return nil, fmt.Errorf("template: %w", faultSpent)
	}
	e := execution{pod: w.Pod, dot: dot, at: w.Since, ask: w.ask, spent: &w.spent}
	if dot != nil {
		e.at = later(e.at, dot.grant.Obtained)
	}
	return w.execute(o.Template, e)
}

// ask asks for a template, whose turn is over for as long as it waits.
func (w *work) ask(source spec.Source) (answer, error) {
	<-w.turn
	defer func() { w.turn <- struct{}{} }()
	return w.book.ask(source)
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
