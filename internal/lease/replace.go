package lease

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/observe"
	"leasehold/internal/spec"
)

// refilling is where the keeper stands with replacing what a volume shows.
type refilling struct {
	busy    bool
	tries   int       // how often in a row it failed
	after   time.Time // not before
	trouble trouble   // of the last try
	verify  time.Time // the files are to be looked at once more then; zero: never
	excuse  error     // why something old serves
	told    *Holding  // the pod's owner has been told that what it gave is going to end
}

const (
	// afterMount is how long after a Mount the keeper leaves the files alone: the driver compares them with the answer
	// first, and would write that over something newer.
	afterMount = time.Second

	// verifyAfter is when the keeper looks whether a driver that took longer did so all the same.
	verifyAfter = 5 * time.Second

	// refillTimeout is how long a replacement waits for Vault before it lets a Mount have the volume. Its requests go
	// on, and the next try finds their answers.
	refillTimeout = 10 * time.Second

	// longestLack is how long a volume whose credentials are over waits for the next try at most.
	longestLack = 15 * time.Second
)

// The reasons of Events on pods.
const (
	reasonCredentialsEnd    = "CredentialsEnd"
	reasonReplacementFailed = "ReplacementFailed"
	reasonCannotRevoke      = "CannotRevoke"
)

// replacement returns the errand of replacing what the volume shows, if that is due now, and when it is to be looked at
// again; zero for not before something happens. v.mu is held.
func (v *Volume) replacement(now time.Time) (e *errand, again time.Time) {
	r, life := &v.refilling, v.mount.Class.Lifecycle
	if v.shown == nil || v.ended || r.busy {
		return nil, time.Time{}
	}
	due := v.shown.dueAt(life, v.sources)
	if due.IsZero() && r.verify.IsZero() {
		return nil, time.Time{}
	}
	if v.inHand { // a Mount has it, and does the same
		v.changed = true
		return nil, time.Time{}
	}
	ours := v.keeper.config.Publishes && v.written && !life.Frozen
	if !ours {
		return nil, v.warn(now)
	}
	at := sooner(due, r.verify)
	for _, bound := range []time.Time{r.after, v.left.Add(afterMount)} {
		if bound.After(at) {
			at = bound
		}
	}
	if at.After(now) {
		return nil, at
	}
	return &errand{
		volume: v, vault: v.mount.Class.Vault.Address, end: v.shown.end(), failed: r.tries > 0,
		begin: v.departs(&r.busy),
		run:   v.replace,
	}, time.Time{}
}

// dueAt is when the first of what the files are made of is to be replaced; zero for never.
func (h *Holding) dueAt(life spec.Lifecycle, sources []spec.Source) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	due := func(t term) time.Time {
		action, at := t.next(life)
		switch action {
		case Replace:
			if life.Frozen && t.Kind == kindStatic { // nobody reads it again, and its owner is to know that before its end
				return t.Start.Add(time.Duration(float64(t.End.Sub(t.Start)) * life.RenewAt))
			}
			return at
		case Renew:
			return t.End // renewals may fail until then
		case Keep:
		}
		return time.Time{}
	}
	if h.dead {
		return h.token.Start
	}
	at := sooner(due(h.token), h.behind)
	for _, s := range sources {
		if g, found := h.grants[s]; found {
			at = sooner(at, due(g.term))
		}
	}
	return at
}

// replace fills the volume anew.
func (v *Volume) replace(ctx context.Context) (err error) {
	k := v.keeper
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.refilling.busy = false
	}()
	ctx, cancel := context.WithTimeout(ctx, refillTimeout)
	defer cancel()
	if !v.take(ctx) {
		return errNotAsked // a Mount has it, and does the same
	}
	defer func() {
		v.mu.Lock()
		v.inHand = false // before a Mount may say otherwise
		v.mu.Unlock()
		v.turn <- struct{}{}
	}()

	v.mu.Lock()
	if v.shown == nil || v.ended || v.left.Add(afterMount).After(time.Now()) { // a Mount had it meanwhile
		v.mu.Unlock()
		return errNotAsked
	}
	v.request, v.inHand = false, true
	before, life, sources := v.shown, v.mount.Class.Lifecycle, v.sources
	wasDue := before.isDue(life, sources, time.Now())
	v.refilling.excuse, v.refilling.verify = nil, time.Time{}
	verify := v.left.Add(verifyAfter)
	v.mu.Unlock()

	err = k.guardedRefill(ctx, v)

	now := time.Now()
	v.mu.Lock()
	v.tried = now
	if errors.Is(err, context.Canceled) { // the provider ends; the next one goes on
		v.mu.Unlock()
		return errNotAsked
	}
	shown, overtaken := v.shown, false
	if err == nil && shown.isDue(life, v.sources, now) {
		overtaken = shown.isBehind()
		if err = v.refilling.excuse; err == nil {
			err = errStillDue
		}
	}
	if err == nil && verify.After(now) {
		v.refilling.verify = verify
	}
	asked := v.request
	v.mu.Unlock()
	v.replaced(before, wasDue, err, now)
	if overtaken { // by what is there now
		v.arrived(shown)
	}
	if !asked {
		return errNotAsked
	}
	return err
}

// guardedRefill is refill, but a panic fails this volume alone: the provider has others to keep.
func (k *Keeper) guardedRefill(ctx context.Context, v *Volume) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			failure := &PanicError{Request: "fill the volume", Type: fmt.Sprintf("%T", cause), Stack: string(debug.Stack())}
			k.log(v).Error("filling a volume panicked", observe.KeyError, failure, "stack", failure.Stack)
			err = failure
		}
	}()
	return k.refill(ctx, v)
}

