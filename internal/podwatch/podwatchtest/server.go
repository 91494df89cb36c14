// Package podwatchtest is an API server for tests, over real HTTP: a fake with the answers of the real one.
//
// [New] starts one without pods. Its pods are made, changed and taken away by [Server.SetPod], [Server.SetPhase] and
// [Server.DeletePod], and whoever watches hears of it. What happened can be asked afterwards: events, token requests,
// and all requests by verb and resource, which are the words of RBAC too.
//
//	s := podwatchtest.New()
//	defer s.Close()
//	s.SetPod(podwatchtest.Pod{Namespace: "shop", Name: "cart", UID: "u1", Node: "node-1"})
//	w, err := podwatch.New(podwatch.Config{REST: &rest.Config{Host: s.URL}, Node: "node-1", Log: log})
//
// It knows pods (get, list, watch), events (create, patch) and serviceaccounts/token (create), and forbids the rest.
package podwatchtest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Pod is what a test says of a pod. Phase "" is Running, ServiceAccount "" is default.
type Pod struct {
	Namespace, Name, UID, Node, ServiceAccount string
	Phase                                      corev1.PodPhase
	Deleting                                   bool // has a deletion timestamp
}

// TokenRequest is what somebody asked a token for.
type TokenRequest struct {
	Namespace, ServiceAccount string
	Pod, PodUID               string // whom it is bound to; empty if to nobody
	Audiences                 []string
	Expires                   time.Time
}

// Server is a fake API server. It is safe for concurrent use.
type Server struct {
	URL string

	http   *httptest.Server // nil without a network
	routes http.Handler
	codec  codec

	mu        sync.Mutex // guards all below
	down      bool
	plain     bool                     // does not stream lists
	revision  int64                    // the resource version
	oldest    int64                    // changes up to this one are forgotten
	changes   []change                 // in the order of their revision
	news      chan struct{}            // closed and replaced at each change
	pods      map[string]*corev1.Pod   // namespace/name -> pod
	events    map[string]*corev1.Event // namespace/name -> event
	names     []string                 // the keys of events, in the order of their making
	tokens    []TokenRequest           // in the order of their arrival
	requests  []string                 // "list pods", in the order of their arrival
	intercept func(http.ResponseWriter, *http.Request) bool
	sign      func(TokenRequest) (string, error)
	conns     map[net.Conn]struct{} // open connections
}

// change is one pod's change. Its pod is never written again.
type change struct {
	revision int64
	kind     watch.EventType
	pod      *corev1.Pod
}

// New starts an API server without pods.
func New() *Server {
	s := NewHandler()
	s.http = httptest.NewUnstartedServer(s.routes)
	s.http.Listener = doorman{s.http.Listener, s}
	s.http.Config.ConnState = s.note
	s.http.Start()
	s.URL = s.http.URL
	return s
}

// NewHandler returns an API server without pods and without a network, which answers by ServeHTTP alone: for tests
// with testing/synctest, whose time stands still while anybody waits for the network.
func NewHandler() *Server {
	s := &Server{
		codec:    newCodec(),
		revision: 100, // nobody may take it for a number that counts pods
		oldest:   100,
		news:     make(chan struct{}),
		pods:     map[string]*corev1.Pod{},
		events:   map[string]*corev1.Event{},
		conns:    map[net.Conn]struct{}{},
	}
	s.routes = s.newRoutes()
	return s
}

// Close ends it, and all connections.
func (s *Server) Close() {
	s.Down(true)
	if s.http != nil {
		s.http.Close()
	}
}

// ServeHTTP answers a request without a network.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.routes.ServeHTTP(w, r)
}

