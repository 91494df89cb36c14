package podwatch

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"leasehold/internal/podwatch/podwatchtest"
)

const node = "node-1"

// allowed is the provider's RBAC, with the TokenRequest opt-in.
var allowed = []string{"get pods", "list pods", "watch pods", "create events", "patch events", "create serviceaccounts/token"}

// cart is the pod that most tests are about.
var cart = Pod{Namespace: "shop", Name: "cart", UID: "uid-1", ServiceAccount: "app"}

// world is an API server and a watch of it.
type world struct {
	t      *testing.T
	server *podwatchtest.Server
	watch  *Watch
	log    *journal

	changed chan struct{} // capacity 1: Changed was called
}

// newWorld makes a world whose watch speaks to the server over HTTP.
func newWorld(t *testing.T) *world {
	t.Helper()
	server := podwatchtest.New()
	t.Cleanup(server.Close)
	return worldOf(t, server, &rest.Config{Host: server.URL})
}

// newQuickWorld makes one without a network, for synctest.
func newQuickWorld(t *testing.T, trip func(s *podwatchtest.Server, r *http.Request) (*http.Response, error)) *world {
	t.Helper()
	server := podwatchtest.NewHandler()
	return worldOf(t, server, &rest.Config{Host: "api.test", Transport: tripper(func(r *http.Request) (*http.Response, error) { return trip(server, r) })})
}

func worldOf(t *testing.T, server *podwatchtest.Server, config *rest.Config) *world {
	t.Helper()
	w := watchOf(t, config, node)
	w.server = server
	t.Cleanup(func() { checkRequests(t, server) })
	return w
}

// checkRequests holds what the server was asked against the provider's RBAC.
func checkRequests(t *testing.T, server *podwatchtest.Server) {
	t.Helper()
	for _, r := range server.Requests() {
		if !slices.Contains(allowed, r) {
			t.Errorf("request %q is not allowed to the provider", r)
		}
	}
}

// watchOf makes a world that has a watch but no server of its own.
func watchOf(t *testing.T, config *rest.Config, node string) *world {
	t.Helper()
	w := &world{t: t, log: &journal{}, changed: make(chan struct{}, 1)}
	var err error
	w.watch, err = New(Config{
		REST: config, Node: node, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Changed: func() {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs the watch until the test ends, or stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.watch.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(stop)
	return stop
}

// set makes or changes the pod on the watched node.
func (w *world) set(p Pod, phase corev1.PodPhase) {
	w.server.SetPod(podwatchtest.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ServiceAccount: p.ServiceAccount, Node: node, Phase: phase})
}

// until waits until a pod has a state; it looks again whenever Changed is called, and only then.
func (w *world) until(p Pod, want State) {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for w.watch.Look(p) != want {
		select {
		case <-w.changed:
		case <-deadline:
			w.t.Fatalf("pod %s is in state %d, want %d", p.Name, w.watch.Look(p), want)
		}
	}
}

// settle waits until the watch has heard of everything that was done to pods before.
func (w *world) settle() {
	w.t.Helper()
	marker := Pod{Namespace: "kube-system", Name: "marker", UID: "marker-" + rest.DefaultKubernetesUserAgent() + time.Now().String()}
	w.set(marker, corev1.PodRunning)
	w.until(marker, Alive)
}

func (w *world) want(p Pod, want State) {
	w.t.Helper()
	if got := w.watch.Look(p); got != want {
		w.t.Errorf("pod %s %s is in state %d, want %d", p.Name, p.UID, got, want)
	}
}

// journal is a log that may be read while it is written.
type journal struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.String()
}

func (j *journal) count(text string) int { return strings.Count(j.String(), text) }

// tripper is a transport made of a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// inProcess answers a request that ends by itself.
func inProcess(s *podwatchtest.Server, r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}
