package lease

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// hasRefilled checks how often the keeper had a volume filled since the last time.
func (w *world) wantRefills(want int32) {
	w.t.Helper()
	if got := w.refills.Swap(0); got != want {
		w.t.Errorf("got %d refills, want %d", got, want)
	}
}

func TestSecretIsReadAgain(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		time.Sleep(4*time.Minute + 29*time.Second)
		w.wantRefills(0)
		w.vault.Write(keySource.Path, vaulttest.Data{"password": "another"})
		time.Sleep(32 * time.Second)
		w.wantRefills(1)
		w.wantOutcomes("replaced ok")
		if got := w.shows("a"); !strings.Contains(got, "another") {
			w.t.Error("the volume shows what was there before")
		}
		time.Sleep(time.Hour)
		if n := w.refills.Load(); n < 11 || n > 14 {
			w.t.Errorf("got %d refills in an hour, want one in some 5 minutes", n)
		}
		w.wantCount("POST", loginPath, 1)
	})
}

func TestRefreshOff(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource), func(m *spec.Mount) { m.Class.Lifecycle.Refresh = 0 })
		time.Sleep(100 * time.Hour)
		w.wantRefills(0)
		w.wantCount("GET", keySource.Path, 1)
		w.wantLeft(1, 1)
	})
}

// A static role's password is read again when it has changed, and no moment later than that takes.
func TestStaticRoleIsReadWhenItChanges(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(staticSource))
		old := w.shows("a")
		time.Sleep(time.Hour)
		w.wantRefills(0)
		w.vault.Write("database/static-roles/shared", vaulttest.Data{"username": "shared", "rotation_period": "1h"})
		time.Sleep(1100 * time.Millisecond)
		w.wantRefills(1)
		if w.shows("a") == old {
			w.t.Error("the volume shows the old password")
		}
	})
}

// Vault cannot change a password in time, say because the database is away: it is asked again and again, but not by each volume
// each second for hours; and soon after Vault has changed it, the volume shows it.
func TestStaticRoleThatIsChangedLate(t *testing.T) {
	period := vaulttest.Data{"username": "shared", "rotation_period": "1h"}
	schedule := vaulttest.Data{"username": "shared", "rotation_schedule": "0 * * * *"} // the ttl is that of the next time by then
	for name, row := range map[string]struct {
		role     vaulttest.Data
		tokenTTL string
	}{
		"period":                   {period, "24h"},
		"schedule":                 {schedule, "24h"},
		"period and new tokens":    {period, "10m"},
		"schedule, and new tokens": {schedule, "10m"},
	} {
		data := row.role
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.tokens(vaulttest.Data{"token_ttl": row.tokenTTL, "token_max_ttl": row.tokenTTL})
				w.vault.Write("database/static-roles/shared", data)
				w.run()
				w.mounted("a", of(staticSource), func(m *spec.Mount) { m.Class.Lifecycle.Refresh = 0 })
				old := w.shows("a")
				for _, row := range []struct {
					late        time.Duration
					looks, most int
				}{
					{5 * time.Second, 2, 10},
					{2 * time.Hour, 230, 350}, // one half a minute
				} {
					time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
					before := w.vault.Count("GET", staticSource.Path)
					time.Sleep(row.late)
					if n := w.vault.Count("GET", staticSource.Path) - before; n < row.looks || n > row.most {
						w.t.Errorf("%v late: got %d looks, want %d to %d", row.late, n, row.looks, row.most)
					}
					w.vault.Write("database/static-roles/shared", data)
					time.Sleep(row.late/5 + 2*time.Second)
					if got := w.shows("a"); got == old {
						w.t.Errorf("%v late: the volume shows the old password", row.late)
					} else {
						old = got
					}
				}
			})
		})
	}
}

