package lease

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Key identifies a volume: the driver's calls carry no volume id.
type Key struct{ PodUID, Target string }

// Volume is one volume of one pod, in the hands of the Mount call that opened it.
type Volume struct {
	keeper *Keeper
	key    Key
	turn   chan struct{} // holds the turn while nobody has it; its owner is the one Mount at work
	gone   bool          // removed from the keeper; guarded by turn

	requests sync.WaitGroup // logins on their way

	mu      sync.Mutex // guards what follows; never held across a call to Vault
	shown   *Holding   // what the volume's files were made of; nil until the first Mount succeeds
	changed bool       // the keeper's loop has not been told yet of what is shown
	next    *Holding   // what Mounts have gained that have not succeeded yet; nil if nothing
	login   *login     // on its way; nil if none
	left    time.Time  // when the last Mount ended
}

// login is a login on its way, with what it logs in to.
type login struct {
	*flight[*Holding]
	vault spec.Vault
}

func newVolume(k *Keeper, key Key) *Volume {
	v := &Volume{keeper: k, key: key, turn: make(chan struct{}, 1)}
	v.turn <- struct{}{}
	return v
}

// VersionKey keys the versions of the volume's objects: it is the same as long as the provider runs, so that equal
// bytes have equal versions, and it is unlike any other volume's, so that versions say nothing of the bytes.
func (v *Volume) VersionKey() [32]byte {
	mac := hmac.New(sha256.New, v.keeper.versionSecret[:])
	mac.Write([]byte(v.key.PodUID + "\x00" + v.key.Target))
	return [32]byte(mac.Sum(nil))
}

// Close ends the Mount: the volume's next one may begin.
func (v *Volume) Close() {
	v.mu.Lock()
	v.left = time.Now()
	restless := v.changed || v.next != nil || v.shown == nil
	v.changed = false
	v.mu.Unlock()
	v.turn <- struct{}{}
	if restless { // a poll of a quiet volume is no news, and there are many
		v.keeper.nudge()
	}
}

// Holding returns the holding that answers for vault: the one that the volume shows, or one that an earlier Mount
// gained before it failed, or else a new one, by a login with the pod's token. Like a read, a login does not end with
// ctx, and the next Mount finds it.
func (v *Volume) Holding(ctx context.Context, vault spec.Vault, token redact.String) (*Holding, error) {
	now := time.Now()
	v.mu.Lock()
	if v.next.serves(vault, now) && !v.next.inDoubt() {
		defer v.mu.Unlock()
		return v.next, nil
	}
	shown := v.shown
	usable := shown.serves(vault, now)
	if usable && !shown.life.isDue(now) {
		v.mu.Unlock()
		return shown, nil
	}
	// What an earlier Mount gained is of no use any more: it is for another Vault, over, or may have lost a lease.
	useless := v.next
	v.next = nil
	if v.login == nil || v.login.vault != vault {
		v.login = v.depart(context.WithoutCancel(ctx), vault, token)
	}
	l := v.login
	v.mu.Unlock()
	v.keeper.discard(useless, 0)

	fresh, err := l.wait(ctx)
	if err != nil && usable && unanswered(err) && !shown.life.isOver(time.Now()) {
		v.keeper.config.Stale()
		return shown, nil
	}
	return fresh, err
}

// depart starts a login; v.mu is held.
func (v *Volume) depart(ctx context.Context, vault spec.Vault, token redact.String) *login {
	l := &login{vault: vault}
	name := fmt.Sprintf("login %q", "auth/"+vault.AuthPath+"/login")
	l.flight = depart(&v.requests, name, func() (fresh *Holding, err error) {
		defer func() { v.land(l, fresh) }()
		session, err := v.keeper.config.Pool.Login(ctx, vault, token)
		switch {
		case err == nil:
			v.keeper.greet(v.key, session)
			fresh = newHolding(session, v.keeper.config.Stale)
		case session != nil: // a token that was refused, and that Vault did not take back just now
			v.keeper.discard(newHolding(session, v.keeper.config.Stale), 0)
		}
		return fresh, err
	})
	return l
}

// land keeps what a login gained, nil if it failed.
func (v *Volume) land(l *login, fresh *Holding) {
	v.mu.Lock()
	wanted := v.login == l
	if wanted {
		v.login = nil
		v.next = fresh
	}
	v.mu.Unlock()
	if !wanted {
		v.keeper.discard(fresh, 0) // the class changed meanwhile, and a login of its own replaced this one
	}
	v.keeper.nudge()
}

// Show says that the volume's files are now made of h's grants of the sources. What they were made of before is given
// back after a grace, because a reader may still hold old bytes. It tells whether the volume showed nothing before.
func (v *Volume) Show(h *Holding, sources []spec.Source) (first bool) {
	h.retain(sources)
	v.mu.Lock()
	v.changed = v.changed || v.shown != h
	old := v.shown
	v.shown = h
	if v.next == h {
		v.next = nil
	}
	useless := v.next
	v.next = nil
	v.mu.Unlock()
	if old != h {
		v.keeper.discard(old, v.keeper.config.RevokeGrace)
	}
	v.keeper.discard(useless, 0)
	return old == nil
}

// sweep gives up what the volume does not need any more, and tells when it wants to be swept again (zero: not before
// something happens to it) and whether it is empty now. The caller has the turn.
func (v *Volume) sweep(now time.Time) (again time.Time, empty bool) {
	v.mu.Lock()
	var useless *Holding
	if v.next != nil && v.login == nil {
		if again = v.left.Add(v.keeper.config.AbandonAfter); !now.Before(again) {
			useless, v.next, again = v.next, nil, time.Time{}
		}
	}
	if v.shown != nil {
		if v.shown.life.isOver(now) {
			v.shown = nil // the token has ended by itself, and everything with it
		} else {
			again = sooner(again, v.shown.life.end)
		}
	}
	empty = v.shown == nil && v.next == nil && v.login == nil
	v.mu.Unlock()
	v.keeper.discard(useless, 0)
	return again, empty
}

// settle waits for the logins on their way and gives up what no Mount has shown. The keeper calls it when no Mount can
// come any more.
func (v *Volume) settle() {
	v.requests.Wait()
	v.mu.Lock()
	useless := v.next
	v.next = nil
	v.mu.Unlock()
	v.keeper.discard(useless, 0)
}
