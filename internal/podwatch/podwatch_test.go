package podwatch

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"leasehold/internal/podwatch/podwatchtest"
)

func TestNewRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for want, c := range map[string]Config{
		"the pod watch needs to know how to reach the API server": {Node: node, Log: log},
		"the pod watch needs the name of its node":                {REST: &rest.Config{}, Log: log},
		"the pod watch needs a logger":                            {REST: &rest.Config{}, Node: node},
		"client of the API server: ":                              {REST: &rest.Config{Host: "://"}, Node: node, Log: log},
	} {
		if _, err := New(c); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

// Both ways to list lead to the same: as a stream, and plainly as of an older API server.
func TestNothingIsKnownBeforeTheFirstList(t *testing.T) {
	for name, stream := range map[string]bool{"stream": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.StreamLists(stream)
			asked := make(chan struct{}, 100)
			w.server.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
				http.Error(rw, "not yet", http.StatusServiceUnavailable)
				asked <- struct{}{}
				return true
			})
			w.set(cart, corev1.PodRunning)
			w.want(cart, Unknown)
			w.run()
			<-asked
			<-asked
			w.want(cart, Unknown)
			w.server.Intercept(nil)
			w.until(cart, Alive)
			w.want(Pod{UID: "nobody"}, Absent)
		})
	}
}

// A list of all pods at once takes far more memory than one after the other.
func TestListsAreStreamedWhereTheyCanBe(t *testing.T) {
	for name, stream := range map[string]bool{"stream": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.StreamLists(stream)
			w.set(cart, corev1.PodRunning)
			w.run()
			w.until(cart, Alive)
			if lists := w.server.Count("list pods"); (lists == 0) != stream {
				t.Errorf("got %d plain lists", lists)
			}
			if w.log.String() != "" {
				t.Errorf("got log records of what is in order:\n%s", w.log)
			}
		})
	}
}

// Pods that come before a list is complete make none.
func TestOnePodIsNoList(t *testing.T) {
	s := newStore(func() { t.Error("Changed was called") })
	if err := s.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.look("uid-2"); got != Unknown {
		t.Errorf("got state %d, want Unknown", got)
	}
}

func TestPhaseEndsPod(t *testing.T) {
	w := newWorld(t)
	w.run()
	for phase, want := range map[corev1.PodPhase]State{
		corev1.PodPending: Alive, corev1.PodRunning: Alive, corev1.PodUnknown: Alive,
		corev1.PodSucceeded: Ended, corev1.PodFailed: Ended,
	} {
		pod := Pod{Namespace: "shop", Name: strings.ToLower(string(phase)), UID: "uid-" + string(phase)}
		w.set(pod, phase)
		w.until(pod, want)
		w.server.DeletePod(pod.Namespace, pod.Name)
		w.until(pod, Absent)
	}
	w.set(cart, corev1.PodRunning)
	w.until(cart, Alive)
	w.server.SetPhase(cart.Namespace, cart.Name, corev1.PodSucceeded)
	w.until(cart, Ended)
}

func TestDeletionTimestampChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.set(cart, corev1.PodRunning)
	w.until(cart, Alive)
	w.server.SetPod(podwatchtest.Pod{Namespace: cart.Namespace, Name: cart.Name, UID: cart.UID, Node: node, Deleting: true})
	w.settle()
	w.want(cart, Alive)
	w.server.DeletePod(cart.Namespace, cart.Name)
	w.until(cart, Absent)
}

func TestOtherNodesPodsAreUnseen(t *testing.T) {
	w := newWorld(t)
	early, late := Pod{Namespace: "shop", Name: "early", UID: "e"}, Pod{Namespace: "shop", Name: "late", UID: "l"}
	w.server.SetPod(podwatchtest.Pod{Namespace: early.Namespace, Name: early.Name, UID: early.UID, Node: "node-2"})
	w.run()
	w.settle()
	w.server.SetPod(podwatchtest.Pod{Namespace: late.Namespace, Name: late.Name, UID: late.UID, Node: "node-2"})
	w.settle()
	w.want(early, Absent)
	w.want(late, Absent)
}