// A Mount may come just between the time of a schedule and Vault's coming to it.
func TestScheduledRoleThatIsReadJustBeforeItChanges(t *testing.T) {
	bubble(t, func(w *world) {
		data := vaulttest.Data{"username": "shared", "rotation_schedule": "0 * * * *"}
		w.vault.Write("database/static-roles/shared", data)
		w.run()
		w.mounted("a", of(staticSource))
		old := w.shows("a")
		time.Sleep(4 * time.Second)
		w.vault.Write("database/static-roles/shared", data)
		time.Sleep(rotationTick)
		if w.shows("a") == old {
			w.t.Error("the volume shows the old password, and would for an hour")
		}
	})
}

// What is to be looked at within a second takes longer than that to look at: it is looked at again soon all the same, and that is
// nothing to alarm the pod's owner with.
func TestScheduledRoleThatIsSlowToLookAt(t *testing.T) {
	bubble(t, func(w *world) {
		data := vaulttest.Data{"username": "shared", "rotation_schedule": "0 * * * *"}
		w.vault.Write("database/static-roles/shared", data)
		w.run()
		w.mounted("a", of(staticSource), func(m *spec.Mount) { m.Class.Lifecycle.Refresh = 0 })
		old := w.shows("a")
		slow := func() { time.Sleep(3 * time.Second) }
		w.beforeShow.Store(&slow)
		time.Sleep(time.Hour + 5*time.Second)
		w.vault.Write("database/static-roles/shared", data)
		time.Sleep(2*time.Second + longestLack)
		if w.shows("a") == old {
			w.t.Error("the volume shows the old password")
		}
		w.wantNoEvent()
	})
}

// A replacement is written down as done: the next instance has nothing to do, and nobody to alarm.
func TestReplacementIsDoneForTheNextInstance(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		stop := w.run()
		w.mounted("a", of(userSource, keySource))
		for w.refills.Load() == 0 {
			time.Sleep(time.Second)
		}
		stop()
		w.take()
		w.restart(dir)
		w.run()
		time.Sleep(verifyAfter)
		w.wantOutcomes()
		w.wantRefills(1)
	})
}

// What a Mount has just given the driver is not written over: the driver would take it back.
func TestReplacementLeavesADriverTimeToWrite(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		v := w.volume("a")
		time.Sleep(4*time.Minute + 29*time.Second)
		due := v.shown.dueAt(v.mount.Class.Lifecycle, v.sources)
		time.Sleep(time.Until(due.Add(-100 * time.Millisecond)))
		w.mounted("a", of(keySource)) // it is not due yet for this one
		time.Sleep(900 * time.Millisecond)
		w.wantRefills(0)
		time.Sleep(200 * time.Millisecond)
		w.wantRefills(1)
		w.wantOutcomes("replaced ok")
		// And once more, in case that the driver was slower than that.
		time.Sleep(3700 * time.Millisecond)
		w.wantRefills(0)
		time.Sleep(300 * time.Millisecond)
		w.wantRefills(1)
		w.wantOutcomes() // which replaces nothing
		time.Sleep(time.Minute)
		w.wantRefills(0)
		w.wantCount("GET", keySource.Path, 2)
	})
}

func TestReplacementThatFailsComesBack(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		w.answer("GET", keySource.Path, http.StatusInternalServerError, "")
		time.Sleep(15 * time.Minute)
		got := w.take()
		if n := count(got, "replaced unavailable"); n < 8 || n > 16 || len(got) != n {
			w.t.Errorf("got %q, want one try in a minute or so", got)
		}
		if n := w.stale.Load(); n < 8 {
			w.t.Errorf("got %d stale answers counted, want one for each", n)
		}
		w.vault.Intercept(nil)
		time.Sleep(75 * time.Second)
		w.wantOutcomes("replaced ok")
		w.wantNoEvent() // a secret does not end
		if s := w.keeper.Status(); s[0].Error != "" {
			w.t.Errorf("the status has the error %q after a replacement that succeeded", s[0].Error)
		}
	})
}

