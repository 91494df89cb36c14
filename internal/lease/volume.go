package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Key identifies a volume: the driver's calls carry no volume id.
type Key struct{ PodUID, Target string }

func keyOf(m spec.Mount) Key { return Key{PodUID: m.Pod.UID, Target: m.Volume} }

// Volume is one volume of one pod, in the hands of the Mount call that opened it, or of the keeper.
type Volume struct {
	keeper     *Keeper
	key        Key
	versionKey [32]byte
	turn       chan struct{} // holds the turn while nobody has it; its owner is the one who fills the volume
	gone       bool          // removed from the keeper; guarded by turn

	requests sync.WaitGroup // logins on their way
	writing  sync.Mutex     // one record after another; see update
	erased   bool           // the record is gone for good; guarded by writing

	mu        sync.Mutex // guards what follows; never held across a call to Vault
	mount     spec.Mount // what it is to show, with the newest service account token
	shown     *Holding   // what the volume's files were made of; nil until the first Mount succeeds
	sources   []spec.Source
	next      *Holding // what Mounts have gained that have not succeeded yet; nil if nothing
	login     *login   // on its way; nil if none
	logins    int      // on their way, with those that nobody wants any more
	unwanted  map[*Holding]*doom
	refused   redact.String // the driver's service account token that Vault would not have; see serviceAccountToken
	requested redact.String // the one that the API server made last
	ended     bool          // the pod has ended
	dirty     bool          // the journal does not have what the last Mount brought
	unwritten bool          // the journal could not be written
	written   bool          // the provider itself writes the files
	changed   bool          // the keeper's loop is to look at it when it is closed
	request   bool          // Vault was asked since the volume was opened
	inHand    bool          // a Mount or the keeper fills it
	left      time.Time     // when the last Mount ended
	tried     time.Time     // when the last Mount or replacement ended
	attended  attendance
	refilling refilling
	rewriting rewriting
}

// login is a login on its way, with what it logs in to.
type login struct {
	*flight[*Holding]
	vault spec.Vault
}

// isFor tells whether it is on its way to vault; a nil login is not.
func (l *login) isFor(vault spec.Vault) bool { return l != nil && l.vault == vault }

func newVolume(k *Keeper, m spec.Mount) *Volume {
	v := &Volume{
		keeper: k, key: keyOf(m), mount: m, turn: make(chan struct{}, 1),
		unwanted: make(map[*Holding]*doom),
	}
	_, _ = rand.Read(v.versionKey[:]) // never fails: it ends the program rather than return weak bytes
	v.turn <- struct{}{}
	return v
}

// VersionKey keys the versions of the volume's objects: it is the same as long as the volume lives, so that equal bytes
// have equal versions, and it is unlike any other volume's, so that versions say nothing of the bytes.
func (v *Volume) VersionKey() [32]byte { return v.versionKey }

// Mount is what the volume is to show, as its last Mount asked for it.
func (v *Volume) Mount() spec.Mount {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mount
}

func (v *Volume) lifecycle() spec.Lifecycle {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mount.Class.Lifecycle
}

// opened notes what a Mount asks for. The caller has the turn.
func (v *Volume) opened(m spec.Mount) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// Two tokens of one audience: the newer one wins, whoever brought it. One whose end nobody knows has just come.
	if old := v.mount; old.Class.Vault.Audience == m.Class.Vault.Audience && !m.Pod.TokenExpires.IsZero() &&
		old.Pod.TokenExpires.After(m.Pod.TokenExpires) {
		m.Pod.Token, m.Pod.TokenExpires = old.Pod.Token, old.Pod.TokenExpires
	}
	v.dirty = v.dirty || !reflect.DeepEqual(v.mount, m)
	v.mount = m
	v.request, v.inHand = false, true
	v.ended, v.attended.gone = false, false // whoever says that it has ended says so again
}

// Close ends the Mount: the volume's next one may begin.
func (v *Volume) Close() {
	v.mu.Lock()
	v.left, v.tried, v.inHand = time.Now(), time.Now(), false
	// A poll of a quiet volume is no news, and there are many.
	restless := v.changed || v.next != nil || v.shown == nil || len(v.unwanted) > 0 || v.attended.awaited
	v.changed, v.attended.awaited = false, false
	if v.shown != nil && !v.request {
		v.keeper.config.FromMemory()
	}
	v.mu.Unlock()
	v.turn <- struct{}{}
	if restless {
		v.keeper.touch(v)
	}
}

// asked notes that Vault was asked for something.
func (v *Volume) asked() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.request = true
}

// arrived notes that Vault has granted something to the holding. If nobody waits for it any more, the files are made of it
// without delay: nobody renews what they were made of.
func (v *Volume) arrived(h *Holding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shown == h {
		v.refilling.after = time.Time{}
	}
}

// excuse notes why something old serves.
func (v *Volume) excuse(err error) {
	v.mu.Lock()
	v.refilling.excuse = err
	v.mu.Unlock()
	v.keeper.config.Stale()
}

