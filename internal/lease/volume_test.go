package lease

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

func TestOpenWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, key := NewKeeper(Config{}), Key{"uid", "/target"}
		first, err := k.Open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := k.Open(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in another's turn: got error %v, want context.DeadlineExceeded", err)
		}
		if other, err := k.Open(t.Context(), Key{"uid", "/another"}); err != nil || other == first {
			t.Errorf("another volume: got %v, %v; want it at once", other, err)
		}

		var second *Volume
		go func() { second, _ = k.Open(t.Context(), key) }()
		synctest.Wait()
		if second != nil {
			t.Fatal("two Mounts have the volume at the same time")
		}
		first.Close()
		synctest.Wait()
		if second != first {
			t.Errorf("after Close: got volume %p, want the same as before, %p", second, first)
		}
	})
}

// Whoever waited for a volume that was swept away meanwhile would hold what nobody knows of.
func TestSweptVolumeIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, key := NewKeeper(Config{}), Key{"uid", "/target"}
		swept, err := k.Open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		const waiting = 3
		opened := make(chan *Volume, waiting)
		for range waiting {
			go func() {
				v, err := k.Open(t.Context(), key)
				if err != nil {
					t.Error(err)
					return
				}
				v.Close()
				opened <- v
			}()
		}
		synctest.Wait()
		// What sweep does, in the turn that this test has.
		swept.gone = true
		k.mu.Lock()
		delete(k.volumes, key)
		k.mu.Unlock()
		swept.Close()
		for range waiting {
			if v := <-opened; v == swept || v != k.volumes[key] {
				t.Errorf("got volume %p, want %p, the one that the keeper has now", v, k.volumes[key])
			}
		}
	})
}

func TestVersionKey(t *testing.T) {
	k := NewKeeper(Config{})
	seen := map[[32]byte]Key{}
	for _, key := range []Key{{"a", "bc"}, {"ab", "c"}, {"a", "bd"}, {"b", "bc"}, {"", "abc"}} {
		version := newVolume(k, key).VersionKey()
		if other, found := seen[version]; found {
			t.Errorf("%v has the version key of %v", key, other)
		}
		seen[version] = key
		if again := newVolume(k, key).VersionKey(); again != version {
			t.Errorf("%v: the version key changed", key)
		}
	}
	if newVolume(NewKeeper(Config{}), Key{"a", "bc"}).VersionKey() == newVolume(k, Key{"a", "bc"}).VersionKey() {
		t.Error("the version key can be told from outside, want a secret in it")
	}
}

func TestHoldingIsKeptFromMountToMount(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	first := w.holding(v, "app")
	v.Close() // this Mount fails

	v = w.open("a")
	if got := w.holding(v, "app"); got != first {
		t.Error("the second try has another holding")
	}
	if !v.Show(first, []spec.Source{userSource}) {
		t.Error("the first time shown was not told")
	}
	v.Close()

	v = w.open("a")
	if got := w.holding(v, "app"); got != first {
		t.Error("a poll has another holding")
	}
	if v.Show(first, []spec.Source{userSource}) {
		t.Error("a poll was told as the first time shown")
	}
	v.Close()
	w.wantCount("POST", loginPath, 1)
	w.pass(time.Now().Add(30 * time.Minute))
	w.wantNothingReleased()
}

// A login does not end with the Mount that wanted it either.
func TestLoginIsFoundByTheNextMount(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	release := w.leaveAtLogin(v)
	v.Close()
	w.pass(time.Now().Add(time.Hour)) // must not sweep a volume that is about to hold something

	v = w.open("a")
	defer v.Close()
	if _, err := v.Holding(ended(), w.vault.Vault("app"), w.jwt); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	release()
	w.holding(v, "app")
	v.requests.Wait()
	w.wantCount("POST", loginPath, 1)
	w.wantLeft(1, 1)
}

func TestConcurrentMountsShareALogin(t *testing.T) {
	w := newWorld(t)
	var mounts sync.WaitGroup
	for range 10 {
		mounts.Go(func() {
			if _, err := w.mount("a"); err != nil {
				t.Error(err)
			}
		})
	}
	mounts.Wait()
	w.wantCount("POST", loginPath, 1)
	w.wantCount("GET", userPath, 1)
	w.wantLeft(1, 1)
}

func TestFailedLoginIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	defer v.Close()
	w.vault.Seal(true)
	if _, err := v.Holding(t.Context(), w.vault.Vault("app"), w.jwt); client.KindOf(err) != client.Unavailable {
		t.Fatalf("got error %v, want an unavailable Vault", err)
	}
	w.vault.Seal(false)
	w.holding(v, "app")
}