// What was tried before does not count any more when a Mount has done it.
func TestMountReplacesWhatTheKeeperCouldNot(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		w.answer("GET", keySource.Path, http.StatusForbidden, "")
		time.Sleep(10 * time.Minute)
		w.vault.Intercept(nil)
		w.mounted("a", of(keySource))
		synctest.Wait()
		v := w.volume("a")
		v.mu.Lock()
		defer v.mu.Unlock()
		if r := v.refilling; r.tries != 0 || !r.after.IsZero() || r.trouble.err != nil {
			w.t.Errorf("got %d tries, not before %v, trouble %v; want none of it", r.tries, r.after, r.trouble.err)
		}
	})
}

// A lease that cannot be renewed, under a token that would end before its successor is first renewed.
func TestReplacementWithANewLogin(t *testing.T) {
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_type": "batch", "token_ttl": "90m"})
		w.vault.Write("pki/roles/app", vaulttest.Data{"allowed_domains": "example.com", "generate_lease": true, "max_ttl": "1h"})
		issue := spec.Source{Method: http.MethodPut, Path: "pki/issue/app", Args: `{"common_name":"a.example.com"}`}
		w.run()
		first := w.mounted("a", of(issue))
		time.Sleep(41 * time.Minute)
		w.wantOutcomes("replaced ok")
		w.wantCount("POST", loginPath, 1) // 50 minutes are enough for another one
		time.Sleep(41 * time.Minute)
		w.wantOutcomes("replaced ok")
		w.wantCount("POST", loginPath, 2)
		if w.holds() == first {
			w.t.Error("the token was not replaced")
		}
	})
}

// Without polls a volume's service account token ends some day. Its owner hears of it while there is time.
func TestNoServiceAccountTokenForALogin(t *testing.T) {
	bubble(t, func(w *world) {
		w.newToken(time.Hour)
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "150m"})
		w.run()
		w.mounted("a")
		user := w.shows("a")
		time.Sleep(2*time.Hour + 2*time.Minute) // the third renewal came back short
		w.wantEvent("a CredentialsEnd: the credentials in volume /pods/a end at 2000-01-01T02:30:0", "token_period", "enableSecretRotation")
		if w.holds().tokenEnd().Before(time.Now().Add(20 * time.Minute)) {
			w.t.Error("the event came late")
		}
		time.Sleep(20 * time.Minute)
		w.wantNoEvent() // it is told once
		w.wantCount("POST", loginPath, 1)
		if got := w.take(); count(got, "replaced failed") < 3 || count(got, "replaced ok") != 0 {
			w.t.Errorf("got %q, want replacements that failed", got)
		}
		// A poll brings another one.
		w.newToken(time.Hour)
		w.mounted("a")
		w.wantCount("POST", loginPath, 2)
		if w.shows("a") == user {
			w.t.Error("the volume shows what ends")
		}
		w.wantNoEvent()
		time.Sleep(30 * time.Minute)
		w.wantNoEvent()
	})
}

// It is told once, also where something else is read anew meanwhile.
func TestEndIsToldOnceThoughSomethingElseIsReplaced(t *testing.T) {
	bubble(t, func(w *world) {
		w.newToken(time.Hour)
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "150m"})
		w.run()
		w.mounted("a", of(userSource, keySource))
		time.Sleep(2*time.Hour + 2*time.Minute)
		w.wantEvent("a CredentialsEnd", "token_period")
		read := w.vault.Count("GET", keySource.Path)
		time.Sleep(20 * time.Minute)
		if n := w.vault.Count("GET", keySource.Path); n == read {
			w.t.Error("nothing was read anew: this has shown nothing")
		}
		w.wantNoEvent()
	})
}

