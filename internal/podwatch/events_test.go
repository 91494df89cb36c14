package podwatch

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/podwatch/podwatchtest"
)

// newEventWorld makes a world whose events are sent, in the time of synctest.
func newEventWorld(t *testing.T, trip func(*podwatchtest.Server, *http.Request) (*http.Response, error)) *world {
	w := newQuickWorld(t, trip)
	var events sync.WaitGroup
	events.Go(func() { w.watch.events.run(t.Context()) })
	t.Cleanup(events.Wait) // the test's context has ended by then
	return w
}

// wantEvents waits for all that is on its way and compares the counts, oldest first.
func (w *world) wantEvents(counts ...int32) []corev1.Event {
	w.t.Helper()
	synctest.Wait()
	events := w.server.Events()
	var got []int32
	for _, e := range events {
		got = append(got, e.Count)
	}
	if fmt.Sprint(got) != fmt.Sprint(counts) {
		w.t.Fatalf("got events with counts %v, want %v", got, counts)
	}
	return events
}

func TestEvent(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.watch.Event(cart, "CannotRevoke", "a batch token")
	for deadline := time.Now().Add(30 * time.Second); len(w.server.Events()) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	events := w.server.Events()
	if len(events) != 1 {
		t.Fatalf("got %d events, want 1", len(events))
	}
	e := events[0]
	got := []any{
		e.Namespace, strings.HasPrefix(e.Name, "cart."), e.InvolvedObject, e.Type, e.Reason, e.Message, e.Count,
		e.Source, e.ReportingController, e.ReportingInstance, e.FirstTimestamp.IsZero(), e.LastTimestamp.IsZero(),
	}
	want := []any{
		"shop", true,
		corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "cart", UID: "uid-1"},
		"Warning", "CannotRevoke", "a batch token", int32(1),
		corev1.EventSource{Component: "leasehold", Host: node},
		"leasehold", node, false, false,
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("field %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

func TestSameEventIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newEventWorld(t, inProcess)
		say := func() { w.watch.Event(cart, "ReplacementFailed", "Vault says no") }
		say()
		first := w.wantEvents(1)[0]
		time.Sleep(patchEvery)
		say()
		second := w.wantEvents(2)[0]
		if second.Name != first.Name || !second.FirstTimestamp.Equal(&first.FirstTimestamp) || second.LastTimestamp.Sub(first.LastTimestamp.Time) != patchEvery {
			t.Errorf("got %v after %v, want the same with a later last time", second, first)
		}
		for range 29 { // all within patchEvery: the API server hears of them together
			time.Sleep(time.Second)
			say()
		}
		w.wantEvents(2)
		time.Sleep(time.Second)
		say()
		w.wantEvents(32)
		if n := w.server.Count("patch events"); n != 2 {
			t.Errorf("got %d patches, want 2", n)
		}

		time.Sleep(mergeWithin)
		say()
		w.wantEvents(32, 1) // after a while it is news again
		time.Sleep(patchEvery)
		w.server.ForgetEvents()
		say()
		w.wantEvents(1) // the API server has dropped it meanwhile
	})
}

func TestOtherEventIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newEventWorld(t, inProcess)
		other := cart
		other.UID = "uid-2"
		for _, n := range []note{{cart, "A", "a"}, {cart, "A", "b"}, {cart, "B", "a"}, {other, "A", "a"}} {
			w.watch.Event(n.pod, n.reason, n.message)
			time.Sleep(time.Second)
		}
		w.wantEvents(1, 1, 1, 1)
	})
}

func TestEventsWaitForTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		w := newEventWorld(t, func(s *podwatchtest.Server, r *http.Request) (*http.Response, error) {
			if down.Load() {
				return nil, http.ErrServerClosed
			}
			return inProcess(s, r)
		})
		down.Store(true)
		for range 3 {
			w.watch.Event(cart, "A", "a")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for range 3 {
			w.watch.Event(cart, "B", "b")
		}
		down.Store(false)
		time.Sleep(longestRetry)
		both := w.twoEvents()
		if both[0].Reason != "A" || both[1].Reason != "B" || both[1].Count != 3 {
			t.Errorf("got %v, want A and then B three times", both)
		}

		down.Store(true)
		w.watch.Event(cart, "C", "c")
		time.Sleep(keepTrying + longestRetry)
		synctest.Wait()
		down.Store(false)
		time.Sleep(time.Minute)
		if n := len(w.server.Events()); n != 2 || w.log.count("event dropped") != 1 {
			t.Errorf("got %d events, want 2 and a record of the third:\n%s", n, w.log)
		}
	})
}

// twoEvents returns the events, which have to be two.
func (w *world) twoEvents() []corev1.Event {
	w.t.Helper()
	synctest.Wait()
	all := w.server.Events()
	if len(all) != 2 {
		w.t.Fatalf("got %d events, want 2", len(all))
	}
	return all
}

// An answer that was lost makes no second event.
func TestEventIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lose := true
		w := newEventWorld(t, func(s *podwatchtest.Server, r *http.Request) (*http.Response, error) {
			response, err := inProcess(s, r)
			if lose {
				lose = false
				return nil, http.ErrHandlerTimeout
			}
			return response, err
		})
		w.watch.Event(cart, "A", "a")
		time.Sleep(time.Minute)
		w.wantEvents(1)
		if n := w.server.Count("create events"); n != 2 {
			t.Errorf("got %d requests, want 2", n)
		}
		w.watch.Event(cart, "A", "a")
		w.wantEvents(2)
		if w.log.String() != "" {
			t.Errorf("got log records of what went well:\n%s", w.log)
		}
	})
}

func TestRefusedEventIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newEventWorld(t, inProcess)
		w.server.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("Content-Type", jsonType)
			rw.WriteHeader(http.StatusForbidden)
			_, _ = rw.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"namespace is going","code":403}`))
			return true
		})
		w.watch.Event(cart, "A", "a")
		synctest.Wait()
		w.server.Intercept(nil)
		time.Sleep(time.Hour)
		w.wantEvents()
		if n := w.log.count("namespace is going"); n != 1 {
			t.Errorf("the reason is %d times in the log, want once:\n%s", n, w.log)
		}
	})
}

// Without an API server, events take neither time nor more than a little room.
func TestEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newEventWorld(t, func(_ *podwatchtest.Server, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		for i := range 10 * maxWaiting {
			w.watch.Event(cart, "A", fmt.Sprint(i))
			w.watch.Event(cart, "A", fmt.Sprint(i))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("Event waited %v", took)
		}
		w.watch.events.mu.Lock()
		n := len(w.watch.events.queue)
		w.watch.events.mu.Unlock()
		if n != maxWaiting {
			t.Errorf("%d events wait, want %d", n, maxWaiting)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newEventWorld(t, inProcess)
		for i := range 2*maxTold + 1 {
			w.watch.Event(cart, "A", fmt.Sprint(i))
			synctest.Wait()
			if n := len(w.watch.events.told); n > maxTold {
				t.Fatalf("%d events are remembered, want at most %d", n, maxTold)
			}
		}
	})
}

func TestLongNamesAndMessages(t *testing.T) {
	if got := shorten("short"); got != "short" {
		t.Errorf("got %q", got)
	}
	if got := shorten(strings.Repeat("ü", maxMessage)); len(got) > maxMessage || len(got) < maxMessage-4 || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
	long := strings.Repeat("a", 235) + ".-" + strings.Repeat("b", 16)
	if got := eventName(long, time.Now()); len(got) > 253 || !strings.HasPrefix(got, strings.Repeat("a", 235)+".1") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}
