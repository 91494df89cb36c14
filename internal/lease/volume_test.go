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
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

func TestOpenWaitsForItsTurn(t *testing.T) {
	bubble(t, func(w *world) {
		k, m := w.keeper, w.order("a")
		first := w.open("a")
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		if _, err := k.Open(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("in another's turn: got error %v, want context.DeadlineExceeded", err)
		}
		other := w.open("a", func(m *spec.Mount) { m.Volume = "/another" })
		if other == first {
			w.t.Error("another volume: got the same")
		}
		other.Close()

		var second *Volume
		done := make(chan struct{})
		go func() {
			defer close(done)
			second, _ = k.Open(w.t.Context(), m)
		}()
		synctest.Wait()
		select {
		case <-done:
			w.t.Fatal("two Mounts have the volume at the same time")
		default:
		}
		first.Close()
		<-done
		if second != first {
			w.t.Errorf("after Close: got volume %p, want the same as before, %p", second, first)
		}
		second.Close()
	})
}

// Whoever waited for a volume that was forgotten meanwhile would hold what nobody knows of.
func TestForgottenVolumeIsNotHandedOut(t *testing.T) {
	bubble(t, func(w *world) {
		forgotten := w.open("a")
		const waiting = 3
		opened := make(chan *Volume, waiting)
		for range waiting {
			go func() {
				v, err := w.keeper.Open(w.t.Context(), w.order("a"))
				if err != nil {
					w.t.Error(err)
					return
				}
				opened <- v
				v.Close()
			}()
		}
		synctest.Wait()
		// What forget does, in the turn that this test has.
		forgotten.gone = true
		w.keeper.mu.Lock()
		delete(w.keeper.volumes, forgotten.key)
		w.keeper.mu.Unlock()
		forgotten.Close()
		for range waiting {
			if v := <-opened; v == forgotten || v != w.volume("a") {
				w.t.Errorf("got volume %p, want %p, the one that the keeper has now", v, w.volume("a"))
			}
		}
	})
}

func TestVersionKey(t *testing.T) {
	w := newWorld(t)
	seen := map[[32]byte]string{}
	for _, pod := range []string{"a", "b", "c"} {
		v := w.open(pod)
		version := v.VersionKey()
		if other, found := seen[version]; found || version == [32]byte{} {
			t.Errorf("%s has the version key of %q", pod, other)
		}
		seen[version] = pod
		v.Close()
		v = w.open(pod)
		if again := v.VersionKey(); again != version {
			t.Errorf("%s: the version key changed", pod)
		}
		v.Close()
	}
}

func TestHoldingIsKeptFromMountToMount(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	first := w.holding(v)
	v.Close() // this Mount fails

	v = w.open("a")
	if got := w.holding(v); got != first {
		t.Error("the second try has another holding")
	}
	if !v.Show(first, first.of(v.Mount().Class.Sources()...)) {
		t.Error("the first time shown was not told")
	}
	v.Close()

	v = w.open("a")
	if got := w.holding(v); got != first {
		t.Error("a poll has another holding")
	}
	if v.Show(first, first.of(v.Mount().Class.Sources()...)) {
		t.Error("a poll was told as the first time shown")
	}
	v.Close()
	w.wantCount("POST", loginPath, 1)
	w.pass()
	w.wantOutcomes()
}

// Only an answer that cost Vault nothing is one from memory.
func TestPollsFromMemoryAreCounted(t *testing.T) {
	w := newWorld(t)
	want := func(n int32) {
		t.Helper()
		if got := w.fromMemory.Load(); got != n {
			t.Errorf("got %d polls from memory, want %d", got, n)
		}
	}
	w.mounted("a")
	want(0)
	w.mounted("a")
	want(1)
	w.mounted("a", of(userSource, keySource)) // one more to read
	want(1)
	v := w.open("b")
	v.Close() // failed, before it asked
	want(1)
}

// A login does not end with the Mount that wanted it either.
func TestLoginIsFoundByTheNextMount(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	release := w.leaveAtLogin(v)
	v.Close()
	w.pass() // must not forget a volume that is about to hold something

	v = w.open("a")
	defer v.Close()
	if _, err := v.Holding(ended()); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	release()
	w.holding(v)
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
	if _, err := v.Holding(t.Context()); client.KindOf(err) != client.Unavailable {
		t.Fatalf("got error %v, want an unavailable Vault", err)
	}
	w.vault.Seal(false)
	w.holding(v)
}