// Kubeconfig writes a kubeconfig for it, with mode 0600.
func (s *Server) Kubeconfig(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q}}]
users: [{name: test, user: {}}]
`, s.URL), 0o600)
}

// SetPod makes a pod, or changes the one with its UID. A pod of another UID with its name is deleted first.
func (s *Server) SetPod(p Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod := s.pods[key(p.Namespace, p.Name)]
	if pod != nil && string(pod.UID) != p.UID {
		s.remove(p.Namespace, p.Name)
		pod = nil
	}
	s.put(p.object(), pod == nil)
}

// SetPhase changes a pod's phase; of a pod that there is not it is nothing.
func (s *Server) SetPhase(namespace, name string, phase corev1.PodPhase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pod := s.pods[key(namespace, name)]; pod != nil {
		pod = pod.DeepCopy()
		pod.Status.Phase = phase
		s.put(pod, false)
	}
}

// DeletePod takes a pod away, as the kubelet does when it has ended, or a user by force.
func (s *Server) DeletePod(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(namespace, name)
}

// Down ends all connections and takes no new ones, or takes them again.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	s.down = down
	var open []net.Conn
	if down {
		for c := range s.conns {
			open = append(open, c)
		}
	}
	s.mu.Unlock()
	for _, c := range open {
		reset(c)
	}
}

// Compact forgets past changes: who has not heard of them has to list anew.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest, s.changes = s.revision, nil
}

// StreamLists says whether lists are streamed as watches (the default) or have to be asked for plainly, as of an API
// server before Kubernetes 1.34.
func (s *Server) StreamLists(stream bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain = !stream
}

// Intercept lets f see every request first; it answers itself and returns true, or returns false. Nil ends it.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// SignTokens lets f make the tokens. Without it they are "token-of-<pod>-<number>".
func (s *Server) SignTokens(f func(TokenRequest) (string, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sign = f
}

// Events returns the events, oldest first.
func (s *Server) Events() []corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []corev1.Event
	for _, name := range s.names {
		if e := s.events[name]; e != nil {
			all = append(all, *e.DeepCopy())
		}
	}
	return all
}

// ForgetEvents drops the events, as a real API server does after an hour.
func (s *Server) ForgetEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.events)
	s.names = nil
}

// TokenRequests returns the requests for tokens that were granted, oldest first.
func (s *Server) TokenRequests() []TokenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tokens)
}

// Requests returns all requests by verb and resource, such as "list pods" or "create serviceaccounts/token", oldest
// first.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns how many requests there were of this verb and resource.
func (s *Server) Count(request string) int {
	n := 0
	for _, r := range s.Requests() {
		if r == request {
			n++
		}
	}
	return n
}

// object is the pod with enough around it that who does not strip it would be noticed.
func (p Pod) object() *corev1.Pod {
	if p.Phase == "" {
		p.Phase = corev1.PodRunning
	}
	if p.ServiceAccount == "" {
		p.ServiceAccount = "default"
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), Labels: map[string]string{"app": p.Name},
		},
		Spec: corev1.PodSpec{
			NodeName: p.Node, ServiceAccountName: p.ServiceAccount,
			Containers: []corev1.Container{{Name: "app", Image: "app", Env: []corev1.EnvVar{{Name: "WHO", Value: p.Name}}}},
		},
		Status: corev1.PodStatus{Phase: p.Phase},
	}
	if p.Deleting {
		now, grace := metav1.Now(), int64(30)
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	}
	return pod
}

// put stores a pod and tells who watches. The pod is not written after that.
func (s *Server) put(pod *corev1.Pod, fresh bool) {
	kind := watch.Modified
	if fresh {
		kind = watch.Added
	}
	s.revision++
	pod.ResourceVersion = fmt.Sprint(s.revision)
	s.pods[key(pod.Namespace, pod.Name)] = pod
	s.tell(kind, pod)
}

func (s *Server) remove(namespace, name string) {
	pod := s.pods[key(namespace, name)]
	if pod == nil {
		return
	}
	// Whoever deletes it, the real one first writes that it has no time left.
	now, none := metav1.Now(), int64(0)
	pod = pod.DeepCopy()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &none
	s.put(pod, false)
	delete(s.pods, key(namespace, name))
	s.revision++
	pod = pod.DeepCopy()
	pod.ResourceVersion = fmt.Sprint(s.revision)
	s.tell(watch.Deleted, pod)
}

func (s *Server) tell(kind watch.EventType, pod *corev1.Pod) {
	s.changes = append(s.changes, change{s.revision, kind, pod})
	close(s.news)
	s.news = make(chan struct{})
}

func key(namespace, name string) string { return namespace + "/" + name }

// note keeps the open connections.
func (s *Server) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		if s.down { // it came in just before
			reset(c)
		}
		s.conns[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
	case http.StateActive, http.StateIdle:
	}
}

// doorman keeps the address while the server is down, so that nobody else gets it, and resets who comes.
type doorman struct {
	net.Listener
	server *Server
}

func (d doorman) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		d.server.mu.Lock()
		down := d.server.down
		d.server.mu.Unlock()
		if !down {
			return c, nil
		}
		reset(c)
	}
}

// reset ends a connection as a machine does that has lost all memory of it.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