// Frozen returns what the volume shows if that is never to change: the class says that a running pod's files stay as
// they are.
func (v *Volume) Frozen() (h *Holding, frozen bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shown == nil || !v.mount.Class.Lifecycle.Frozen {
		return nil, false
	}
	return v.shown, true
}

// Holding returns the holding that answers for the volume's class: the one that the volume shows, or one that an earlier
// Mount gained before it failed, or else a new one, by a login with the pod's token. Like a read, a login does not end
// with ctx, and the next Mount finds it.
func (v *Volume) Holding(ctx context.Context) (*Holding, error) {
	if err := v.rewrite(); err != nil {
		return nil, err
	}
	now := time.Now()
	v.mu.Lock()
	vault, life := v.mount.Class.Vault, v.mount.Class.Lifecycle
	if v.hasGained(vault, now) {
		defer v.mu.Unlock()
		return v.next, nil
	}
	shown := v.shown
	usable := shown.serves(vault, now)
	if usable && !shown.wantsSuccessor(life, now) {
		v.mu.Unlock()
		return shown, nil
	}
	joined := v.login.isFor(vault)
	pod := v.mount.Pod
	v.mu.Unlock()

	var token redact.String
	if !joined {
		var err error
		if token, err = v.serviceAccountToken(ctx, pod, vault.Audience); err != nil {
			if usable {
				v.excuse(err)
				return shown, nil
			}
			return nil, err
		}
	}

	v.mu.Lock()
	if joined && !v.login.isFor(vault) || v.hasGained(vault, now) {
		v.mu.Unlock() // the login has landed meanwhile
		return v.Holding(ctx)
	}
	if !v.login.isFor(vault) {
		// What an earlier Mount gained is of no use any more: it is for another Vault, over, or may have lost a lease.
		v.discard(now)
		v.login = v.depart(context.WithoutCancel(ctx), vault, token)
	}
	v.request = true
	l := v.login
	v.mu.Unlock()

	fresh, err := l.wait(ctx)
	if err != nil && usable && unanswered(err) && shown.serves(vault, time.Now()) {
		v.excuse(err)
		return shown, nil
	}
	return fresh, err
}

// hasGained tells whether an earlier Mount has left what answers for vault, and the journal has it; v.mu is held.
func (v *Volume) hasGained(vault spec.Vault, now time.Time) bool {
	return !v.login.isFor(vault) && v.next.serves(vault, now) && !v.next.inDoubt()
}

// errNoLogin is why a volume cannot log in anew.
var errNoLogin = errors.New("the service account token that the driver gave has expired, and no newer one has come: a new login " +
	"needs the driver's rotation (enableSecretRotation, which brings one at each poll), the provider's token requests, or a periodic " +
	"Vault token (token_period in the role), which never needs one")

