package render

import (
	"runtime"
	"sync/atomic"
)

// pool is what all executions of a Renderer share, so that together they are bounded.
type pool struct {
	slots    chan struct{} // one for each processor
	borrowed atomic.Int64  // bytes that executions have built beyond what is free to each of them
}

func newPool() *pool { return &pool{slots: make(chan struct{}, runtime.GOMAXPROCS(0))} }

// enter waits for a slot. Whoever computes has one: however many volumes are mounted at a time, and whatever their templates
// do, no more of them compute than there are processors. Who comes first is served first.
func (p *pool) enter() { p.slots <- struct{}{} }

func (p *pool) leave() { <-p.slots }

// borrow takes bytes from what may be built together. It is false when there are not so many left.
func (p *pool) borrow(bytes int) bool {
	if p.borrowed.Add(int64(bytes)) > mostTogether {
		p.giveBack(bytes)
		return false
	}
	return true
}

func (p *pool) giveBack(bytes int) { p.borrowed.Add(-int64(bytes)) }
