package podwatch

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"leasehold/internal/podwatch/podwatchtest"
)

// The contract suite holds podwatchtest honest: the same sentences are checked on the fake and on a real API server,
// with pods that stay as they are put, since no kubelet has their node. For the real one set
//
//	LEASEHOLD_CONTRACT_KUBECONFIG           an administrator's
//	LEASEHOLD_CONTRACT_PROVIDER_KUBECONFIG  one with the rights that the chart gives the provider
//	LEASEHOLD_CONTRACT_TOKENS_KUBECONFIG    one with those that it has with token requests on
//	LEASEHOLD_CONTRACT_REQUIRED             1 = fail without a real API server
const (
	envAdministrator = "LEASEHOLD_CONTRACT_KUBECONFIG"
	envProvider      = "LEASEHOLD_CONTRACT_PROVIDER_KUBECONFIG"
	envTokens        = "LEASEHOLD_CONTRACT_TOKENS_KUBECONFIG"
	envRequired      = "LEASEHOLD_CONTRACT_REQUIRED"
)

func TestContract(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		server := podwatchtest.New()
		defer server.Close()
		testContract(t, fakeCluster{server})
		checkRequests(t, server)
	})
	t.Run("real", func(t *testing.T) {
		set := 0
		for _, name := range []string{envAdministrator, envProvider, envTokens} {
			if os.Getenv(name) != "" {
				set++
			}
		}
		switch {
		case set == 0 && os.Getenv(envRequired) == "1":
			t.Fatalf("%s=1, but %s is unset: only the fake was checked", envRequired, envAdministrator)
		case set == 0:
			t.Skipf("ONLY THE FAKE WAS CHECKED: %s is unset", envAdministrator)
		case set < 3:
			t.Fatalf("%s, %s and %s must be set together", envAdministrator, envProvider, envTokens)
		}
		testContract(t, newRealCluster(t))
	})
}

// cluster is what an administrator, a kubelet or a user does at an API server.
type cluster interface {
	namespace() string        // where the pods are
	provider() *rest.Config   // how the provider reaches the API server
	withTokens() *rest.Config // how it does with token requests on

	makePod(t *testing.T, p Pod, node string) (uid string) // in phase Pending, without a deletion timestamp
	setPhase(t *testing.T, p Pod, phase corev1.PodPhase)
	tellToEnd(t *testing.T, p Pod, node string) // sets the deletion timestamp of a running pod
	remove(t *testing.T, p Pod)                 // at once; it may be gone already

	events(t *testing.T, p Pod) []corev1.Event // on this pod, oldest first
	forgetEvents(t *testing.T, p Pod)

	// review returns what a token says, after its issuer has taken it; an empty audience is the API server's own.
	review(t *testing.T, token, audience string) podwatchtest.TokenRequest
}

// sentence is one sentence of the contract at work.
type sentence struct {
	*world
	cluster
	node string
}

func testContract(t *testing.T, c cluster) {
	for _, s := range []struct {
		name  string
		check func(sentence)
	}{
		{"the watch knows the pods of its node and no others", knowsItsNode},
		{"a pod that is told to end lives until it is gone", deletionTimestamp},
		{"a terminal phase is a pod's end", terminalPhase},
		{"a name comes back with another UID", sameName},
		{"only what there is can be confirmed", confirms},
		{"a watch goes on where a list ended", listThenWatch},
		{"a list comes as a stream that says where it ends", streamedList},
		{"a watch from a forgotten time is refused as expired", expiredWatch},
		{"an Event is made once and then counted", eventIsCounted},
		{"an Event sent twice is one", eventSentTwice},
		{"an Event that was forgotten is made anew", eventForgotten},
		{"a token is bound to its pod and audience", boundToken},
		{"a token for another than the account's pod is refused", refusedToken},
	} {
		t.Run(s.name, func(t *testing.T) {
			node := fmt.Sprintf("contract-%x", time.Now().UnixNano()) // each sentence has the node for itself
			w := watchOf(t, c.provider(), node)
			s.check(sentence{w, c, node})
			if log := w.log.String(); log != "" {
				t.Errorf("got log records of what is in order:\n%s", log)
			}
		})
	}
}

// pod makes a pod that goes when the sentence ends. It must not need long: a controller removes pods whose node is not
// there, after 40 seconds at the earliest.
func (s sentence) pod(name string) Pod { return s.podOn(name, s.node) }

