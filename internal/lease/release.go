package lease

import (
	"context"
	"errors"
	"time"

	"leasehold/internal/observe"
)

// doom is when a holding is to be given back.
type doom struct {
	at      time.Time
	tries   int
	busy    bool    // on its way back
	trouble trouble // of the last try
}

// doom notes that a holding is to be given back; what was granted to it is nobody's any more, and forgotten. A nil holding is
// nothing to give back, and neither is a token that cannot be revoked. v.mu is held.
func (v *Volume) doom(h *Holding, at time.Time) {
	if h == nil {
		return
	}
	h.forget()
	if !h.session.Revocable() {
		return
	}
	if _, known := v.unwanted[h]; known {
		return
	}
	v.unwanted[h] = &doom{at: at}
}

// hasten has what a Vault did not take while it was in trouble tried again at once.
func (v *Volume) hasten(vault string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h, d := range v.unwanted {
		if d.tries > 0 && h.session.Vault().Address == vault {
			d.at = time.Time{}
		}
	}
}

// releases returns what is to be given back now, and when to look again; zero for not before something happens. v.mu is
// held.
func (v *Volume) releases(now time.Time) (errands []errand, again time.Time) {
	for h, d := range v.unwanted {
		switch {
		case d.busy:
		case d.at.After(now):
			again = sooner(again, d.at)
		default:
			errands = append(errands, errand{
				volume: v, vault: h.session.Vault().Address, end: h.tokenEnd(), failed: d.tries > 0,
				begin: v.departs(&d.busy),
				run:   func(ctx context.Context) error { return v.giveBack(ctx, h, d) },
			})
		}
	}
	return errands, again
}

// giveBack revokes a holding's token. What Vault does not take now is tried again later, until the token has ended by
// itself.
func (v *Volume) giveBack(ctx context.Context, h *Holding, d *doom) error {
	k := v.keeper
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	err := h.release(ctx)
	if errors.Is(err, context.Canceled) { // the provider ends; the next one gives it back
		return errNotAsked
	}
	now := time.Now()
	end := h.tokenEnd()
	over := !end.IsZero() && !now.Before(end)
	outcome := "revoked"
	switch {
	case err != nil && over:
		outcome = "ended"
	case err != nil:
		outcome = outcomeOf(err)
	}
	log := k.log(v).With(observe.KeyVault, h.session.Vault().Address, observe.KeyRole, h.session.Vault().Role,
		observe.KeyAccessor, h.session.Accessor())
	if err == nil || over {
		log.Debug("token given back", "outcome", outcome)
	} else {
		log.Warn("token could not be given back yet", observe.KeyError, err)
	}
	k.config.Released(outcome)

	v.mu.Lock()
	if err == nil || over {
		delete(v.unwanted, h)
	} else {
		d.busy = false
		d.tries++
		d.at = now
		if !inTrouble(err) { // or else it goes as soon as the Vault is back
			d.at = now.Add(max(backoff(d.tries, longestPause), heeded(err, end, now)))
		}
		d.trouble = trouble{err, now}
	}
	v.mu.Unlock()
	_ = v.update() // counted there; a token that is gone is found to be so when it is given back again
	return err
}

const (
	// releaseTimeout bounds one attempt to give a token back; the client bounds the request itself more tightly.
	releaseTimeout = 2 * time.Minute

	// longestPause is how long a token that Vault does not take waits for the next try at most, though it takes others.
	longestPause = time.Minute
)
