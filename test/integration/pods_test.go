package integration

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/podwatch/podwatchtest"
	"leasehold/test/integration/bed"
)

const nodeName = "node-1"

// cluster is an API server with a provider that watches it.
type cluster struct {
	api     *podwatchtest.Server
	options bed.ProviderOptions
	*bed.Provider
}

// startCluster starts both for one test.
func startCluster(t testing.TB, o bed.ProviderOptions) *cluster {
	t.Helper()
	c := &cluster{api: podwatchtest.New(), options: o}
	t.Cleanup(c.api.Close)
	kubeconfig := filepath.Join(shared.bed.Dir, shared.unique("kubeconfig"))
	must(t, "kubeconfig", c.api.Kubeconfig(kubeconfig))
	// What ends with its pod is not given up before.
	c.options.Args = append([]string{"--node-name=" + nodeName, "--kubeconfig=" + kubeconfig, patient}, o.Args...)
	c.Provider = startProvider(t, c.options)
	c.options.Dir = c.Dir
	return c
}

// restart starts the provider again after its end.
func (c *cluster) restart(t testing.TB) {
	t.Helper()
	c.Provider = startProvider(t, c.options)
}

// start makes a pod and describes its volume, on a tmpfs: nothing is mounted yet.
func (c *cluster) start(t testing.TB, parameters map[string]string) *bed.Volume {
	t.Helper()
	v := newVolume(t, c.Provider, parameters)
	v.Tmpfs = true
	c.set(v.Pod, podwatchtest.Pod{})
	t.Cleanup(func() { must(t, "unmount", v.Unmount()) })
	return v
}

// set changes a pod; what extra leaves out is as usual.
func (c *cluster) set(pod bed.Pod, extra podwatchtest.Pod) {
	extra.Namespace, extra.Name, extra.ServiceAccount = pod.Namespace, pod.Name, pod.ServiceAccount
	if extra.UID == "" {
		extra.UID = pod.UID
	}
	if extra.Node == "" {
		extra.Node = nodeName
	}
	c.api.SetPod(extra)
}

// seen returns when the provider must have heard of all that has happened at the API server so far: it has given back what
// another pod had that ended after that.
func (c *cluster) seen(t testing.TB) {
	t.Helper()
	name := role(t, bed.Role{})
	v := c.start(t, class(name, credentials(name)))
	mustMount(t, v)
	c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	left(t, name)
}

// ends are the ways in which a pod ends, as the API server shows them.
var ends = map[string]func(c *cluster, pod bed.Pod){
	"completed":                 func(c *cluster, p bed.Pod) { c.api.SetPhase(p.Namespace, p.Name, corev1.PodSucceeded) },
	"failed":                    func(c *cluster, p bed.Pod) { c.api.SetPhase(p.Namespace, p.Name, corev1.PodFailed) },
	"deleted":                   func(c *cluster, p bed.Pod) { c.api.DeletePod(p.Namespace, p.Name) },
	"replaced by another's UID": func(c *cluster, p bed.Pod) { c.set(p, podwatchtest.Pod{UID: "99999999" + p.UID[8:]}) },
}

// TestPodEnds gives back what a pod had, whichever way it ends, and nothing of any other pod's.
func TestPodEnds(t *testing.T) {
	t.Parallel()
	for how, end := range ends {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			name, other := role(t, bed.Role{}), role(t, bed.Role{})
			c := startCluster(t, bed.ProviderOptions{})
			v, bystander := c.start(t, class(name, credentials(name))), c.start(t, class(other, credentials(other)))
			mustMount(t, v)
			mustMount(t, bystander)
			holds(t, name, 1, 1)
			ended := time.Now()
			end(c, v.Pod)
			left(t, name)
			t.Logf("from the pod's end to the end of its user: %s", time.Since(ended).Round(time.Millisecond))
			holds(t, other, 1, 1)
			logIn(t, bystander)
			waitCounted(t, c.Provider, `leasehold_releases_total{outcome="revoked"}`, 1)
			if got := counted(t, c.Provider, "leasehold_volumes"); got != 1 {
				t.Errorf("leasehold_volumes: got %d, want the bystander's", got)
			}
		})
	}
}

