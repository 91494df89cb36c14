// Package lease owns what volumes hold in Vault.
//
// A [Volume] is known by its pod's UID and its target path, because the driver tells a provider no more. What it holds
// is a [Holding]: one Vault token with the grants that were read under it. The [Keeper] has all volumes; its one loop
// gives tokens back that nobody needs, and tries again until Vault has heard.
package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/observe"
)

// Config is what a Keeper is made of. All of it is required.
type Config struct {
	Pool         *client.Pool
	AbandonAfter time.Duration // a volume that never mounted is given up this long after its last Mount
	RevokeGrace  time.Duration // how long a replaced holding of a mounted volume is kept
	DrainTimeout time.Duration // how long Run takes at most to give back what is left when it ends
	Log          *slog.Logger

	Stale       func()               // called for each answer from an old grant, because Vault was unavailable
	Unrevocable func()               // called for each login that gave a batch token
	Released    func(outcome string) // called for each attempt to give a token back
}

// Keeper has the volumes of a node.
type Keeper struct {
	config        Config
	versionSecret [32]byte
	wake          chan struct{} // capacity 1: something changed that the loop should look at

	releases sync.WaitGroup // tokens on their way back

	mu      sync.Mutex // guards what follows; never held across a call to Vault, nor while waiting for a turn
	volumes map[Key]*Volume
	doomed  map[*Holding]*doom // holdings to give back
}

// doom is when a holding is to be given back.
type doom struct {
	at    time.Time
	tries int
	busy  bool // on its way back
}

// NewKeeper returns a keeper without volumes. Its Run must be running for it to give anything back.
func NewKeeper(c Config) *Keeper {
	k := &Keeper{
		config:  c,
		wake:    make(chan struct{}, 1),
		volumes: make(map[Key]*Volume),
		doomed:  make(map[*Holding]*doom),
	}
	_, _ = rand.Read(k.versionSecret[:]) // never fails: it ends the program rather than return weak bytes
	return k
}

// Open gives the volume into the hands of one Mount, waiting for the one before to Close it. It fails only when ctx
// ends.
func (k *Keeper) Open(ctx context.Context, key Key) (*Volume, error) {
	for {
		k.mu.Lock()
		v, found := k.volumes[key]
		if !found {
			v = newVolume(k, key)
			k.volumes[key] = v
		}
		k.mu.Unlock()
		select {
		case <-v.turn:
			if !v.gone {
				return v, nil
			}
			v.turn <- struct{}{} // it was swept away while we waited: the next one is a fresh one
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Held returns the number of volumes that hold something, or are about to.
func (k *Keeper) Held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.volumes)
}

// Run gives back what nobody needs until ctx ends; call it once. By then no Mount may be at work. What failed Mounts
// have gained is given back before Run returns, within DrainTimeout: nobody would know of it afterwards. What volumes
// show is left alone, since pods outlive their provider, and so is what they showed until a moment ago.
func (k *Keeper) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			k.drain(ctx)
			return
		case <-k.wake:
		case <-timer.C:
		}
		if next := k.pass(ctx, time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// pass does what is due and returns when the next thing is; zero if nothing is waiting.
func (k *Keeper) pass(ctx context.Context, now time.Time) time.Time {
	next := k.sweep(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	for h, d := range k.doomed {
		switch {
		case d.busy:
		case d.at.After(now):
			next = sooner(next, d.at)
		default:
			d.busy = true
			k.releases.Go(func() { k.giveBack(context.WithoutCancel(ctx), h) })
		}
	}
	return next
}

// sweep visits every volume that no Mount has in its hands.
func (k *Keeper) sweep(now time.Time) (next time.Time) {
	for _, v := range k.snapshot() {
		select {
		case <-v.turn:
		default:
			next = sooner(next, now.Add(time.Second)) // a Mount has it: look again
			continue
		}
		again, empty := v.sweep(now)
		if empty {
			v.gone = true
			k.mu.Lock()
			delete(k.volumes, v.key)
			k.mu.Unlock()
		}
		v.turn <- struct{}{}
		next = sooner(next, again)
	}
	return next
}

func (k *Keeper) snapshot() []*Volume {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.volumes))
}

