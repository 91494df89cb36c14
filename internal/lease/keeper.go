// Package lease owns what volumes hold in Vault.
//
// A [Volume] is known by its pod's UID and its target path, because the driver tells a provider no more. What it holds
// is a [Holding]: one Vault token with the grants that were read under it. The [Keeper] has all volumes. Its one loop
// renews what Vault will prolong, has the volume filled anew when it will not, gives back what pods that have ended had,
// and tries again until Vault has heard. All that is held is written down in a journal, which the next provider on the
// node resumes from.
//
// Locks are taken in this order: a volume's turn, Keeper.writing, Volume.writing, Keeper.mu, Volume.mu, Holding.mu. Only
// the first three are ever held across a call to Vault, Kubernetes or the file system.
package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/observe"
	"leasehold/internal/spec"
)

// Config is what a Keeper is made of.
type Config struct {
	Pool          *client.Pool
	Pods          Pods          // nil: nobody says which pods live, and what volumes hold is renewed as long as Vault lets it
	AbandonAfter  time.Duration // a volume that never mounted is given up this long after its last Mount
	SettleTimeout time.Duration // how long Run waits at its end for requests on their way
	Publishes     bool          // the provider writes into volumes by itself; else only the driver does, when it polls
	RequestTokens bool          // the API server may be asked for service account tokens
	Log           *slog.Logger

	Stale         func()                     // called for each answer from something old, because Vault was unavailable
	FromMemory    func()                     // called for each poll that was answered without asking Vault
	Unrevocable   func()                     // called for each login that gave a batch token
	JournalFailed func()                     // called for each record that could not be written, read or removed
	Released      func(outcome string)       // called for each attempt to give a token back
	Renewed       func(what, outcome string) // called for each attempt to renew a "token" or a "lease"
	Replaced      func(outcome string)       // called for each attempt to replace what a volume shows
}

// Keeper has the volumes of a node.
type Keeper struct {
	config  Config
	journal *journal      // nil: nothing is written down
	wake    chan struct{} // capacity 1: something changed that the loop should look at
	refill  func(context.Context, *Volume) error

	errands sync.WaitGroup // on their way

	growing sync.Mutex // one answer after another is kept; see admit

	writing sync.RWMutex // held for reading while a record is written, so that the end can wait for that
	over    bool         // another instance may have the journal now; guarded by writing

	mu      sync.Mutex // guards what follows; never held across a call to Vault, Kubernetes or the file system, nor a wait for a turn
	volumes map[Key]*Volume
	agenda  map[*Volume]time.Time // when a volume is to be looked at; none: not before something happens to it
	traffic map[string]*traffic   // by Vault address; "" is the API server
}

// NewKeeper returns a keeper without volumes. Its Run must be running for it to do anything by itself.
func NewKeeper(c Config) *Keeper {
	return &Keeper{
		config:  c,
		wake:    make(chan struct{}, 1),
		volumes: make(map[Key]*Volume),
		agenda:  make(map[*Volume]time.Time),
		traffic: make(map[string]*traffic),
	}
}

