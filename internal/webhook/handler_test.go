package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"leasehold/internal/webhook/webhooktest"
)

// A pod in, a patch out, and the class is there by then.
func TestPodIsTranslated(t *testing.T) {
	m := newMachine(t)
	pod := podText(introduction)
	response := ask(t, m.handler(), PathPods, request("pods", "Pod", pod))
	if !response.Allowed || response.Result != nil {
		t.Fatalf("got %+v, want it allowed", response)
	}
	name := m.wantClasses(1)[0]
	whole := patched(t, pod, response)
	spec, _ := whole["spec"].(map[string]any)
	volumes, _ := spec["volumes"].([]any)
	if len(volumes) != 1 {
		t.Fatalf("got volumes %v, want one", volumes)
	}
	volume, _ := volumes[0].(map[string]any)
	if got := webhooktest.Object(volume).Text("csi", "volumeAttributes", "secretProviderClass"); got != name {
		t.Errorf("the pod names class %q, want %q", got, name)
	}
	live := m.server.Get(classesOf + name)
	if live.Text("spec", "provider") != "vault" || live.Text("spec", "parameters", "roleName") != "app" ||
		live.Text("metadata", "labels", LabelMadeBy) != madeBy {
		t.Errorf("got class %v", live)
	}
	if asked, err := time.Parse(time.RFC3339, live.Text("metadata", "annotations", AnnotationLastAsked)); err != nil || time.Since(asked) > time.Minute {
		t.Errorf("got %v (%v), want that it was asked for just now", asked, err)
	}
	// What our types do not know is left alone, and so is what nobody asked to be changed.
	containers, _ := spec["containers"].([]any)
	container, _ := containers[0].(map[string]any)
	if !reflect.DeepEqual(spec["novelty"], map[string]any{"of": "a newer API server"}) || container["novelty"] != true {
		t.Errorf("got %v, want what a newer API server has put there", spec)
	}
	for _, path := range []string{"/status", "creationTimestamp", "/metadata/namespace", "resources"} {
		if strings.Contains(string(response.Patch), path) {
			t.Errorf("the patch touches %s: %s", path, response.Patch)
		}
	}
	if got, want := m.outcomes(), "pod translated"; got != want || m.made != 1 {
		t.Errorf("counted %q and %d classes, want %q and 1", got, m.made, want)
	}
}

func TestSecondAdmissionChangesNothing(t *testing.T) {
	m := newMachine(t)
	h, pod := m.handler(), podText(introduction)
	whole := patched(t, pod, ask(t, h, PathPods, request("pods", "Pod", pod)))
	again, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	response := ask(t, h, PathPods, request("pods", "Pod", string(again)))
	if !response.Allowed || len(response.Patch) != 0 || response.PatchType != nil {
		t.Errorf("got %+v with patch %s, want no patch", response, response.Patch)
	}
	m.wantClasses(1)
}

// The class is there before the pod is allowed; whatever keeps it from being there keeps the pod out, and says so.
func TestPodWithoutItsClassIsNotAdmitted(t *testing.T) {
	for name, row := range map[string]struct {
		method, suffix string
		answer         func(http.ResponseWriter)
		want           string
	}{
		"may not create": {http.MethodPost, "/secretproviderclasses", status(403, metav1.StatusReasonForbidden), "the webhook may not do what it must"},
		"may not get":    {http.MethodGet, "", status(403, metav1.StatusReasonForbidden), "the webhook may not do what it must"},
		"too busy":       {http.MethodPost, "/secretproviderclasses", status(429, metav1.StatusReasonTooManyRequests), "create secretproviderclasses"},
		"unavailable":    {http.MethodPost, "/secretproviderclasses", status(503, metav1.StatusReasonServiceUnavailable), "create secretproviderclasses"},
		"no driver": {http.MethodPost, "/secretproviderclasses", func(w http.ResponseWriter) {
			http.Error(w, "404 page not found", http.StatusNotFound)
		}, "is the Secrets Store CSI driver installed?"},
		"namespace is going": {http.MethodPost, "/secretproviderclasses", func(w http.ResponseWriter) {
			webhooktest.Answer(w, 404, webhooktest.Failure(404, metav1.StatusReasonNotFound, "namespaces", "shop", `namespaces "shop" not found`))
		}, `namespace "shop" is gone`},
		"always somebody else's": {http.MethodPost, "/secretproviderclasses", status(409, metav1.StatusReasonAlreadyExists), "others keep changing the class"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			suffix := row.suffix
			m.server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != row.method || !strings.Contains(r.URL.Path, "secretproviderclasses") || !strings.HasSuffix(r.URL.Path, suffix) {
					return false
				}
				row.answer(w)
				return true
			})
			response := ask(t, m.handler(), PathPods, request("pods", "Pod", podText(introduction)))
			if response.Allowed || len(response.Patch) != 0 || response.Result == nil || !strings.Contains(response.Result.Message, row.want) {
				t.Fatalf("got %+v, want it refused with %q", response, row.want)
			}
			if response.Result.Code != http.StatusServiceUnavailable {
				t.Errorf("got code %d, want 503: it is not the pod's fault", response.Result.Code)
			}
			if got := m.outcomes(); got != "pod failed" {
				t.Errorf("counted %q", got)
			}
			m.wantClasses(0)
		})
	}
}

