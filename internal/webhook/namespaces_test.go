package webhook

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a namespace says is known without a request once all have been listed, and changes are heard of.
func TestNamespacesAreFollowed(t *testing.T) {
	m := newNetwork(t)
	n := NewNamespaces(m.api, m.logger())
	put := func(role string) {
		m.server.Put(shopSpace, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"annotations":
			{"vault.hashicorp.com/role": "`+role+`", "other.example/note": "long"}}}`)
	}
	want := func(role string) bool {
		t.Helper()
		got, err := n.Annotations(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return maps.Equal(got, map[string]string{annotationPrefix + "role": role})
	}
	put("first")
	if !want("first") || m.server.Count("get namespaces") != 1 {
		t.Error("before the list: not the living object's")
	}
	stop := background(t, n.Run)
	until(t, "all are listed", n.known.isListed)
	put("second")
	until(t, "the change is heard of", func() bool { return want("second") })
	if got := m.server.Count("get namespaces"); got != 1 {
		t.Errorf("got %d requests for one namespace, want none since the list", got)
	}
	// A new one is asked for, whether the watch has brought it or not.
	m.server.Put("/api/v1/namespaces/new", `{"kind": "Namespace", "apiVersion": "v1"}`)
	if got, err := n.Annotations(t.Context(), "new"); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v of a new namespace", got, err)
	}
	m.server.Remove(shopSpace)
	until(t, "it is gone", func() bool {
		_, err := n.Annotations(t.Context(), "shop")
		return err != nil && strings.Contains(err.Error(), "read the defaults of the namespace")
	})
	stop()
}

// Defaults that are no longer followed are of use still, and somebody has to hear of it.
func TestNamespacesThatCannotBeFollowedAreToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.on(http.MethodGet, "/namespaces", status(http.StatusForbidden, metav1.StatusReasonForbidden))
		n := NewNamespaces(m.api, m.logger())
		warnings := func() int {
			synctest.Wait()
			return strings.Count(m.log.String(), "level=WARN msg=\"the namespaces cannot be followed")
		}
		stop := background(t, n.Run)
		time.Sleep(time.Second)
		if got := warnings(); got != 0 {
			t.Errorf("got %d warnings within a second: it may pass", got)
		}
		time.Sleep(time.Minute)
		if got := warnings(); got == 0 || got > 12 {
			t.Errorf("got %d warnings within a minute, want some", got)
		}
		stop()
	})
}

// Whoever gets the annotations may change them.
func TestAnnotationsAreACopy(t *testing.T) {
	m := newNetwork(t)
	m.server.Put(shopSpace, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"annotations": {"vault.hashicorp.com/role": "a"}}}`)
	n := NewNamespaces(m.api, m.logger())
	background(t, n.Run)
	until(t, "all are listed", n.known.isListed)
	for range 2 {
		got, err := n.Annotations(t.Context(), "shop")
		if err != nil || got[annotationPrefix+"role"] != "a" {
			t.Fatalf("got %q, %v", got, err)
		}
		clear(got)
	}
}