// serviceAccountToken returns a token to log in with: the newest that the driver brought, or one that the API server
// makes, if the operator lets it. It is asked for one also when Vault would not have the driver's, which may be over by
// Vault's clock though it is not by ours. It is not when Vault would not have that one either: the login is refused for
// another reason then.
func (v *Volume) serviceAccountToken(ctx context.Context, pod spec.Pod, audience string) (redact.String, error) {
	const margin = 5 * time.Second // it has to arrive, and clocks differ
	may := v.keeper.config.RequestTokens && v.keeper.config.Pods != nil
	v.mu.Lock()
	refused := !v.refused.IsZero() && v.refused == pod.Token
	v.mu.Unlock()
	if !pod.Token.IsZero() && (pod.TokenExpires.IsZero() || time.Now().Add(margin).Before(pod.TokenExpires)) && !(refused && may) {
		return pod.Token, nil
	}
	if !may {
		return redact.String{}, errNoLogin
	}
	token, expires, err := v.keeper.config.Pods.Token(ctx, pod, audience)
	if err != nil {
		return redact.String{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mount.Pod.Token, v.mount.Pod.TokenExpires = token, expires
	v.requested = token
	return token, nil
}

// refuse notes that Vault would not have a service account token, unless the API server made it for us.
func (v *Volume) refuse(token redact.String, err error) {
	if client.KindOf(err) != client.Denied {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if token != v.requested {
		v.refused = token
	}
}

// depart starts a login; v.mu is held.
func (v *Volume) depart(ctx context.Context, vault spec.Vault, token redact.String) *login {
	l := &login{vault: vault}
	v.logins++
	name := fmt.Sprintf("login %q", "auth/"+vault.AuthPath+"/login")
	l.flight = depart(&v.requests, name, func() (*Holding, error) {
		landed := false
		defer func() {
			if !landed { // it panicked
				_ = v.land(l, nil, nil)
			}
		}()
		session, err := v.keeper.config.Pool.Login(ctx, vault, token)
		landed = true
		if session == nil {
			v.refuse(token, err)
			_ = v.land(l, nil, nil)
			return nil, err
		}
		h := newHolding(v, session)
		if err != nil { // a token that was refused, and that Vault did not take back just now
			_ = v.land(l, nil, h) // counted there
			return nil, err
		}
		v.keeper.greet(v, session)
		if err := v.land(l, h, nil); err != nil {
			if errors.Is(err, errOver) {
				err = errors.Join(err, session.Revoke(ctx)) // nobody would do it later
			}
			return nil, err
		}
		return h, nil
	})
	return l
}

// land keeps what a login gained, and writes it down before anybody uses it: a crash at any later moment leaves nothing
// behind that nobody knows of. What cannot be written down is given back.
func (v *Volume) land(l *login, fresh, refused *Holding) error {
	now := time.Now()
	defer func() {
		v.mu.Lock()
		if v.login == l { // whoever wants what it has gained has waited for it until now
			v.login = nil
		}
		v.mu.Unlock()
		v.keeper.touch(v)
	}()
	v.mu.Lock()
	v.logins--
	switch {
	case fresh != nil && v.login == l && !v.ended:
		v.next = fresh
	case fresh != nil: // the class changed meanwhile, or the pod has ended
		v.doom(fresh, now)
	}
	v.doom(refused, now)
	v.mu.Unlock()
	if fresh == nil && refused == nil {
		return nil
	}
	err := v.update()
	if err != nil && fresh != nil {
		v.mu.Lock()
		if v.next == fresh {
			v.next = nil
		}
		v.doom(fresh, now)
		v.mu.Unlock()
	}
	return err
}

// discard gives up what Mounts have gained. If the login that gained it has not come to its end yet, nobody finds it any more
// either. v.mu is held.
func (v *Volume) discard(now time.Time) {
	if v.next != nil {
		v.doom(v.next, now)
		v.next, v.login = nil, nil
	}
}

// driverWrites is how long at least a replaced token lives on where the driver writes the files: it does that only when it has
// the answer, and may take its time.
const driverWrites = 30 * time.Second

// grace is how long a replaced token lives on; v.mu is held.
func (v *Volume) grace() time.Duration {
	grace := v.mount.Class.Lifecycle.RevokeGrace
	if v.written {
		return grace
	}
	return max(grace, driverWrites)
}

// Show says that the volume's files are now made of these grants of h; those of one source are side by side. What they were
// made of before is given back after a grace, because a reader may still hold old bytes. It tells whether the volume showed
// nothing before.
func (v *Volume) Show(h *Holding, grants []client.Grant) (first bool) {
	now := time.Now()
	sources := make([]spec.Source, len(grants))
	for i, g := range grants {
		sources[i] = g.Source
	}
	sources = slices.Compact(sources)
	v.mu.Lock()
	newer := h.retain(grants)
	dirty := v.dirty || v.unwritten || newer || v.shown != h || !slices.Equal(v.sources, sources)
	v.changed = v.changed || dirty
	old := v.shown
	v.shown, v.sources = h, sources
	if v.next == h {
		v.next = nil
	}
	v.discard(now)
	if old != h {
		v.doom(old, now.Add(v.grace()))
	}
	if !h.isDue(v.mount.Class.Lifecycle, sources, now) {
		v.refilling.tries, v.refilling.after, v.refilling.trouble = 0, time.Time{}, trouble{}
		if newer {
			v.refilling.told = nil // it was about what is replaced now
		}
	}
	first = old == nil
	v.mu.Unlock()
	if dirty { // a quiet poll writes nothing
		_ = v.update() // counted there; and tried again at the next Mount
	}
	return first
}

// Written says whether the provider itself has written the volume's files. If not, the driver does, when it polls.
func (v *Volume) Written(written bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = v.dirty || v.written != written
	v.written = written
}

// end gives everything back: the pod has ended. The caller has the turn.
func (v *Volume) end(now time.Time) {
	v.mu.Lock()
	v.ended, v.attended.awaited = true, false
	v.mount.Pod.Token = redact.String{}
	v.doom(v.shown, now)
	v.discard(now)
	for _, d := range v.unwanted {
		d.at = now
	}
	v.shown, v.sources = nil, nil
	v.mu.Unlock()
	_ = v.update()
}

// isEmpty tells whether nothing is held, nor on its way; v.mu is held.
func (v *Volume) isEmpty() bool {
	return v.shown == nil && v.next == nil && v.logins == 0 && len(v.unwanted) == 0
}

// asClient finds the client's error in err.
func asClient(err error) (*client.Error, bool) { return errors.AsType[*client.Error](err) }

// heeded is how long Vault asked us to wait with something that ends at a time, but no longer than half of what is left:
// a page that asks for an hour must not cost a lease. Zero if it did not ask.
func heeded(err error, end, now time.Time) time.Duration {
	wait := retryAfter(err)
	if left := end.Sub(now); !end.IsZero() && wait > left/2 {
		wait = max(left/2, 0)
	}
	return wait
}

// retryAfter is how long Vault asked us to wait, or 0.
func retryAfter(err error) time.Duration {
	if failure, ok := asClient(err); ok {
		return failure.RetryAfter
	}
	return 0
}
