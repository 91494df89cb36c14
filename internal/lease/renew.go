package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// renewals returns what of the holding is to be renewed now, and when it is to be looked at again; zero for never.
func (h *Holding) renewals(life spec.Lifecycle, now time.Time) (errands []errand, again time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil, time.Time{}
	}
	consider := func(t term, r *renewal, do func(context.Context) error) {
		action, at := t.next(life)
		if action != Renew || r.busy || t.isOver(now) {
			return
		}
		if r.after.After(at) {
			at = r.after
		}
		if at.After(now) {
			again = sooner(again, at)
			return
		}
		errands = append(errands, errand{
			vault: h.session.Vault().Address, end: t.End, failed: r.trouble.err != nil, begin: func() { h.setBusy(r) },
			run: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeoutCause(ctx, max(t.End.Sub(now)/3, shortestRenewal), errSlowRenewal)
				defer cancel()
				return do(ctx)
			},
		})
	}
	consider(h.token, &h.renewal, h.renewToken)
	for source, g := range h.grants {
		if g.Kind == kindLease {
			consider(g.term, &g.renewal, func(ctx context.Context) error { return h.renewLease(ctx, source, g) })
		}
	}
	return errands, again
}

// shortestRenewal is how long a renewal may take at least. It may take a third of what is left, so that another one can be tried
// when the answer is lost, with its connection, say: a renewal may be repeated, for it gives nothing that could be lost.
const shortestRenewal = 5 * time.Second

var errSlowRenewal = fmt.Errorf("Vault has not answered a renewal in a third of the time that was left: %w", context.DeadlineExceeded)

// soon is err, or errSlowRenewal if that is why the request ended.
func soon(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSlowRenewal) {
		return errSlowRenewal
	}
	return err
}

// setBusy notes that a renewal is on its way.
func (h *Holding) setBusy(r *renewal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.busy = true
}

// renewToken asks Vault to prolong the token.
func (h *Holding) renewToken(ctx context.Context) error {
	answer, err := h.session.RenewSelf(ctx)
	return h.renewed("token", &h.token, &h.renewal, answer, soon(ctx, err))
}

// renewLease asks Vault to prolong a lease.
func (h *Holding) renewLease(ctx context.Context, source spec.Source, g *held) error {
	answer, err := h.session.Renew(ctx, g.LeaseID)
	err = soon(ctx, err)
	h.mu.Lock()
	current := h.grants[source] == g // or else it was replaced meanwhile, and this answer is no news of the new one
	h.mu.Unlock()
	if !current {
		return err
	}
	return h.renewed("lease", &g.term, &g.renewal, answer, err)
}

// renewed notes what came of a renewal.
func (h *Holding) renewed(what string, t *term, r *renewal, answer client.Renewal, err error) error {
	v := h.volume
	now := time.Now()
	h.mu.Lock()
	r.busy = false
	if errors.Is(err, context.Canceled) { // the provider ends; the next one renews
		h.mu.Unlock()
		return errNotAsked
	}
	r.trouble = trouble{err, now}
	failure, _ := asClient(err)
	switch {
	case err == nil:
		*t = t.renewed(answer, now)
		r.after = time.Time{}
	case inTrouble(err): // it goes as soon as the Vault is back
	case failure == nil || failure.Kind == client.Unavailable || failure.Status == 0:
		// A status of zero is no verdict of Vault's: a TLS file could not be read just then, say.
		r.after = now.Add(max(pause(t.End, now), heeded(err, t.End, now)))
	case failure.Kind == client.Expired && failure.Status == http.StatusForbidden: // it is the token that is gone
		h.dead = true
	default: // it is gone, or lives on for a moment and will not be prolonged: another one is needed
		t.Lost = true
	}
	h.mu.Unlock()
	v.keeper.config.Renewed(what, outcomeOf(err))
	_ = v.update() // counted there; what is not written down is renewed again after a restart, which harms nobody
	return err
}

// outcomeOf is an error as a metric label.
func outcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	if kind := client.KindOf(err); kind != 0 {
		return kind.String()
	}
	return "failed"
}