// errStillDue is what a replacement ends with that changed nothing, which Vault gave no reason for.
var errStillDue = errors.New("what Vault gave in its place is due as well")

// replaced notes what came of a replacement.
func (v *Volume) replaced(before *Holding, wasDue bool, err error, now time.Time) {
	k := v.keeper
	if err == nil {
		v.mu.Lock()
		v.refilling.tries, v.refilling.after, v.refilling.trouble, v.refilling.told = 0, time.Time{}, trouble{}, nil
		v.mu.Unlock()
		if wasDue {
			k.config.Replaced("ok")
			k.log(v).Debug("replaced", observe.KeyRole, before.session.Vault().Role)
		}
		return
	}
	v.mu.Lock()
	if v.shown != nil { // what it was before may be forgotten by now
		before = v.shown
	}
	end, _ := before.finalEnd(v.mount.Class.Lifecycle)
	r := &v.refilling
	r.tries++
	first := r.tries == 1
	wait := pause(sooner(end, now.Add(10*time.Minute)), now)
	if errors.Is(err, errStillDue) || !end.IsZero() && end.Before(now) { // it may be had soon, or no haste helps any more
		wait = backoff(r.tries, longestLack)
	}
	r.after = now.Add(max(wait, heeded(err, end, now)))
	if v.request && inTrouble(err) {
		r.after = now // it goes as soon as the Vault is back
	}
	if first && client.KindOf(err) == client.Expired {
		r.after = now // the token is known to be gone now: a login helps
	}
	r.trouble = trouble{err, now}
	v.mu.Unlock()
	k.config.Replaced(outcomeOf(err))
	if first {
		k.log(v).Warn("credentials could not be replaced yet", observe.KeyError, err)
	}
	v.tell(err, now)
}

// finalEnd is when the first of what the files are made of ends for good, if nothing takes its place. If nothing of it
// does, because Vault prolongs it, that is not final, and it is when the first of it ends if Vault does not; zero for
// never.
func (h *Holding) finalEnd(life spec.Lifecycle) (end time.Time, final bool) {
	h.mu.Lock()
	ends := func(t term) bool {
		action, _ := t.next(life)
		return action == Replace && !t.End.IsZero()
	}
	for _, shown := range h.overtaken {
		end = sooner(end, shown)
	}
	for _, g := range h.grants {
		if ends(g.term) {
			end = sooner(end, h.endOf(g.term))
		}
		if g.Kind == kindLease && ends(h.token) {
			end = sooner(end, h.token.End)
		}
	}
	h.mu.Unlock()
	if end.IsZero() {
		return h.end(), false
	}
	return end, true
}

// ending is when what the volume shows was due, and when it ends, as far as it ends: a secret without an end goes on, old as
// it may be. v.mu is held.
func (v *Volume) ending() (due, end time.Time, final bool) {
	life := v.mount.Class.Lifecycle
	life.Refresh = 0
	end, final = v.shown.finalEnd(life)
	return v.shown.dueAt(life, v.sources), end, final
}

// tell has the pod's owner know, once for each holding, that credentials end and are not going to be replaced by themselves,
// or have not been though half of the time for it is over.
func (v *Volume) tell(err error, now time.Time) {
	v.mu.Lock()
	h := v.shown
	if h == nil || v.refilling.told == h {
		v.mu.Unlock()
		return
	}
	due, end, final := v.ending()
	hopeless := final && !unanswered(err) && client.KindOf(err) != client.Expired && !errors.Is(err, errStillDue)
	late := !now.Before(due.Add(end.Sub(due) / 2))
	if end.IsZero() || !hopeless && !late {
		v.mu.Unlock()
		return
	}
	v.refilling.told = h
	pod := v.mount.Pod
	v.mu.Unlock()
	reason := reasonReplacementFailed
	if errors.Is(err, errNoLogin) || errors.Is(err, errNoPolls) || errors.Is(err, errFrozen) {
		reason = reasonCredentialsEnd
	}
	message := fmt.Sprintf("the credentials in volume %s end at %s: %v", spec.VolumeName(v.key.Target), end.UTC().Format(time.RFC3339), err)
	v.keeper.log(v).Warn("credentials end", "reason", reason, "end", end, observe.KeyError, err)
	v.keeper.event(pod, reason, message)
}

var (
	errFrozen  = errors.New("the class says rotation: off, so the files of a running pod are not replaced; restart the pod before then")
	errNoPolls = errors.New("the provider does not write into this volume, and the driver has not polled since they were due: turn on " +
		"the driver's rotation (enableSecretRotation) or the provider's publish")
)

// warn has the pod's owner know that what the volume shows is going to end because the keeper may not replace it. It
// returns when to look again. v.mu is held, and let go of meanwhile.
func (v *Volume) warn(now time.Time) (again time.Time) {
	h := v.shown
	due, end, _ := v.ending()
	if due.IsZero() || end.IsZero() || v.refilling.told == h {
		return time.Time{}
	}
	reason := errNoPolls
	if v.mount.Class.Lifecycle.Frozen {
		reason = errFrozen
	} else {
		due = due.Add(end.Sub(due) / 2) // polls come every 90 s at most, and may replace it yet
	}
	if due.After(now) {
		return due
	}
	v.mu.Unlock()
	v.tell(reason, now)
	v.mu.Lock()
	return time.Time{}
}
