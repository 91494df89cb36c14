// Package podwatch knows which pods of one node live, and speaks to the API server about them.
//
// A [Watch] follows the pods of its node and keeps of each no more than its UID and whether it has ended. A pod lives
// until it is gone or in phase Succeeded or Failed; a deletion timestamp changes nothing, since a pod that is told to
// end may be finishing its last transaction.
//
// What is remembered may be old: while the API server is away, and for a moment after it has come back. So a pod that
// is not in memory is [Absent] rather than [Ended], and whoever wants to act on it asks [Watch.Confirm], which looks at
// the living object and its UID.
package podwatch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Pod is who a pod is.
type Pod struct{ Namespace, Name, UID, ServiceAccount string }

// State is whether a pod lives.
type State int

// The states, and what to do with a pod's credentials.
const (
	Unknown State = iota + 1 // nobody knows yet, no list has come: wait
	Alive                    // keep them, though the pod may be on its way out
	Ended                    // give them back: its last container has ended, or the pod is gone
	Absent                   // not among the node's pods as far as is known: ask Confirm
)

// Config is what a Watch is made of. REST, Node and Log are required.
type Config struct {
	REST *rest.Config // how to reach the API server; its limits of rate and time are replaced
	Node string       // whose pods to watch
	Log  *slog.Logger

	// Changed is called when a pod's state has changed and when a list has come, which is always so after an outage. It
	// must return at once. It may be nil.
	Changed func()
}

// Watch knows the pods of one node. It is safe for concurrent use.
type Watch struct {
	log    *slog.Logger
	api    *api
	events *events
	pods   *store
	follow *cache.Reflector

	mu   sync.Mutex // guards away
	away bool       // the last request of the watch failed
}

// New checks the configuration and returns a watch that knows nothing yet; Run makes it work.
func New(c Config) (*Watch, error) {
	switch {
	case c.REST == nil:
		return nil, errors.New("the pod watch needs to know how to reach the API server")
	case c.Node == "":
		return nil, errors.New("the pod watch needs the name of its node")
	case c.Log == nil:
		return nil, errors.New("the pod watch needs a logger")
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	api, err := newAPI(c.REST, c.Node)
	if err != nil {
		return nil, err
	}
	w := &Watch{log: c.Log, api: api, events: newEvents(api, c.Log), pods: newStore(c.Changed)}
	w.follow = cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc:  w.list,
		WatchFuncWithContext: w.watch,
	}, &corev1.Pod{}, w.pods, cache.ReflectorOptions{Name: "pods of " + c.Node})
	return w, nil
}

// How long to wait for an API server that is away: as a pod's end cannot be seen meanwhile, seconds rather than
// client-go's minute, and spread so that the nodes of a large cluster do not come back together.
const (
	firstDelay   = 500 * time.Millisecond
	longestDelay = 4 * time.Second
	calmAfter    = time.Minute // what went well for so long begins with the first delay again
)

// Run follows the node's pods and sends events until ctx ends; call it once.
func (w *Watch) Run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { w.followPods(ctx) })
	parts.Go(func() { w.events.run(ctx) })
	parts.Wait()
}

// followPods lists and watches, again and again. The reflector's own loop would do the same with an error in the log at
// each try.
func (w *Watch) followPods(ctx context.Context) {
	delay := firstDelay
	for {
		began := time.Now()
		err := w.follow.ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return
		}
		w.log.Debug("the watch of this node's pods ended", "error", err)
		if time.Since(began) >= calmAfter {
			delay = firstDelay
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2)): //nolint:gosec // a spread is no secret
		}
		delay = min(2*delay, longestDelay)
	}
}

// Look says from memory whether a pod lives.
func (w *Watch) Look(pod Pod) State { return w.pods.look(pod.UID) }

// Event puts a Warning event on the pod. It returns at once and promises nothing: what the API server does not take
// within some minutes is dropped, and what is said again soon is counted rather than said twice. Reason is a word in
// CamelCase; neither it nor the message may hold a secret.
func (w *Watch) Event(pod Pod, reason, message string) { w.events.add(pod, reason, message) }

// hear notes how a request of the watch ended, and says once when the API server goes and when it comes.
func (w *Watch) hear(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // we are ending: that is no outage
	}
	w.mu.Lock()
	was := w.away
	w.away = err != nil
	w.mu.Unlock()
	switch {
	case err != nil && !was:
		w.log.Warn("the pods of this node cannot be watched, so nothing ends with its pod until the API server answers", "error", err)
	case err == nil && was:
		w.log.Info("the pods of this node can be watched again")
	}
}
