package webhook

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/webhook/webhooktest"
)

func askedAt(t *testing.T, m *machine) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, m.server.Get(classesOf+"a").Text("metadata", "annotations", AnnotationLastAsked))
	if err != nil {
		t.Fatalf("the class does not say when it was last asked for: %v", err)
	}
	return at
}

// A class is touched when the last touch is older than a quarter of the grace, and no more often: a rollout of a thousand
// pods writes it once.
func TestClassIsTouchedNowAndThen(t *testing.T) {
	for _, row := range []struct {
		ago     time.Duration
		touched bool
	}{{0, false}, {grace/4 - time.Minute, false}, {grace/4 + time.Minute, true}, {10 * grace, true}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(t)
			classes := m.classes()
			m.server.Put(classesOf+"a", oldClass("a", row.ago))
			before := askedAt(t, m)
			if err := classes.ensure(t.Context(), "shop", class()); err != nil {
				t.Fatal(err)
			}
			if touched := !askedAt(t, m).Equal(before); touched != row.touched || touched && time.Since(askedAt(t, m)) > time.Second {
				t.Errorf("asked for %v ago: got touched %v (%v), want %v", row.ago, touched, askedAt(t, m), row.touched)
			}
			if m.made != 0 {
				t.Errorf("counted %d made, want none", m.made)
			}
		})
	}
}

func TestClassOfSomebodyElseIsNotTouched(t *testing.T) {
	m := newMachine(t)
	classes := m.classes()
	m.server.Put(classesOf+"a", `{"kind": "SecretProviderClass", "apiVersion": "secrets-store.csi.x-k8s.io/v1",
		"spec": {"provider": "vault", "parameters": {"roleName": "a"}}}`)
	if err := classes.ensure(t.Context(), "shop", class()); err != nil {
		t.Fatal(err)
	}
	if writes := m.writes(); len(writes) != 0 {
		t.Errorf("got %q, want nothing written", writes)
	}
}

// Of a class that was asked for lately, the API server's memory is word enough: that spares etcd a read for each pod of a
// rollout. Whatever else the memory says, the living object counts.
func TestClassIsLookedAtAliveWhereMemoryIsNotEnough(t *testing.T) {
	fresh, old := oldClass("a", 0), oldClass("a", 10*grace)
	changed := strings.Replace(fresh, `{"roleName": "a"}`, `{"roleName": "admin"}`, 1)
	going := strings.Replace(fresh, `"metadata": {`, `"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z", `, 1)
	for name, row := range map[string]struct {
		memory, alive string // "" for none
		gets          int
		writes        []string
	}{
		"asked for lately":            {fresh, fresh, 1, nil},
		"asked for long ago":          {old, old, 2, []string{"patch secretproviderclasses"}},
		"touched since":               {old, fresh, 2, nil},
		"made since":                  {"", fresh, 2, nil},
		"swept since":                 {old, "", 2, []string{"create secretproviderclasses"}},
		"mended since":                {changed, fresh, 2, nil},
		"deleted and made anew since": {going, fresh, 2, nil},
		"missing":                     {"", "", 2, []string{"create secretproviderclasses"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			classes := m.classes()
			put := func(text string) {
				m.server.Remove(classesOf + "a")
				if text != "" {
					m.server.Put(classesOf+"a", text)
				}
			}
			put(row.memory)
			m.server.Lag()
			put(row.alive)
			if err := classes.ensure(t.Context(), "shop", class()); err != nil {
				t.Fatal(err)
			}
			if got := m.server.Count("get secretproviderclasses"); got != row.gets {
				t.Errorf("got %d looks at it, want %d", got, row.gets)
			}
			if writes := m.writes(); !slices.Equal(writes, row.writes) {
				t.Errorf("got %q written, want %q", writes, row.writes)
			}
			if ago := time.Since(askedAt(t, m)); ago > time.Minute {
				t.Errorf("got a class that was last asked for %v ago, want just now", ago)
			}
		})
	}
}