// discard dooms a holding, to be given back after a grace. A nil holding is nothing to give back.
func (k *Keeper) discard(h *Holding, grace time.Duration) {
	if h == nil || !h.session.Revocable() {
		return
	}
	k.mu.Lock()
	k.doomed[h] = &doom{at: time.Now().Add(grace)}
	k.mu.Unlock()
	k.nudge()
}

// giveBack revokes a holding's token. What Vault does not take now is tried again later, until the token has ended by
// itself.
func (k *Keeper) giveBack(ctx context.Context, h *Holding) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	outcome := "revoked"
	err := h.release(ctx)
	if err != nil {
		outcome = client.KindOf(err).String()
	}
	if err != nil && h.life.isOver(time.Now()) {
		outcome, err = "ended", nil
	}
	log := k.config.Log.With(observe.KeyVault, h.session.Vault().Address, observe.KeyRole, h.session.Vault().Role,
		observe.KeyAccessor, h.session.Accessor())
	if err == nil {
		log.Debug("token given back", "outcome", outcome)
	} else {
		log.Warn("token could not be given back yet", observe.KeyError, err)
	}
	k.config.Released(outcome)

	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.nudge()
	if err == nil {
		delete(k.doomed, h)
		return
	}
	d := k.doomed[h]
	d.busy = false
	d.tries++
	d.at = time.Now().Add(max(backoff(d.tries), retryAfter(err)))
}

// drain gives back what no volume shows, as far as that works within DrainTimeout.
func (k *Keeper) drain(ctx context.Context) {
	deadline := time.NewTimer(k.config.DrainTimeout)
	defer deadline.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.retryAll()
		k.pass(ctx, time.Now())
		var volumes sync.WaitGroup
		for _, v := range k.snapshot() {
			volumes.Go(func() {
				v.settle()
				k.pass(ctx, time.Now())
			})
		}
		volumes.Wait()
		k.releases.Wait()
	}()
	select {
	case <-done:
	case <-deadline.C:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	left := 0
	for _, d := range k.doomed {
		if d.busy || d.tries > 0 { // the others wait for their grace: a reader may still need them
			left++
		}
	}
	if left > 0 {
		k.config.Log.Warn("ending with tokens that nobody needs any more; they live for the rest of their TTL", observe.KeyCount, left)
	}
}

// retryAll makes what Vault has not taken yet due now. What waits for its grace is left alone.
func (k *Keeper) retryAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.doomed {
		if d.tries > 0 {
			d.at = time.Time{}
		}
	}
}

// greet notes a new login.
func (k *Keeper) greet(key Key, s *client.Session) {
	log := k.config.Log.With(observe.KeyPodUID, key.PodUID, observe.KeyVolume, key.Target,
		observe.KeyVault, s.Vault().Address, observe.KeyRole, s.Vault().Role, observe.KeyAccessor, s.Accessor())
	log.Debug("logged in")
	if !s.Revocable() {
		log.Warn("the login gave a batch token, which cannot be revoked: credentials outlive the pod until the token's TTL ends; " +
			"set token_type=service on the Vault role")
		k.config.Unrevocable()
	}
}

// nudge wakes the loop.
func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// retryAfter is how long Vault asked us to wait, or 0.
func retryAfter(err error) time.Duration {
	if failure := (*client.Error)(nil); errors.As(err, &failure) {
		return failure.RetryAfter
	}
	return 0
}

// releaseTimeout bounds one attempt to give a token back; the client bounds the request itself more tightly.
const releaseTimeout = 2 * time.Minute

// backoff is how long to wait after so many failed tries: 1 s, 2 s, 4 s ... up to a minute, spread by a fifth either
// way so that the volumes of many nodes do not come back together.
func backoff(tries int) time.Duration {
	const most = time.Minute
	wait := most
	if tries < 7 {
		wait = min(time.Second<<(tries-1), most)
	}
	return wait*4/5 + mathrand.N(wait*2/5) //nolint:gosec // a spread is no secret
}

// sooner returns the earlier of two moments; zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
