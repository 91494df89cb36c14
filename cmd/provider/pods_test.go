package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/lease"
	"leasehold/internal/podwatch"
	"leasehold/internal/podwatch/podwatchtest"
	"leasehold/internal/spec"
)

// cluster is an API server with a pod on the node "here", and the flags that lead to it.
func cluster(t *testing.T) (api *podwatchtest.Server, flags string) {
	t.Helper()
	api = podwatchtest.New()
	t.Cleanup(api.Close)
	kubeconfig := t.TempDir() + "/kubeconfig"
	if err := api.Kubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	api.SetPod(podwatchtest.Pod{Namespace: "shop", Name: "cart", UID: "u-1", Node: "here", ServiceAccount: "app"})
	return api, "-node-name=here -kubeconfig=" + kubeconfig
}

// What package lease asks is answered by the watch, word for word.
func TestPods(t *testing.T) {
	api, flags := cluster(t)
	c, err := parse(flags)
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 100)
	p, err := newPods(c, slog.New(slog.DiscardHandler), func() { changed <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	cart := spec.Pod{Namespace: "shop", Name: "cart", UID: "u-1", ServiceAccount: "app"}
	other := cart
	other.UID = "u-0"
	if got := p.Look(cart); got != lease.Unknown {
		t.Errorf("before the first list: got %v, want %v", got, lease.Unknown)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.watch.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	await := func(want lease.Life) {
		t.Helper()
		limit := time.After(patience)
		for p.Look(cart) != want {
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("got life %v of the pod, want %v", p.Look(cart), want)
			}
		}
	}
	confirm := func(pod spec.Pod, want lease.Life) {
		t.Helper()
		if got, err := p.Confirm(ctx, pod); got != want || err != nil {
			t.Errorf("confirm %s: got %v, %v; want %v", pod.UID, got, err, want)
		}
	}
	await(lease.Alive)
	if got := p.Look(other); got != lease.Absent {
		t.Errorf("the one before of that name: got %v, want %v", got, lease.Absent)
	}
	confirm(cart, lease.Alive)
	confirm(other, lease.Ended)

	token, expires, err := p.Token(ctx, cart, "vault")
	if err != nil || token.Reveal() == "" || expires.Before(time.Now()) {
		t.Errorf("token: got one of %d characters until %v, %v; want one that lasts", len(token.Reveal()), expires, err)
	}
	if asked := api.TokenRequests(); len(asked) != 1 || asked[0].ServiceAccount != "app" || asked[0].PodUID != "u-1" ||
		asked[0].Audiences[0] != "vault" {
		t.Errorf("token: asked for %+v, want one of service account app and audience vault, bound to the pod", asked)
	}
	api.SignTokens(func(podwatchtest.TokenRequest) (string, error) { return "", errors.New("no") })
	if token, _, err := p.Token(ctx, cart, "vault"); err == nil || !token.IsZero() {
		t.Errorf("token that is refused: got %v, %v; want none and an error", token.IsZero(), err)
	}

	p.Event(cart, "CredentialsEnd", "at noon")
	for limit := time.Now().Add(patience); len(api.Events()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the event was not sent")
		}
	}

	api.SetPhase("shop", "cart", corev1.PodSucceeded)
	await(lease.Ended)
	confirm(cart, lease.Ended)
	api.DeletePod("shop", "cart")
	await(lease.Absent)
	if events := api.Events(); len(events) != 1 || events[0].InvolvedObject.UID != "u-1" || events[0].Reason != "CredentialsEnd" ||
		events[0].Message != "at noon" {
		t.Errorf("event: got %+v, want one on the pod with reason and message", events)
	}
}

// What the watch does not know, or no word of lease says, is unknown: nothing is ever given back for it.
func TestLifeOf(t *testing.T) {
	for state, want := range map[podwatch.State]lease.Life{
		podwatch.Unknown: lease.Unknown, podwatch.Alive: lease.Alive, podwatch.Ended: lease.Ended, podwatch.Absent: lease.Absent,
		0: lease.Unknown, 99: lease.Unknown,
	} {
		if got := lifeOf(state); got != want {
			t.Errorf("state %v: got %v, want %v", state, got, want)
		}
	}
}

// The one that answers watches the pods of its node, and so does a standby, which then knows them when it takes over.
// Both ask for no more than the chart allows, and end though the API server does not answer.
func TestRunWatchesPods(t *testing.T) {
	api, flags := cluster(t)
	asked := make(chan string, 1000)
	api.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- r.URL.Path + "?" + r.URL.Query().Get("fieldSelector")
		return false
	})
	watched := func(who string) {
		t.Helper()
		select {
		case got := <-asked:
			if want := "/api/v1/pods?spec.nodeName=here"; got != want {
				t.Errorf("%s: got a request for %s, want %s", who, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not watch the pods", who)
		}
	}
	dir := t.TempDir()
	first := start(t, dir, flags)
	first.await(t, "serving")
	watched("the one that answers")
	for len(asked) > 0 {
		<-asked // the watch that follows the list, if it was so quick
	}
	second := start(t, dir, flags)
	second.await(t, "standby: another instance holds the lock")
	watched("the standby")
	api.Down(true)
	second.end(t)
	first.end(t)
}
