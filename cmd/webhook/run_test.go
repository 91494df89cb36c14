package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"leasehold/internal/observe"
	"leasehold/internal/webhook/webhooktest"
)

const patience = time.Minute // for what must happen; nothing waits so long when it does

const (
	mutateAt = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/leasehold-webhook"
	adviseAt = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/leasehold-webhook"
)

// cluster is an API server with what the chart makes.
func cluster(t *testing.T) *webhooktest.Server {
	t.Helper()
	server := webhooktest.New()
	t.Cleanup(server.Close)
	for _, namespace := range []string{"shop", "leasehold-system"} {
		server.Put("/api/v1/namespaces/"+namespace, `{"kind": "Namespace", "apiVersion": "v1"}`)
	}
	server.Put("/api/v1/namespaces/leasehold-system/secrets/leasehold-webhook", `{"kind": "Secret", "apiVersion": "v1"}`)
	server.Put("/apis/coordination.k8s.io/v1/namespaces/leasehold-system/leases/leasehold-webhook",
		`{"kind": "Lease", "apiVersion": "coordination.k8s.io/v1"}`)
	webhooks := `"webhooks": [{"name": "a.leasehold.dev", "clientConfig": {"service": {"name": "leasehold-webhook", "namespace": "leasehold-system"}}}]}`
	server.Put(mutateAt, `{"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", `+webhooks)
	server.Put(adviseAt, `{"kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", `+webhooks)
	return server
}

// journal is the log of a webhook, record by record.
type journal struct{ records chan map[string]any }

// follow reads a log until it ends.
func follow(logs io.Reader) *journal {
	j := &journal{records: make(chan map[string]any, 1000)}
	go func() {
		defer close(j.records)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			record := make(map[string]any)
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				record["msg"] = "not a record: " + lines.Text()
			}
			j.records <- record
		}
	}()
	return j
}

// await returns the next record with the message.
func (j *journal) await(t *testing.T, message string) map[string]any {
	t.Helper()
	limit := time.After(patience)
	var seen []any
	for {
		select {
		case record, more := <-j.records:
			if !more {
				t.Fatalf("the log ended without %q: got %q", message, seen)
			}
			if record["msg"] == message {
				return record
			}
			seen = append(seen, record["msg"])
		case <-limit:
			t.Fatalf("no record %q in the log within %v: got %q", message, patience, seen)
		}
	}
}

// running is a webhook in this process.
type running struct {
	*journal
	https, web string
	stop       context.CancelFunc // as a signal does
	ended      <-chan error
}

// start starts a webhook of a cluster, and returns when it has its addresses.
func start(t *testing.T, server *webhooktest.Server, flags string) *running {
	t.Helper()
	kubeconfig := t.TempDir() + "/config"
	if err := server.Kubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	c, err := parse("-http-addr=127.0.0.1:0 -https-addr=127.0.0.1:0 -drain=0s -kubeconfig=" + kubeconfig + " " + flags)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, write := io.Pipe()
	log, err := observe.NewLogger(write, c.LogLevel, c.LogFormat)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, c, log)
		_ = write.Close()
	}()
	r := &running{journal: follow(logs), stop: cancel, ended: ended}
	record := r.await(t, "leasehold webhook")
	r.https, _ = record["https"].(string)
	r.web, _ = record["http"].(string)
	return r
}

// end tells the webhook to end, and wants it to do so without an error.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("got error %v at the end, want none", err)
		}
	case <-time.After(patience):
		t.Fatal("the webhook did not end")
	}
}

// exchange makes a request and returns status and body.
func exchange(t *testing.T, client *http.Client, method, url string, body []byte) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// caller calls as the API server does, with the authority that it finds in its configuration.
func caller(t *testing.T, server *webhooktest.Server, address string) *http.Client {
	t.Helper()
	webhooks, _ := server.Get(mutateAt)["webhooks"].([]any)
	first, _ := webhooks[0].(map[string]any)
	bundle, err := base64.StdEncoding.DecodeString(webhooktest.Object(first).Text("clientConfig", "caBundle"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("the configuration has no authority")
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const host = "https://leasehold-webhook.leasehold-system.svc:443"

// review sends a review and returns the response.
func review(t *testing.T, client *http.Client, path, kind, object string) *admissionv1.AdmissionResponse {
	t.Helper()
	asked := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: "admission.k8s.io/v1"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Namespace: "shop", Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Kind: kind},
			Resource: metav1.GroupVersionResource{Resource: strings.ToLower(kind) + "s"},
		},
	}
	asked.Request.Object.Raw = []byte(object)
	body, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	code, text := exchange(t, client, http.MethodPost, host+path+"?timeout=10s", body)
	answered := admissionv1.AdmissionReview{}
	if err := json.Unmarshal([]byte(text), &answered); err != nil || code != http.StatusOK || answered.Response == nil {
		t.Fatalf("got %d %s (%v), want a review", code, text, err)
	}
	return answered.Response
}

const annotated = `{"metadata": {"annotations": {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "app",
	"vault.hashicorp.com/agent-inject-secret-db-creds": "database/creds/db-app"TEMPLATE}},
	"spec": {"containers": [{"name": "app", "image": "app"}]}}`