func TestServiceAccountTokenOnRequest(t *testing.T) {
	bubble(t, func(w *world) {
		w.config.RequestTokens = true
		w.keeper = NewKeeper(w.config)
		w.newToken(time.Hour)
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "3h"})
		var asked atomic.Int32
		w.pods.token = func(audience string) (redact.String, time.Time, error) {
			if audience != vaulttest.Audience {
				w.t.Errorf("got audience %q, want %q", audience, vaulttest.Audience)
			}
			if asked.Add(1) == 1 {
				return redact.String{}, time.Time{}, errors.New("the API server is away")
			}
			return w.vault.Signer.Token(vaulttest.Claims{Life: 10 * time.Minute}), time.Now().Add(10 * time.Minute), nil
		}
		w.run()
		w.mounted("a")
		if asked.Load() != 0 {
			w.t.Error("the API server was asked though the driver had brought a token")
		}
		time.Sleep(24 * time.Hour)
		if n := w.vault.Count("POST", loginPath); n < 8 || n != int(asked.Load()) {
			w.t.Errorf("got %d logins and %d tokens asked for, want one for each, some 10 in a day", n, asked.Load())
		}
		if n := count(w.take(), "replaced failed"); n != 1 {
			w.t.Errorf("got %d failed replacements, want the one without an API server", n)
		}
		if users := w.vault.Users(); len(users) == 0 {
			w.t.Error("no user lives")
		}
	})
}

// Vault's clock is ahead: what the driver brought is over there, though not here. A token that Vault would not have either
// is not asked for again: the login is refused for another reason.
func TestRefusedServiceAccountToken(t *testing.T) {
	for name, row := range map[string]struct {
		life  time.Duration // of what the API server makes
		asked int32
		want  client.Kind
	}{
		"fresh one helps": {10 * time.Minute, 1, 0},
		"nothing helps":   {-time.Hour, 1, client.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.config.RequestTokens = true
			w.keeper = NewKeeper(w.config)
			w.newToken(-time.Hour)
			w.expires = time.Now().Add(time.Hour).UTC()
			var asked atomic.Int32
			w.pods.token = func(string) (redact.String, time.Time, error) {
				asked.Add(1)
				return w.vault.Signer.Token(vaulttest.Claims{Life: row.life}), w.expires.Add(time.Minute), nil
			}
			if _, err := w.mount("a"); client.KindOf(err) != client.Denied {
				t.Fatalf("got %v, want Vault to refuse the driver's token", err)
			}
			for range 3 {
				if _, err := w.mount("a"); client.KindOf(err) != row.want {
					t.Errorf("got %v, want kind %v", err, row.want)
				}
			}
			if n := asked.Load(); n != row.asked {
				t.Errorf("the API server was asked for %d tokens, want %d", n, row.asked)
			}
		})
	}
}

// Two tokens: the newer one wins, whoever brought it, unless it is for another audience.
func TestNewestServiceAccountToken(t *testing.T) {
	w := newWorld(t)
	token := func(text string, expires time.Time) func(*spec.Mount) {
		return func(m *spec.Mount) { m.Pod.Token, m.Pod.TokenExpires = redact.New(text), expires }
	}
	other := func(m *spec.Mount) { m.Class.Vault.Audience = "other" }
	for _, row := range []struct {
		changes []func(*spec.Mount)
		want    string
	}{
		{[]func(*spec.Mount){token("first", hours(1))}, "first"},
		{[]func(*spec.Mount){token("newer", hours(2))}, "newer"},
		{[]func(*spec.Mount){token("older", hours(1))}, "newer"},
		{[]func(*spec.Mount){token("as new", hours(2))}, "as new"},
		{[]func(*spec.Mount){token("unknown", time.Time{})}, "unknown"},
		{[]func(*spec.Mount){token("known", hours(1))}, "known"},
		{[]func(*spec.Mount){token("other's", hours(0)), other}, "other's"},
	} {
		v := w.open("a", row.changes...)
		if got := v.Mount().Pod.Token.Reveal(); got != row.want {
			t.Errorf("got token %q, want %q", got, row.want)
		}
		v.Close()
	}
}