func (s sentence) podOn(name, node string) Pod {
	s.t.Helper()
	p := Pod{Namespace: s.namespace(), Name: name, ServiceAccount: "app"}
	p.UID = s.makePod(s.t, p, node)
	s.t.Cleanup(func() { s.remove(s.t, p) })
	return p
}

// catchUp waits until the watch has heard of everything before.
func (s sentence) catchUp() {
	s.t.Helper()
	marker := s.pod(fmt.Sprintf("marker-%x", time.Now().UnixNano()))
	s.until(marker, Alive)
}

// confirm wants Confirm to answer so.
func (s sentence) confirm(p Pod, want State) {
	s.t.Helper()
	if got, err := s.watch.Confirm(s.t.Context(), p); got != want || err != nil {
		s.t.Errorf("confirm pod %s %s: got state %d, %v, want %d", p.Name, p.UID, got, err, want)
	}
}

func knowsItsNode(s sentence) {
	early, stranger := s.pod("early"), s.podOn("stranger", s.node+"-other")
	s.want(early, Unknown)
	s.run()
	s.until(early, Alive)
	s.want(stranger, Absent)
	late, second := s.pod("late"), s.podOn("second-stranger", s.node+"-other")
	s.until(late, Alive)
	s.catchUp()
	s.want(second, Absent)
	s.confirm(second, Alive) // Confirm asks for any pod
	s.remove(s.t, early)
	s.until(early, Absent)
	s.confirm(early, Ended)
}

func deletionTimestamp(s sentence) {
	p := s.pod("ending")
	s.run()
	s.setPhase(s.t, p, corev1.PodRunning)
	s.until(p, Alive)
	s.tellToEnd(s.t, p, s.node)
	s.catchUp()
	s.want(p, Alive)
	s.confirm(p, Alive)
	s.remove(s.t, p)
	s.until(p, Absent)
	s.confirm(p, Ended)
}

func terminalPhase(s sentence) {
	early := s.pod("done-early")
	s.setPhase(s.t, early, corev1.PodFailed)
	s.run()
	s.until(early, Ended) // by the list
	for name, phase := range map[string]corev1.PodPhase{"done": corev1.PodSucceeded, "broken": corev1.PodFailed} {
		p := s.pod(name)
		s.until(p, Alive)
		s.setPhase(s.t, p, corev1.PodRunning)
		s.catchUp()
		s.want(p, Alive)
		s.setPhase(s.t, p, phase)
		s.until(p, Ended) // by the watch
		s.confirm(p, Ended)
	}
}

func sameName(s sentence) {
	s.run()
	first := s.pod("web-0")
	s.until(first, Alive)
	s.remove(s.t, first)
	second := s.pod("web-0")
	if first.UID == second.UID {
		s.t.Fatalf("both pods have the UID %s", first.UID)
	}
	s.until(second, Alive)
	s.want(first, Absent)
	s.confirm(first, Ended)
	s.confirm(second, Alive)
}

func confirms(s sentence) {
	p := s.pod("there")
	s.confirm(p, Alive)
	s.confirm(Pod{Namespace: p.Namespace, Name: "never-was", UID: p.UID}, Ended)
	s.confirm(Pod{Namespace: p.Namespace + "-never-was", Name: p.Name, UID: p.UID}, Ended)
	s.confirm(Pod{Namespace: p.Namespace, Name: p.Name, UID: "another"}, Ended)
}

// read returns what the stream says, up to and with the event of that text.
func (s sentence) read(stream watch.Interface, last string) []string {
	s.t.Helper()
	var all []string
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e, open := <-stream.ResultChan():
			if !open {
				s.t.Fatalf("the stream has ended after %q, want %q", all, last)
			}
			all = append(all, textOf(e))
			if all[len(all)-1] == last {
				return all
			}
		case <-deadline:
			s.t.Fatalf("got %q in 30 s, want %q", all, last)
		}
	}
}