// A StatefulSet's pod comes back with its name and another UID.
func TestSameNameIsAnotherPod(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.set(cart, corev1.PodRunning)
	w.until(cart, Alive)
	next := cart
	next.UID = "uid-2"
	w.set(next, corev1.PodRunning)
	w.until(next, Alive)
	w.want(cart, Absent)
}

func TestOutage(t *testing.T) {
	for name, stream := range map[string]bool{"stream": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.StreamLists(stream)
			stays := Pod{Namespace: "shop", Name: "stays", UID: "s"}
			comes := Pod{Namespace: "shop", Name: "comes", UID: "c"}
			w.set(cart, corev1.PodRunning)
			w.set(stays, corev1.PodRunning)
			w.run()
			w.until(cart, Alive)

			w.server.Down(true)
			w.server.DeletePod(cart.Namespace, cart.Name)
			w.set(comes, corev1.PodRunning)
			w.server.Compact() // nobody can tell what happened meanwhile
			w.waitForLog("cannot be watched", 1)
			w.want(cart, Alive) // as far as is known
			w.want(comes, Absent)
			if _, err := w.watch.Confirm(t.Context(), cart); err == nil {
				t.Error("confirmed a pod without an API server")
			}

			w.server.Down(false)
			w.until(comes, Alive)
			w.want(cart, Absent)
			w.want(stays, Alive)
			w.waitForLog("can be watched again", 1)
			if n := w.log.count("cannot be watched"); n != 1 {
				t.Errorf("the outage is %d times in the log, want once:\n%s", n, w.log)
			}
		})
	}
}

// waitForLog waits for the n-th record with a text: nothing else tells that a request has failed.
func (w *world) waitForLog(text string, n int) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); w.log.count(text) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%q is not %d times in the log:\n%s", text, n, w.log)
		}
	}
}

// A connection that is lost for a moment is taken up where it ended, if the API server remembers, and else with a list.
func TestLostConnection(t *testing.T) {
	for name, compact := range map[string]bool{"remembered": false, "forgotten": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(cart, corev1.PodRunning)
			w.run()
			w.until(cart, Alive)
			w.server.Down(true)
			w.server.DeletePod(cart.Namespace, cart.Name)
			if compact {
				w.server.Compact()
			}
			w.server.Down(false)
			w.until(cart, Absent)
		})
	}
}

// Whoever waits for the API server hears that it is back, though no pod has changed.
func TestReturnIsAChange(t *testing.T) {
	w := newWorld(t)
	w.set(cart, corev1.PodRunning)
	w.run()
	w.until(cart, Alive)
	for i := range 3 {
		w.settle()
		w.server.Down(true)
		w.waitForLog("cannot be watched", i+1)
		select {
		case <-w.changed:
		default:
		}
		w.server.Down(false)
		select {
		case <-w.changed:
		case <-time.After(30 * time.Second):
			t.Fatal("Changed was not called when the API server was back")
		}
		w.waitForLog("can be watched again", i+1)
	}
}

// Most updates of a pod are no news here.
func TestUpdateWithoutNewsIsNoChange(t *testing.T) {
	calls := 0
	s := newStore(func() { calls++ })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for i, step := range []func() error{
		func() error { return s.Replace([]any{pod}, "1") },
		func() error { return s.Update(pod) },
		func() error { return s.Update(pod) },
		func() error { return s.Delete(pod) },
		func() error { return s.Update("no pod") },
	} {
		err := step()
		if (err != nil) != (i == 4) {
			t.Errorf("step %d: got error %v", i, err)
		}
	}
	if calls != 2 {
		t.Errorf("Changed was called %d times, want 2: for the list and for the end", calls)
	}
}