// An API server that does not answer is asked once: the author of the pod is waiting.
func TestClassThatNobodyAnswersForIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		classes := m.classes()
		m.server.Intercept(func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Minute)
			return true
		})
		err := classes.ensure(t.Context(), "shop", class())
		if err == nil || !strings.Contains(err.Error(), "has not answered in time") {
			t.Errorf("got %v, want that it has not answered", err)
		}
		if got := m.server.Count("get secretproviderclasses"); got != 1 {
			t.Errorf("got %d looks, want 1", got)
		}
	})
}

// The name of a class stands for what it says. One that says something else gives a pod what nobody asked for.
func TestChangedClassIsRefused(t *testing.T) {
	for name, change := range map[string]string{
		"other parameters": `{"roleName": "admin"}`,
		"more parameters":  `{"roleName": "a", "vaultAddress": "https://evil.example"}`,
		"no parameters":    `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			classes := m.classes()
			m.server.Put(classesOf+"a", strings.Replace(oldClass("a", 10*grace), `{"roleName": "a"}`, change, 1))
			err := classes.ensure(t.Context(), "shop", class())
			if err == nil || !strings.Contains(err.Error(), "somebody has changed it; delete it") {
				t.Errorf("got %v, want that it was changed and how to mend it", err)
			}
			if writes := m.writes(); len(writes) != 0 {
				t.Errorf("got %q, want nothing written", writes)
			}
		})
	}
	m := newMachine(t)
	classes := m.classes()
	m.server.Put(classesOf+"a", strings.Replace(oldClass("a", 0), `"spec": {`, `"spec": {"secretObjects": [{"secretName": "copy"}], `, 1))
	if err := classes.ensure(t.Context(), "shop", class()); err == nil {
		t.Error("got no error of a class that copies its secrets into a Secret")
	}
}

// Two replicas make a class at the same time: both find it there.
func TestClassThatTheOtherReplicaMakes(t *testing.T) {
	m := newMachine(t)
	classes := m.classes()
	m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			m.server.Intercept(nil)
			m.server.Put(classesOf+"a", oldClass("a", 0))
		}
		return false
	})
	if err := classes.ensure(t.Context(), "shop", class()); err != nil {
		t.Fatal(err)
	}
	if got := m.server.Count("create secretproviderclasses"); got != 1 || m.made != 0 {
		t.Errorf("got %d tries to make it and %d counted, want 1 and none", got, m.made)
	}
}

// A class is swept between the look at it and the touch: it is made anew before the pod is admitted.
func TestClassThatIsSweptMeanwhileIsMadeAnew(t *testing.T) {
	for name, meanwhile := range map[string]func(*machine){
		"gone":          func(m *machine) { m.server.Remove(classesOf + "a") },
		"and made anew": func(m *machine) { m.server.Remove(classesOf + "a"); m.server.Put(classesOf+"a", oldClass("a", 0)) },
		"touched":       func(m *machine) { m.server.Put(classesOf+"a", oldClass("a", 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			classes := m.classes()
			m.server.Put(classesOf+"a", oldClass("a", 10*grace))
			m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPatch {
					m.server.Intercept(nil)
					meanwhile(m)
				}
				return false
			})
			if err := classes.ensure(t.Context(), "shop", class()); err != nil {
				t.Fatal(err)
			}
			if ago := time.Since(askedAt(t, m)); ago > time.Minute {
				t.Errorf("got a class that was last asked for %v ago, want just now", ago)
			}
		})
	}
}

// Whoever keeps changing a class does not keep an admission for ever.
func TestClassThatIsNeverStillIsGivenUp(t *testing.T) {
	m := newMachine(t)
	classes := m.classes()
	m.server.Put(classesOf+"a", oldClass("a", 10*grace))
	m.on(http.MethodPatch, "/a", func(w http.ResponseWriter) {
		webhooktest.Answer(w, 409, webhooktest.Failure(409, "Conflict", "secretproviderclasses", "a", "changed"))
	})
	if err := classes.ensure(t.Context(), "shop", class()); err == nil || !strings.Contains(err.Error(), "others keep changing the class") {
		t.Errorf("got %v, want that it is given up", err)
	}
	if got := m.server.Count("patch secretproviderclasses"); got != maxTries {
		t.Errorf("got %d tries, want %d", got, maxTries)
	}
}
