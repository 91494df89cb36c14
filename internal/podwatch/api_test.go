package podwatch

import (
	"bytes"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"leasehold/internal/podwatch/podwatchtest"
)

func TestConfirm(t *testing.T) {
	other := cart
	other.UID = "uid-2"
	for name, c := range map[string]struct {
		pod  *podwatchtest.Pod
		want State
	}{
		"running":   {&podwatchtest.Pod{UID: "uid-1"}, Alive},
		"pending":   {&podwatchtest.Pod{UID: "uid-1", Phase: corev1.PodPending}, Alive},
		"deleting":  {&podwatchtest.Pod{UID: "uid-1", Deleting: true}, Alive},
		"succeeded": {&podwatchtest.Pod{UID: "uid-1", Phase: corev1.PodSucceeded}, Ended},
		"failed":    {&podwatchtest.Pod{UID: "uid-1", Phase: corev1.PodFailed}, Ended},
		"other UID": {&podwatchtest.Pod{UID: "uid-2"}, Ended},
		"gone":      {nil, Ended},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.pod != nil {
				c.pod.Namespace, c.pod.Name, c.pod.Node = cart.Namespace, cart.Name, node
				w.server.SetPod(*c.pod)
			}
			if got, err := w.watch.Confirm(t.Context(), cart); got != c.want || err != nil {
				t.Errorf("got state %d, %v, want %d", got, err, c.want)
			}
		})
	}
}

// What is no clear answer about this pod ends nothing.
func TestConfirmIsUnsure(t *testing.T) {
	answer := func(code int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for name, f := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"proxy's 404":       answer(404, "text/html", "<h1>not found</h1>"),
		"plain 404":         answer(404, "text/plain", "404 page not found"),
		"404 without words": answer(404, jsonType, ``),
		"404 of something else": answer(404, jsonType, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,`+
			`"details":{"kind":"namespaces","name":"shop"}}`),
		"404 of its namesake": answer(404, jsonType, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,`+
			`"details":{"kind":"services","name":"cart"}}`),
		"404 of another pod": answer(404, jsonType, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,`+
			`"details":{"kind":"pods","name":"other"}}`),
		"forbidden":         answer(403, jsonType, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`),
		"unavailable":       answer(503, "text/plain", "no backend"),
		"empty object":      answer(200, jsonType, `{}`),
		"pod without a UID": answer(200, jsonType, `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"shop","name":"cart"}}`),
		"another pod":       answer(200, jsonType, `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"shop","name":"other","uid":"uid-2"}}`),
		"a login page":      answer(200, "text/html", `<h1>log in</h1>`),
		"half an answer":    answer(200, jsonType, `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"sh`),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.Intercept(f)
			if got, err := w.watch.Confirm(t.Context(), cart); got != Unknown || err == nil {
				t.Errorf("got state %d, %v, want an error", got, err)
			}
		})
	}
	for name, pod := range map[string]Pod{
		"no namespace": {Name: "cart", UID: "uid-1"}, "no name": {Namespace: "shop", UID: "uid-1"}, "no UID": {Namespace: "shop", Name: "cart"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if got, err := w.watch.Confirm(t.Context(), pod); got != Unknown || err == nil {
				t.Errorf("got state %d, %v, want an error", got, err)
			}
		})
	}
}

func TestTokenIsBoundToThePod(t *testing.T) {
	w := newWorld(t)
	w.set(cart, corev1.PodRunning)
	token, expires, err := w.watch.Token(t.Context(), cart, "vault")
	if err != nil || token != "token-of-cart-1" {
		t.Fatalf("got token %q, %v", token, err)
	}
	if _, _, err := w.watch.Token(t.Context(), cart, ""); err != nil {
		t.Fatal(err)
	}
	got := w.server.TokenRequests()
	if len(got) != 2 {
		t.Fatalf("got %d requests, want 2", len(got))
	}
	if left := time.Until(expires); left > tokenLife || left < tokenLife-time.Minute || !expires.Equal(got[0].Expires) {
		t.Errorf("the token expires in %v, want %v", left, tokenLife)
	}
	want := podwatchtest.TokenRequest{Namespace: "shop", ServiceAccount: "app", Pod: "cart", PodUID: "uid-1", Audiences: []string{"vault"}, Expires: got[0].Expires}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got request %+v, want %+v", got[0], want)
	}
	if len(got[1].Audiences) != 0 {
		t.Errorf("got audiences %q for the API server's own", got[1].Audiences)
	}
}

func TestTokenIsRefused(t *testing.T) {
	other, elsewhere, nobody := cart, cart, cart
	other.UID, elsewhere.Name, nobody.ServiceAccount = "uid-2", "gone", ""
	stranger := cart
	stranger.ServiceAccount = "admin"
	for name, c := range map[string]struct {
		pod  Pod
		want string
	}{
		"other UID":          {other, "does not match the UID in record"},
		"gone":               {elsewhere, `pods "gone" not found`},
		"other account":      {stranger, "different serviceaccount name"},
		"no service account": {nobody, "it needs a pod's namespace, name, UID and service account"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(cart, corev1.PodRunning)
			token, _, err := w.watch.Token(t.Context(), c.pod, "vault")
			if token != "" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got token %q, %v, want an error with %q", token, err, c.want)
			}
		})
	}
}

// A token in an answer that cannot be read is a token all the same.
func TestTokenIsNotInAnError(t *testing.T) {
	const secret = "ey-very-secret"
	for name, c := range map[string]struct{ contentType, body string }{
		"half":          {jsonType, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","status":{"token":"` + secret},
		"wrong type":    {jsonType, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","status":{"token":"x","expirationTimestamp":"` + secret + `"}}`},
		"other kind":    {jsonType, `{"kind":"` + secret + `","apiVersion":"v1"}`},
		"no JSON":       {"text/plain", secret},
		"token missing": {jsonType, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"audiences":["` + secret + `"]},"status":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
				rw.Header().Set("Content-Type", c.contentType)
				rw.WriteHeader(http.StatusCreated)
				_, _ = rw.Write([]byte(c.body))
				return true
			})
			token, _, err := w.watch.Token(t.Context(), cart, "vault")
			if token != "" || err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("got token %q, error %v, want an error without the token", token, err)
			}
		})
	}
}

// client-go logs bodies of answers when it is asked to be talkative, and slog's levels can ask for that.
func TestClientGoLogsNoToken(t *testing.T) {
	defer klog.CaptureState().Restore()
	var log bytes.Buffer
	RouteLogs(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.Level(-100)})).With("from", "client-go").WithGroup("g"))
	w := newWorld(t)
	w.set(cart, corev1.PodRunning)
	token, _, err := w.watch.Token(t.Context(), cart, "vault")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), token) {
		t.Errorf("the token is in the log:\n%s", log.String())
	}
	klog.Background().V(4).Info("level 4")
	klog.Background().WithValues("a", 1).WithName("n").V(5).Info("level 5")
	klog.Warning("old style")
	for text, want := range map[string]bool{"level 4": true, "level 5": false, "old style": true, "from=client-go": true} {
		if got := strings.Contains(log.String(), text); got != want {
			t.Errorf("%q in the log: %t, want %t\n%s", text, got, want, log.String())
		}
	}
}
