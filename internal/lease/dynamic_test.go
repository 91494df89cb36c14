package lease

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

const morePath = "database/creds/more"

// more makes the database role "more".
func (w *world) more() {
	w.vault.Write("database/roles/more", vaulttest.Data{"default_ttl": "1h", "max_ttl": "24h"})
}

// requests is how often anybody has asked Vault for anything.
func (w *world) requests() int { return len(w.vault.Requests()) }

// wantQuiet checks that nothing was asked since there were so many requests.
func (w *world) wantQuiet(before int) {
	w.t.Helper()
	if all := w.vault.Requests(); len(all) > before {
		w.t.Errorf("asked Vault for %q, want nothing", all[before:])
	}
}

// wantSources checks what the volume of the pod "a" is said to be made of.
func (w *world) wantSources(want ...spec.Source) {
	w.t.Helper()
	v := w.volume("a")
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Equal(v.sources, want) {
		w.t.Errorf("the files are made of %+v, want %+v", v.sources, want)
	}
}

// The template is changed under a running pod: it asks for one database user less. That one ends with its lease.
func TestSourceThatIsNotAskedForAnyMoreIsLeftAlone(t *testing.T) {
	bubble(t, func(w *world) {
		w.more()
		w.run()
		w.mounted("a", template(userPath, morePath))
		user := w.shows("a")
		time.Sleep(30 * time.Minute)
		w.take()
		before := w.requests()
		w.mounted("a", template(userPath))
		w.wantQuiet(before)
		w.wantSources(asked(userPath))
		if !strings.HasPrefix(user, w.shows("a")) {
			w.t.Error("the user that is still asked for is another one")
		}
		time.Sleep(12 * time.Hour)
		w.wantCount("GET", userPath, 1)
		w.wantCount("GET", morePath, 1)
		if users := w.vault.Users(); len(users) != 1 || !strings.Contains(w.shows("a"), users[0]) {
			w.t.Errorf("got users %q, want the one in the files alone", users)
		}
		// One lease and the token are renewed at some 40 minutes each.
		got := w.take()
		if leases, tokens := count(got, "renewed lease ok"), count(got, "renewed token ok"); leases < 17 || leases > 21 || tokens < 17 {
			w.t.Errorf("got %d renewals of leases and %d of tokens, want some 18 each", leases, tokens)
		}
		w.wantRefills(0)
		w.wantNoEvent()
	})
}

// And it asks for one more: that costs one read, and nothing of what there is changes.
func TestSourceThatIsAskedForAnewIsOneRead(t *testing.T) {
	bubble(t, func(w *world) {
		w.more()
		w.run()
		h := w.mounted("a", template(userPath))
		user := w.shows("a")
		before := w.requests()
		if w.mounted("a", template(userPath, morePath)) != h {
			w.t.Error("the token is another one")
		}
		if got := w.vault.Requests()[before:]; !slices.Equal(got, []string{"GET " + morePath}) {
			w.t.Errorf("asked for %q, want the new one alone", got)
		}
		if !strings.HasPrefix(w.shows("a"), user) {
			w.t.Error("the user of before is another one")
		}
		before = w.requests()
		w.mounted("a", template(morePath, userPath)) // the same, told in another way
		w.wantQuiet(before)
		time.Sleep(12 * time.Hour)
		if users := w.vault.Users(); len(users) != 2 {
			w.t.Errorf("got users %q, want two that are kept alive", users)
		}
		w.wantCount("GET", userPath, 1)
		w.wantCount("GET", morePath, 1)
	})
}