// Open gives the volume into the hands of one Mount, waiting for whoever has it to let it go. It fails only when ctx
// ends.
func (k *Keeper) Open(ctx context.Context, m spec.Mount) (*Volume, error) {
	for {
		k.mu.Lock()
		v, found := k.volumes[keyOf(m)]
		if !found {
			v = newVolume(k, m)
			k.volumes[v.key] = v
		}
		k.mu.Unlock()
		select {
		case <-v.turn:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !v.gone {
			v.opened(m)
			return v, nil
		}
		v.turn <- struct{}{} // it was swept away while we waited: the next one is a fresh one
	}
}

// take waits for the volume's turn, and tells whether it has come before ctx ended.
func (v *Volume) take(ctx context.Context) bool {
	select {
	case <-v.turn:
	case <-ctx.Done():
		return false
	}
	if v.gone {
		v.turn <- struct{}{}
		return false
	}
	return true
}

// Held returns the number of volumes that hold something, or are about to. What is only waiting to be given back does not
// count.
func (k *Keeper) Held() int {
	held := 0
	for _, v := range k.snapshot() {
		v.mu.Lock()
		if v.shown != nil || v.next != nil || v.login != nil {
			held++
		}
		v.mu.Unlock()
	}
	return held
}

// Wake has the keeper look at all pods: some have changed.
func (k *Keeper) Wake() {
	k.touchAll()
	k.nudge()
}

// Run keeps what the volumes hold until ctx ends; call it once. It fills volumes anew by refill, which does for a volume
// what a Mount would do. At its end no Mount may be at work. It revokes nothing then, since pods outlive their provider:
// it waits for the requests on their way, within SettleTimeout, so that the journal has all that was gained.
func (k *Keeper) Run(ctx context.Context, refill func(context.Context, *Volume) error) {
	k.refill = refill
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			k.settle()
			return
		case <-k.wake:
		case <-timer.C:
		}
		if next := k.pass(ctx, time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// pass looks at every volume whose time has come, starts what is due, and returns when the next one's time is; zero if
// none is waiting.
func (k *Keeper) pass(ctx context.Context, now time.Time) (next time.Time) {
	k.mu.Lock()
	var due []*Volume
	for v, at := range k.agenda {
		if !at.After(now) {
			due = append(due, v)
			delete(k.agenda, v)
		}
	}
	k.mu.Unlock()

	var errands []errand
	for _, v := range due {
		more, again := v.consider(now)
		errands = append(errands, more...)
		if again.IsZero() {
			continue
		}
		k.mu.Lock()
		k.plan(v, again)
		k.mu.Unlock()
	}
	k.dispatch(ctx, errands, now)

	k.mu.Lock()
	defer k.mu.Unlock()
	for _, at := range k.agenda {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if !next.IsZero() && next.Before(now) {
		next = now
	}
	return next
}

// consider returns what there is to do for a volume now, and when to look at it again; zero for not before something
// happens.
func (v *Volume) consider(now time.Time) (errands []errand, again time.Time) {
	v.mu.Lock()
	ended, confirm, later := v.attend(now)
	if ended {
		v.mu.Unlock()
		again = v.finish(now)
		v.mu.Lock()
	}
	if confirm != nil {
		errands = append(errands, *confirm)
	}
	again = sooner(again, later)
	again = sooner(again, v.abandon(now))

	back, later := v.releases(now)
	errands = append(errands, back...)
	again = sooner(again, later)

	life := v.mount.Class.Lifecycle
	for _, h := range []*Holding{v.shown, v.next} {
		if h == nil {
			continue
		}
		renewals, later := h.renewals(life, now)
		for _, e := range renewals {
			e.volume = v
			errands = append(errands, e)
		}
		again = sooner(again, later)
	}
	replacement, later := v.replacement(now)
	if replacement != nil {
		errands = append(errands, *replacement)
	}
	again = sooner(again, later)
	rewrite, later := v.rewrites(now)
	if rewrite != nil {
		errands = append(errands, *rewrite)
	}
	again = sooner(again, later)
	empty := v.isEmpty()
	v.mu.Unlock()
	if empty {
		return nil, v.forget(now)
	}
	return errands, again
}

// abandon gives up what a Mount has gained that was never tried again, and what has ended by itself while nobody says
// which pods live. It returns when to look again. v.mu is held.
func (v *Volume) abandon(now time.Time) (again time.Time) {
	if v.next != nil && v.login == nil && !v.inHand {
		if again = v.tried.Add(v.keeper.config.AbandonAfter); !now.Before(again) {
			v.discard(now)
			again = time.Time{}
		}
	}
	if v.shown != nil && v.keeper.config.Pods == nil && !v.mount.Class.Lifecycle.Frozen {
		end := v.shown.tokenEnd()
		switch {
		case end.IsZero():
		case now.Before(end):
			again = sooner(again, end)
		default:
			v.shown, v.sources = nil, nil
		}
	}
	return again
}

// forget removes a volume that holds nothing. If somebody has it in his hands, it is looked at when he closes it.
func (v *Volume) forget(now time.Time) (again time.Time) {
	select {
	case <-v.turn:
	default:
		return now.Add(time.Second)
	}
	defer func() { v.turn <- struct{}{} }()
	k := v.keeper
	v.mu.Lock()
	empty := v.isEmpty()
	v.mu.Unlock()
	if !empty {
		return now
	}
	v.gone = true
	k.erase(v) // first, for the next volume of this key writes a record of the same name
	k.mu.Lock()
	delete(k.volumes, v.key)
	delete(k.agenda, v)
	k.mu.Unlock()
	return time.Time{}
}

// settle waits for the requests on their way and ends the writing of records: another instance may read them now.
func (k *Keeper) settle() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, v := range k.snapshot() { // before Vault keeps us waiting: the next instance knows nothing of what is not written down
			_ = v.rewrite() // counted there
		}
		k.errands.Wait()
		for _, v := range k.snapshot() {
			v.requests.Wait()
			v.mu.Lock()
			holdings := []*Holding{v.shown, v.next}
			v.mu.Unlock()
			for _, h := range holdings {
				if h != nil {
					h.requests.Wait()
				}
			}
		}
	}()
	timeout := time.NewTimer(k.config.SettleTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		k.config.Log.Warn("ending though Vault has not answered everything yet; what it gives from now on ends "+
			"with its token, or with a login's TTL", "waited", k.config.SettleTimeout)
	}
	k.writing.Lock()
	k.over = true
	k.writing.Unlock()
}

// snapshot returns the volumes of this moment.
func (k *Keeper) snapshot() []*Volume {
	k.mu.Lock()
	defer k.mu.Unlock()
	volumes := make([]*Volume, 0, len(k.volumes))
	for _, v := range k.volumes {
		volumes = append(volumes, v)
	}
	return volumes
}

// touch has the loop look at a volume.
func (k *Keeper) touch(v *Volume) {
	k.mu.Lock()
	k.plan(v, time.Time{})
	k.mu.Unlock()
	k.nudge()
}

// plan has the loop look at a volume at a time, if not before; the zero time is at once. k.mu is held.
func (k *Keeper) plan(v *Volume, at time.Time) {
	if k.volumes[v.key] != v {
		return // forgotten meanwhile
	}
	if planned, found := k.agenda[v]; !found || at.Before(planned) {
		k.agenda[v] = at
	}
}

// touchAll has the loop look at all volumes.
func (k *Keeper) touchAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.volumes {
		k.agenda[v] = time.Time{}
	}
}

// nudge wakes the loop.
func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// greet notes a new login.
func (k *Keeper) greet(v *Volume, s *client.Session) {
	log := k.log(v).With(observe.KeyVault, s.Vault().Address, observe.KeyRole, s.Vault().Role, observe.KeyAccessor, s.Accessor())
	log.Debug("logged in")
	if s.Revocable() {
		return
	}
	const reason = "the login gave a batch token, which cannot be revoked: credentials outlive the pod until the token's TTL ends; " +
		"set token_type=service on the Vault role"
	log.Warn(reason)
	k.config.Unrevocable()
	k.event(v.Mount().Pod, reasonCannotRevoke, "Vault role "+s.Vault().Role+": "+reason)
}

// log is the logger for what concerns a volume.
func (k *Keeper) log(v *Volume) *slog.Logger {
	pod := v.Mount().Pod
	return k.config.Log.With(observe.KeyPod, pod.Namespace+"/"+pod.Name, observe.KeyPodUID, v.key.PodUID, observe.KeyVolume, v.key.Target)
}
