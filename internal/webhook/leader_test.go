package webhook

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func newLeaderOf(t *testing.T, m *machine, identity string) *Leader {
	t.Helper()
	l, err := NewLeader(m.api, ownSpace, "leasehold-webhook", identity, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Two that take the Lease at the same time have read the same version of it: one of them wins.
func TestLeaseIsTakenOnce(t *testing.T) {
	m := newMachine(t)
	one, two := newLeaderOf(t, m, "one"), newLeaderOf(t, m, "two")
	m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			m.server.Intercept(nil)
			if leads, err := two.Lead(t.Context()); !leads || err != nil {
				t.Errorf("two: got %v, %v, want it to lead", leads, err)
			}
		}
		return false
	})
	if leads, err := one.Lead(t.Context()); leads || err != nil {
		t.Errorf("one: got %v, %v, want that two was faster", leads, err)
	}
	if holder := m.server.Get(leaseAt).Text("spec", "holderIdentity"); holder != "two" {
		t.Errorf("got holder %q, want two", holder)
	}
}

func TestLeaseThatIsNotThere(t *testing.T) {
	m := newMachine(t)
	m.server.Remove(leaseAt)
	leads, err := newLeaderOf(t, m, "one").Lead(t.Context())
	if leads || err == nil || !strings.Contains(err.Error(), "Leasehold's chart makes it") {
		t.Errorf("got %v, %v, want an error that says who makes it", leads, err)
	}
}
