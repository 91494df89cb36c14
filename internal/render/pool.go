package render

import (
	"runtime"
	"sync/atomic"
)

// pool is what all executions of a Renderer share, so that together they are bounded.
type pool struct {
	slots    chan struct{} // one for each processor
	borrowed atomic.Int64  // bytes that budgets have beyond what is free to each of them
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

// budget is what one execution may build, or one volume decode: little of it freely, the rest from what all of them share.
type budget struct {
	pool     *pool
	built    int // bytes of all values that were made
	borrowed int // bytes of them that are taken from the pool
}

// take takes bytes from the budget. There may be most in all; full is why there are no more.
func (b *budget) take(bytes, most int, full fault) error {
	if bytes < 0 || bytes > most-b.built {
		return full
	}
	b.built += bytes
	missing := b.built - freelyBuilt - b.borrowed
	if missing <= 0 {
		return nil
	}
	if !b.pool.borrow(missing) {
		return faultTogether
	}
	b.borrowed += missing
	return nil
}

// end gives back what was borrowed.
func (b *budget) end() { b.pool.giveBack(b.borrowed) }
