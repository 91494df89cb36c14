package podwatch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"leasehold/internal/podwatch/podwatchtest"
)

func hasText(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// fakeCluster is that of the unit tests.
type fakeCluster struct{ server *podwatchtest.Server }

func (fakeCluster) namespace() string          { return "shop" }
func (f fakeCluster) provider() *rest.Config   { return &rest.Config{Host: f.server.URL} }
func (f fakeCluster) withTokens() *rest.Config { return f.provider() }

func (f fakeCluster) makePod(_ *testing.T, p Pod, node string) string {
	uid := fmt.Sprintf("uid-%x", time.Now().UnixNano())
	f.server.SetPod(podwatchtest.Pod{Namespace: p.Namespace, Name: p.Name, UID: uid, ServiceAccount: p.ServiceAccount, Node: node, Phase: corev1.PodPending})
	return uid
}

func (f fakeCluster) setPhase(_ *testing.T, p Pod, phase corev1.PodPhase) {
	f.server.SetPhase(p.Namespace, p.Name, phase)
}

func (f fakeCluster) tellToEnd(_ *testing.T, p Pod, node string) {
	f.server.SetPod(podwatchtest.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ServiceAccount: p.ServiceAccount, Node: node, Deleting: true})
}

func (f fakeCluster) remove(_ *testing.T, p Pod) { f.server.DeletePod(p.Namespace, p.Name) }

func (f fakeCluster) events(_ *testing.T, p Pod) []corev1.Event {
	return slices.DeleteFunc(f.server.Events(), func(e corev1.Event) bool { return string(e.InvolvedObject.UID) != p.UID })
}

func (f fakeCluster) forgetEvents(*testing.T, Pod) { f.server.ForgetEvents() }

// review knows the token by what its last request was granted.
func (f fakeCluster) review(t *testing.T, token, _ string) podwatchtest.TokenRequest {
	t.Helper()
	all := f.server.TokenRequests()
	if len(all) == 0 || token != fmt.Sprintf("token-of-%s-%d", all[len(all)-1].Pod, len(all)) {
		t.Fatal("the token is not the last that was granted")
	}
	return all[len(all)-1]
}

// realCluster is a real API server, with a namespace for this run.
type realCluster struct {
	rest            *rest.RESTClient // the administrator's
	space           string
	watches, tokens *rest.Config
}

func newRealCluster(t *testing.T) *realCluster {
	t.Helper()
	load := func(name string) *rest.Config {
		config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return config
	}
	administrator, err := newAPI(load(envAdministrator), "")
	if err != nil {
		t.Fatal(err)
	}
	c := &realCluster{
		rest: administrator.rest, space: fmt.Sprintf("podwatch-contract-%x", time.Now().UnixNano()),
		watches: load(envProvider), tokens: load(envTokens),
	}
	c.must(t, http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": c.space}})
	t.Cleanup(func() { c.must(t, http.MethodDelete, "/api/v1/namespaces/"+c.space, nil) })
	for _, account := range []string{"app", "other"} {
		c.must(t, http.MethodPost, c.path("serviceaccounts", ""), object{"metadata": object{"name": account}})
	}
	return c
}

type object map[string]any

// ask makes a request as the administrator and returns the answer's JSON.
func (c *realCluster) ask(method, path string, body any) ([]byte, error) {
	// Not the test's context: the cleanup needs it too.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	path, query, _ := strings.Cut(path, "?")
	request := c.rest.Verb(method).MaxRetries(0).AbsPath(path).SetHeader("Accept", jsonType)
	if name, value, found := strings.Cut(query, "="); found {
		request.Param(name, value)
	}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		request.Body(text)
	}
	contentType := jsonType
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	return request.SetHeader("Content-Type", contentType).DoRaw(ctx)
}

