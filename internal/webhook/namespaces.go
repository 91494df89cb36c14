package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"leasehold/internal/observe"
)

// Namespaces knows what the cluster's namespaces say for the pods in them: their annotations with our prefix. It is safe
// for concurrent use.
type Namespaces struct {
	api    *API
	log    *slog.Logger
	known  *namespaceStore
	follow *cache.Reflector
}

// NewNamespaces returns one that asks the API server each time, until Run has listed them all.
func NewNamespaces(api *API, log *slog.Logger) *Namespaces {
	n := &Namespaces{api: api, log: log, known: &namespaceStore{}}
	n.follow = cache.NewReflectorWithOptions(
		&cache.ListWatch{ListWithContextFunc: n.list, WatchFuncWithContext: n.watch},
		&corev1.Namespace{}, n.known, cache.ReflectorOptions{Name: "namespaces"})
	return n
}

// longestDelay is how long to wait at most between two tries to follow the namespaces.
const longestDelay = 10 * time.Second

// Run follows the namespaces until ctx ends; call it once. The reflector's own loop would do the same with an error in the
// log at each try, and one at the end.
func (n *Namespaces) Run(ctx context.Context) {
	for delay := time.Second; ; delay = min(2*delay, longestDelay) {
		began := time.Now()
		err := n.follow.ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			delay = time.Second
		}
		if delay == longestDelay { // again and again
			n.log.Warn("the namespaces cannot be followed: their defaults are those of before", observe.KeyError, err)
		} else {
			n.log.Debug("the watch of namespaces ended", observe.KeyError, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2)): //nolint:gosec // a spread is no secret
		}
	}
}

func namespacePlace(name string) place {
	return place{group: coreGroup, resource: "namespaces", name: name}
}

func (n *Namespaces) request(options metav1.ListOptions) *rest.Request {
	return n.api.rest.Get().MaxRetries(0).AbsPath(namespacePlace("").path()...).VersionedParams(&options, n.api.parameters)
}

func (n *Namespaces) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	all := &corev1.NamespaceList{}
	return all, n.request(options).Do(ctx).Into(all)
}

func (n *Namespaces) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	stream, err := n.request(options).Watch(ctx)
	if utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) {
		// Of an API server that is not there, or too busy, the reflector would wait inside its watch, deaf to the end of ctx.
		// So it is not told of which kind the error is.
		err = errors.New(err.Error())
	}
	return stream, err
}

// Annotations returns the annotations of a namespace that have our prefix. One that is not known, for it is new or nobody
// has listed any yet, is asked for.
func (n *Namespaces) Annotations(ctx context.Context, name string) (map[string]string, error) {
	if annotations, found := n.known.get(name); found {
		return annotations, nil
	}
	live := &corev1.Namespace{}
	if err := n.api.get(ctx, namespacePlace(name), live); err != nil {
		return nil, fmt.Errorf("read the defaults of the namespace: %w", err)
	}
	return ours(live.Annotations), nil
}

// ours returns the annotations that have our prefix.
func ours(annotations map[string]string) map[string]string {
	found := make(map[string]string)
	for key, value := range annotations {
		if strings.HasPrefix(key, annotationPrefix) {
			found[key] = value
		}
	}
	return found
}

// namespaceStore is what the reflector writes to: of each namespace its annotations with our prefix.
type namespaceStore struct {
	mu    sync.Mutex
	known map[string]map[string]string // name -> annotations, which are never written again; nil until the first list
}

var _ cache.ReflectorStore = (*namespaceStore)(nil)

// get returns a copy.
func (s *namespaceStore) get(name string) (map[string]string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	annotations, found := s.known[name]
	return maps.Clone(annotations), found
}

// isListed tells whether a complete list has come.
func (s *namespaceStore) isListed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known != nil
}

// Replace takes a complete list.
func (s *namespaceStore) Replace(items []any, _ string) error {
	known := make(map[string]map[string]string, len(items))
	for _, item := range items {
		namespace, err := asNamespace(item)
		if err != nil {
			return err
		}
		known[namespace.Name] = ours(namespace.Annotations)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = known
	return nil
}

// Add takes a namespace that is new.
func (s *namespaceStore) Add(item any) error { return s.Update(item) }

// Update takes a namespace as it is now.
func (s *namespaceStore) Update(item any) error {
	namespace, err := asNamespace(item)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known != nil { // a watch starts after a list, so this should be
		s.known[namespace.Name] = ours(namespace.Annotations)
	}
	return nil
}

// Delete takes a namespace that is gone.
func (s *namespaceStore) Delete(item any) error {
	namespace, err := asNamespace(item)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, namespace.Name)
	return nil
}

// Resync has no meaning here.
func (s *namespaceStore) Resync() error { return nil }

func asNamespace(item any) (*corev1.Namespace, error) {
	namespace, ok := item.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("the API server sent a %T instead of a namespace", item)
	}
	return namespace, nil
}
