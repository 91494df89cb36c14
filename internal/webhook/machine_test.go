package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"leasehold/internal/spec"
	"leasehold/internal/webhook/webhooktest"
)

// allowed is the webhook's RBAC, by verb and resource.
var allowed = []string{
	"get secretproviderclasses", "list secretproviderclasses", "create secretproviderclasses", "patch secretproviderclasses",
	"delete secretproviderclasses", "list pods", "get namespaces", "list namespaces", "watch namespaces",
	"get secrets", "update secrets", "get leases", "update leases",
	"get mutatingwebhookconfigurations", "patch mutatingwebhookconfigurations",
	"get validatingwebhookconfigurations", "patch validatingwebhookconfigurations",
}

const (
	grace       = time.Hour
	ownSpace    = "leasehold-system"
	serviceHost = "leasehold-webhook.leasehold-system.svc"

	shopSpace = "/api/v1/namespaces/shop"
	classesOf = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasses/"
	secretAt  = "/api/v1/namespaces/leasehold-system/secrets/leasehold-webhook"
	leaseAt   = "/apis/coordination.k8s.io/v1/namespaces/leasehold-system/leases/leasehold-webhook"
	mutateAt  = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/leasehold-webhook"
	adviseAt  = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/leasehold-webhook"
)

// machine is an API server, as the chart leaves it, and what the webhook is made of.
type machine struct {
	t      *testing.T
	server *webhooktest.Server
	api    *API
	policy Policy
	log    *journal

	mayPanic bool // it is what the test is about

	mu       sync.Mutex
	admitted []string // "pod denied"
	made     int
	swept    int
	failed   int
}

// newMachine makes one whose API server has no network: for synctest, and for whoever does not watch.
func newMachine(t *testing.T) *machine { return machineOf(t, webhooktest.NewHandler()) }

// newNetwork makes one whose API server has a network.
func newNetwork(t *testing.T) *machine {
	server := webhooktest.New()
	t.Cleanup(server.Close)
	return machineOf(t, server)
}