// What a template asks for depends on what it was told before.
func TestSourcesFollowTheAnswers(t *testing.T) {
	bubble(t, func(w *world) {
		w.vault.Write("kv/apps/one", vaulttest.Data{"password": "1"})
		w.vault.Write("kv/apps/two", vaulttest.Data{"password": "2"})
		w.run()
		w.mounted("a", template("kv/apps/*"))
		w.wantSources(listed("kv/apps"), asked("kv/apps/one"), asked("kv/apps/two"))
		w.vault.Delete("kv/apps/one")
		w.vault.Write("kv/apps/three", vaulttest.Data{"password": "3"})
		time.Sleep(7 * time.Minute) // one that is gone may be due before the list is; it is tried again a minute later
		w.wantSources(listed("kv/apps"), asked("kv/apps/three"), asked("kv/apps/two"))
		if got := w.shows("a"); !strings.Contains(got, `"3"`) || strings.Contains(got, `"1"`) {
			w.t.Errorf("the files show %s", got)
		}
		ones, twos := w.vault.Count("GET", "kv/apps/one"), w.vault.Count("GET", "kv/apps/two")
		time.Sleep(time.Hour)
		w.wantCount("GET", "kv/apps/one", ones)
		if n := w.vault.Count("GET", "kv/apps/two"); n < twos+11 {
			w.t.Errorf("what is still in the list was read %d times in an hour, want once in some 5 minutes", n-twos)
		}
		w.vault.Delete("kv/apps/two")
		w.vault.Delete("kv/apps/three")
		time.Sleep(7 * time.Minute)
		w.wantSources(listed("kv/apps"))
		w.wantNoEvent()
	})
}

// A template that is changed for the worse fails. The files stay, and what they are made of is kept alive.
func TestTemplateThatFailsKeepsWhatIsShown(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		stop := w.run()
		w.mounted("a", template(userPath))
		user := w.shows("a")
		if _, err := w.mount("a", template("kv/app", "kv/none")); client.KindOf(err) != client.Missing {
			w.t.Fatalf("got error %v, want Missing", err)
		}
		w.wantSources(asked(userPath))
		stop()
		w.restart(dir) // a restart makes no difference
		w.wantSources(asked(userPath))
		w.run()
		time.Sleep(12 * time.Hour)
		if users := w.vault.Users(); len(users) != 1 || !strings.Contains(user, users[0]) || w.shows("a") != user {
			w.t.Errorf("got users %q, want the one in the files", users)
		}
		w.wantCount("GET", userPath, 1)
	})
}

// The next provider keeps alive, without a poll, what a template asked for, and answers a poll without a request.
func TestSourcesOfTemplatesSurviveARestart(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.vault.Write("kv/apps/one", vaulttest.Data{"password": "1"})
		w.restart(dir)
		stop := w.run()
		w.mounted("a", template(userPath, "kv/apps/*"))
		shown := w.shows("a")
		stop()
		before := w.requests()
		w.restart(dir)
		w.run()
		synctest.Wait()
		w.wantSources(asked(userPath), listed("kv/apps"), asked("kv/apps/one"))
		w.mounted("a", template(userPath, "kv/apps/*"))
		synctest.Wait()
		w.wantQuiet(before)
		if w.shows("a") != shown {
			w.t.Error("the files have changed")
		}
		w.vault.Write("kv/apps/one", vaulttest.Data{"password": "another"})
		time.Sleep(12 * time.Hour)
		w.wantCount("GET", userPath, 1)
		w.wantCount("POST", loginPath, 1)
		if users := w.vault.Users(); len(users) != 1 || !strings.Contains(w.shows("a"), users[0]) {
			w.t.Errorf("got users %q, want the one in the files", users)
		}
		if !strings.Contains(w.shows("a"), "another") {
			w.t.Error("the secret was not read again")
		}
	})
}

// With rotation off, what the template is changed to ask for is read, and nothing else, whatever is due.
func TestFrozenVolumeReadsWhatItNeverHad(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a", template("kv/app"), frozen)
		time.Sleep(time.Hour)
		before := w.requests()
		w.mounted("a", template("kv/app", userPath), frozen)
		if got := w.vault.Requests()[before:]; !slices.Equal(got, []string{"GET " + userPath}) {
			w.t.Errorf("asked for %q, want the new one alone", got)
		}
		time.Sleep(time.Hour)
		w.mounted("a", template("kv/app", userPath), frozen)
		w.wantCount("GET", "kv/app", 1)
		w.wantCount("GET", userPath, 1)
		w.wantRefills(0)
	})
}

