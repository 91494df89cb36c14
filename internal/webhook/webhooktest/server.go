// Package webhooktest is an API server for tests of the webhook: a fake that keeps objects as the JSON that they are, with
// resource versions, and answers as the real one does.
//
// [New] starts one over real HTTP. Objects are put into it by their path, and looked at afterwards:
//
//	s := webhooktest.New()
//	defer s.Close()
//	s.Put("/api/v1/namespaces/shop", `{"kind": "Namespace", "apiVersion": "v1"}`)
//	api, err := webhook.NewAPI(s.Config())
//	...
//	object := s.Get("/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasses/vault-x")
//
// [NewHandler] has no network: its Config answers in the caller's goroutine, for tests with testing/synctest.
package webhooktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Object is one object, as JSON has it.
type Object map[string]any

// Server is a fake API server. It is safe for concurrent use.
type Server struct {
	http *httptest.Server // nil without a network

	mu        sync.Mutex // guards all below
	revision  int
	objects   map[string]Object // by path; never written again
	requests  []string          // "get secrets", in the order of their arrival
	news      chan struct{}     // closed and replaced at each change
	changes   []change
	intercept func(http.ResponseWriter, *http.Request) bool
	page      int               // objects in a page of a list at most; 0: all
	memory    map[string]Object // what a get of resource version 0 finds; nil: objects
}

// change is what happened to one object.
type change struct {
	revision int
	kind     string // ADDED, MODIFIED or DELETED
	path     string
	object   Object
}

// New starts an API server without objects.
func New() *Server {
	s := NewHandler()
	s.http = httptest.NewServer(s)
	return s
}

// NewHandler returns one without a network.
func NewHandler() *Server {
	return &Server{revision: 100, objects: make(map[string]Object), news: make(chan struct{})}
}

// Close ends it, and all connections.
func (s *Server) Close() {
	if s.http != nil {
		s.http.CloseClientConnections()
		s.http.Close()
	}
}

// Config tells how to reach it.
func (s *Server) Config() *rest.Config {
	if s.http != nil {
		return &rest.Config{Host: s.http.URL}
	}
	return &rest.Config{Host: "api.test", Transport: inProcess{s}}
}

// Kubeconfig writes a kubeconfig for it, with mode 0600.
func (s *Server) Kubeconfig(file string) error {
	return os.WriteFile(file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q}}]
users: [{name: test, user: {}}]
`, s.http.URL), 0o600)
}

// inProcess answers requests that end by themselves.
type inProcess struct{ server *Server }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if r.Body == nil { // a server's requests have one
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	p.server.ServeHTTP(recorder, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return recorder.Result(), nil
}

// Put makes or changes an object. What is not in its text is left out of it; names, UID and resource version are the
// server's.
func (s *Server) Put(at, text string) {
	object := Object{}
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		panic(fmt.Sprintf("put %s: %v", at, err)) // the test's own text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(at, object)
}

// Remove takes an object away.
func (s *Server) Remove(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(at)
}

// Get returns a copy of an object, or nil.
func (s *Server) Get(at string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[at].copy()
}

// Paths returns the paths of all objects of a resource, such as secretproviderclasses, sorted.
func (s *Server) Paths(resource string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for at := range s.objects {
		if path.Base(path.Dir(at)) == resource {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	return found
}

// Intercept lets f see every request first; it answers itself and returns true, or returns false. Nil ends it.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// PageSize bounds the pages of lists, whatever is asked for.
func (s *Server) PageSize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page = n
}

// Lag has the server remember, from now on, what there is now: that is what a get of resource version 0 finds.
func (s *Server) Lag() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory = maps.Clone(s.objects)
}

// Requests returns all requests by verb and resource, such as "list pods", oldest first.
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

// store puts an object in its place, with what the server writes into it.
func (s *Server) store(at string, object Object) Object {
	object = object.copy()
	meta := object.meta()
	place := parsePath(at)
	meta["name"] = place.name
	if place.namespace != "" {
		meta["namespace"] = place.namespace
	}
	old, kind := s.objects[at], "MODIFIED"
	s.revision++
	if old == nil {
		kind = "ADDED"
		meta["uid"] = fmt.Sprintf("uid-%d", s.revision)
		if meta["creationTimestamp"] == nil {
			meta["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		}
	} else {
		meta["uid"], meta["creationTimestamp"] = old.meta()["uid"], old.meta()["creationTimestamp"]
	}
	meta["resourceVersion"] = fmt.Sprint(s.revision)
	s.objects[at] = object
	s.tell(kind, at, object)
	return object
}

func (s *Server) remove(at string) {
	if object := s.objects[at]; object != nil {
		delete(s.objects, at)
		s.revision++
		gone := object.copy()
		gone.meta()["resourceVersion"] = fmt.Sprint(s.revision)
		s.tell("DELETED", at, gone)
	}
}

func (s *Server) tell(kind, at string, object Object) {
	s.changes = append(s.changes, change{s.revision, kind, at, object})
	close(s.news)
	s.news = make(chan struct{})
}

// copy copies an object, nil of nil.
func (o Object) copy() Object {
	if o == nil {
		return nil
	}
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // it came from JSON
	}
	other := Object{}
	if err := json.Unmarshal(text, &other); err != nil {
		panic(err)
	}
	return other
}

// meta returns the metadata, which may be written to.
func (o Object) meta() map[string]any {
	meta, ok := o["metadata"].(map[string]any)
	if !ok {
		meta = make(map[string]any)
		o["metadata"] = meta
	}
	return meta
}

// Text returns a text inside an object by its keys, or "".
func (o Object) Text(keys ...string) string {
	var value any = map[string]any(o)
	for _, key := range keys {
		inner, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		value = inner[key]
	}
	text, _ := value.(string)
	return text
}

// place is what a path says.
type place struct{ namespace, resource, name string }

// parsePath reads /api/v1/... and /apis/<group>/<version>/...
func parsePath(at string) place {
	parts := strings.Split(strings.Trim(at, "/"), "/")
	skip := 2
	if parts[0] == "apis" {
		skip = 3
	}
	parts = parts[min(skip, len(parts)):]
	var p place
	if len(parts) > 2 && parts[0] == "namespaces" {
		p.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 0 {
		p.resource = parts[0]
	}
	if len(parts) > 1 {
		p.name = parts[1]
	}
	return p
}
