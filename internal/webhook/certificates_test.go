package webhook

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"leasehold/internal/webhook/webhooktest"
)

// bundles returns the authorities in the webhooks of both configurations that call us.
func bundles(t *testing.T, m *machine) []string {
	t.Helper()
	var all []string
	for _, at := range []string{mutateAt, adviseAt} {
		webhooks, _ := m.server.Get(at)["webhooks"].([]any)
		for _, w := range webhooks {
			w, _ := w.(map[string]any)
			o := webhooktest.Object(w)
			if o.Text("clientConfig", "service", "name") == "" {
				if o.Text("clientConfig", "caBundle") != "" {
					t.Errorf("the webhook %s is another's, and was changed", o.Text("name"))
				}
				continue
			}
			text, err := base64.StdEncoding.DecodeString(o.Text("clientConfig", "caBundle"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(text))
		}
	}
	return all
}

// trusted tells whether a replica's certificate holds for all of some bundles.
func trusted(c *Certificates, bundles []string) error {
	serving, err := c.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		if err := verify(serving.Leaf, []byte(bundle), serviceHost, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func TestFirstCertificate(t *testing.T) {
	m := newMachine(t)
	c := m.certificates(life)
	if err := c.Ready(); err == nil {
		t.Error("ready before there is a certificate")
	}
	if _, err := c.GetCertificate(nil); err == nil {
		t.Error("got a certificate before there is one")
	}
	if !c.End().IsZero() {
		t.Error("got an end before there is one")
	}
	if err := c.tend(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if err := trusted(c, bundles(t, m)); err != nil {
		t.Errorf("the API server does not trust it: %v", err)
	}
	if left := time.Until(c.End()); left < life-time.Minute || left > life {
		t.Errorf("it ends in %v, want %v", left, life)
	}
	// The next look changes nothing, and neither does another replica.
	before := len(m.writes())
	other := m.certificates(life)
	for _, c := range []*Certificates{c, other} {
		if err := c.tend(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if writes := m.writes()[before:]; len(writes) != 0 {
		t.Errorf("got %q, want nothing written", writes)
	}
	if c.serving.Leaf.SerialNumber.Cmp(other.serving.Leaf.SerialNumber) != 0 {
		t.Error("two replicas serve with different certificates")
	}
}

// Whoever comes second takes what the first has made.
func TestReplicasAgree(t *testing.T) {
	m := newMachine(t)
	one, two := m.certificates(life), m.certificates(life)
	m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			m.server.Intercept(nil)
			if err := two.tend(t.Context(), time.Now()); err != nil {
				t.Errorf("two: %v", err)
			}
		}
		return false
	})
	if err := one.tend(t.Context(), time.Now()); err == nil {
		t.Error("one: got no error, want that two was faster")
	}
	if one.Ready() == nil {
		t.Error("one is ready with nothing to serve")
	}
	if err := one.tend(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Certificates{one, two} {
		if err := trusted(c, bundles(t, m)); err != nil {
			t.Error(err)
		}
	}
}

// A replica that is slow does not put back a bundle that is older than the other's, wherever it was held up.
func TestSlowReplicaPutsNothingBack(t *testing.T) {
	for name, heldUp := range map[string]func(*http.Request) bool{
		"before it has read the Secret": func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/secrets/")
		},
		"before it writes": func(r *http.Request) bool { return r.Method == http.MethodPatch },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			slow, quick := m.certificates(life), m.certificates(life)
			now := time.Now()
			for _, c := range []*Certificates{slow, quick} {
				if err := c.tend(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
			// There is something to write.
			m.server.Put(adviseAt, strings.ReplaceAll(adviseText, "BUNDLE", base64.StdEncoding.EncodeToString([]byte("others'"))))
			once := true
			m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if once && heldUp(r) {
					once = false
					if err := quick.tend(context.WithoutCancel(r.Context()), now.Add(2*life+time.Hour)); err != nil {
						t.Errorf("quick: %v", err)
					}
				}
				return false
			})
			_ = slow.tend(t.Context(), now) // it may have been overtaken
			if once {
				t.Fatal("the slow one was not held up")
			}
			chain, err := parseKeychain(secretData(t, m))
			if err != nil || len(chain.authorities) != 2 {
				t.Fatalf("got %d authorities (%v), want two", len(chain.authorities), err)
			}
			for _, bundle := range bundles(t, m) {
				if !holds([]byte(bundle), chain.newest()) {
					t.Error("the new authority is gone from a configuration")
				}
			}
		})
	}
}

const adviseText = `{"kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "webhooks": [
	{"name": "b.leasehold.dev", "clientConfig": {"caBundle": "BUNDLE", "service": {"name": "leasehold-webhook", "namespace": "leasehold-system"}}}]}`

func secretData(t *testing.T, m *machine) map[string][]byte {
	t.Helper()
	data := make(map[string][]byte)
	texts, _ := m.server.Get(secretAt)["data"].(map[string]any)
	for key, text := range texts {
		text, _ := text.(string)
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		data[key] = decoded
	}
	return data
}

// Two replicas run through many renewals, with an API server that fails now and then, and that hears of its own
// configurations late. At no moment would it refuse what any of them serves.
func TestNoAdmissionFailsThroughRenewals(t *testing.T) {
	const short = 10 * time.Minute // a life: an authority is renewed every 20 minutes
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		var mu sync.Mutex // guards random, which both replicas roll
		random := rand.New(rand.NewPCG(1, 2))
		replicas := []*Certificates{m.certificates(short), m.certificates(short)}
		for _, c := range replicas {
			background(t, c.Run)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		m.server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			fails := random.IntN(8) == 0
			mu.Unlock()
			if !fails {
				return false
			}
			webhooktest.Answer(w, 500, webhooktest.Failure(500, metav1.StatusReasonInternalError, "", "", "etcd is away"))
			return true
		})
		const step, late = 3 * time.Second, 6 * time.Second
		var heard [][]string          // what was in the configurations, at every step
		held := make(map[string]bool) // what was found to hold: looking again would find the same
		authorities := make(map[string]bool)
		for range int(65 * time.Minute / step) {
			heard = append(heard, bundles(t, m))
			heard = heard[max(0, len(heard)-1-int(late/step)):]
			authorities[heard[len(heard)-1][0]] = true
			for i, c := range replicas {
				if err := c.Ready(); err != nil {
					t.Fatalf("replica %d is not ready: %v", i, err)
				}
				id := fmt.Sprint(c.End(), heard[0])
				if !held[id] {
					if err := trusted(c, heard[0]); err != nil {
						t.Fatalf("replica %d: an API server that is %v late does not trust it: %v", i, late, err)
					}
					held[id] = true
				}
			}
			time.Sleep(step)
			synctest.Wait()
		}
		if len(authorities) < 4 {
			t.Errorf("got %d different bundles, want several renewals", len(authorities))
		}
		for i, c := range replicas {
			if time.Until(c.End()) < 0 {
				t.Errorf("replica %d serves what has ended", i)
			}
		}
	})
}

