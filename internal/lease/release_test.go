package lease

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

// ends has a pod reach its last phase, and the keeper hear of it.
func (w *world) ends(pod string) {
	w.pods.set(pod, Ended)
	w.keeper.Wake()
}

func TestEndOfThePodGivesAllBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.mounted("b")
		w.ends("a")
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1)
		if users := w.vault.Users(); len(users) != 1 || !strings.Contains(w.shows("b"), users[0]) {
			w.t.Errorf("got users %q, want the other pod's", users)
		}
		if w.volume("a") != nil {
			w.t.Error("the volume is still there")
		}
		time.Sleep(100 * time.Hour)
		w.wantCount("POST", revokePath, 1)
	})
}

// A replaced token that waits for its grace, and one that was gained but never shown, go with the pod as well.
func TestEndOfThePodLeavesNothing(t *testing.T) {
	bubble(t, func(w *world) {
		w.otherRole(nil)
		w.run()
		w.mounted("a")
		w.mounted("a", w.as("other"))
		v := w.open("a")
		w.read(w.holding(v))
		v.Close()
		w.wantLeft(3, 1)
		w.ends("a")
		synctest.Wait()
		w.wantOutcomes("released revoked", "released revoked", "released revoked")
		w.wantLeft(0, 0)
	})
}

// A Mount that is at work when the pod ends is not disturbed, but what it gains is given back after it.
func TestEndOfThePodWaitsForAMount(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		v := w.open("a")
		w.ends("a")
		time.Sleep(10 * time.Second)
		w.wantOutcomes()
		h := w.holding(v)
		w.read(h)
		v.Show(h, h.of(v.Mount().Class.Sources()...))
		v.Close()
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(0, 0)
	})
}

// So is a refill.
func TestEndOfThePodWaitsForARefill(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		arrived, release := w.hold("GET", keySource.Path)
		<-arrived
		w.ends("a")
		synctest.Wait()
		w.wantOutcomes()
		release()
		time.Sleep(2 * time.Second)
		w.wantOutcomes("replaced ok", "released revoked")
		w.wantLeft(0, 0)
	})
}

// The Mount was cancelled while Vault was at its login, and then the pod ended.
func TestLoginThatLandsAfterThePodsEnd(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		v := w.open("a")
		release := w.leaveAtLogin(v)
		v.Close()
		w.ends("a")
		synctest.Wait()
		if w.volume("a") == nil {
			w.t.Fatal("the volume is gone before its login has landed")
		}
		release()
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(0, 0)
		if w.volume("a") != nil {
			w.t.Error("the volume is still there")
		}
	})
}

// After a reboot of the node a pod that had ended mounts again, with the UID that it had.
func TestPodThatMountsAgainAfterItsEnd(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.vault.Seal(true)
		w.ends("a")
		time.Sleep(time.Minute)
		w.pods.set("a", Alive)
		w.vault.Seal(false)
		w.mounted("a")
		time.Sleep(10 * time.Hour)
		w.wantLeft(1, 1)
		w.wantCount("POST", loginPath, 2)
	})
}

func TestReplacedSessionIsGivenBackAfterAGrace(t *testing.T) {
	bubble(t, func(w *world) {
		w.otherRole(nil)
		w.run()
		old := w.mounted("a")
		fresh := w.mounted("a", w.as("other"))
		if fresh == old {
			w.t.Fatal("the holding of another role was used")
		}
		time.Sleep(10*time.Minute - time.Second) // readers may still hold the old bytes
		w.wantOutcomes()
		w.wantLeft(2, 1)
		time.Sleep(time.Second)
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1)
		if _, err := fresh.session.RenewSelf(w.t.Context()); err != nil {
			w.t.Errorf("the token that is shown: %v", err)
		}
	})
}