// TestPodIsBeingDeleted keeps what a pod has while its containers may still work.
func TestPodIsBeingDeleted(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	c := startCluster(t, bed.ProviderOptions{})
	v := c.start(t, class(name, credentials(name)))
	mustMount(t, v)
	c.set(v.Pod, podwatchtest.Pod{Deleting: true})
	c.seen(t)
	holds(t, name, 1, 1)
	logIn(t, v)
	c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	left(t, name)
}

// TestFailedMountEndsWithItsPod gives back what a Mount gained that never succeeded.
func TestFailedMountEndsWithItsPod(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	c := startCluster(t, bed.ProviderOptions{})
	v := c.start(t, class(name, credentials(name)+object("word", "kv1/nothing-here", "word")))
	_, err := mount(t, v)
	wantError(t, err, "kv1/nothing-here")
	holds(t, name, 1, 1)
	c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	left(t, name)
}

// TestPodEndsDuringItsMount has Vault answer when the pod is gone already.
func TestPodEndsDuringItsMount(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := c.start(t, class(name, credentials(name)))
	gate := trouble.BlockAnswer("database/creds/" + name)
	defer gate.Open()
	ctx, cancel := context.WithCancel(t.Context())
	done := background(ctx, t, v)
	wait(t, "request", gate.Arrived())
	c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	c.seen(t)
	cancel() // kubelet does not want it any more
	_ = wait(t, "mount", done)
	gate.Open()
	left(t, name)
}

// TestPodEndsWhileNobodyLooks has pods end while the provider is down, or the API server.
func TestPodEndsWhileNobodyLooks(t *testing.T) {
	t.Parallel()
	for how, end := range ends {
		t.Run("provider down, "+how, func(t *testing.T) {
			t.Parallel()
			name := role(t, bed.Role{})
			c := startCluster(t, bed.ProviderOptions{})
			v, stays := c.start(t, class(name, credentials(name))), c.start(t, class(name, credentials(name)))
			mustMount(t, v)
			mustMount(t, stays)
			kill(t, c.Provider)
			end(c, v.Pod)
			c.restart(t)
			holds(t, name, 1, 1)
			logIn(t, stays)
		})
		t.Run("API server down, "+how, func(t *testing.T) {
			t.Parallel()
			name := role(t, bed.Role{})
			c := startCluster(t, bed.ProviderOptions{})
			v, stays := c.start(t, class(name, credentials(name))), c.start(t, class(name, credentials(name)))
			mustMount(t, v)
			mustMount(t, stays)
			c.api.Down(true)
			end(c, v.Pod)
			c.api.Compact()
			c.api.Down(false)
			holds(t, name, 1, 1)
			logIn(t, stays)
		})
	}
}

// TestAPIServerAway goes on without it: Mounts, renewals, a restart. Nothing is given back on that account.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{TTL: 6 * time.Second})
	c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := c.start(t, class(name, credentials(name)))
	versions := mustMount(t, v)
	before := files(t, v)
	c.api.Down(true)
	other := c.start(t, class(name, credentials(name)))
	mustMount(t, other)
	logIn(t, other)
	polled(t, v, versions, before)

	kill(t, c.Provider)
	c.restart(t) // it knows no pod at all now
	polled(t, v, versions, before)
	fresh := c.start(t, class(name, credentials(name)))
	mustMount(t, fresh)
	logIn(t, fresh)
	renewed := trouble.Count("POST", "auth/token/renew-self")
	eventually(t, "renewals", func(context.Context) error {
		if n := trouble.Count("POST", "auth/token/renew-self"); n < renewed+6 {
			return fmt.Errorf("got %d, want two for each volume", n-renewed)
		}
		return nil
	})
	holds(t, name, 3, 3)
	wantCount(t, trouble, "POST", "auth/token/revoke-self", 0)

	c.api.Down(false)
	c.seen(t)
	holds(t, name, 3, 3)
	for _, v := range []*bed.Volume{v, other, fresh} {
		logIn(t, v)
		c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	}
	left(t, name)
}