// An API server that does not answer us is told of before the one that waits for us gives up.
func TestSlowAPIServerIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "secretproviderclasses") {
				return false
			}
			<-r.Context().Done()
			return true
		})
		began := time.Now()
		response := ask(t, m.handler(), PathPods, request("pods", "Pod", podText(introduction)))
		if took := time.Since(began); took >= 10*time.Second {
			t.Errorf("took %v, and the API server waits for 10 s", took)
		}
		if response.Allowed || !strings.Contains(response.Result.Message, "the API server has not answered in time") {
			t.Errorf("got %+v, want the reason", response.Result)
		}
	})
}

func TestDryRunWritesNothing(t *testing.T) {
	m := newMachine(t)
	pod := podText(introduction)
	response := ask(t, m.handler(), PathPods, request("pods", "Pod", pod, dryRun))
	if !response.Allowed {
		t.Fatalf("got %+v, want it allowed", response)
	}
	patched(t, pod, response)
	m.wantClasses(0)
	if writes := m.writes(); len(writes) != 0 {
		t.Errorf("got %q on a dry run, want no request that changes anything", writes)
	}
}

// What can be seen without writing is told on a dry run as well: kubectl is to show what will happen.
func TestDryRunLooksForTheClass(t *testing.T) {
	m := newMachine(t)
	h := m.handler()
	dry := func() *admissionv1.AdmissionResponse {
		return ask(t, h, PathPods, request("pods", "Pod", podText(introduction), dryRun))
	}
	if response := ask(t, h, PathPods, request("pods", "Pod", podText(introduction))); !response.Allowed {
		t.Fatalf("got %+v, want it allowed", response)
	}
	at := classesOf + m.wantClasses(1)[0]
	if response := dry(); !response.Allowed {
		t.Errorf("its class is there: got %+v, want it allowed", response.Result)
	}
	class, err := json.Marshal(m.server.Get(at))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]string{
		"somebody has changed it": strings.Replace(string(class), `"provider":"vault"`, `"provider":"another"`, 1),
		"is just being deleted":   strings.Replace(string(class), `"metadata":{`, `"metadata":{"deletionTimestamp":"2030-01-01T00:00:00Z",`, 1),
	} {
		m.server.Put(at, change)
		if response := dry(); response.Allowed || !strings.Contains(response.Result.Message, want) {
			t.Errorf("got %+v, want it refused: %s", response, want)
		}
	}
	m.on(http.MethodGet, at[strings.LastIndex(at, "/"):], func(w http.ResponseWriter) { http.Error(w, "404 page not found", http.StatusNotFound) })
	if response := dry(); response.Allowed || !strings.Contains(response.Result.Message, "knows no SecretProviderClass") {
		t.Errorf("without the driver: got %+v, want it refused", response)
	}
}