// Where the driver writes the files it does so after the answer, so that the old bytes are there for a while even without a
// grace.
func TestReplacedSessionOutlivesItsBytes(t *testing.T) {
	for name, row := range map[string]struct {
		provider bool // writes the files
		after    time.Duration
	}{
		"the provider writes": {true, 0},
		"the driver writes":   {false, driverWrites},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.otherRole(nil)
				w.writes.Store(row.provider)
				w.run()
				atOnce := func(m *spec.Mount) { m.Class.Lifecycle.RevokeGrace = 0 }
				w.mounted("a", atOnce)
				w.mounted("a", atOnce, w.as("other"))
				if row.after > 0 {
					time.Sleep(row.after - time.Second)
					w.wantOutcomes()
					w.wantLeft(2, 1)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				w.wantOutcomes("released revoked")
				w.wantLeft(1, 1)
			})
		})
	}
}

func TestAbandonedVolumeIsGivenBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		v := w.open("a")
		w.read(w.holding(v))
		time.Sleep(time.Hour) // in a Mount's hands it is not given up
		v.Close()             // the Mount failed, and kubelet never tries again
		w.mounted("b")
		time.Sleep(w.config.AbandonAfter - 1)
		w.take()
		w.wantLeft(2, 2)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1) // the mounted one's
		if w.volume("a") != nil {
			w.t.Error("the volume is still there")
		}
	})
}

// What a replacement gained before it failed is given up too, in the end, but what is shown is not.
func TestAbandonedReplacement(t *testing.T) {
	bubble(t, func(w *world) {
		w.otherRole(vaulttest.Data{"token_policies": []string{}})
		w.run()
		w.mounted("a")
		if _, err := w.mount("a", w.as("other")); client.KindOf(err) != client.Denied {
			w.t.Fatalf("got error %v, want Denied", err)
		}
		w.wantLeft(2, 1)
		time.Sleep(2 * time.Minute)
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1)
		if _, found := w.holds().Remembered(userSource); !found {
			w.t.Error("what is shown is not there any more")
		}
	})
}

func TestEmptyVolumeIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.open("a").Close()
	w.pass()
	w.wantLeft(0, 0)
	if n := len(w.keeper.volumes) + len(w.keeper.agenda); n != 0 {
		t.Errorf("got %d entries left, want none", n)
	}
}

func TestReleaseIsTriedAgain(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.answer("POST", revokePath, http.StatusInternalServerError, "") // it goes wrong with this one alone
		w.ends("a")
		time.Sleep(10 * time.Minute)
		if n := count(w.take(), "released unavailable"); n < 10 || n > 22 {
			w.t.Errorf("got %d tries in 10 minutes, want 1 s, 2 s, 4 s ... apart, up to a minute", n)
		}
		if s := w.keeper.Status(); len(s) != 1 || !s[0].Ended || !strings.Contains(s[0].Error, "500") {
			w.t.Errorf("got status %+v, want an ended volume with Vault's error", s)
		}
		w.vault.Intercept(nil)
		time.Sleep(73 * time.Second)
		w.wantOutcomes("released revoked")
		w.wantLeft(0, 0)
	})
}

func TestReleaseEndsWithTheToken(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.network.cut(true)
		w.ends("a")
		time.Sleep(59 * time.Minute)
		if w.volume("a") == nil {
			w.t.Fatal("the volume was forgotten while its token lives")
		}
		w.take()
		time.Sleep(3 * time.Minute)
		if got := w.take(); len(got) == 0 || got[len(got)-1] != "released ended" {
			w.t.Errorf("got %q, want that it ends with the token", got)
		}
		if w.volume("a") != nil {
			w.t.Error("the volume is still there")
		}
	})
}

