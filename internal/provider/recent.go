package provider

import (
	"sync"
	"time"
)

// recent remembers what has been of use lately. Nobody tells a provider that a volume is gone, so what nobody has asked for
// in a whole turn is forgotten.
type recent[K comparable, V any] struct {
	mu     sync.Mutex // guards what follows
	turned time.Time  // when the last turn began
	now    map[K]V
	before map[K]V // what was asked for in the turn before
}

const (
	// turn is longer than any pause between two polls of a volume.
	turn = 5 * time.Minute

	// mostRecent ends a turn early: a node has some hundred volumes, and memory is not to grow with whatever else calls.
	mostRecent = 4096
)

// find returns what was put, if it is remembered.
func (r *recent[K, V]) find(key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick()
	value, found := r.now[key]
	if found {
		return value, true
	}
	if value, found = r.before[key]; found {
		r.now[key] = value
		delete(r.before, key)
	}
	return value, found
}

// put remembers a value, in the place of what there was.
func (r *recent[K, V]) put(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick()
	r.now[key] = value
	delete(r.before, key)
}

// tick begins a new turn when it is time; r.mu is held.
func (r *recent[K, V]) tick() {
	if now := time.Now(); r.now == nil || now.Sub(r.turned) > turn || len(r.now) >= mostRecent {
		r.before, r.now, r.turned = r.now, make(map[K]V), now
	}
}
