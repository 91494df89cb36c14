package lease

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"leasehold/internal/client"
)

// errand is something that the keeper has to do by itself, with one Vault or with the API server.
type errand struct {
	volume *Volume
	vault  string    // address; "" for the API server
	end    time.Time // what it is about ends then: the soonest goes first; zero last
	failed bool      // the last try did: those that have not failed go before it
	begin  func()    // notes that it is on its way; called before it departs
	run    func(ctx context.Context) error
}

// departs returns what notes, in a field that v.mu guards, that an errand is on its way.
func (v *Volume) departs(busy *bool) (begin func()) {
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		*busy = true
	}
}

const (
	// mostFlying is how many errands to one Vault are on their way at most: when a Vault comes back, every node has many.
	mostFlying = 8

	// longestCalm is how long a Vault in trouble is left alone at most, but for its own Retry-After. New leases may have
	// to be had as soon as it is back.
	longestCalm = 5 * time.Second

	// longestHeed is how long a Vault is left alone at most because it asked for that: leases end meanwhile.
	longestHeed = 30 * time.Second

	// longestSlot is how long an errand keeps others waiting. One database that does not answer is no reason to let the
	// leases of others end.
	longestSlot = 10 * time.Second
)

// traffic is what the keeper has on its way to one Vault. While that is in trouble, one errand at a time finds out
// whether it is back: the others would only drown it.
type traffic struct {
	flying  int
	tries   int       // how often in a row it was found in trouble
	calm    time.Time // nothing before
	waiting map[*Volume]struct{}
}

// admit tells whether one more errand may go now. If not, the volume is looked at again when that has changed.
func (t *traffic) admit(v *Volume, now time.Time) bool {
	most := mostFlying
	if t.tries > 0 {
		most = 1
	}
	if t.flying >= most || now.Before(t.calm) {
		t.waiting[v] = struct{}{}
		return false
	}
	t.flying++
	return true
}

// landed notes what an errand found, and tells whether the Vault is back from its trouble.
func (t *traffic) landed(err error, now time.Time) (back bool) {
	_, answered := asClient(err)
	if errors.Is(err, errNotAsked) || !answered && errors.Is(err, context.DeadlineExceeded) {
		return false // nothing was learned: we have not waited for an answer as long as Vault may take
	}
	if !inTrouble(err) {
		back = t.tries > 0
		t.tries, t.calm = 0, time.Time{}
		return back
	}
	if now.Before(t.calm) { // others that were on their way found the same
		return false
	}
	t.tries++
	t.calm = now.Add(max(backoff(t.tries, longestCalm), min(retryAfter(err), longestHeed)))
	return false
}

// errNotAsked is the outcome of an errand that had nothing to ask in the end, and learned nothing.
var errNotAsked = errors.New("nothing was asked")

// inTrouble tells whether it is the Vault that has no answer to give, to anybody, rather than to this question: a 500 is
// what one of its databases makes of it when that is away, and a 429 is a quota of a path or a role. It may look so where
// a proxy gives up on one question; therefore those that have not failed yet are asked first.
func inTrouble(err error) bool {
	failure, ok := asClient(err)
	if !ok || failure.Kind != client.Unavailable {
		return false
	}
	switch failure.Status {
	case 0, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// dispatch starts what may go now: what has failed after what has not, and then soonest end first.
func (k *Keeper) dispatch(ctx context.Context, errands []errand, now time.Time) {
	slices.SortStableFunc(errands, func(a, b errand) int {
		switch {
		case a.failed != b.failed && a.failed:
			return 1
		case a.failed != b.failed:
			return -1
		case a.end.IsZero() && b.end.IsZero():
			return 0
		case a.end.IsZero():
			return 1
		case b.end.IsZero():
			return -1
		}
		return a.end.Compare(b.end)
	})
	for _, e := range errands {
		k.mu.Lock()
		t := k.traffic[e.vault]
		if t == nil {
			t = &traffic{waiting: make(map[*Volume]struct{})}
			k.traffic[e.vault] = t
		}
		ok := t.admit(e.volume, now)
		if !ok && t.calm.After(now) {
			k.plan(e.volume, t.calm)
		}
		k.mu.Unlock()
		if !ok {
			continue
		}
		e.begin()
		k.errands.Go(func() { k.fly(ctx, e, t) })
	}
}

// fly runs one errand. Its requests end with ctx, but for those that give something, which are not to be lost.
func (k *Keeper) fly(ctx context.Context, e errand, t *traffic) {
	leave := sync.OnceFunc(func() { // k.mu is held
		t.flying--
		for v := range t.waiting {
			k.plan(v, time.Time{})
		}
		clear(t.waiting)
	})
	slow := time.AfterFunc(longestSlot, func() {
		k.mu.Lock()
		leave()
		k.mu.Unlock()
		k.nudge()
	})
	err := e.run(ctx)
	slow.Stop()
	now := time.Now()
	k.mu.Lock()
	back := t.landed(err, now)
	leave()
	k.plan(e.volume, time.Time{})
	if t.flying == 0 && t.tries == 0 && k.traffic[e.vault] == t {
		delete(k.traffic, e.vault) // addresses come from tenants: nothing of them stays
	}
	k.mu.Unlock()
	if back {
		k.hasten(e.vault)
	}
	k.nudge()
}

// hasten has what a Vault did not take while it was in trouble tried again at once.
func (k *Keeper) hasten(vault string) {
	for _, v := range k.snapshot() {
		v.hasten(vault)
	}
	k.touchAll()
}