// Whoever overwrites a configuration, such as a tool that applies the chart's, has it mended.
func TestLostBundleIsPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		c := m.certificates(life)
		background(t, c.Run)
		time.Sleep(time.Second)
		m.server.Put(adviseAt, strings.ReplaceAll(adviseText, "BUNDLE", ""))
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if err := trusted(c, bundles(t, m)); err != nil {
			t.Error(err)
		}
	})
}

func TestNotReady(t *testing.T) {
	for name, row := range map[string]struct {
		arrange func(*machine)
		want    string
	}{
		"no configuration": {func(m *machine) { m.server.Remove(mutateAt) }, "Leasehold's chart makes it"},
		"no other one":     {func(m *machine) { m.server.Remove(adviseAt) }, "Leasehold's chart makes it"},
		"no secret":        {func(m *machine) { m.server.Remove(secretAt) }, "Leasehold's chart makes it"},
		"not our service": {func(m *machine) {
			m.server.Put(mutateAt, `{"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "webhooks": []}`)
		}, `has no webhook that calls Service "leasehold-webhook"`},
		"may not write the Secret": {func(m *machine) { m.on(http.MethodPut, "/leasehold-webhook", status(403, "Forbidden")) }, "update secrets"},
		"may not write the configuration": {
			func(m *machine) { m.on(http.MethodPatch, "/leasehold-webhook", status(403, "Forbidden")) },
			"does not trust the webhook's certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			row.arrange(m)
			c := m.certificates(life)
			if err := c.tend(t.Context(), time.Now()); err == nil {
				t.Error("got no error")
			}
			if err := c.Ready(); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want that it is not ready, with %q", err, row.want)
			}
		})
	}
}

// An API server that is away says nothing new: who was ready stays so, for as long as the certificate lasts.
func TestReadyThoughTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		c := m.certificates(life)
		background(t, c.Run)
		time.Sleep(time.Second)
		m.server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return true
		})
		time.Sleep(time.Hour)
		if err := c.Ready(); err != nil {
			t.Errorf("got %v, want it ready", err)
		}
		if told := strings.Count(m.log.String(), "cannot be looked after"); told != 1 {
			t.Errorf("got it told %d times, want once", told)
		}
		c.mu.Lock()
		serving := *c.serving
		ended := *serving.Leaf
		ended.NotAfter = time.Now().Add(-time.Second)
		serving.Leaf = &ended
		c.serving = &serving
		c.mu.Unlock()
		if err := c.Ready(); err == nil || !strings.Contains(err.Error(), "the certificate has ended") {
			t.Errorf("got %v, want that it has ended", err)
		}
	})
}

// No key is in the log, nor in an error.
func TestKeysAreNotTold(t *testing.T) {
	m := newMachine(t)
	c := m.certificates(life)
	if err := c.tend(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if log := m.log.String(); strings.Contains(log, "PRIVATE") || strings.Contains(log, "BEGIN") {
		t.Errorf("got log %s", log)
	}
}