// The webhook from end to end, in this process: it makes itself trusted, translates, advises and ends when it is told to.
func TestRun(t *testing.T) {
	server := cluster(t)
	r := start(t, server, "-vault-addr=https://vault.example:8200")
	r.await(t, "the API server trusts the webhook's certificate")
	for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "ok\n"} {
		if code, body := exchange(t, http.DefaultClient, http.MethodGet, "http://"+r.web+path, nil); code != http.StatusOK || body != want {
			t.Errorf("%s: got %d %q, want 200 %q", path, code, body, want)
		}
	}
	client := caller(t, server, r.https)

	pod := strings.Replace(annotated, "TEMPLATE", "", 1)
	response := review(t, client, "/pods", "Pod", pod)
	if !response.Allowed {
		t.Fatalf("got %+v", response.Result)
	}
	if _, err := webhooktest.ApplyPatch([]byte(pod), response.Patch); err != nil {
		t.Errorf("the patch %s does not apply: %v", response.Patch, err)
	}
	if classes := server.Paths("secretproviderclasses"); len(classes) != 1 || !strings.HasPrefix(classes[0], "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/") {
		t.Errorf("got classes %q, want one in the shop", classes)
	}

	// Templates are parsed here, and not when the pod starts.
	broken := strings.Replace(annotated, "TEMPLATE", `, "vault.hashicorp.com/agent-inject-template-db-creds": "{{ with secret }}"`, 1)
	if response := review(t, client, "/pods", "Pod", broken); response.Allowed || !strings.Contains(response.Result.Message, "agent-inject-template-db-creds") {
		t.Errorf("got %+v, want it denied for its template", response)
	}
	deployment := `{"spec": {"template": ` + broken + `}}`
	if response := review(t, client, "/advice/workloads", "Deployment", deployment); !response.Allowed || len(response.Warnings) != 1 ||
		!strings.Contains(response.Warnings[0], "pods of this Deployment will be refused") {
		t.Errorf("got %+v, want it allowed with a warning", response)
	}
	class := `{"spec": {"provider": "vault", "parameters": {"roleName": "app"}}}`
	if response := review(t, client, "/advice/classes", "SecretProviderClass", class); !response.Allowed || len(response.Warnings) != 1 ||
		!strings.Contains(response.Warnings[0], "objects is missing") {
		t.Errorf("got %+v, want it allowed with a warning", response)
	}

	_, figures := exchange(t, http.DefaultClient, http.MethodGet, "http://"+r.web+"/metrics", nil)
	for _, want := range []string{
		`leasehold_admission_duration_seconds_count{outcome="translated",what="pod"} 1`,
		`leasehold_admission_duration_seconds_count{outcome="denied",what="pod"} 1`,
		`leasehold_admission_duration_seconds_count{outcome="advised",what="workload"} 1`,
		"\nleasehold_classes_made_total 1\n", "\nleasehold_classes_swept_total 0\n",
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("/metrics: lacks %s", want)
		}
	}
	r.end(t)
}

// Two replicas share their certificates and their classes: either of them may be asked.
func TestTwoReplicas(t *testing.T) {
	server := cluster(t)
	var replicas []*running
	for _, identity := range []string{"one", "two"} {
		r := start(t, server, "-vault-addr=https://vault.example:8200 -identity="+identity)
		r.await(t, "the API server trusts the webhook's certificate")
		replicas = append(replicas, r)
	}
	for _, r := range replicas {
		response := review(t, caller(t, server, r.https), "/pods", "Pod", strings.Replace(annotated, "TEMPLATE", "", 1))
		if !response.Allowed {
			t.Errorf("got %+v", response.Result)
		}
	}
	if classes := server.Paths("secretproviderclasses"); len(classes) != 1 {
		t.Errorf("got classes %q, want one", classes)
	}
	for _, r := range replicas {
		r.end(t)
	}
}

// Until the API server trusts it, it is not ready, and says why.
func TestNotReadyWithoutItsConfiguration(t *testing.T) {
	server := cluster(t)
	server.Remove(mutateAt)
	r := start(t, server, "")
	r.await(t, "the webhook's certificates cannot be looked after")
	if code, body := exchange(t, http.DefaultClient, http.MethodGet, "http://"+r.web+"/readyz", nil); code != http.StatusServiceUnavailable ||
		!strings.Contains(body, "mutatingwebhookconfigurations") {
		t.Errorf("/readyz: got %d %q, want 503 with the reason", code, body)
	}
	r.end(t)
}

// What cannot be started ends with a reason.
func TestRunThatCannotStart(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	kubeconfig := t.TempDir() + "/config"
	if err := cluster(t).Kubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		change func(*config)
		want   string
	}{
		"web address in use":          {func(c *config) { c.HTTPAddr = taken.Addr().String() }, "-http-addr: listen tcp"},
		"reviews' address in use":     {func(c *config) { c.HTTPSAddr = taken.Addr().String() }, "-https-addr: listen tcp"},
		"no access to the API server": {func(c *config) { c.Kubeconfig = "" }, "the webhook needs access to the API server"},
		"no life":                     {func(c *config) { c.CertificateLife = 0 }, "a certificate must live"},
		"no grace":                    {func(c *config) { c.ClassGrace = 0 }, "a grace of at least"},
		"nobody":                      {func(c *config) { c.Identity = "" }, "an election needs"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse("-http-addr=127.0.0.1:0 -https-addr=127.0.0.1:0 -drain=0s -kubeconfig=" + kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			row.change(&c)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := run(ctx, c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q", err, row.want)
			}
		})
	}
}