// A quiet poll writes nothing, and one that changes what the files are made of does.
func TestJournalHasTheSourcesOfTheLastMount(t *testing.T) {
	dir := inMemory(t)
	w := newWorld(t)
	w.restart(dir)
	for _, want := range [][]spec.Source{{asked(userPath)}, {asked(userPath), asked("kv/app")}, {asked("kv/app")}, nil} {
		var paths []string
		for _, s := range want {
			paths = append(paths, s.Path)
		}
		w.mounted("a", template(paths...))
		w.restart(dir)
		w.wantSources(want...)
		before, err := os.Stat(w.recordOf(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		w.mounted("a", template(paths...))
		if after, err := os.Stat(w.recordOf(dir, "a")); err != nil || !os.SameFile(before, after) {
			t.Errorf("%q: a quiet poll wrote a record (%v)", paths, err)
		}
	}
}

// What a template asks for may change though its class does not.
func TestJournalHasTheSourcesOfTheLastReplacement(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.vault.Write("kv/apps/one", vaulttest.Data{"password": "1"})
		w.restart(dir)
		stop := w.run()
		w.mounted("a", template("kv/apps/*"))
		w.vault.Write("kv/apps/two", vaulttest.Data{"password": "2"})
		for !strings.Contains(w.shows("a"), `"2"`) {
			time.Sleep(100 * time.Millisecond)
		}
		stop() // at once: whatever is read later is written down with all there is
		before := w.requests()
		w.restart(dir)
		w.wantSources(listed("kv/apps"), asked("kv/apps/one"), asked("kv/apps/two"))
		w.mounted("a", template("kv/apps/*"))
		w.wantQuiet(before)
	})
}

// A volume whose files are made of nothing is not taken for one of before templates: its class may name something by now.
func TestFilesThatAreMadeOfNothing(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a", template())
		w.answer("GET", keySource.Path, 403, "")
		if _, err := w.mount("a", of(keySource)); client.KindOf(err) != client.Denied {
			w.t.Fatalf("got error %v, want Denied", err)
		}
		v := w.volume("a")
		if err := v.update(); err != nil {
			w.t.Fatal(err)
		}
		w.restart(dir)
		w.wantSources()
	})
}

// The record of a volume that a provider of before templates mounted: the files are made of what the class names.
func TestRecordOfBeforeTemplates(t *testing.T) {
	w := newWorld(t)
	content, err := os.ReadFile("testdata/record-before-templates.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := w.keeper.restore(content)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	if want := []spec.Source{userSource, keySource}; !slices.Equal(v.sources, want) {
		t.Errorf("got sources %+v, want those of the class, %+v", v.sources, want)
	}
	want := []spec.Object{
		{Name: "user", Source: userSource, Key: "username", Encoding: spec.UTF8, Mode: 0o644},
		{Name: "password", Source: userSource, Key: "password", Encoding: spec.UTF8, Mode: 0o644},
		{Name: "key", Source: keySource, Mode: 0o600},
	}
	if got := v.Mount().Class.Objects; !reflect.DeepEqual(got, want) {
		t.Errorf("got objects %+v, want %+v", got, want)
	}
	if p := v.Mount().Pod; p.Token.Reveal() != "a-service-account-token" || !p.TokenExpires.Equal(at.Add(time.Hour)) || v.versionKey[31] != 31 || !v.written {
		t.Error("the pod's token, the version key or who writes was lost")
	}
	if v.shown.Token().Reveal() != "a-vault-token" || !v.shown.Since().Equal(at) || len(v.shown.grants) != 2 {
		t.Errorf("got a token of %v with %d grants, want the one of %v with 2", v.shown.Since(), len(v.shown.grants), at)
	}
	if g := v.shown.grants[userSource]; g == nil || g.LeaseID != "database/creds/app/1" || g.Kind != kindLease || !g.End.Equal(at.Add(time.Hour)) ||
		string(g.Data.Reveal()) != `{"password":"a-password","username":"v-app-1"}` {
		t.Error("the lease is another one")
	}
}

// And the first poll after the update makes nothing new.
func TestUpdateFromBeforeTemplatesIsQuiet(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a", of(userSource, keySource))
		path := w.recordOf(dir, "a")
		content, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		var record map[string]any
		if err := json.Unmarshal(content, &record); err != nil {
			w.t.Fatal(err)
		}
		if _, found := record["Sources"]; !found {
			w.t.Fatal("the record has no sources to take away")
		}
		delete(record, "Sources")
		if content, err = json.Marshal(record); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			w.t.Fatal(err)
		}
		before := w.requests()
		w.restart(dir)
		w.run()
		synctest.Wait()
		w.wantSources(userSource, keySource)
		w.mounted("a", of(userSource, keySource))
		synctest.Wait()
		w.wantQuiet(before)
	})
}
