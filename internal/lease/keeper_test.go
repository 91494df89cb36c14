package lease

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
)

func TestAbandonedVolumeIsGivenBack(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	w.read(w.holding(v, "app"))
	v.Close() // the Mount failed, and kubelet never tries again
	w.mounted("b")

	abandoned := v.left.Add(w.keeper.config.AbandonAfter)
	if next := w.pass(abandoned.Add(-1)); !next.Equal(abandoned) {
		t.Errorf("next pass at %v, want %v", next, abandoned)
	}
	w.wantNothingReleased()
	w.wantLeft(2, 2)
	w.pass(abandoned)
	w.wantReleased("revoked")
	w.wantLeft(1, 1) // the mounted one's
	if leases := w.vault.Leases(); len(leases) != 1 {
		t.Errorf("got leases %q, want the mounted volume's alone", leases)
	}
	w.pass(abandoned.Add(10 * time.Minute))
	w.wantCount("POST", revokePath, 1)
}

func TestVolumeInAMountsHandsIsNotGivenUp(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	h := w.holding(v, "app")
	w.pass(time.Now().Add(time.Hour))
	w.wantNothingReleased()
	w.read(h)
	v.Close()
}

func TestEmptyVolumeIsForgotten(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	v.Close()
	w.pass(time.Now())
	w.wantLeft(0, 0)
}

// A volume whose token has ended by itself holds nothing any more; there is nothing to revoke either.
func TestEndedVolumeIsForgotten(t *testing.T) {
	w := newWorld(t)
	h := w.mounted("a")
	end := h.life.end
	if next := w.pass(end.Add(-1)); !next.Equal(end) {
		t.Errorf("next pass at %v, want the token's end, %v", next, end)
	}
	w.wantLeft(1, 1)
	w.pass(end)
	w.wantLeft(1, 0)
	w.wantNothingReleased()
}

func TestReleaseIsTriedAgainLater(t *testing.T) {
	w := newWorld(t)
	h := w.mounted("a")
	w.keeper.discard(h, 0)
	w.vault.Seal(true)
	last := time.Duration(0)
	at := time.Now()
	for try := 1; try <= 3; try++ {
		before := time.Now()
		w.pass(at)
		w.wantReleased("unavailable")
		at = w.keeper.doomed[h].at
		wait := at.Sub(before)
		if wait <= last {
			t.Errorf("after try %d: got a wait of %v, want more than the %v before", try, wait, last)
		}
		last = wait
		if next := w.pass(at.Add(-1)); next.After(at) || next.IsZero() {
			t.Errorf("after try %d: next pass at %v, want %v at the latest", try, next, at)
		}
		w.wantCount("POST", revokePath, try) // not one too early
	}
	w.vault.Seal(false)
	w.pass(at)
	w.wantReleased("revoked")
	if n := len(w.keeper.doomed); n != 0 {
		t.Errorf("got %d holdings still to give back, want none", n)
	}
}

func TestReleaseEndsWithTheToken(t *testing.T) {
	w := newWorld(t)
	h := w.mounted("a")
	h.life.end = time.Now()
	w.keeper.discard(h, 0)
	w.vault.Seal(true)
	w.pass(time.Now())
	w.wantReleased("ended")
	if n := len(w.keeper.doomed); n != 0 {
		t.Errorf("got %d holdings still to give back, want none", n)
	}
}

// A batch token cannot be revoked: to try it would fail for ever.
func TestBatchTokensAreNotReleased(t *testing.T) {
	w := newWorld(t)
	role := w.otherRole(vaulttest.Data{"token_type": "batch"})
	v := w.open("a")
	h := w.holding(v, role)
	if n := w.unrevocable.Load(); n != 1 {
		t.Errorf("got %d logins told as unrevocable, want 1", n)
	}
	v.Close()
	w.pass(v.left.Add(w.keeper.config.AbandonAfter))
	w.wantNothingReleased()
	if n := len(w.keeper.doomed); n != 0 {
		t.Errorf("got %d holdings to give back, want none", n)
	}
	w.wantLeft(1, 0)
	if h.life.end.IsZero() {
		t.Error("got no end of a batch token, want the end of its TTL")
	}
}