// The class says that a running pod's files never change. What ends then is told, once.
func TestFrozenVolume(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("1h", "4h")
		w.run()
		w.mounted("a", frozen)
		user := w.shows("a")
		time.Sleep(3 * time.Hour)
		w.wantNoEvent()
		for range 40 { // the driver's polls, meanwhile
			time.Sleep(90 * time.Second)
			w.mounted("a", frozen)
		}
		w.wantEvent("a CredentialsEnd: the credentials in volume /pods/a end at 2000-01-01T0", "rotation: off")
		time.Sleep(100 * time.Hour)
		w.wantNoEvent()
		w.wantRefills(0)
		if w.shows("a") != user {
			w.t.Error("the files changed")
		}
		w.wantCount("GET", userPath, 1)
		w.wantCount("POST", loginPath, 1)
	})
}

// A secret that is old, and a lease that Vault prolongs, end nothing.
func TestNoFalseAlarm(t *testing.T) {
	for name, prepare := range map[string]func(*world) []func(*spec.Mount){
		"frozen":       func(*world) []func(*spec.Mount) { return []func(*spec.Mount){frozen} },
		"driver alone": func(w *world) []func(*spec.Mount) { w.writes.Store(false); return nil },
		"refresh denied": func(w *world) []func(*spec.Mount) {
			w.answer("GET", keySource.Path, http.StatusForbidden, "")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.run()
				w.mounted("a", of(keySource, userSource))
				w.mounted("a", append(prepare(w), of(keySource, userSource))...)
				time.Sleep(20 * time.Hour)
				w.wantNoEvent()
				w.wantLeft(1, 1)
			})
		})
	}
}

// A frozen volume's static password is to change: its owner is told while there is time to restart the pod.
func TestFrozenStaticRole(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(staticSource), frozen)
		time.Sleep(39 * time.Minute)
		w.wantNoEvent()
		time.Sleep(3 * time.Minute)
		w.wantEvent("a CredentialsEnd", "end at 2000-01-01T01:00:01Z", "restart the pod")
		time.Sleep(3 * time.Hour)
		w.wantNoEvent()
	})
}

// Where only the driver writes, the keeper fills nothing, and tells when no poll has come though it was time.
func TestVolumeThatOnlyTheDriverWrites(t *testing.T) {
	for name, publishes := range map[string]bool{"publishing is off": false, "not a place to write": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.config.Publishes = publishes
				w.keeper = NewKeeper(w.config)
				w.writes.Store(!publishes)
				w.users("1h", "2h")
				w.run()
				w.mounted("a")
				user := w.shows("a")
				time.Sleep(81 * time.Minute) // the second renewal came back short, after 80.4 minutes at the latest
				w.wantNoEvent()
				v := w.volume("a")
				if v.shown.dueAt(v.mount.Class.Lifecycle, v.sources).After(time.Now()) {
					w.t.Fatal("nothing is due")
				}
				w.mounted("a") // a poll replaces it
				if w.shows("a") == user {
					w.t.Error("the poll got what ends")
				}
				time.Sleep(80 * time.Minute)
				w.wantNoEvent()
				time.Sleep(25 * time.Minute) // half of the time for it is over
				w.wantEvent("a CredentialsEnd", "enableSecretRotation")
				time.Sleep(10 * time.Minute)
				w.wantNoEvent()
				w.mounted("a") // a late poll; when there is none again, that is news
				time.Sleep(105 * time.Minute)
				w.wantEvent("a CredentialsEnd", "enableSecretRotation")
				w.wantRefills(0)
				time.Sleep(10 * time.Hour)
				w.wantNoEvent()
			})
		})
	}
}

// The volume is not any more where the provider may write: the driver's polls have to do.
func TestRefillThatMayNotWrite(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		w.writes.Store(false)
		time.Sleep(20 * time.Minute)
		w.wantRefills(1)
		w.wantOutcomes("replaced failed")
		w.writes.Store(true)
		w.mounted("a", of(keySource))
		time.Sleep(5*time.Minute + time.Second)
		w.wantRefills(1)
		w.wantOutcomes("replaced ok")
	})
}