func textOf(e watch.Event) string {
	pod, ok := e.Object.(*corev1.Pod)
	switch {
	case !ok:
		return fmt.Sprintf("%s %v", e.Type, apierrors.FromObject(e.Object))
	case pod.ResourceVersion == "":
		return fmt.Sprintf("%s without a resource version", e.Type)
	case e.Type == watch.Bookmark:
		return fmt.Sprintf("BOOKMARK %s", pod.Annotations[metav1.InitialEventsAnnotationKey])
	case pod.DeletionTimestamp != nil:
		return fmt.Sprintf("%s %s %s deleting", e.Type, pod.Name, pod.Status.Phase)
	}
	return fmt.Sprintf("%s %s %s", e.Type, pod.Name, pod.Status.Phase)
}

func (s sentence) wantStream(got, want []string) {
	s.t.Helper()
	if !slices.Equal(got, want) {
		s.t.Errorf("got stream %q, want %q", got, want)
	}
}

func listThenWatch(s sentence) {
	first := s.pod("first")
	s.podOn("stranger", s.node+"-other")
	list, err := s.watch.list(s.t.Context(), metav1.ListOptions{})
	pods, ok := list.(*corev1.PodList)
	if err != nil || !ok || len(pods.Items) != 1 || pods.Items[0].Name != "first" || pods.Items[0].Spec.NodeName != s.node {
		s.t.Fatalf("list: got %v, %v, want the one pod of the node", list, err)
	}
	p := s.pod("later")
	s.podOn("later-stranger", s.node+"-other")
	s.setPhase(s.t, p, corev1.PodRunning)
	stream, err := s.watch.watch(s.t.Context(), metav1.ListOptions{ResourceVersion: pods.ResourceVersion})
	if err != nil {
		s.t.Fatal(err)
	}
	defer stream.Stop()
	s.wantStream(s.read(stream, "MODIFIED later Running"), []string{"ADDED later Pending", "MODIFIED later Running"})
	s.tellToEnd(s.t, p, s.node)
	s.wantStream(s.read(stream, "MODIFIED later Running deleting"), []string{"MODIFIED later Running deleting"})
	s.remove(s.t, p)
	s.wantStream(s.read(stream, "DELETED later Running deleting"), []string{"MODIFIED later Running deleting", "DELETED later Running deleting"})
	s.remove(s.t, first) // though nobody has told it to end
	s.wantStream(s.read(stream, "DELETED first Pending deleting"), []string{"MODIFIED first Pending deleting", "DELETED first Pending deleting"})
}

func streamedList(s sentence) {
	s.pod("first")
	s.podOn("stranger", s.node+"-other")
	yes := true
	stream, err := s.watch.watch(s.t.Context(), metav1.ListOptions{
		SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer stream.Stop()
	s.wantStream(s.read(stream, "BOOKMARK true"), []string{"ADDED first Pending", "BOOKMARK true"})
	s.pod("later")
	s.wantStream(s.read(stream, "ADDED later Pending"), []string{"ADDED later Pending"})
}

// An API server remembers what has happened since it was started, and may have been started with its cluster: to test
// the real one takes a restart before.
func expiredWatch(s sentence) {
	stream, err := s.watch.watch(s.t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer stream.Stop()
	select {
	case e := <-stream.ResultChan():
		if err := apierrors.FromObject(e.Object); e.Type != watch.Error || !apierrors.IsResourceExpired(err) {
			s.t.Errorf("got %s %v, want an error that says expired", e.Type, err)
		}
	case <-time.After(30 * time.Second):
		s.t.Error("got nothing in 30 s, want an error that says expired")
	}
}

// say says something about a pod and returns when the API server knows, if it is to know.
func (s sentence) say(p Pod) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	s.watch.Event(p, "CannotRevoke", "a batch token")
	s.watch.events.deliver(ctx, s.watch.events.take())
	if ctx.Err() != nil {
		s.t.Fatal("the API server has not taken the Event in 30 s")
	}
}

// later makes what was said so old that its count is sent when it is said again.
func (s sentence) later() {
	for _, t := range s.watch.events.told {
		t.sent = t.sent.Add(-patchEvery)
	}
}

// wantEvent wants one Event on the pod and returns it.
func (s sentence) wantEvent(p Pod, count int32) corev1.Event {
	s.t.Helper()
	all := s.events(s.t, p)
	if len(all) != 1 || all[0].Count != count {
		s.t.Fatalf("got %d Events %v, want one with count %d", len(all), all, count)
	}
	return all[0]
}

func eventIsCounted(s sentence) {
	p := s.pod("told")
	s.say(p)
	first := s.wantEvent(p, 1)
	s.say(p) // too soon
	s.wantEvent(p, 1)
	s.later()
	s.say(p)
	last := s.wantEvent(p, 3)
	got := []any{last.Name, last.InvolvedObject, last.Type, last.Reason, last.Message, last.Source, last.ReportingController, last.ReportingInstance}
	want := []any{
		first.Name,
		corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)},
		"Warning", "CannotRevoke", "a batch token",
		corev1.EventSource{Component: component, Host: s.node},
		component, s.node,
	}
	for i := range want {
		if got[i] != want[i] {
			s.t.Errorf("field %d: got %v, want %v", i, got[i], want[i])
		}
	}
	if !last.FirstTimestamp.Equal(&first.FirstTimestamp) || last.LastTimestamp.Before(&first.LastTimestamp) || first.LastTimestamp.IsZero() {
		s.t.Errorf("got times %v to %v, want the first to be %v", last.FirstTimestamp, last.LastTimestamp, first.FirstTimestamp)
	}
}

