package lease

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
)

// tokens sets how long the furnished role's tokens live.
func (w *world) tokens(more vaulttest.Data) {
	role := vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vaulttest.Audience}, "token_policies": []string{"app"},
	}
	for k, v := range more {
		role[k] = v
	}
	w.vault.Write("auth/kubernetes/role/app", role)
}

// users sets how long database users live.
func (w *world) users(ttl, most string) {
	w.vault.Write("database/roles/app", vaulttest.Data{"default_ttl": ttl, "max_ttl": most})
}

// count returns how often an outcome was noted since the last time that the outcomes were taken.
func count(outcomes []string, what string) int {
	n := 0
	for _, o := range outcomes {
		if o == what {
			n++
		}
	}
	return n
}

func TestTokensAndLeasesAreRenewed(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		user := w.shows("a")
		time.Sleep(35 * time.Minute)
		w.wantOutcomes() // nothing before its time
		time.Sleep(7 * time.Minute)
		w.wantOutcomes("renewed token ok", "renewed lease ok")
		time.Sleep(20 * time.Hour)
		w.wantLeft(1, 1)
		if got := w.shows("a"); got != user {
			w.t.Error("the user changed, want it to live on")
		}
		if users := w.vault.Users(); len(users) != 1 || !strings.Contains(user, users[0]) {
			w.t.Errorf("got users %q, want the one that the volume shows", users)
		}
		w.wantCount("POST", loginPath, 1)
		w.wantCount("GET", userPath, 1)
		if n := count(w.take(), "renewed lease ok"); n < 28 || n > 36 { // every 36 to 40 minutes
			w.t.Errorf("got %d renewals in 20 h, want about 31", n)
		}
		w.wantNoEvent()
	})
}

// What the driver alone writes is renewed all the same, and so is what is never to change.
func TestRenewingNeedsNoPublishing(t *testing.T) {
	bubble(t, func(w *world) {
		w.writes.Store(false)
		w.run()
		w.mounted("a")
		w.mounted("b", frozen)
		time.Sleep(20 * time.Hour)
		w.wantLeft(2, 2)
		if n := len(w.vault.Users()); n != 2 {
			w.t.Errorf("got %d users, want 2", n)
		}
		w.wantCount("GET", userPath, 2)
		w.wantNoEvent()
	})
}

// What was gained, but is not shown yet, is no less in need of a renewal.
func TestWhatIsNotShownYetIsRenewed(t *testing.T) {
	bubble(t, func(w *world) {
		w.config.AbandonAfter = 10 * time.Hour
		w.keeper = NewKeeper(w.config)
		w.run()
		v := w.open("a")
		w.read(w.holding(v))
		v.Close()
		time.Sleep(5 * time.Hour)
		if n := len(w.vault.Users()); n != 1 {
			w.t.Errorf("got %d users, want the one that was gained", n)
		}
	})
}

func TestSecretsAndStaticRolesAreNotRenewed(t *testing.T) {
	bubble(t, func(w *world) {
		h := w.mounted("a", of(keySource, staticSource))
		h.token.End = time.Time{}
		errands, again := h.renewals(w.order("a").Class.Lifecycle, time.Now().Add(1000*time.Hour))
		if len(errands) != 0 || !again.IsZero() {
			w.t.Errorf("got %d renewals, the next at %v; want none", len(errands), again)
		}
	})
}

func TestFailedRenewalComesBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		time.Sleep(35 * time.Minute)
		w.vault.Seal(true)
		time.Sleep(15 * time.Minute)
		failed := w.take()
		if count(failed, "renewed token unavailable")+count(failed, "renewed lease unavailable") < 2 || len(failed) > 400 {
			w.t.Errorf("got %q, want renewals that failed", failed)
		}
		if s := w.keeper.Status(); s[0].Error == "" || s[0].ErrorAt.IsZero() {
			w.t.Error("the status has no error")
		}
		w.vault.Seal(false)
		time.Sleep(7 * time.Minute) // long before the hour is over, it is tried at least each tenth of what remains
		w.wantOutcomes("renewed token ok", "renewed lease ok")
		if s := w.keeper.Status(); s[0].Error != "" {
			w.t.Errorf("the status has the error %q after renewals that succeeded", s[0].Error)
		}
		time.Sleep(time.Hour)
		w.wantLeft(1, 1)
		w.wantCount("GET", userPath, 1)
	})
}