// While a Mount has the volume, the keeper waits for it, and does not do the same again.
func TestReplacementWhileAMountIsAtWork(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		time.Sleep(4 * time.Minute)
		v := w.open("a", of(keySource))
		time.Sleep(5 * time.Minute) // it hangs
		w.wantRefills(0)
		w.wantOutcomes()
		v.mu.Lock()
		inHand := v.inHand
		v.mu.Unlock()
		if !inHand {
			w.t.Error("the keeper takes the volume for closed")
		}
		if _, err := w.fill(w.t.Context(), v, true); err != nil {
			w.t.Error(err)
		}
		v.Close()
		time.Sleep(time.Minute)
		w.wantRefills(0)
		w.wantCount("GET", keySource.Path, 2)
	})
}

// A refill fails before it has asked Vault for anything. That must not be tried without a pause.
func TestReplacementThatAsksNobody(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		err := errors.New("the template is wrong")
		w.notAllowed.Store(&err)
		time.Sleep(25 * time.Minute)
		if n := w.refills.Load(); n < 15 || n > 30 {
			w.t.Errorf("got %d refills in 20 minutes, want one a minute", n)
		}
	})
}

// What Vault gives is due as well, again and again.
func TestReplacementThatChangesNothing(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		h := w.holds()
		h.mu.Lock()
		h.grants[userSource].Short = true
		h.mu.Unlock()
		done := func(http.ResponseWriter, *http.Request) bool { return false }
		w.vault.Intercept(done)
		w.vault.Write("database/roles/app", vaulttest.Data{"default_ttl": "1s", "max_ttl": "1s"})
		w.keeper.touch(w.volume("a"))
		time.Sleep(time.Minute)
		if n := w.refills.Load(); n < 20 || n > 120 {
			w.t.Errorf("got %d refills in a minute of leases of a second, want one or two a second", n)
		}
	})
}

// A Vault that hangs must not keep a volume from its Mounts for long, and its late answer is found.
func TestReplacementThatHangs(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", of(keySource))
		w.vault.Write(keySource.Path, vaulttest.Data{"password": "another"})
		arrived, release := w.hold("GET", keySource.Path)
		<-arrived
		start := time.Now()
		v := w.open("a", of(keySource))
		if waited := time.Since(start); waited > refillTimeout {
			w.t.Errorf("a Mount waited %v for the volume, want %v at most", waited, refillTimeout)
		}
		v.Close()
		release()
		time.Sleep(2 * time.Minute)
		if !strings.Contains(w.shows("a"), "another") {
			w.t.Error("the late answer is not shown")
		}
		w.wantCount("GET", keySource.Path, 2)
		w.wantNoEvent()
	})
}

// An outage that begins before something is due and ends before it is over costs nothing but time.
func TestOutageWhileSomethingIsDue(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.run()
		w.mounted("a")
		old := w.shows("a")
		time.Sleep(12 * time.Minute)
		w.network.cut(true)
		time.Sleep(4 * time.Minute)
		if w.shows("a") != old {
			w.t.Fatal("it was replaced before the outage")
		}
		w.network.cut(false)
		time.Sleep(6 * time.Second) // the probe finds it at once
		if w.shows("a") == old {
			w.t.Error("it was not replaced when Vault was back")
		}
		w.wantNoEvent()
	})
}

// An outage that lasts is told when half of the time is over.
func TestOutageThatLasts(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.run()
		w.mounted("a")
		w.answer("GET", userPath, http.StatusInternalServerError, "")
		time.Sleep(18 * time.Minute)
		w.wantEvent("a ReplacementFailed: the credentials in volume /pods/a end at 2000-01-01T00:", "500")
		time.Sleep(42 * time.Minute)
		w.wantNoEvent()
		if n := count(w.take(), "replaced unavailable"); n < 150 || n > 250 {
			w.t.Errorf("got %d tries in the hour, want one in 15 s", n)
		}
		w.vault.Intercept(nil)
		time.Sleep(20 * time.Second)
		if n := count(w.take(), "replaced ok"); n != 1 {
			w.t.Errorf("got %d replacements when Vault was back, want 1", n)
		}
	})
}