// One slow login keeps neither other volumes nor the keeper's loop waiting.
func TestSlowLoginHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	arrived, release := w.hold("POST", loginPath)
	slow := w.open("slow")
	landed := make(chan error, 1)
	go func() {
		_, err := slow.Holding(t.Context(), w.vault.Vault("app"), w.jwt)
		landed <- err
	}()
	await(t, arrived, "the slow login")

	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := w.mount("quick"); err != nil {
			t.Error(err)
		}
		w.pass(time.Now())
		w.keeper.Held()
	}()
	select {
	case <-done:
	case <-time.After(patience / 4):
		t.Error("another volume waits for the slow login")
	}
	release()
	if err := <-landed; err != nil {
		t.Error(err)
	}
	slow.Close()
	<-done
	w.wantLeft(2, 2)
}

func TestReplacedHoldingIsGivenBackAfterAGrace(t *testing.T) {
	w := newWorld(t)
	old := w.mounted("a")
	v := w.open("a")
	fresh := w.holding(v, w.otherRole(nil))
	if fresh == old {
		t.Fatal("the holding of another role was used")
	}
	if v.Show(fresh, []spec.Source{userSource}) {
		t.Error("a later time shown was told as the first")
	}
	replaced := time.Now()
	v.Close()
	grace := w.keeper.config.RevokeGrace
	w.pass(replaced.Add(grace - time.Second)) // readers may still hold the old bytes
	w.wantNothingReleased()
	w.wantLeft(2, 1)
	w.pass(replaced.Add(grace + time.Second))
	w.wantReleased("revoked")
	w.wantLeft(1, 1)
	w.read(fresh)
}

// What was gained for one role is of no use when the class names another before the volume was ever mounted.
func TestHoldingOfAnotherRoleIsGivenBackAtOnce(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	w.read(w.holding(v, "app"))
	w.holding(v, w.otherRole(nil))
	w.pass(time.Now())
	w.wantReleased("revoked")
	w.wantLeft(1, 1)
	v.Close()
}

// Its login may still be on its way then.
func TestLoginThatNobodyWantsAnyMoreIsGivenBack(t *testing.T) {
	w := newWorld(t)
	other := w.otherRole(nil)
	v := w.open("a")
	release := w.leaveAtLogin(v)
	w.vault.Intercept(nil)
	wanted := w.holding(v, other)
	release()
	v.requests.Wait()
	if got := w.holding(v, other); got != wanted {
		t.Error("the late login took the place of the one that is wanted")
	}
	v.Close()
	w.pass(time.Now())
	w.wantReleased("revoked")
	w.wantLeft(1, 1)
}

func TestLostAnswerCostsTheToken(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	doubtful := w.holding(v, "app")
	w.vault.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(rw, `<html>`)
		return true
	})
	if _, err := doubtful.Read(t.Context(), userSource); err == nil {
		t.Fatal("got no error")
	}
	w.vault.Intercept(nil)
	if fresh := w.holding(v, "app"); fresh == doubtful {
		t.Error("the token is used again, though it may have a lease that nobody knows of")
	}
	w.pass(time.Now())
	w.wantReleased("revoked")
	w.wantLeft(1, 1)
	v.Close()
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	h := w.mounted("a")
	if err := h.session.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := w.open("a")
	defer v.Close()
	h.age(time.Second, time.Hour)
	if _, err := h.Read(t.Context(), userSource); client.KindOf(err) != client.Expired {
		t.Fatalf("got error %v, want Expired", err)
	}
	if fresh := w.holding(v, "app"); fresh == h {
		t.Error("a token that Vault does not know is used again")
	}
}

func TestDueToken(t *testing.T) {
	for name, row := range map[string]struct {
		sealed bool
		end    time.Duration
		serves bool // the old one
		kind   client.Kind
	}{
		"is replaced":                    {end: time.Hour},
		"serves while Vault is sealed":   {sealed: true, end: time.Hour, serves: true},
		"does not serve beyond its end":  {sealed: true, end: -1, kind: client.Unavailable},
		"is replaced after its end, too": {end: -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.mounted("a")
			v := w.open("a")
			defer v.Close()
			old.life = span{due: time.Now(), end: time.Now().Add(row.end)}
			w.vault.Seal(row.sealed)
			got, err := v.Holding(t.Context(), w.vault.Vault("app"), w.jwt)
			if kind := client.KindOf(err); kind != row.kind {
				t.Fatalf("got error %v, want kind %v", err, row.kind)
			}
			if row.kind == 0 && (got == old) != row.serves {
				t.Errorf("got the old holding: %v, want %v", got == old, row.serves)
			}
			if counted := w.stale.Load() == 1; counted != row.serves {
				t.Errorf("counted as stale: %v, want %v", counted, row.serves)
			}
		})
	}
}