// Vault may go wrong with one lease, because its database is away, and right with the token.
func TestLeaseThatCannotBeRenewedJustNow(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.vault.Delete("database/roles/app")
		time.Sleep(45 * time.Minute)
		got := w.take()
		if count(got, "renewed token ok") != 1 || count(got, "renewed lease unavailable") < 2 {
			w.t.Errorf("got %q, want the token renewed, and the lease tried more than once", got)
		}
		w.users("1h", "24h")
		time.Sleep(2 * time.Minute)
		w.wantOutcomes("renewed lease ok")
		w.wantCount("GET", userPath, 1)
	})
}

func TestLeaseRevokedBehindOurBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		old := w.shows("a")
		w.vault.Write("sys/leases/revoke", vaulttest.Data{"lease_id": w.vault.Leases()[0]})
		time.Sleep(42 * time.Minute)
		w.wantOutcomes("renewed token ok", "renewed lease expired", "replaced ok")
		if w.shows("a") == old {
			w.t.Error("the volume shows a user that is gone")
		}
		w.wantCount("POST", loginPath, 1)
		w.wantLeft(1, 1)
	})
}

func TestTokenRevokedBehindOurBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		h := w.mounted("a")
		old := w.shows("a")
		if err := h.session.Revoke(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(42 * time.Minute)
		got := w.take()
		if !slices.Contains(got, "replaced ok") || w.shows("a") == old {
			w.t.Errorf("got %q, want that what is gone was replaced", got)
		}
		w.wantCount("POST", loginPath, 2)
		w.wantLeft(1, 1)
		time.Sleep(10 * time.Minute)
		w.wantOutcomes("released revoked") // it is gone already, which is as good
	})
}

// A lease that is gone may be news of its token, too. The token may not be due for long.
func TestTokenThatIsFoundGoneByItsLease(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_ttl": "100h"})
		w.run()
		h := w.mounted("a")
		old := w.shows("a")
		if err := h.session.Revoke(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(42 * time.Minute)
		w.wantOutcomes("renewed lease expired", "replaced ok")
		if w.shows("a") == old {
			w.t.Error("the volume shows a user that is gone")
		}
		w.wantLeft(1, 1)
	})
}

// At its max TTL Vault renews for less and less. The next one is there while the old one still lives, and lives on.
func TestLeaseAtItsMaxTTLIsReplacedInTime(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.run()
		w.mounted("a")
		old := w.shows("a")
		for w.shows("a") == old {
			time.Sleep(time.Second)
		}
		users := w.vault.Users()
		if len(users) != 2 || !slices.ContainsFunc(users, func(u string) bool { return strings.Contains(old, u) }) {
			w.t.Fatalf("got users %q when the next one is shown, want both", users)
		}
		w.wantCount("POST", loginPath, 1)
		w.wantCount("GET", userPath, 2)
		time.Sleep(time.Hour)
		w.wantLeft(1, 1)
		if got := w.take(); slices.ContainsFunc(got, func(o string) bool { return !strings.HasSuffix(o, " ok") }) {
			w.t.Errorf("got %q, want that all went well", got)
		}
	})
}

// At the token's max TTL all that was granted to it is replaced together, and then it is given back.
func TestTokenAtItsMaxTTLIsReplacedInTime(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "2h"})
		w.run()
		first := w.mounted("a", of(userSource, keySource))
		old := w.shows("a")
		for w.shows("a") == old {
			if n := len(w.vault.Users()); n == 0 {
				w.t.Fatal("the user is gone before there is another one")
			}
			time.Sleep(time.Second)
		}
		w.wantCount("POST", loginPath, 2)
		w.wantCount("GET", userPath, 2)
		w.wantLeft(2, 1) // readers may have old bytes
		if w.holds() == first {
			w.t.Error("the volume shows the old holding")
		}
		time.Sleep(9 * time.Minute)
		w.wantLeft(2, 1)
		time.Sleep(2 * time.Minute)
		w.wantLeft(1, 1)
	})
}

func TestPeriodicTokenNeverNeedsALogin(t *testing.T) {
	bubble(t, func(w *world) {
		w.newToken(time.Hour) // and no newer one ever comes
		w.tokens(vaulttest.Data{"token_period": "1h"})
		w.users("1h", "4h")
		w.run()
		w.mounted("a")
		time.Sleep(100 * time.Hour)
		w.wantCount("POST", loginPath, 1)
		if n := len(w.vault.Users()); n == 0 || !strings.Contains(w.shows("a"), "v-app-") {
			w.t.Error("the volume shows no user that lives")
		}
		if n := w.vault.Count("GET", userPath); n < 25 || n > 50 {
			w.t.Errorf("got %d users in 100 h, want one in some 3 h", n)
		}
		w.wantNoEvent()
	})
}

