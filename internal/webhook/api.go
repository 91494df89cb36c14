package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	component = "leasehold-webhook" // who asks

	// callTimeout bounds one request to the API server. It is shorter than an admission may take, so that the author of a
	// pod reads what was slow instead of "deadline exceeded".
	callTimeout = 5 * time.Second

	// listTimeout bounds one request for a list.
	listTimeout = 30 * time.Second

	// listPage is how many objects one request for a list brings.
	listPage = 500

	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// API is the little of the API server that the webhook needs. It knows the types that are named here, where client-go's
// clientset knows, and registers in memory, all there are.
type API struct {
	rest       *rest.RESTClient
	parameters runtime.ParameterCodec
}

// newScheme returns a scheme of the types that are needed.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Pod{}, &corev1.PodList{}, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.Secret{})
	s.AddKnownTypes(coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
	s.AddKnownTypes(admissionregistrationv1.SchemeGroupVersion,
		&admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfiguration{})
	s.AddKnownTypeWithName(classVersion.WithKind("SecretProviderClass"), &secretProviderClass{})
	s.AddKnownTypeWithName(classVersion.WithKind("SecretProviderClassList"), &secretProviderClassList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion) // the options of requests, watch events, Status
	return s
}

// NewAPI returns a client of the API server; the configuration's limits of rate and time are replaced.
func NewAPI(config *rest.Config) (*API, error) {
	if config == nil {
		return nil, errors.New("the webhook needs to know how to reach the API server")
	}
	scheme := newScheme()
	c := rest.CopyConfig(config)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = jsonType
	c.AcceptContentTypes = protobufType + "," + jsonType // the lists of pods are large: protobuf costs a fraction to read
	if c.UserAgent == "" {
		c.UserAgent = component
	}
	// The API server protects itself better than client-go's 5 requests a second would, and each of ours holds up a pod.
	// A timeout for everything would end the watch: each call has its own.
	c.QPS, c.RateLimiter, c.Timeout = -1, nil, 0
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &API{rest: client, parameters: runtime.NewParameterCodec(scheme)}, nil
}

// place is where an object is at the API server, or, without a name, all of its kind.
type place struct {
	group     string // path of the group and version: /api/v1
	namespace string // "" for what belongs to no namespace, or for all namespaces
	resource  string // in the plural
	name      string
}

func (p place) path() []string {
	path := []string{p.group}
	if p.namespace != "" {
		path = append(path, "namespaces", p.namespace)
	}
	path = append(path, p.resource)
	if p.name != "" {
		path = append(path, p.name)
	}
	return path
}

func (p place) String() string {
	switch {
	case p.name == "" && p.namespace == "":
		return p.resource
	case p.name == "":
		return fmt.Sprintf("%s of namespace %q", p.resource, p.namespace)
	case p.namespace == "":
		return fmt.Sprintf("%s %q", p.resource, p.name)
	}
	return fmt.Sprintf("%s \"%s/%s\"", p.resource, p.namespace, p.name)
}

const (
	coreGroup         = "/api/v1"
	coordinationGroup = "/apis/coordination.k8s.io/v1"
	registrationGroup = "/apis/admissionregistration.k8s.io/v1"
)

// do sends a request. Here as everywhere in this package client-go's own retries are off: it would try ten times before
// it says a word, and somebody waits.
func (a *API) do(ctx context.Context, verb string, request *rest.Request, p place, into runtime.Object) error {
	limit := callTimeout
	if p.name == "" && verb == "list" {
		limit = listTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := request.MaxRetries(0).AbsPath(p.path()...).Do(ctx)
	err := answer.Error()
	if err == nil && into != nil {
		err = answer.Into(into)
	}
	if err != nil {
		if ctx.Err() != nil && !isAnswered(err) {
			err = fmt.Errorf("the API server has not answered in time: %w", err)
		}
		return fmt.Errorf("%s %s: %w", verb, p, err)
	}
	return nil
}

func (a *API) get(ctx context.Context, p place, into runtime.Object) error {
	return a.do(ctx, "get", a.rest.Get(), p, into)
}

// recall gets an object as the API server remembers it, which may be some moments old.
func (a *API) recall(ctx context.Context, p place, into runtime.Object) error {
	return a.do(ctx, "get", a.rest.Get().VersionedParams(&metav1.GetOptions{ResourceVersion: "0"}, a.parameters), p, into)
}

func (a *API) create(ctx context.Context, p place, object runtime.Object) error {
	all := p
	all.name = ""
	return a.do(ctx, "create", a.rest.Post().Body(object), all, nil)
}

// update replaces an object as it was read: with its resource version, so that nobody's change is lost.
func (a *API) update(ctx context.Context, p place, object runtime.Object) error {
	return a.do(ctx, "update", a.rest.Put().Body(object), p, object)
}

func (a *API) patch(ctx context.Context, p place, kind types.PatchType, patch []byte) error {
	return a.do(ctx, "patch", a.rest.Patch(kind).Body(patch), p, nil)
}

// deleteUnchanged deletes an object if it still is as it was read.
func (a *API) deleteUnchanged(ctx context.Context, p place, read metav1.ObjectMeta) error {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &read.UID, ResourceVersion: &read.ResourceVersion}}
	return a.do(ctx, "delete", a.rest.Delete().Body(options), p, nil)
}

// list calls each with every page of a list.
func list[L interface {
	runtime.Object
	metav1.ListInterface
}](ctx context.Context, a *API, p place, selector string, page func() L, each func(L)) error {
	options := metav1.ListOptions{LabelSelector: selector, Limit: listPage}
	for {
		into := page()
		if err := a.do(ctx, "list", a.rest.Get().VersionedParams(&options, a.parameters), p, into); err != nil {
			return err
		}
		each(into)
		if options.Continue = into.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// isAnswered tells whether an error is the API server's own word.
func isAnswered(err error) bool {
	status := apierrors.APIStatus(nil)
	return errors.As(err, &status)
}

// isMissing tells whether the API server itself says that there is no such object. A 404 of a proxy on the way, or of an
// API server that does not know the kind, says something else.
func isMissing(err error, p place) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == p.resource && details.Name == p.name && len(details.Causes) == 0
}
