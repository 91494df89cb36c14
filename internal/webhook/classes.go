package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// What the webhook writes on the classes that it makes.
const (
	// LabelMadeBy tells our classes from those that people write. Only what has it is ever swept.
	LabelMadeBy = "leasehold.dev/made-by"
	madeBy      = "webhook"

	// AnnotationLastAsked is when a pod last asked for the class, in the form of RFC 3339, give or take a quarter of the
	// grace.
	AnnotationLastAsked = "leasehold.dev/last-asked"
)

// MinGrace is the shortest time that a class may be kept after a pod has last asked for it. Between the answer about a
// pod and the moment that the pod can be seen lies a minute at most, the API server's own limit of a request; and
// three quarters of the grace are what is left for it.
const MinGrace = 2 * time.Minute

// secretProviderClass is the driver's object, as far as it concerns us. The driver's own types bring controller-runtime
// along.
type secretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              classSpec `json:"spec,omitempty"`
}

type classSpec struct {
	Provider   string            `json:"provider,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	// SecretObjects are for the driver to copy secrets into Secrets. We never write any, and who did has changed our class.
	SecretObjects []json.RawMessage `json:"secretObjects,omitempty"`
}

type secretProviderClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []secretProviderClass `json:"items"`
}

var classVersion = schema.GroupVersion{Group: "secrets-store.csi.x-k8s.io", Version: "v1"}

// DeepCopyObject implements runtime.Object.
func (c *secretProviderClass) DeepCopyObject() runtime.Object {
	other := *c
	other.ObjectMeta = *c.ObjectMeta.DeepCopy()
	other.Spec.Parameters = maps.Clone(c.Spec.Parameters)
	other.Spec.SecretObjects = append([]json.RawMessage(nil), c.Spec.SecretObjects...)
	return &other
}

// DeepCopyObject implements runtime.Object.
func (l *secretProviderClassList) DeepCopyObject() runtime.Object {
	other := *l
	other.ListMeta = *l.ListMeta.DeepCopy()
	other.Items = make([]secretProviderClass, len(l.Items))
	for i := range l.Items {
		c, ok := l.Items[i].DeepCopyObject().(*secretProviderClass)
		if ok {
			other.Items[i] = *c
		}
	}
	return &other
}

func classPlace(namespace, name string) place {
	return place{group: "/apis/" + classVersion.String(), namespace: namespace, resource: "secretproviderclasses", name: name}
}

// classes makes the classes that pods ask for.
type classes struct {
	api   *API
	grace time.Duration
	made  func()
}

// maxTries is how often a class is looked at while others make, touch or sweep it.
const maxTries = 5

// ensure sees to it that a class is there and stays: afterwards no sweep deletes it for at least three quarters of the
// grace. What it remembered itself could have been deleted since: it asks the API server each time.
func (c *classes) ensure(ctx context.Context, namespace string, class Class) error {
	p := classPlace(namespace, class.Name)
	stays, err := c.stays(ctx, p, class)
	if stays || err != nil {
		return explainClass(err, p)
	}
	for range maxTries {
		live := &secretProviderClass{}
		err = c.api.get(ctx, p, live)
		switch {
		case isMissing(err, p):
			err = c.create(ctx, p, class)
			if err == nil {
				c.made()
			}
			if apierrors.IsAlreadyExists(err) {
				continue // the other replica was faster: look at what it has made
			}
			return explainClass(err, p)
		case err != nil:
			return explainClass(err, p)
		}
		if err := checkLive(live, class, p); err != nil {
			return err
		}
		if !c.isStale(live, time.Now()) {
			return nil
		}
		err = c.touch(ctx, p, live)
		if !apierrors.IsConflict(err) && !isMissing(err, p) {
			return explainClass(err, p)
		}
	}
	return explainClass(err, p)
}

// look tells why ensure would fail, as far as that can be seen without writing anything.
func (c *classes) look(ctx context.Context, namespace string, class Class) error {
	p := classPlace(namespace, class.Name)
	live := &secretProviderClass{}
	switch err := c.api.get(ctx, p, live); {
	case isMissing(err, p):
		return nil
	case err != nil:
		return explainClass(err, p)
	}
	return checkLive(live, class, p)
}

// stays tells whether a class is there, says what it should, and was asked for so lately that no sweep takes it for three
// quarters of the grace. The API server says so from its memory, which may be some moments old: that spares most admissions a
// read of etcd. Whatever else it says, the living object has to be looked at. It is an error not to be answered.
func (c *classes) stays(ctx context.Context, p place, class Class) (bool, error) {
	known := &secretProviderClass{}
	if err := c.api.recall(ctx, p, known); err != nil {
		if isAnswered(err) {
			err = nil
		}
		return false, err
	}
	return known.DeletionTimestamp == nil && checkClass(known, class, p) == nil && !c.isStale(known, time.Now()), nil
}

func (c *classes) create(ctx context.Context, p place, class Class) error {
	return c.api.create(ctx, p, &secretProviderClass{
		ObjectMeta: metav1.ObjectMeta{
			Name: class.Name, Namespace: p.namespace,
			Labels:      map[string]string{LabelMadeBy: madeBy},
			Annotations: map[string]string{AnnotationLastAsked: stamp(time.Now())},
		},
		Spec: classSpec{Provider: class.Provider, Parameters: class.Parameters},
	})
}

// checkLive refuses a class that is on its way out, or does not say what its name stands for.
func checkLive(live *secretProviderClass, class Class, p place) error {
	if live.DeletionTimestamp != nil { // with a finalizer, such as that of a deletion in the foreground
		return fmt.Errorf("%s is just being deleted: once it is gone, it is made anew for the next pod", p)
	}
	return checkClass(live, class, p)
}

// checkClass refuses a class that does not say what its name stands for.
func checkClass(live *secretProviderClass, class Class, p place) error {
	if live.Spec.Provider == class.Provider && maps.Equal(live.Spec.Parameters, class.Parameters) && len(live.Spec.SecretObjects) == 0 {
		return nil
	}
	return &conflictError{fmt.Sprintf("%s does not say what the pod's annotations ask for, though its name is made of just that: "+
		"somebody has changed it; delete it, and it is made anew for the next pod", p)}
}

// isStale tells whether a class of ours is to be touched. One without our label is not ours to touch, and is not swept.
func (c *classes) isStale(live *secretProviderClass, now time.Time) bool {
	if live.Labels[LabelMadeBy] != madeBy {
		return false
	}
	asked, err := time.Parse(time.RFC3339, live.Annotations[AnnotationLastAsked])
	return err != nil || now.Sub(asked) > c.grace/4
}

// touch notes that the class was asked for, on the very object that was looked at: if it was swept meanwhile, this fails,
// and if this comes first, the sweep does.
func (c *classes) touch(ctx context.Context, p place, live *secretProviderClass) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": live.UID, "resourceVersion": live.ResourceVersion,
		"annotations": map[string]string{AnnotationLastAsked: stamp(time.Now())},
	}})
	if err != nil {
		return err
	}
	return c.api.patch(ctx, p, types.MergePatchType, patch)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// conflictError is something that trying again does not mend.
type conflictError struct{ text string }

func (e *conflictError) Error() string { return e.text }

// explainClass says what an error of the API server means for who wants a pod.
func explainClass(err error, p place) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the webhook may not do what it must: %w; the ClusterRole of Leasehold's chart gives it the right, or a policy "+
			"of the cluster forbids the class", err)
	case apierrors.IsNotFound(err) && isAboutNamespace(err):
		return fmt.Errorf("namespace %q is gone: %w", p.namespace, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the API server knows no SecretProviderClass: is the Secrets Store CSI driver installed? %w", err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("others keep changing the class of this pod: %w", err)
	}
	return err
}

func isAboutNamespace(err error) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "namespaces"
}