func eventSentTwice(s sentence) {
	p := s.pod("told-twice")
	now := time.Now()
	w := &waiting{note: note{p, "CannotRevoke", "a batch token"}, count: 1, since: now}
	t := &told{event: eventName(p.Name, now), count: 1, last: now}
	for range 2 { // as when the first answer is lost
		if err := s.watch.events.send(s.t.Context(), w, t); err != nil {
			s.t.Fatal(err)
		}
	}
	s.wantEvent(p, 1)
}

func eventForgotten(s sentence) {
	p := s.pod("told-anew")
	s.say(p)
	s.later()
	s.say(p)
	first := s.wantEvent(p, 2)
	s.forgetEvents(s.t, p)
	s.later()
	s.say(p)
	if second := s.wantEvent(p, 1); second.Name == first.Name {
		s.t.Errorf("both Events are named %s", first.Name)
	}
}

// asking is the sentence with a watch that may ask for tokens.
func (s sentence) asking() sentence {
	s.world = watchOf(s.t, s.withTokens(), s.node)
	return s
}

func boundToken(s sentence) {
	s = s.asking()
	p := s.pod("bound")
	for name, audience := range map[string]string{"Vault": "vault", "the API server": ""} {
		token, expires, err := s.watch.Token(s.t.Context(), p, audience)
		if err != nil {
			s.t.Fatalf("token for %s: %v", name, err)
		}
		if left := time.Until(expires); left > tokenLife || left < tokenLife-time.Minute {
			s.t.Errorf("token for %s: it expires in %v, want %v", name, left, tokenLife)
		}
		got := s.review(s.t, token, audience)
		if d := got.Expires.Sub(expires).Abs(); d > time.Second {
			s.t.Errorf("token for %s: it ends %v from when it was told to", name, d)
		}
		bound := []string{got.Namespace, got.ServiceAccount, got.Pod, got.PodUID}
		if want := []string{p.Namespace, p.ServiceAccount, p.Name, p.UID}; !slices.Equal(bound, want) {
			s.t.Errorf("token for %s: got one of %q, want %q", name, bound, want)
		}
		if audience != "" && !slices.Equal(got.Audiences, []string{audience}) || audience == "" && slices.Contains(got.Audiences, "vault") {
			s.t.Errorf("token for %s: got audiences %q", name, got.Audiences)
		}
	}
}

func refusedToken(s sentence) {
	s = s.asking()
	p := s.pod("owner")
	namesake, gone, stranger := p, p, p
	namesake.UID, gone.Name, stranger.ServiceAccount = "another", "never-was", "other"
	for name, c := range map[string]struct {
		pod    Pod
		reason metav1.StatusReason
		text   string
	}{
		"other UID":     {namesake, metav1.StatusReasonConflict, "does not match the UID in record"},
		"gone":          {gone, metav1.StatusReasonNotFound, `pods "never-was" not found`},
		"other account": {stranger, metav1.StatusReasonBadRequest, "different serviceaccount name"},
	} {
		token, _, err := s.watch.Token(s.t.Context(), c.pod, "vault")
		if token != "" || apierrors.ReasonForError(err) != c.reason || !hasText(err, c.text) {
			s.t.Errorf("%s: got a token: %t, error %v, want %s %q", name, token != "", err, c.reason, c.text)
		}
	}
}