func machineOf(t *testing.T, server *webhooktest.Server) *machine {
	t.Helper()
	m := &machine{t: t, server: server, log: &journal{}}
	api, err := NewAPI(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	m.api = api
	m.policy = Policy{
		Vault:       spec.Vault{Address: "https://vault.example:8200", AuthPath: "kubernetes", Audience: "vault"},
		Permissions: Compat, Impossible: Deny, ProviderName: "vault",
	}
	service := `{"service": {"name": "leasehold-webhook", "namespace": "leasehold-system", "path": "/pods"}}`
	server.Put("/api/v1/namespaces/leasehold-system", `{"kind": "Namespace", "apiVersion": "v1"}`)
	server.Put(shopSpace, `{"kind": "Namespace", "apiVersion": "v1"}`)
	server.Put(secretAt, `{"kind": "Secret", "apiVersion": "v1"}`)
	server.Put(leaseAt, `{"kind": "Lease", "apiVersion": "coordination.k8s.io/v1"}`)
	server.Put(mutateAt, `{"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
		"webhooks": [{"name": "pods.leasehold.dev", "clientConfig": `+service+`}]}`)
	server.Put(adviseAt, `{"kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
		"webhooks": [{"name": "a.example", "clientConfig": {"url": "https://elsewhere.example"}},
			{"name": "b.leasehold.dev", "clientConfig": `+service+`}, {"name": "c.leasehold.dev", "clientConfig": `+service+`}]}`)
	t.Cleanup(func() {
		if log := m.log.String(); strings.Contains(log, "panicked") && !m.mayPanic {
			t.Errorf("got a panic:\n%s", log)
		}
		for _, r := range server.Requests() {
			if !slices.Contains(allowed, r) {
				t.Errorf("request %q is not allowed to the webhook", r)
			}
		}
	})
	return m
}

func (m *machine) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (m *machine) handler() http.Handler {
	m.t.Helper()
	h, err := NewHandler(Config{
		API: m.api, Namespaces: NewNamespaces(m.api, m.logger()), Policy: m.policy, Operator: m.policy.operator(), Grace: grace, Log: m.logger(),
		Admitted: func(what, outcome string, _ time.Duration) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.admitted = append(m.admitted, what+" "+outcome)
		},
		ClassMade: func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.made++
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return h
}

// classes is what ensures classes.
func (m *machine) classes() classes {
	return classes{api: m.api, grace: grace, made: func() { m.made++ }}
}

// sweep is one that makes its sweeps under a name of its own.
func (m *machine) sweep(identity string) *Sweep {
	m.t.Helper()
	leader, err := NewLeader(m.api, ownSpace, "leasehold-webhook", identity, 3*SweepEvery(grace))
	if err != nil {
		m.t.Fatal(err)
	}
	s, err := NewSweep(SweepConfig{
		API: m.api, Leader: leader, Grace: grace, Log: m.logger(), Swept: func() { m.swept++ }, Failed: func() { m.failed++ },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// certificates is one replica's.
func (m *machine) certificates(life time.Duration) *Certificates {
	m.t.Helper()
	c, err := NewCertificates(CertificatesConfig{
		API: m.api, Namespace: ownSpace, Service: "leasehold-webhook", Secret: "leasehold-webhook",
		Mutating: "leasehold-webhook", Validating: "leasehold-webhook", Life: life, Log: m.logger(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// pod is a pod as its author writes it, with our annotations by their keys without the prefix.
func podText(annotations map[string]string) string {
	whole := make(map[string]string)
	for key, value := range annotations {
		whole[annotationPrefix+key] = value
	}
	text, err := json.Marshal(map[string]any{
		"kind": "Pod", "apiVersion": "v1",
		"metadata": map[string]any{"generateName": "cart-", "annotations": whole, "creationTimestamp": nil},
		"spec": map[string]any{
			"serviceAccountName": "app", "novelty": map[string]any{"of": "a newer API server"},
			"containers": []any{map[string]any{"name": "app", "image": "app", "novelty": true}},
		},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// introduction is the first example of the injector's documentation, with a role.
var introduction = map[string]string{
	"agent-inject": "true", "role": "app", "agent-inject-secret-db-creds": "database/creds/db-app",
}

// request is a review's request with what tests change of it.
func request(resource, kind, object string, change ...func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionRequest {
	r := &admissionv1.AdmissionRequest{
		UID: "review-1", Namespace: "shop", Operation: admissionv1.Create,
		Kind: metav1.GroupVersionKind{Kind: kind}, Resource: metav1.GroupVersionResource{Resource: resource},
	}
	r.Object.Raw = []byte(object)
	for _, f := range change {
		f(r)
	}
	return r
}

func dryRun(r *admissionv1.AdmissionRequest) {
	yes := true
	r.DryRun = &yes
}

// ask sends a review to a handler as the API server does, and returns its response.
func ask(t *testing.T, h http.Handler, path string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path+"?timeout=10s", bytes.NewReader(reviewText(t, r))))
	if w.Code != http.StatusOK {
		t.Fatalf("got status %d: %s", w.Code, w.Body)
	}
	return readResponse(t, w.Body.Bytes())
}

func reviewText(t *testing.T, r *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	text, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: "admission.k8s.io/v1"}, Request: r,
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func readResponse(t *testing.T, text []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	review := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(text, &review); err != nil || review.Response == nil {
		t.Fatalf("got %s (%v), want a review with a response", text, err)
	}
	if review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" || review.Response.UID != "review-1" {
		t.Errorf("got %s %s about %q", review.APIVersion, review.Kind, review.Response.UID)
	}
	return review.Response
}

// patched returns the object with the response's patch applied.
func patched(t *testing.T, object string, response *admissionv1.AdmissionResponse) map[string]any {
	t.Helper()
	if response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Fatalf("got no JSON patch: %+v", response)
	}
	text, err := webhooktest.ApplyPatch([]byte(object), response.Patch)
	if err != nil {
		t.Fatalf("the patch does not apply: %v\n%s", err, response.Patch)
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	return whole
}

// status answers a request with a failure of the API server.
func status(code int, reason metav1.StatusReason) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		webhooktest.Answer(w, code, webhooktest.Failure(code, reason, "secretproviderclasses", "", string(reason)))
	}
}

// on intercepts the requests of a method whose path ends so.
func (m *machine) on(method, suffix string, answer func(http.ResponseWriter)) {
	m.server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		answer(w)
		return true
	})
}

// outcomes returns what was counted, in a row.
func (m *machine) outcomes() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.admitted, ", ")
}

// wantClasses wants so many classes in the shop, and returns their names.
func (m *machine) wantClasses(n int) []string {
	m.t.Helper()
	var names []string
	for _, at := range m.server.Paths("secretproviderclasses") {
		names = append(names, at[strings.LastIndex(at, "/")+1:])
	}
	if len(names) != n {
		m.t.Fatalf("got classes %q, want %d", names, n)
	}
	return names
}

// writes returns the requests that change something.
func (m *machine) writes() []string {
	return slices.DeleteFunc(m.server.Requests(), func(r string) bool {
		verb, _, _ := strings.Cut(r, " ")
		return slices.Contains([]string{"get", "list", "watch"}, verb)
	})
}

// background runs something until the test, or the returned function, ends it.
func background(t *testing.T, run func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// until waits until something holds. It looks again and again, for what is waited for gives no other sign.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(limit) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
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

// class is one for tests of what happens to classes.
func class() Class {
	return Class{Name: "a", Provider: "vault", Parameters: map[string]string{"roleName": "a"}}
}

// oldClass is one of ours, as text, that was last asked for so long ago.
func oldClass(name string, ago time.Duration) string {
	at := time.Now().Add(-ago).UTC().Format(time.RFC3339)
	return fmt.Sprintf(`{"kind": "SecretProviderClass", "apiVersion": "secrets-store.csi.x-k8s.io/v1",
		"metadata": {"labels": {%q: "webhook"}, "annotations": {%q: %q}, "creationTimestamp": %q},
		"spec": {"provider": "vault", "parameters": {"roleName": %q}}}`, LabelMadeBy, AnnotationLastAsked, at, at, name)
}