func TestPodsAreStripped(t *testing.T) {
	full := podwatchtest.Pod{Namespace: "shop", Name: "cart", UID: "uid-1", Node: node, Phase: corev1.PodFailed}
	server := podwatchtest.New()
	defer server.Close()
	server.SetPod(full)
	w := worldOf(t, server, &rest.Config{Host: server.URL})
	list, err := w.watch.list(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, ok := list.(*corev1.PodList)
	if !ok || len(pods.Items) != 1 || len(pods.Items[0].Spec.Containers) == 0 {
		t.Fatalf("got %v, want one pod with its containers", list)
	}
	got, err := w.watch.pods.Transformer()(&pods.Items[0])
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "uid-1", ResourceVersion: pods.Items[0].ResourceVersion},
		Status:     corev1.PodStatus{Phase: corev1.PodFailed},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// An API server that is not there is asked every few seconds, and nobody has to wait for it when we end.
func TestAbsentAPIServerIsAskedAgainSoon(t *testing.T) {
	for name, fault := range map[string]error{"refused": syscall.ECONNREFUSED, "reset": syscall.ECONNRESET, "ended": io.EOF} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tries []time.Time
				w := newQuickWorld(t, func(*podwatchtest.Server, *http.Request) (*http.Response, error) {
					if now := time.Now(); len(tries) == 0 || tries[len(tries)-1] != now {
						tries = append(tries, now)
					}
					return nil, fault
				})
				stop := w.run()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				for i := 1; i < len(tries); i++ {
					if d := tries[i].Sub(tries[i-1]); d > longestDelay || d < firstDelay/2 {
						t.Errorf("try %d came after %v", i, d)
					}
				}
				if len(tries) < int(5*time.Minute/longestDelay) {
					t.Errorf("got %d tries in 5 minutes", len(tries))
				}
				if away, back := w.log.count("cannot be watched"), w.log.count("can be watched again"); away != 1 || back != 0 {
					t.Errorf("the log says %d times that the API server is away and %d times that it is back, want once and never", away, back)
				}
				began := time.Now()
				stop()
				if took := time.Since(began); took > 0 {
					t.Errorf("Run ended %v after its context", took)
				}
			})
		})
	}
}

// A request that is never answered, and a watch that has gone silent for good, are given up.
func TestSilentAPIServerIsGivenUp(t *testing.T) {
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var tries atomic.Int32
			w := newQuickWorld(t, func(_ *podwatchtest.Server, r *http.Request) (*http.Response, error) {
				tries.Add(1)
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			})
			w.run()
			time.Sleep(10 * time.Minute)
			if least := int32(10 * time.Minute / (listTimeout + longestDelay)); tries.Load() < least {
				t.Errorf("got %d tries in 10 minutes, want at least %d", tries.Load(), least)
			}
			if _, err := w.watch.Confirm(t.Context(), cart); err == nil {
				t.Error("confirmed without an answer")
			}
			if _, _, err := w.watch.Token(t.Context(), cart, "vault"); err == nil {
				t.Error("got a token without an answer")
			}
		})
	})
	t.Run("silent watch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var watches atomic.Int32
			w := newQuickWorld(t, func(_ *podwatchtest.Server, r *http.Request) (*http.Response, error) {
				watches.Add(1)
				return &http.Response{
					StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {jsonType}}, Body: silence{r.Context()}, Request: r,
				}, nil
			})
			w.run()
			time.Sleep(time.Hour)
			if n := watches.Load(); n < 5 || n > 13 {
				t.Errorf("got %d watches in an hour, want one every 5 to 11 minutes", n)
			}
		})
	})
}

// silence is a body that never comes.
type silence struct{ ctx context.Context }

func (s silence) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, io.ErrUnexpectedEOF
}

func (silence) Close() error { return nil }

// client-go's own limit would be 5 requests a second.
func TestNothingWaitsForARateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newQuickWorld(t, inProcess)
		w.set(cart, corev1.PodRunning)
		began := time.Now()
		for range 500 {
			if _, err := w.watch.Confirm(t.Context(), cart); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("500 requests took %v of waiting", took)
		}
	})
}

// The kubeconfig of the fake leads to it.
func TestKubeconfig(t *testing.T) {
	server := podwatchtest.New()
	defer server.Close()
	path := t.TempDir() + "/kubeconfig"
	if err := server.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	w := worldOf(t, server, config)
	w.set(cart, corev1.PodRunning)
	if state, err := w.watch.Confirm(t.Context(), cart); state != Alive || err != nil {
		t.Errorf("got state %d, %v, want Alive", state, err)
	}
}