// The SPC changed: the next poll shows it, and what it does not name any more is let go.
func TestClassThatChanges(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		first := w.mounted("a")
		if h := w.mounted("a", of(userSource, keySource)); h != first {
			w.t.Error("an object more cost a login")
		}
		w.wantCount("GET", userPath, 1)
		w.mounted("a", of(keySource))
		if _, found := first.Remembered(userSource); found {
			w.t.Error("what the class does not name any more is kept")
		}
		time.Sleep(3 * time.Hour)
		if users := w.vault.Users(); len(users) != 0 {
			w.t.Errorf("got users %q that nobody renews, want none", users)
		}
		w.wantCount("POST", loginPath, 1)
	})
}

// It changed to something that Vault denies. What is shown is kept alive meanwhile.
func TestClassThatCannotBeHad(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		user := w.shows("a")
		if _, err := w.mount("a", w.as("none")); err == nil {
			w.t.Fatal("got no error")
		}
		time.Sleep(5 * time.Hour)
		if users := w.vault.Users(); w.shows("a") != user || len(users) != 1 || !strings.Contains(user, users[0]) {
			w.t.Errorf("got users %q, want the one that is shown", users)
		}
		w.wantLeft(1, 1)
	})
}

// A lease that comes too late for the refill that asked for it is shown all the same, and at once: nobody renews the one
// that the files are still made of. A provider that is killed in between leaves that to the next one.
func TestLateLeaseIsShown(t *testing.T) {
	for name, killed := range map[string]bool{"by the same keeper": false, "by the next one": true} {
		t.Run(name, func(t *testing.T) {
			dir := inMemory(t)
			bubble(t, func(w *world) {
				w.users("10m", "20m")
				w.restart(dir)
				stop := w.run()
				w.mounted("a")
				old := w.shows("a")
				arrived, release := w.hold("GET", userPath)
				<-arrived
				time.Sleep(refillTimeout + time.Second) // the refill has given up
				if killed {
					err := errors.New("it is being killed")
					w.notAllowed.Store(&err)
				}
				release()
				time.Sleep(2 * time.Second)
				if killed {
					stop()
					w.notAllowed.Store(nil)
					w.restart(dir)
					w.run()
					time.Sleep(2 * time.Second)
				}
				if w.shows("a") == old {
					w.t.Error("the volume shows the lease that nobody renews")
				}
				w.wantCount("GET", userPath, 2)
				if !killed { // which is played by an error, and that is told
					w.wantNoEvent()
				}
			})
		})
	}
}

// One that comes after the old one was served, and before the files that were made of that are shown, is not in them either.
func TestLeaseThatComesWhileTheOldOneIsWrittenIsShown(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.run()
		w.mounted("a")
		old := w.shows("a")
		arrived, release := w.hold("GET", userPath)
		meanwhile := func() {
			release()
			synctest.Wait()
		}
		w.beforeShow.Store(&meanwhile)
		<-arrived
		time.Sleep(refillTimeout + time.Second) // the refill has given up, and has written what it had
		time.Sleep(2 * time.Second)
		if w.shows("a") == old {
			w.t.Error("the volume shows the lease that nobody renews")
		}
		w.wantCount("GET", userPath, 2)
		w.wantNoEvent()
	})
}

// A panic while a volume is filled fails that volume, not the provider.
func TestPanicInARefill(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.mounted("a")
		old := w.shows("a")
		w.panics.Store(true)
		w.run()
		time.Sleep(18 * time.Minute)
		status := w.keeper.Status()[0]
		if !strings.Contains(status.Error, "internal error") || strings.Contains(w.log.String()+status.Error, "a value that") {
			w.t.Errorf("got error %q", status.Error)
		}
		w.panics.Store(false)
		time.Sleep(3 * time.Minute)
		if w.shows("a") == old {
			w.t.Error("it was not tried again")
		}
	})
}