// The role's TTL was shortened meanwhile: what a renewal gives ends sooner than what was there.
func TestRoleWithAShortenedTTL(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.users("5m", "24h")
		time.Sleep(42 * time.Minute)
		if got := w.take(); count(got, "replaced ok") != 1 || count(got, "renewed lease ok") == 0 {
			w.t.Errorf("got %q, want a renewal, and then that the lease was replaced", got)
		}
		time.Sleep(20 * time.Minute)
		if got := w.take(); count(got, "renewed lease ok") < 4 || count(got, "replaced ok") != 0 {
			w.t.Errorf("got %q, want renewals of the new length", got)
		}
		if users := w.vault.Users(); len(users) != 1 {
			w.t.Errorf("got users %q, want one", users)
		}
	})
}

// A policy that lets nothing be renewed makes logins of renewals, not an endless loop.
func TestRenewalThatIsRefused(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.answer("POST", renewTokenPath, http.StatusForbidden, "")
		time.Sleep(42 * time.Minute)
		if got := w.take(); count(got, "renewed token denied") != 1 || count(got, "replaced ok") != 1 {
			w.t.Errorf("got %q, want that the token was refused, and all replaced", got)
		}
		w.wantCount("POST", loginPath, 2)
		time.Sleep(20 * time.Hour)
		if n := w.vault.Count("POST", loginPath); n > 40 {
			w.t.Errorf("got %d logins in 20 h, want one in some 40 minutes", n)
		}
	})
}

// The answer to a renewal of what was replaced meanwhile is no news of what took its place.
func TestLateRenewalIsNoNewsOfTheNextLease(t *testing.T) {
	bubble(t, func(w *world) {
		h := w.mounted("a")
		old := h.grants[userSource]
		fresh := &held{Grant: old.Grant, term: old.term}
		h.mu.Lock()
		h.grants[userSource] = fresh
		h.mu.Unlock()
		w.answer("POST", renewLeasePath, http.StatusBadRequest, "")
		if err := h.renewLease(w.t.Context(), userSource, old); client.KindOf(err) == 0 {
			w.t.Fatalf("got error %v, want one of Vault's", err)
		}
		if fresh.Lost || w.take() != nil {
			w.t.Error("the next lease is taken for lost")
		}
	})
}

// A batch token cannot be renewed, and it is not tried. Its leases can.
func TestBatchTokenIsReplaced(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_type": "batch", "token_ttl": "1h"})
		w.run()
		w.mounted("a")
		w.wantEvent("a CannotRevoke: Vault role app", "token_type=service")
		time.Sleep(42 * time.Minute)
		if got := w.take(); count(got, "replaced ok") != 1 || strings.Contains(strings.Join(got, ","), "token") {
			w.t.Errorf("got %q, want it replaced, and the token not renewed", got)
		}
		w.wantCount("POST", loginPath, 2)
		w.wantCount("POST", renewTokenPath, 0)
		time.Sleep(30 * time.Minute)
		w.wantCount("POST", revokePath, 0)
		if n := w.unrevocable.Load(); n != 2 {
			w.t.Errorf("got %d logins told as unrevocable, want 2", n)
		}
	})
}

// The answer to a renewal does not come: its connection is gone, and nobody has noticed. There is time for another one.
func TestRenewalWithoutAnAnswerIsTriedAgain(t *testing.T) {
	for path, set := range map[string]func(w *world){
		renewLeasePath: func(w *world) { w.users("50s", "24h") },
		renewTokenPath: func(w *world) { w.tokens(vaulttest.Data{"token_ttl": "50s", "token_max_ttl": "24h"}) },
	} {
		t.Run(path, func(t *testing.T) {
			bubble(t, func(w *world) {
				set(w)
				w.run()
				w.mounted("a")
				old := w.shows("a")
				arrived, release := w.hold("POST", path)
				<-arrived
				time.Sleep(60 * time.Second)
				release()
				if n := w.vault.Count("POST", path); n < 2 {
					w.t.Errorf("got %d renewals, want another one before the end", n)
				}
				if users := w.vault.Users(); w.shows("a") != old || len(users) != 1 || !strings.Contains(old, users[0]) {
					w.t.Errorf("got users %q, want the first one still", users)
				}
				w.wantCount("POST", loginPath, 1)
			})
		})
	}
}

// While the provider ends, a renewal that is cut off is no failure.
func TestRenewalThatIsCutOff(t *testing.T) {
	bubble(t, func(w *world) {
		stop := w.run()
		w.mounted("a")
		arrived, release := w.hold("POST", renewTokenPath)
		<-arrived
		synctest.Wait()
		w.take()
		stop()
		release()
		w.wantOutcomes()
	})
}
