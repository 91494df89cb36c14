package webhook

import (
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Namespaces knows what the cluster's namespaces say for the pods in them: their annotations with our prefix. It is safe
// for concurrent use.
type Namespaces struct {
	api    *API
	known  cache.Store
	follow cache.Controller
}

// NewNamespaces returns one that asks the API server each time, until Run has listed them all.
func NewNamespaces(api *API) *Namespaces {
	n := &Namespaces{api: api}
	n.known, n.follow = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{ListWithContextFunc: n.list, WatchFuncWithContext: n.watch},
		ObjectType:    &corev1.Namespace{},
		Transform:     stripNamespace,
		Handler:       cache.ResourceEventHandlerFuncs{},
	})
	return n
}

// Run follows the namespaces until ctx ends; call it once.
func (n *Namespaces) Run(ctx context.Context) { n.follow.RunWithContext(ctx) }

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
	return n.request(options).Watch(ctx)
}

// Annotations returns the annotations of a namespace that have our prefix. One that is not known, for it is new or nobody
// has listed any yet, is asked for.
func (n *Namespaces) Annotations(ctx context.Context, name string) (map[string]string, error) {
	item, found, err := n.known.GetByKey(name)
	if err != nil {
		return nil, err
	}
	if !found {
		live := &corev1.Namespace{}
		if err := n.api.get(ctx, namespacePlace(name), live); err != nil {
			return nil, fmt.Errorf("read the defaults of the namespace: %w", err)
		}
		return ours(live.Annotations), nil
	}
	namespace, ok := item.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("the API server sent a %T instead of a namespace", item)
	}
	return maps.Clone(namespace.Annotations), nil
}

// stripNamespace leaves of a namespace what is needed: there may be thousands.
func stripNamespace(item any) (any, error) {
	namespace, ok := item.(*corev1.Namespace)
	if !ok {
		return item, nil // a notice of one that was deleted unseen
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion, Annotations: ours(namespace.Annotations),
	}}, nil
}

// ours returns the annotations that have our prefix.
func ours(annotations map[string]string) map[string]string {
	var found map[string]string
	for key, value := range annotations {
		if strings.HasPrefix(key, annotationPrefix) {
			if found == nil {
				found = make(map[string]string)
			}
			found[key] = value
		}
	}
	return found
}