// The loop itself: it wakes up when a volume is left, again when that is abandoned, and again when Vault is back.
func TestRunGivesBackWhenVaultIsBack(t *testing.T) {
	t.Parallel() // it takes a second
	w := newWorld(t)
	w.keeper.config.AbandonAfter = time.Millisecond
	stop := w.run()
	v := w.open("a")
	w.read(w.holding(v, "app"))
	w.vault.Seal(true)
	v.Close()
	w.wantReleased("unavailable")
	w.vault.Seal(false)
	w.wantReleased("revoked")
	stop()
	w.wantLeft(0, 0)
}

func TestEndGivesBackWhatNoVolumeShows(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	shown := w.mounted("mounted")
	failed := w.open("failed")
	w.read(w.holding(failed, "app"))
	failed.Close()
	late := w.open("late")
	release := w.leaveAtLogin(late)
	late.Close()
	go release() // the login is answered when the keeper is ending, or a moment before
	stop()
	for range 2 {
		w.wantReleased("revoked")
	}
	if tokens, leases := w.vault.Tokens(), w.vault.Leases(); len(tokens) != 1 || len(leases) != 1 {
		t.Errorf("got %d tokens and %d leases left, want the mounted volume's alone", len(tokens), len(leases))
	}
	w.read(shown)
}

// What Vault did not take a moment before waits for its next try; the end does not wait for that.
func TestEndTriesAgainAtOnce(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	w.read(w.holding(v, "app"))
	v.Close()
	w.vault.Seal(true)
	w.pass(v.left.Add(w.keeper.config.AbandonAfter))
	w.wantReleased("unavailable")
	w.vault.Seal(false)
	w.run()()
	w.wantReleased("revoked")
	w.wantLeft(0, 0)
}

// One volume's login that hangs is no reason to keep another's token.
func TestEndIsNotHeldUpByOneVolume(t *testing.T) {
	w := newWorld(t)
	w.keeper.config.DrainTimeout = time.Second
	failed := w.open("failed")
	w.read(w.holding(failed, "app"))
	failed.Close()
	late := w.open("late")
	release := w.leaveAtLogin(late)
	late.Close()
	stop := w.run()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	w.wantReleased("revoked") // while the login still hangs
	release()
	<-ended
}

func TestEndWaitsForVaultOnlySoLong(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.keeper.config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	w.keeper.config.DrainTimeout = 10 * time.Millisecond
	stop := w.run()
	v := w.open("a")
	w.holding(v, "app")
	v.Close()
	_, release := w.hold("POST", revokePath)
	stop()
	if text := log.String(); !strings.Contains(text, "tokens that nobody needs") || !strings.Contains(text, "count=1") {
		t.Errorf("got log %q, want a warning of one token", text)
	}
	release()
	w.keeper.releases.Wait()
}

// A token that the login refuses and that Vault does not take back just then is no business of the failed Mount any
// more, but it is still the keeper's.
func TestRefusedTokenIsGivenBackLater(t *testing.T) {
	w := newWorld(t)
	w.vault.Write("auth/kubernetes/role/few", vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": []string{"app"},
		"token_num_uses": 5,
	})
	w.vault.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, revokePath) {
			return false
		}
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	v := w.open("a")
	_, err := v.Holding(t.Context(), w.vault.Vault("few"), w.jwt)
	if client.KindOf(err) != client.Rejected {
		t.Fatalf("got error %v, want Rejected", err)
	}
	v.Close()
	if n := len(w.vault.Tokens()); n != 1 {
		t.Fatalf("got %d tokens, want the refused one", n)
	}
	w.vault.Intercept(nil)
	w.pass(time.Now())
	w.wantReleased("revoked")
	w.wantLeft(0, 0)
}

// Vault says in Retry-After when it wants to hear of us again.
func TestReleaseHeedsRetryAfter(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	w.holding(v, "app")
	v.Close()
	w.vault.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Retry-After", "30")
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	w.pass(v.left.Add(w.keeper.config.AbandonAfter))
	w.wantReleased("unavailable")
	now := time.Now()
	if next := w.keeper.pass(t.Context(), now); next.Before(now.Add(25 * time.Second)) {
		t.Errorf("the next try is in %v, want it in the 30 s that Vault asked for", next.Sub(now))
	}
}