// What one volume waits for keeps neither other volumes nor the keeper's loop waiting.
func TestSlowStepHoldsUpNobody(t *testing.T) {
	for what, hold := range map[string]func(w *world) (arrived <-chan struct{}, release func()){
		"Vault's answer to a login": func(w *world) (<-chan struct{}, func()) { return w.hold("POST", loginPath) },
		"the API server's token":    (*world).holdToken,
		"the journal's file system": func(w *world) (<-chan struct{}, func()) { return w.holdRecord("slow") },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.config.RequestTokens = true
			w.pods.token = func(string) (redact.String, time.Time, error) { return w.jwt, w.expires, nil }
			w.restart(t.TempDir())
			arrived, release := hold(w)
			slow := w.open("slow", func(m *spec.Mount) { m.Pod.Token = redact.String{} })
			landed := make(chan error, 1)
			go func() {
				_, err := slow.Holding(t.Context())
				landed <- err
			}()
			await(t, arrived, "the slow step")

			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, err := w.mount("quick"); err != nil {
					t.Error(err)
				}
				w.pass()
				w.keeper.Held()
				w.keeper.Status()
			}()
			await(t, done, "another volume's Mount")
			release()
			if err := <-landed; err != nil {
				t.Error(err)
			}
			slow.Close()
			w.wantLeft(2, 2)
		})
	}
}

// What was gained for one role is of no use when the class names another before the volume was ever mounted.
func TestHoldingOfAnotherRoleIsGivenBackAtOnce(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	w.read(w.holding(v))
	v.Close()
	w.otherRole(nil)
	v = w.open("a", w.as("other"))
	w.holding(v)
	w.pass()
	w.wantOutcomes("released revoked")
	w.wantLeft(1, 1)
	v.Close()
}

// Its login may still be on its way then.
func TestLoginThatNobodyWantsAnyMoreIsGivenBack(t *testing.T) {
	w := newWorld(t)
	w.otherRole(nil)
	v := w.open("a")
	release := w.leaveAtLogin(v)
	v.Close()
	w.vault.Intercept(nil)
	v = w.open("a", w.as("other"))
	wanted := w.holding(v)
	release()
	v.requests.Wait()
	if got := w.holding(v); got != wanted {
		t.Error("the late login took the place of the one that is wanted")
	}
	v.Close()
	w.pass()
	w.wantOutcomes("released revoked")
	w.wantLeft(1, 1)
}

func TestLostAnswerCostsTheToken(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	doubtful := w.holding(v)
	w.vault.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(rw, `<html>`)
		return true
	})
	if _, err := doubtful.Read(t.Context(), userSource); err == nil {
		t.Fatal("got no error")
	}
	w.vault.Intercept(nil)
	if fresh := w.holding(v); fresh == doubtful {
		t.Error("the token is used again, though it may have a lease that nobody knows of")
	}
	w.pass()
	w.wantOutcomes("released revoked")
	w.wantLeft(1, 1)
	v.Close()
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	bubble(t, func(w *world) {
		h := w.mounted("a", of(userSource, keySource))
		if err := h.session.Revoke(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(6 * time.Minute) // the key is to be read again
		v := w.open("a", of(userSource, keySource))
		defer v.Close()
		if _, err := h.Read(w.t.Context(), keySource); client.KindOf(err) != client.Expired {
			w.t.Fatalf("got error %v, want Expired", err)
		}
		if fresh := w.holding(v); fresh == h {
			w.t.Error("a token that Vault does not know is used again")
		}
	})
}

func TestDueToken(t *testing.T) {
	for name, row := range map[string]struct {
		sealed bool
		wait   time.Duration
		serves bool // the old one
		kind   client.Kind
	}{
		"is not replaced before it is due": {wait: 35 * time.Minute, serves: true},
		"is replaced":                      {wait: 45 * time.Minute},
		"serves while Vault is sealed":     {sealed: true, wait: 45 * time.Minute, serves: true},
		"does not serve beyond its end":    {sealed: true, wait: time.Hour, kind: client.Unavailable},
		"is replaced after its end, too":   {wait: 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				old := w.mounted("a")
				old.token.Renewable = false // and nobody renews it: the keeper does not run
				time.Sleep(row.wait)
				w.vault.Seal(row.sealed)
				v := w.open("a")
				defer v.Close()
				got, err := v.Holding(w.t.Context())
				if kind := client.KindOf(err); kind != row.kind {
					w.t.Fatalf("got error %v, want kind %v", err, row.kind)
				}
				if row.kind == 0 && (got == old) != row.serves {
					w.t.Errorf("got the old holding: %v, want %v", got == old, row.serves)
				}
				if counted := w.stale.Load() == 1; counted != (row.serves && row.sealed) {
					w.t.Errorf("counted as stale: %v, want %v", counted, row.serves && row.sealed)
				}
			})
		})
	}
}
