package podwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	component = "leasehold" // who says it

	maxWaiting   = 64               // different events that wait to be sent; more are dropped
	maxTold      = 1024             // events remembered for being said again
	maxMessage   = 1024             // bytes of a message, as the events API has it
	mergeWithin  = 10 * time.Minute // what is said again within this is counted
	patchEvery   = 30 * time.Second // how often a count is sent at most
	keepTrying   = 5 * time.Minute  // how long to try to send one
	firstRetry   = time.Second
	longestRetry = 10 * time.Second
)

// note is what makes two events the same.
type note struct {
	pod             Pod
	reason, message string
}

// told is a note that the API server knows.
type told struct {
	event string    // the Event's name
	count int       // how often it was said, including what was not sent
	last  time.Time // when it was last said
	sent  time.Time // when the count was last sent
}

// waiting is a note that is to be sent.
type waiting struct {
	note
	count int // how often it was said since it waits
	since time.Time
}

// events sends events on pods, one after the other.
type events struct {
	api  *api
	log  *slog.Logger
	wake chan struct{} // capacity 1: something waits

	told map[note]*told // only run uses it

	mu    sync.Mutex // guards queue
	queue []*waiting // oldest first
}

func newEvents(api *api, log *slog.Logger) *events {
	return &events{api: api, log: log, wake: make(chan struct{}, 1), told: map[note]*told{}}
}

// add puts an event in the queue, or counts it if it is there already.
func (e *events) add(pod Pod, reason, message string) {
	n := note{pod, reason, shorten(message)}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.queue {
		if w.note == n {
			w.count++
			return
		}
	}
	if len(e.queue) >= maxWaiting {
		e.log.Warn("event dropped: too many wait for the API server", n.keys()...)
		return
	}
	e.queue = append(e.queue, &waiting{note: n, count: 1, since: time.Now()})
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// take returns the oldest of the queue, or nil.
func (e *events) take() *waiting {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return nil
	}
	w := e.queue[0]
	e.queue = e.queue[1:]
	return w
}

// run sends what waits until ctx ends.
func (e *events) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
		for w := e.take(); w != nil && ctx.Err() == nil; w = e.take() {
			e.deliver(ctx, w)
		}
	}
}

// deliver sends one, and tries again while the API server is away: the others would meet the same.
func (e *events) deliver(ctx context.Context, w *waiting) {
	now := time.Now()
	e.forget(now)
	t := e.told[w.note]
	if t != nil {
		t.count, t.last = t.count+w.count, now
		if now.Sub(t.sent) < patchEvery {
			return
		}
	} else {
		t = &told{event: eventName(w.pod.Name, now), count: w.count, last: now}
	}
	for delay := firstRetry; ; delay = min(2*delay, longestRetry) {
		err := e.send(ctx, w, t)
		if err == nil {
			t.sent = time.Now()
			e.told[w.note] = t
			return
		}
		if ctx.Err() != nil {
			return
		}
		if isFinal(err) || time.Since(w.since) >= keepTrying {
			e.log.Warn("event dropped: the API server does not take it", append(w.keys(), "error", err)...)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// send makes the event, or tells its new count. A name is used once, so that a request that was answered into the void
// may be sent again.
func (e *events) send(ctx context.Context, w *waiting, t *told) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !t.sent.IsZero() {
		patch, err := json.Marshal(map[string]any{"count": t.count, "lastTimestamp": metav1.NewTime(t.last)})
		if err != nil {
			return err
		}
		err = e.api.rest.Patch(types.MergePatchType).MaxRetries(0).Namespace(w.pod.Namespace).Resource("events").Name(t.event).Body(patch).Do(ctx).Error()
		if !apierrors.IsNotFound(err) {
			return err
		}
		// The API server keeps events for a while only: it is a new one.
		*t = told{event: eventName(w.pod.Name, t.last), count: w.count, last: t.last}
	}
	err := e.api.rest.Post().MaxRetries(0).Namespace(w.pod.Namespace).Resource("events").Body(e.event(w, t)).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (e *events) event(w *waiting, t *told) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: t.event},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: w.pod.Namespace, Name: w.pod.Name, UID: types.UID(w.pod.UID),
		},
		Type:                corev1.EventTypeWarning,
		Reason:              w.reason,
		Message:             w.message,
		Source:              corev1.EventSource{Component: component, Host: e.api.node},
		ReportingController: component,
		ReportingInstance:   e.api.node,
		FirstTimestamp:      metav1.NewTime(w.since),
		LastTimestamp:       metav1.NewTime(t.last),
		Count:               int32(min(t.count, 1<<30)), //nolint:gosec // it fits
	}
}

// forget drops what was not said again in time, and everything rather than more than there is room for.
func (e *events) forget(now time.Time) {
	for n, t := range e.told {
		if now.Sub(t.last) >= mergeWithin {
			delete(e.told, n)
		}
	}
	if len(e.told) >= maxTold {
		clear(e.told)
	}
}

// keys is what a log record says of a note. What its pod's owner does not get to read, the operator shall.
func (n note) keys() []any {
	return []any{"pod", n.pod.Namespace + "/" + n.pod.Name, "reason", n.reason, "message", n.message}
}

// isFinal tells whether the API server has understood and will not take it.
func isFinal(err error) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= 400 && code < 500 && !apierrors.IsTooManyRequests(err)
}

// eventName is a name that no other event has: the pod's, as is the custom, and the time.
func eventName(pod string, now time.Time) string {
	const longest = 253 - 17 // what a name may be long, without what follows
	if len(pod) > longest {
		pod = strings.TrimRight(pod[:longest], "-.")
	}
	return fmt.Sprintf("%s.%x", pod, now.UnixNano())
}

// shorten cuts a message that is too long, between two characters.
func shorten(message string) string {
	const mark = "..."
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-len(mark)], "") + mark
}
