package webhook

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podNaming is a pod with a volume of a class, as text.
func podNaming(class, phase string) string {
	return fmt.Sprintf(`{"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [], "volumes": [{"name": "tmp", "emptyDir": {}},
		{"name": "vault-secrets", "csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": %q}}}]},
		"status": {"phase": %q}}`, class, phase)
}

const podsOf = "/api/v1/namespaces/shop/pods/"

func TestSweep(t *testing.T) {
	for name, row := range map[string]struct {
		class string
		pod   string // "" is none
		swept bool
	}{
		"unused":                  {oldClass("a", 2*grace), "", true},
		"used":                    {oldClass("a", 2*grace), podNaming("a", "Running"), false},
		"used by a pod to start":  {oldClass("a", 2*grace), podNaming("a", "Pending"), false},
		"used by a pod that was":  {oldClass("a", 2*grace), podNaming("a", "Failed"), false},
		"another one is used":     {oldClass("a", 2*grace), podNaming("b", "Running"), true},
		"asked for lately":        {oldClass("a", grace/2), "", false},
		"asked for in the future": {oldClass("a", -time.Hour), "", false},
		"without our label":       {strings.Replace(oldClass("a", 2*grace), `"webhook"`, `"somebody"`, 1), "", false},
		"made by hand":            {`{"kind": "SecretProviderClass", "apiVersion": "secrets-store.csi.x-k8s.io/v1", "metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}}`, "", false},
		"old, without a time":     {strings.Replace(oldClass("a", 2*grace), AnnotationLastAsked, "other.example/x", 1), "", true},
		"new, without a time":     {strings.Replace(oldClass("a", 0), AnnotationLastAsked, "other.example/x", 1), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.server.Put(classesOf+"a", row.class)
			if row.pod != "" {
				m.server.Put(podsOf+"cart", row.pod)
			}
			if err := m.sweep("one").once(t.Context()); err != nil {
				t.Fatal(err)
			}
			if swept := m.server.Get(classesOf+"a") == nil; swept != row.swept || (m.swept == 1) != row.swept {
				t.Errorf("got swept %v and %d counted, want %v", swept, m.swept, row.swept)
			}
		})
	}
}

// A pod of another namespace names another class, though it has the same name.
func TestSweepKeepsNamespacesApart(t *testing.T) {
	m := newMachine(t)
	m.server.Put(classesOf+"a", oldClass("a", 2*grace))
	m.server.Put("/api/v1/namespaces/other/pods/cart", podNaming("a", "Running"))
	m.server.Put(strings.Replace(classesOf, "/shop/", "/other/", 1)+"a", oldClass("a", 2*grace))
	if err := m.sweep("one").once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.server.Paths("secretproviderclasses"); len(got) != 1 || !strings.Contains(got[0], "/other/") {
		t.Errorf("got classes %q, want the other namespace's", got)
	}
}

// A pod is admitted with the class after the sweep has seen that none names it: the touch keeps the class.
func TestSweepSparesWhatIsAskedForMeanwhile(t *testing.T) {
	for name, meanwhile := range map[string]func(*machine){
		"a pod asks for it": func(m *machine) {
			classes := m.classes()
			if err := classes.ensure(m.t.Context(), "shop", class()); err != nil {
				m.t.Error(err)
			}
		},
		"it is another one": func(m *machine) {
			m.server.Remove(classesOf + "a")
			m.server.Put(classesOf+"a", oldClass("a", 2*grace))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.server.Put(classesOf+"a", oldClass("a", 2*grace))
			m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodDelete {
					m.server.Intercept(nil)
					meanwhile(m)
				}
				return false
			})
			if err := m.sweep("one").once(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.wantClasses(1)
			if m.swept != 0 {
				t.Errorf("counted %d swept, want none", m.swept)
			}
		})
	}
}

// The classes are listed before the pods: a pod that appears between the two is seen.
func TestSweepSeesAPodThatComesBetween(t *testing.T) {
	m := newMachine(t)
	m.server.Put(classesOf+"a", oldClass("a", 2*grace))
	m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/secretproviderclasses") {
			return false
		}
		if strings.HasSuffix(r.URL.Path, "/pods") {
			m.server.Put(podsOf+"cart", podNaming("a", "Pending"))
		}
		return false
	})
	if err := m.sweep("one").once(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.wantClasses(1)
	lists := slices.DeleteFunc(m.server.Requests(), func(r string) bool { return !strings.HasPrefix(r, "list ") })
	if !slices.Equal(lists, []string{"list secretproviderclasses", "list pods"}) {
		t.Errorf("got %q, want the classes first", lists)
	}
}

// What fails is told, counted and done later; it keeps nothing else from being done.
func TestFailedSweepIsNotFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.server.Put(classesOf+"a", oldClass("a", 2*grace))
		m.server.Put(classesOf+"b", oldClass("b", 2*grace))
		m.on(http.MethodDelete, "/a", status(403, metav1.StatusReasonForbidden))
		stop := background(t, m.sweep("one").Run)
		time.Sleep(SweepEvery(grace) + time.Second)
		synctest.Wait()
		if names := m.wantClasses(1); names[0] != "a" {
			t.Errorf("got class %q left, want a", names[0])
		}
		if m.failed != 1 || !strings.Contains(m.log.String(), "unused classes stay for now") {
			t.Errorf("counted %d failures, log %s", m.failed, m.log.String())
		}
		m.server.Intercept(nil)
		time.Sleep(SweepEvery(grace))
		synctest.Wait()
		m.wantClasses(0)
		stop()
	})
}

// Only the leader sweeps; another one takes its place when it is gone, and not before.
func TestOneReplicaSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		first, second := m.sweep("one"), m.sweep("two")
		must := func(s *Sweep, leads bool) {
			t.Helper()
			got, err := s.config.Leader.Lead(t.Context())
			if err != nil || got != leads {
				t.Fatalf("got %v, %v, want %v", got, err, leads)
			}
		}
		must(first, true)
		must(second, false)
		m.server.Put(classesOf+"a", oldClass("a", 2*grace))
		if err := second.once(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.wantClasses(1)
		for range 10 { // the leader goes on for longer than the other's patience
			time.Sleep(SweepEvery(grace))
			must(first, true)
			must(second, false)
		}
		time.Sleep(3*SweepEvery(grace) - time.Second)
		must(second, false)
		time.Sleep(time.Second)
		must(second, true)
		must(first, false)
		if err := second.once(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.wantClasses(0)
	})
}

func TestSweepOfManyPages(t *testing.T) {
	m := newMachine(t)
	for i := range 3 {
		m.server.Put(fmt.Sprintf("%sclass-%d", classesOf, i), oldClass(fmt.Sprint("class-", i), 2*grace))
	}
	m.server.PageSize(2)
	if err := m.sweep("one").once(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.wantClasses(0)
}