// When a Vault is back, what it did not take is tried at once, and not after each one's own backoff.
func TestReleaseWhenVaultIsBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_ttl": "100h"})
		w.run()
		for _, pod := range []string{"a", "b", "c", "d", "e"} {
			w.mounted(pod)
			w.ends(pod)
		}
		synctest.Wait()
		w.wantLeft(0, 0)
		for _, pod := range []string{"f", "g", "h", "i", "j"} {
			w.mounted(pod)
		}
		w.network.cut(true)
		for _, pod := range []string{"f", "g", "h", "i", "j"} {
			w.ends(pod)
		}
		time.Sleep(30 * time.Minute)
		w.take()
		w.network.cut(false)
		time.Sleep(7 * time.Second) // the probe comes within 6 s
		if n := count(w.take(), "released revoked"); n != 5 {
			w.t.Errorf("got %d released some seconds after Vault was back, want 5", n)
		}
		w.wantLeft(0, 0)
	})
}

// Vault says in Retry-After when it wants to hear of us again.
func TestReleaseHeedsRetryAfter(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.answer("POST", revokePath, http.StatusTooManyRequests, "Retry-After: 30")
		w.ends("a")
		time.Sleep(29 * time.Second)
		w.wantCount("POST", revokePath, 1)
		w.vault.Intercept(nil)
		time.Sleep(2 * time.Second)
		w.wantCount("POST", revokePath, 2)
		w.wantLeft(0, 0)
	})
}

// A batch token cannot be revoked: to try it would fail for ever.
func TestBatchTokensAreNotReleased(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_type": "batch", "token_ttl": "1h"})
		w.run()
		w.mounted("a")
		v := w.open("b") // never shown
		w.read(w.holding(v))
		v.Close()
		w.ends("a")
		w.ends("b")
		synctest.Wait()
		w.wantOutcomes()
		w.wantLeft(2, 0)
		w.wantCount("POST", revokePath, 0)
		if len(w.keeper.volumes) != 0 {
			w.t.Error("the volumes are still there")
		}
		if n := len(w.pods.takeEvents()); n != 2 {
			w.t.Errorf("got %d events, want one for each pod", n)
		}
		time.Sleep(time.Hour + time.Second)
		w.wantLeft(0, 0)
	})
}

// A token that the login refuses and that Vault does not take back just then is no business of the failed Mount any
// more, but it is still the keeper's.
func TestRefusedTokenIsGivenBackLater(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_num_uses": 5})
		w.run()
		w.answer("POST", revokePath, http.StatusTooManyRequests, "")
		v := w.open("a")
		if _, err := v.Holding(w.t.Context()); client.KindOf(err) != client.Rejected {
			w.t.Fatalf("got error %v, want Rejected", err)
		}
		v.Close()
		if n := len(w.vault.Tokens()); n != 1 {
			w.t.Fatalf("got %d tokens, want the refused one", n)
		}
		w.vault.Intercept(nil)
		time.Sleep(10 * time.Second)
		if got := w.take(); !slices.Contains(got, "released revoked") {
			w.t.Errorf("got %q, want it given back", got)
		}
		w.wantLeft(0, 0)
	})
}

// An answer that was lost may have been a lease: the token goes, and with it whatever there is.
func TestDoubtfulTokenIsGivenBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.vault.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet {
				return false
			}
			rw.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(rw, "<html>")
			return true
		})
		if _, err := w.mount("a"); err == nil {
			w.t.Fatal("got no error")
		}
		w.vault.Intercept(nil)
		w.mounted("a")
		synctest.Wait()
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1)
	})
}

// Nobody says which pods live: what they had lives for its TTL, and is then forgotten.
func TestWithoutPods(t *testing.T) {
	bubble(t, func(w *world) {
		w.config.Pods, w.config.Publishes = nil, false
		w.keeper = NewKeeper(w.config)
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "2h"})
		w.run()
		w.mounted("a")
		time.Sleep(110 * time.Minute)
		w.wantLeft(1, 1)
		time.Sleep(11 * time.Minute)
		w.wantLeft(0, 0)
		if len(w.keeper.volumes) != 0 {
			w.t.Error("the volume is still there")
		}
		w.wantCount("POST", revokePath, 0)
	})
}

func TestOutcomeOf(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "failed": errors.New("x"), "expired": &client.Error{Kind: client.Expired},
	} {
		if got := outcomeOf(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}