func (c *realCluster) must(t *testing.T, method, path string, body any) []byte {
	t.Helper()
	answer, err := c.ask(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// decode reads JSON, whose text is not told: it may hold a token.
func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(into); err != nil {
		t.Fatalf("the answer is no %T", into)
	}
}

func (c *realCluster) path(kind, name string) string {
	return strings.TrimRight("/api/v1/namespaces/"+c.space+"/"+kind+"/"+name, "/")
}

func (c *realCluster) namespace() string        { return c.space }
func (c *realCluster) provider() *rest.Config   { return c.watches }
func (c *realCluster) withTokens() *rest.Config { return c.tokens }

func (c *realCluster) makePod(t *testing.T, p Pod, node string) string {
	t.Helper()
	made := corev1.Pod{}
	decode(t, c.must(t, http.MethodPost, c.path("pods", ""), object{
		"metadata": object{"name": p.Name},
		"spec": object{
			"nodeName": node, "serviceAccountName": p.ServiceAccount,
			"containers": []object{{"name": "app", "image": "app"}},
		},
	}), &made)
	return string(made.UID)
}

func (c *realCluster) setPhase(t *testing.T, p Pod, phase corev1.PodPhase) {
	t.Helper()
	c.must(t, http.MethodPatch, c.path("pods", p.Name)+"/status", object{"status": object{"phase": phase}})
}

func (c *realCluster) tellToEnd(t *testing.T, p Pod, _ string) {
	t.Helper()
	c.must(t, http.MethodDelete, c.path("pods", p.Name), object{"gracePeriodSeconds": 30})
}

// remove leaves alone who has the name now.
func (c *realCluster) remove(t *testing.T, p Pod) {
	t.Helper()
	_, err := c.ask(http.MethodDelete, c.path("pods", p.Name), object{"gracePeriodSeconds": 0, "preconditions": object{"uid": p.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		t.Fatalf("remove pod %s: %v", p.Name, err)
	}
}

func (c *realCluster) eventsOf(p Pod) string {
	return c.path("events", "") + "?fieldSelector=involvedObject.uid=" + p.UID
}

func (c *realCluster) events(t *testing.T, p Pod) []corev1.Event {
	t.Helper()
	list := corev1.EventList{}
	decode(t, c.must(t, http.MethodGet, c.eventsOf(p), nil), &list)
	// The end of a name is its time.
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return strings.Compare(a.Name, b.Name) })
	return list.Items
}

func (c *realCluster) forgetEvents(t *testing.T, p Pod) {
	t.Helper()
	c.must(t, http.MethodDelete, c.eventsOf(p), nil)
}

// review asks the API server for its word and then reads what it has signed.
func (c *realCluster) review(t *testing.T, token, audience string) podwatchtest.TokenRequest {
	t.Helper()
	asked := object{"token": token}
	if audience != "" {
		asked["audiences"] = []string{audience}
	}
	answer := struct {
		Status struct {
			Authenticated bool
			User          struct{ Username string }
		}
	}{}
	decode(t, c.must(t, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": asked}), &answer)
	if !answer.Status.Authenticated {
		t.Fatal("the API server does not take its own token")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts, want those of a JWT", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal("the token's payload is no base64")
	}
	claims := struct {
		Aud        []string
		Exp        int64
		Sub        string
		Kubernetes struct {
			Namespace      string
			Pod            struct{ Name, UID string }
			ServiceAccount struct{ Name string }
		} `json:"kubernetes.io"`
	}{}
	decode(t, payload, &claims)
	k := claims.Kubernetes
	if want := "system:serviceaccount:" + k.Namespace + ":" + k.ServiceAccount.Name; claims.Sub != want || answer.Status.User.Username != want {
		t.Errorf("the token is one of %s, and %s to the API server, want %s", claims.Sub, answer.Status.User.Username, want)
	}
	return podwatchtest.TokenRequest{
		Namespace: k.Namespace, ServiceAccount: k.ServiceAccount.Name, Pod: k.Pod.Name, PodUID: k.Pod.UID,
		Audiences: claims.Aud, Expires: time.Unix(claims.Exp, 0),
	}
}
