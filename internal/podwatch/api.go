package podwatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

const (
	// callTimeout bounds a request about one pod.
	callTimeout = 10 * time.Second
	// listTimeout bounds a list, and how long a watch may take to begin.
	listTimeout = 30 * time.Second
	// watchGrace is how much longer than asked for a watch may last before we end it ourselves.
	watchGrace = 30 * time.Second

	// tokenLife is the shortest that the API server grants. A login needs a token for a moment only.
	tokenLife = 10 * time.Minute

	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// api is the little of the API server that is needed. It knows four types where client-go's clientset knows, and
// registers in memory, all of them.
type api struct {
	rest       *rest.RESTClient
	parameters runtime.ParameterCodec
	node       string
}

// newScheme returns a scheme of the types that are needed.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Pod{}, &corev1.PodList{}, &corev1.Event{})
	s.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenRequest{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion) // the options of requests, watch events, Status
	return s
}

func newAPI(config *rest.Config, node string) (*api, error) {
	scheme := newScheme()
	c := rest.CopyConfig(config)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = jsonType
	c.AcceptContentTypes = protobufType + "," + jsonType // pods are large: protobuf costs a fraction to read
	if c.UserAgent == "" {
		c.UserAgent = component
	}
	// The API server protects itself better than client-go's 5 requests a second would; those would only slow down the
	// end of a node's pods. And a timeout for everything would end the watch: each call has its own.
	c.QPS, c.RateLimiter, c.Timeout = -1, nil, 0
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &api{rest: client, parameters: runtime.NewParameterCodec(scheme), node: node}, nil
}

// request is one for the node's pods. Here as everywhere in this package client-go's own retries are off: it would try
// ten times before it says a word.
func (a *api) request(options metav1.ListOptions) *rest.Request {
	options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.node).String()
	return a.rest.Get().MaxRetries(0).Resource("pods").VersionedParams(&options, a.parameters)
}

// list is the reflector's way to list, where the API server does not stream lists.
func (w *Watch) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	limited, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	pods := &corev1.PodList{}
	err := w.api.request(options).Do(limited).Into(pods)
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		w.hear(ctx, err)
	}
	return pods, err
}

// watch is the reflector's way to watch, and to list as a stream.
func (w *Watch) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	last := listTimeout
	if options.TimeoutSeconds != nil {
		last = time.Duration(*options.TimeoutSeconds) * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, last+watchGrace)
	slow := time.AfterFunc(listTimeout, cancel)
	stream, err := w.api.request(options).Timeout(last).Watch(limited)
	slow.Stop()
	switch {
	case err == nil && reflect.TypeOf(stream) != emptyWatch:
		w.hear(ctx, nil)
		return &bounded{stream, cancel}, nil
	case limited.Err() != nil:
		err = fmt.Errorf("watch pods: no answer within %v", listTimeout)
	case err == nil:
		err = errors.New("watch pods: the connection was lost before the answer")
	}
	cancel()
	switch {
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.IsTimeout(err):
		return nil, err // the reflector knows what to do: it lists anew
	case options.SendInitialEvents != nil && apierrors.IsInvalid(err):
		return nil, err // an API server that does not stream lists: the reflector lists plainly
	}
	w.hear(ctx, err)
	// Of an API server that is not there at all, or too busy, the reflector would wait inside its watch, deaf to the
	// end of ctx. So it is not told.
	return nil, opaque{err}
}

// emptyWatch is what client-go's client returns instead of an error when a connection is lost.
var emptyWatch = reflect.TypeOf(watch.NewEmptyWatch())

// bounded is a watch with a time limit, which is let go of at its end.
type bounded struct {
	watch.Interface
	cancel context.CancelFunc
}

func (b *bounded) Stop() {
	b.Interface.Stop()
	b.cancel()
}

// opaque is an error whose causes cannot be asked for.
type opaque struct{ cause error }

func (o opaque) Error() string { return o.cause.Error() }

// Confirm asks the API server whether a pod lives: Alive or Ended. Only a clear answer about this pod makes it Ended;
// anything else is an error.
func (w *Watch) Confirm(ctx context.Context, pod Pod) (State, error) {
	if pod.Namespace == "" || pod.Name == "" || pod.UID == "" {
		return Unknown, errors.New("confirm a pod: it needs a namespace, a name and a UID")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	live := &corev1.Pod{}
	err := w.api.rest.Get().MaxRetries(0).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).Do(ctx).Into(live)
	switch {
	case isGone(err, pod):
		return Ended, nil
	case err != nil:
		return Unknown, fmt.Errorf("get pod \"%s/%s\": %w", pod.Namespace, pod.Name, err)
	case live.Namespace != pod.Namespace || live.Name != pod.Name || live.UID == "":
		return Unknown, fmt.Errorf("get pod \"%s/%s\": the answer is not about this pod", pod.Namespace, pod.Name)
	case live.UID != types.UID(pod.UID):
		return Ended, nil // another pod has its name: a name is free again only when its owner is gone
	}
	return stateOf(live), nil
}

// isGone tells whether the API server itself says that it has no such pod. A 404 of a proxy on the way says nothing.
func isGone(err error, pod Pod) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "pods" && details.Name == pod.Name && len(details.Causes) == 0
}

// Token asks for a token of the pod's service account for an audience; an empty one is the API server's own. It is
// bound to the pod: the API server refuses it once the pod is gone. Errors never hold it.
func (w *Watch) Token(ctx context.Context, pod Pod, audience string) (token string, expires time.Time, err error) {
	if pod.Namespace == "" || pod.Name == "" || pod.UID == "" || pod.ServiceAccount == "" {
		return "", time.Time{}, errors.New("request a token: it needs a pod's namespace, name, UID and service account")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	life := int64(tokenLife / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &life,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	code := 0
	answer := &authenticationv1.TokenRequest{}
	err = w.api.rest.Post().MaxRetries(0).Namespace(pod.Namespace).Resource("serviceaccounts").Name(pod.ServiceAccount).SubResource("token").
		Body(request).Do(ctx).StatusCode(&code).Into(answer)
	switch {
	case err != nil && code >= http.StatusOK && code < http.StatusMultipleChoices:
		err = errors.New("the answer cannot be read") // a decoder's error may quote what it cannot read
	case err == nil && answer.Status.Token == "":
		err = errors.New("the answer holds no token")
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("request a token of service account \"%s/%s\" for pod %q: %w",
			pod.Namespace, pod.ServiceAccount, pod.Name, err)
	}
	return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
}
