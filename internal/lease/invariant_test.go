package lease

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// However often the keeper looks at a volume, one request for each thing is on its way.
func TestErrandIsSentOnce(t *testing.T) {
	for name, row := range map[string]struct {
		source       spec.Source
		method, path string // of the request that hangs
		begin        func(*world)
	}{
		"renewal of a token": {source: userSource, method: "POST", path: renewTokenPath},
		"renewal of a lease": {source: userSource, method: "POST", path: renewLeasePath},
		"replacement":        {source: keySource, method: "GET", path: keySource.Path},
		"release":            {source: userSource, method: "POST", path: revokePath, begin: func(w *world) { w.ends("a") }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.run()
				w.mounted("a", of(row.source))
				before := w.vault.Count(row.method, row.path)
				arrived, release := w.hold(row.method, row.path)
				if row.begin != nil {
					row.begin(w)
				}
				<-arrived
				for range 10 {
					w.keeper.Wake()
					synctest.Wait()
				}
				release()
				synctest.Wait()
				w.wantCount(row.method, row.path, before+1)
				if n := w.refills.Load(); n > 1 {
					w.t.Errorf("got %d refills, want one at most", n)
				}
			})
		})
	}
	t.Run("confirmation", func(t *testing.T) {
		bubble(t, func(w *world) {
			w.mounted("a")
			w.pods.set("a", Absent)
			v := w.volume("a")
			attend := func() *errand {
				v.mu.Lock()
				defer v.mu.Unlock()
				_, e, _ := v.attend(time.Now())
				return e
			}
			e := attend()
			if e == nil {
				w.t.Fatal("nobody is asked for a pod that is absent")
			}
			e.begin()
			if attend() != nil {
				w.t.Error("the API server is asked though it has not answered")
			}
		})
	})
}

// A Mount comes between a replacement's departure and its turn, and does the same.
func TestReplacementThatAMountForestalls(t *testing.T) {
	bubble(t, func(w *world) {
		w.mounted("a", of(keySource))
		time.Sleep(6 * time.Minute)
		v := w.volume("a")
		due := func() *errand {
			v.mu.Lock()
			defer v.mu.Unlock()
			e, _ := v.replacement(time.Now())
			return e
		}
		e := due()
		if e == nil {
			w.t.Fatal("nothing is due")
		}
		e.begin()
		if due() != nil {
			w.t.Error("the volume is to be filled twice at a time")
		}
		w.mounted("a", of(keySource))
		if err := e.run(w.t.Context()); !errors.Is(err, errNotAsked) {
			w.t.Errorf("got error %v, want errNotAsked", err)
		}
		w.wantRefills(0)
		w.wantCount("GET", keySource.Path, 2)
	})
}

// What Vault did not take before it got into trouble is tried at once when it is back, however long its own pause is.
func TestOutageEndsThePausesOfReleases(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.mounted("b")
		w.answer("POST", revokePath, http.StatusInternalServerError, "")
		w.ends("a")
		time.Sleep(5 * time.Minute) // by now it is tried once a minute
		for before := w.vault.Count("POST", revokePath); w.vault.Count("POST", revokePath) == before; {
			time.Sleep(time.Second)
		}
		w.vault.Intercept(nil)
		w.network.cut(true)
		w.ends("b")
		time.Sleep(3 * time.Second)
		w.network.cut(false)
		w.wantLeft(2, 0)
		time.Sleep(7 * time.Second) // the probe comes within 6 s
		w.wantLeft(0, 0)
	})
}

// What begins at the same moment on a thousand nodes is not due at the same moment: each term draws a spread of its own,
// and so does each renewal.
func TestTermsAreSpread(t *testing.T) {
	pool := newWorld(t).config.Pool
	session := pool.Restore(newWorld(t).vault.Vault("app"), client.Record{Token: "t", Start: began, End: hours(1), Renewable: true})
	grant := client.Grant{LeaseID: "database/creds/a/1", LeaseDuration: time.Hour, Renewable: true, Obtained: began}
	for name, draw := range map[string]func() term{
		"token": func() term { return tokenTerm(session) },
		"grant": func() term { return grantTerm(grant) },
		"renewal": func() term {
			return term{Kind: kindLease, Full: time.Hour, Early: 2}.renewed(client.Renewal{Duration: time.Hour, Renewable: true}, began)
		},
	} {
		early, late := 0, 0
		for range 1000 {
			switch e := draw().Early; {
			case e < 0 || e >= 1:
				t.Fatalf("%s: got %v, want a part of the spread", name, e)
			case e < 0.5:
				late++
			default:
				early++
			}
		}
		if early < 300 || late < 300 {
			t.Errorf("%s: %d of 1000 are due early and %d late, want about as many", name, early, late)
		}
	}
}

// What failed at the same moment does not come back at the same moment, but within a fifth of its pause.
func TestPausesAreSpread(t *testing.T) {
	for name, draw := range map[string]func() time.Duration{
		"pause":   func() time.Duration { return pause(began.Add(10*time.Minute), began) },
		"backoff": func() time.Duration { return backoff(7, time.Hour) - 4*time.Second },
	} {
		early, late := 0, 0
		for range 1000 {
			switch d := draw(); {
			case d < time.Minute:
				early++
			case d > time.Minute:
				late++
			}
		}
		if early < 300 || late < 300 {
			t.Errorf("%s: %d of 1000 are early and %d late, want about as many", name, early, late)
		}
	}
}

// A request may land after all has been given back. It does not bring the record back.
func TestNothingIsWrittenAfterTheRecordHasGone(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(w *world) {
		w.restart(dir)
		w.run()
		w.mounted("a")
		v := w.volume("a")
		w.ends("a")
		synctest.Wait()
		w.wantLeft(0, 0)
		if err := v.update(); err != nil {
			w.t.Error(err)
		}
		if n := len(records(w.t, dir)); n != 0 {
			w.t.Errorf("got %d records of a volume that is forgotten, want none", n)
		}
	})
}

// A poll finds that the provider cannot write into the volume any more, or can again. So does the next instance.
func TestJournalKnowsWhoWrites(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.restart(dir)
	w.mounted("a")
	for _, writes := range []bool{false, true} {
		w.writes.Store(writes)
		w.mounted("a") // a quiet poll
		w.restart(dir)
		if got := w.volume("a").written; got != writes {
			t.Errorf("the next instance takes the volume for one that the provider writes: %v, want %v", got, writes)
		}
	}
}

// The files are still made of a grant that another has taken the place of: the next instance tells its end, too.
func TestJournalKnowsTheEndOfWhatTheFilesShow(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.restart(dir)
	h := w.mounted("a")
	end := time.Now().Add(time.Minute).UTC().Round(0)
	h.mu.Lock()
	h.overtaken[userSource] = end
	h.mu.Unlock()
	if err := w.volume("a").update(); err != nil {
		t.Fatal(err)
	}
	w.restart(dir)
	if got := w.volume("a").shown.end(); !got.Equal(end) {
		t.Errorf("the next instance tells %v, want %v", got, end)
	}
}