func TestPodIsLeftAloneOrDenied(t *testing.T) {
	for name, row := range map[string]struct {
		annotations map[string]string
		denied      string // a part of the reason; "" if it is allowed
		outcome     string
	}{
		"not annotated":        {map[string]string{"role": "app"}, "", "pod skipped"},
		"switched off":         {map[string]string{"agent-inject": "false"}, "", "pod skipped"},
		"the injector's":       {map[string]string{"agent-inject": "true", "agent-inject-status": "injected"}, "", "pod skipped"},
		"without a role":       {map[string]string{"agent-inject": "true", "agent-inject-secret-a": "kv/a"}, "role", "pod denied"},
		"as it should be made": {introduction, "", "pod translated"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			response := ask(t, m.handler(), PathPods, request("pods", "Pod", podText(row.annotations)))
			if response.Allowed != (row.denied == "") {
				t.Fatalf("got %+v", response)
			}
			if row.denied != "" && (!strings.Contains(response.Result.Message, row.denied) || response.Result.Code != http.StatusForbidden) {
				t.Errorf("got %+v, want 403 with %q", response.Result, row.denied)
			}
			if row.outcome != "pod translated" {
				m.wantClasses(0)
				if len(response.Patch) != 0 {
					t.Errorf("got patch %s", response.Patch)
				}
			}
			if got := m.outcomes(); got != row.outcome {
				t.Errorf("counted %q, want %q", got, row.outcome)
			}
		})
	}
}

// Who is refused hears of everything else as well: otherwise the next try would bring it to light.
func TestDenialHasItsWarnings(t *testing.T) {
	m := newMachine(t)
	pod := podText(map[string]string{"agent-inject": "true", "agent-inject-secret-a": "kv/a", "rol": "app"})
	response := ask(t, m.handler(), PathPods, request("pods", "Pod", pod))
	if response.Allowed || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "vault.hashicorp.com/rol: unknown") {
		t.Errorf("got %+v, want it refused, with a warning about the key that is not known", response)
	}
}

func TestNamespaceGivesDefaults(t *testing.T) {
	m := newMachine(t)
	m.server.Put(shopSpace, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"annotations":
		{"vault.hashicorp.com/role": "of-the-shop", "other.example/role": "x"}}}`)
	pod := podText(map[string]string{"agent-inject": "true", "agent-inject-secret-a": "kv/a"})
	if response := ask(t, m.handler(), PathPods, request("pods", "Pod", pod)); !response.Allowed {
		t.Fatalf("got %+v", response.Result)
	}
	if role := m.server.Get(classesOf+m.wantClasses(1)[0]).Text("spec", "parameters", "roleName"); role != "of-the-shop" {
		t.Errorf("got role %q, want the namespace's", role)
	}
	m.server.Remove(shopSpace)
	if response := ask(t, m.handler(), PathPods, request("pods", "Pod", pod)); response.Allowed ||
		!strings.Contains(response.Result.Message, "read the defaults of the namespace") {
		t.Errorf("got %+v, want it refused while the namespace cannot be read", response)
	}
}

func TestWhatIsNoPodIsRefused(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.AdmissionRequest){
		"an update":       func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update },
		"a subresource":   func(r *admissionv1.AdmissionRequest) { r.SubResource = "status" },
		"another kind":    func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "services" },
		"no JSON of ours": func(r *admissionv1.AdmissionRequest) { r.Object.Raw = []byte(`{"spec": "secret text"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			response := ask(t, m.handler(), PathPods, request("pods", "Pod", podText(introduction), change))
			if response.Allowed || response.Result.Message == "" || strings.Contains(response.Result.Message, "secret text") {
				t.Errorf("got %+v, want it refused, without quoting it", response)
			}
			m.wantClasses(0)
		})
	}
}

func TestWhatIsNoReviewIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		method, path, body string
		want               int
	}{
		"no JSON":         {"POST", PathPods, "token=s.very-secret", 400},
		"empty":           {"POST", PathPods, "", 400},
		"no request":      {"POST", PathPods, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}`, 400},
		"another version": {"POST", PathPods, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "1"}}`, 400},
		"no UID":          {"POST", PathPods, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {}}`, 400},
		"no namespace":    {"POST", PathPods, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": "1"}}`, 400},
		"a path":          {"POST", PathPods, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": "1", "namespace": "../pods"}}`, 400},
		"too long":        {"POST", PathPods, strings.Repeat(" ", maxReview+1), 413},
		"another path":    {"POST", "/", "", 404},
		"another method":  {"GET", PathPods, "", 405},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			w := httptest.NewRecorder()
			m.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), row.method, row.path, strings.NewReader(row.body)))
			if w.Code != row.want || strings.Contains(w.Body.String()+m.log.String(), "very-secret") {
				t.Errorf("got %d %q and log %s, want %d", w.Code, w.Body, m.log, row.want)
			}
			counted, logged := "", false
			if row.path == PathPods && row.method == "POST" { // the API server takes that for an admission that failed
				counted, logged = "pod failed", true
			}
			if m.outcomes() != counted || strings.Contains(m.log.String(), "was not decided about") != logged {
				t.Errorf("counted %q, want %q, and log %s", m.outcomes(), counted, m.log)
			}
		})
	}
}

// One that does not say how long it is, is read no further than others may be.
func TestReviewOfUnknownLength(t *testing.T) {
	m := newMachine(t)
	h := m.handler()
	for length, want := range map[int]int{ordinaryReview: 200, maxReview: 200, maxReview + 1: 400} {
		text := reviewText(t, request("pods", "Pod", podText(introduction)))
		text = append(text, bytes.Repeat([]byte(" "), length-len(text))...)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, PathPods, struct{ io.Reader }{bytes.NewReader(text)})
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); r.ContentLength != -1 || w.Code != want {
			t.Errorf("%d bytes: got %d %q, want %d", length, w.Code, w.Body, want)
		}
	}
}

// A panic is one admission's. It says nothing of what it was about.
func TestPanicFailsAlone(t *testing.T) {
	m := newMachine(t)
	m.mayPanic = true
	h := newHandler(Config{Log: m.logger(), Admitted: func(string, string, time.Duration) {}})
	server := h.review(whatPod, func(context.Context, *admissionv1.AdmissionRequest) verdict { panic("s.very-secret") })
	response := ask(t, server, PathPods, request("pods", "Pod", podText(introduction)))
	if response.Allowed || !strings.Contains(response.Result.Message, "internal error") {
		t.Errorf("got %+v, want it refused", response)
	}
	if log := m.log.String(); !strings.Contains(log, "an admission panicked") || strings.Contains(log, "very-secret") {
		t.Errorf("got log %s, want the panic without its value", log)
	}
}

func TestTimeLimit(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"":              9 * time.Second,
		"?timeout=10s":  9 * time.Second,
		"?timeout=30s":  29 * time.Second,
		"?timeout=1s":   500 * time.Millisecond,
		"?timeout=-1s":  9 * time.Second,
		"?timeout=100s": 9 * time.Second,
		"?timeout=soon": 9 * time.Second,
	} {
		if got := timeLimit(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/pods"+query, nil)); got != want {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
}

// Whatever the API server sends as an object, there is an answer, and advice lets it pass.
func FuzzReview(f *testing.F) {
	f.Add(podText(introduction))
	f.Add(workloadText("Deployment", introduction, introduction))
	f.Add(workloadText("CronJob", nil, map[string]string{"agent-inject": "true", "agent-inject-template-a": "{{"}))
	f.Add(oldClass("a", 0))
	f.Add(`{"metadata": null, "spec": {"template": null, "jobTemplate": {}}}`)
	f.Fuzz(func(t *testing.T, object string) {
		if !json.Valid([]byte(object)) {
			return // what is no JSON never gets here: the review around it is none, either
		}
		m := newMachine(t) // its end finds a panic in the log
		h := m.handler()
		ask(t, h, PathPods, request("pods", "Pod", object, dryRun))
		for _, path := range []string{PathWorkloads, PathClasses} {
			if response := ask(t, h, path, request("things", "Thing", object)); !response.Allowed || len(response.Patch) > 0 {
				t.Errorf("%s: got %+v, want it allowed as it is", path, response)
			}
		}
	})
}