// TestAbsenceIsConfirmed has a pod that the watch does not show, as after a reconnect to an API server that lags behind.
func TestAbsenceIsConfirmed(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	c := startCluster(t, bed.ProviderOptions{})
	v := c.start(t, class(name, credentials(name)))
	c.set(v.Pod, podwatchtest.Pod{Node: "another"})
	mustMount(t, v)
	c.seen(t)
	eventually(t, "a look at the pod itself", func(context.Context) error {
		if c.api.Count("get pods") == 0 {
			return fmt.Errorf("none of %v", c.api.Requests())
		}
		return nil
	})
	holds(t, name, 1, 1)
	logIn(t, v)

	// The API server does not answer when it is asked for the pod itself: nobody knows.
	kill(t, c.Provider)
	c.api.DeletePod(v.Pod.Namespace, v.Pod.Name)
	asked := make(chan struct{}, 100)
	c.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/pods/"+v.Pod.Name) {
			return false
		}
		asked <- struct{}{}
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return true
	})
	c.restart(t)
	wait(t, "a look at the pod itself", asked)
	wait(t, "another one", asked)
	holds(t, name, 1, 1)
	c.api.Intercept(nil)
	left(t, name)
}

// TestLoginAnewWithoutPolls has a volume log in anew that the driver does not poll and whose service account token has
// expired: with a token that the API server makes, if the operator lets the provider ask for one. If not, the pod's owner
// hears of the end before it comes.
func TestLoginAnewWithoutPolls(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, trouble *bed.Trouble, name string, args ...string) (*cluster, *bed.Volume) {
		t.Helper()
		c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: args})
		c.api.SignTokens(func(r podwatchtest.TokenRequest) (string, error) {
			pod := bed.Pod{Namespace: r.Namespace, Name: r.Pod, UID: r.PodUID, ServiceAccount: r.ServiceAccount}
			return shared.signer.Token(pod, r.Audiences[0], time.Until(r.Expires))
		})
		v := c.start(t, class(name, credentials(name)))
		v.TokenLife = 6 * time.Second
		mustMount(t, v)
		return c, v
	}
	lives := bed.Role{TTL: 8 * time.Second, MaxTTL: 14 * time.Second}
	t.Run("token requests", func(t *testing.T) {
		t.Parallel()
		trouble, name := startTrouble(t), role(t, lives)
		c, v := start(t, trouble, name, "--token-requests")
		changesBySelf(t, v, files(t, v))
		wantRequests(t, trouble, name, 2, 2)
		requests := c.api.TokenRequests()
		if len(requests) != 1 {
			t.Errorf("token requests: got %d, want 1", len(requests))
		}
		for _, r := range requests {
			if r.Pod != v.Pod.Name || r.PodUID != v.Pod.UID || r.ServiceAccount != v.Pod.ServiceAccount {
				t.Errorf("token request: got %+v, want one that is bound to the pod", r)
			}
		}
	})
	t.Run("no token requests", func(t *testing.T) {
		t.Parallel()
		trouble, name := startTrouble(t), role(t, lives)
		c, v := start(t, trouble, name)
		eventually(t, "an Event", func(context.Context) error {
			for _, e := range c.api.Events() {
				if e.Reason == "CredentialsEnd" && e.InvolvedObject.Name == v.Pod.Name {
					shared.record(t.Name()+": event", []byte(e.Message))
					return nil
				}
			}
			return fmt.Errorf("none of %d", len(c.api.Events()))
		})
		logIn(t, v) // it came before the end
		if n := len(c.api.TokenRequests()); n != 0 {
			t.Errorf("token requests: got %d, want none", n)
		}
	})
}
