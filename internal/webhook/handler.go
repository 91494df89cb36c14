package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/sync/semaphore"
	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"leasehold/internal/observe"
	"leasehold/internal/spec"
)

// The paths that the webhook configurations name.
const (
	PathPods      = "/pods"             // pods that are being created: changed
	PathWorkloads = "/advice/workloads" // Deployments and the like: warnings
	PathClasses   = "/advice/classes"   // SecretProviderClasses that people write: warnings
)

const (
	// maxReview bounds a request. The API server's own bound of an object is 3 MiB, and an update brings two of them.
	maxReview = 8 << 20

	// ordinaryReview is what a review has at most that is let in with others: nearly all have some KiB. Larger ones are read
	// and decided about one after the other, and hold up nobody else.
	ordinaryReview = 128 << 10

	// maxAtWork is how many bytes of ordinary reviews are decided about at a time. Reading and comparing objects takes some
	// ten times their size, and the memory of a replica is limited: it must not end for a crowd of pods. Hundreds of those
	// that there are have room.
	maxAtWork = 2 << 20

	// defaultTimeout is how long the API server waits if it does not say so, and margin how much sooner we answer, so that
	// our reason is what the pod's author reads.
	defaultTimeout = 10 * time.Second
	margin         = time.Second
)

// Config is what admissions are decided with. All of it but Advice is required.
type Config struct {
	API        *API
	Namespaces *Namespaces
	Policy     Policy
	Operator   spec.Operator // what the provider holds classes against, as far as is known here
	Grace      time.Duration // how long a class is kept after a pod has last asked for it; at least MinGrace
	Log        *slog.Logger

	Admitted  func(what, outcome string, took time.Duration) // an admission was answered
	ClassMade func()                                         // a class was created
}

// What an admission is about, as Admitted is told.
const (
	whatPod      = "pod"
	whatWorkload = "workload"
	whatClass    = "class"
)

// How an admission ended, as Admitted is told.
const (
	outcomeTranslated = "translated" // the pod was changed, or was as it should be
	outcomeSkipped    = "skipped"    // nothing to do
	outcomeDenied     = "denied"     // its author has to mend it
	outcomeFailed     = "failed"     // it is not its author's fault
	outcomeAdvised    = "advised"    // there were warnings
)

// handler answers admission reviews.
type handler struct {
	Config
	classes classes
	room    *semaphore.Weighted // bytes of ordinary reviews that are being decided about
	large   *semaphore.Weighted // one larger review that is being read and decided about
}

// NewHandler checks the configuration and returns what answers the API server's admission reviews.
func NewHandler(c Config) (http.Handler, error) {
	switch {
	case c.API == nil || c.Namespaces == nil || c.Log == nil || c.Admitted == nil || c.ClassMade == nil:
		return nil, errors.New("admissions need the API server, the namespaces, a logger and somebody to count")
	case c.Grace < MinGrace:
		return nil, errors.New("admissions need a grace of at least " + MinGrace.String())
	}
	h := newHandler(c)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+PathPods, h.review(whatPod, h.admitPod))
	mux.HandleFunc("POST "+PathWorkloads, h.review(whatWorkload, h.adviseWorkload))
	mux.HandleFunc("POST "+PathClasses, h.review(whatClass, h.adviseClass))
	return mux, nil
}

func newHandler(c Config) *handler {
	return &handler{
		Config:  c,
		classes: classes{api: c.API, grace: c.Grace, made: c.ClassMade},
		room:    semaphore.NewWeighted(maxAtWork),
		large:   semaphore.NewWeighted(1),
	}
}

// verdict is the answer about one object. Without an outcome, nothing is said about it.
type verdict struct {
	outcome  string
	patch    []byte
	warnings []string
	refusal  *metav1.Status // why it is not allowed; nil: it is
	class    []string       // names of the classes, for the log
}

// deny refuses what its author has to mend.
func deny(reason string) verdict {
	return verdict{outcome: outcomeDenied, refusal: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: reason,
	}}
}

// fail refuses for a reason that lies elsewhere; who made the object may try again.
func fail(err error) verdict {
	return verdict{outcome: outcomeFailed, refusal: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable, Message: err.Error(),
	}}
}

// review makes an HTTP handler of a decision. The review is decoded here, once; the decision sees the request in it.
func (h *handler) review(what string, decide func(context.Context, *admissionv1.AdmissionRequest) verdict) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), timeLimit(r))
		defer cancel()
		body, leave, refused := h.receive(ctx, w, r)
		if refused != nil {
			h.turnAway(w, what, refused, time.Since(began))
			return
		}
		defer leave()
		review, err := readReview(body)
		if err != nil {
			h.turnAway(w, what, &refusal{http.StatusBadRequest, err.Error()}, time.Since(began))
			return
		}
		v := h.decide(ctx, what, review.Request, decide)
		text, err := json.Marshal(answer(review.Request, v))
		if err != nil {
			http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", jsonType)
		_, _ = w.Write(text) // who does not take the answer has gone
		h.note(what, review.Request, v, time.Since(began))
	}
}

// refusal is why a review is not decided about.
type refusal struct {
	code int // of HTTP
	text string
}

var errBusy = &refusal{http.StatusServiceUnavailable, "the webhook has too much to do: try again"}

// turnAway answers a review that is not decided about. To the API server that is a webhook that fails, and so it is counted.
func (h *handler) turnAway(w http.ResponseWriter, what string, r *refusal, took time.Duration) {
	h.Admitted(what, outcomeFailed, took)
	h.Log.Warn("a review was not decided about", "what", what, "status", r.code, "reason", r.text, observe.KeyDuration, took)
	http.Error(w, r.text, r.code)
}

// receive reads a review and lets it in when there is room. A large one waits outside, where it takes no memory; others are
// read first, so that who sends slowly holds up nobody. Whoever has decided about it leaves.
func (h *handler) receive(ctx context.Context, w http.ResponseWriter, r *http.Request) (body []byte, leave func(), refused *refusal) {
	switch {
	case r.ContentLength > maxReview:
		return nil, nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("a review of more than %d MiB is not read", maxReview>>20)}
	case r.ContentLength < 0 || r.ContentLength > ordinaryReview:
		if h.large.Acquire(ctx, 1) != nil {
			return nil, nil, errBusy
		}
		leave = func() { h.large.Release(1) }
		if body, refused = read(w, r); refused != nil {
			leave()
		}
		return body, leave, refused
	}
	if body, refused = read(w, r); refused != nil {
		return nil, nil, refused
	}
	if h.room.Acquire(ctx, int64(len(body))) != nil {
		return nil, nil, errBusy
	}
	return body, func() { h.room.Release(int64(len(body))) }, nil
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("the review cannot be read: %v", err)}
	}
	return body, nil
}

// decide calls a decision. One that panics fails alone: others wait for theirs.
func (h *handler) decide(
	ctx context.Context, what string, request *admissionv1.AdmissionRequest, decide func(context.Context, *admissionv1.AdmissionRequest) verdict,
) (v verdict) {
	defer func() {
		if cause := recover(); cause != nil {
			// The value of a panic may be anything, so only its type is told. The stack shows no values.
			h.Log.Error("an admission panicked", "what", what, "cause", fmt.Sprintf("%T", cause), "stack", string(debug.Stack()))
			v = fail(errors.New("internal error of Leasehold's webhook: see its log"))
		}
	}()
	return decide(ctx, request)
}

func readReview(body []byte) (*admissionv1.AdmissionReview, error) {
	review := &admissionv1.AdmissionReview{}
	// The error of the decoder may quote what it cannot read, so it is left out.
	if json.Unmarshal(body, review) != nil || review.Kind != "AdmissionReview" ||
		review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Request == nil || review.Request.UID == "" {
		return nil, errors.New("this is no request of an AdmissionReview of admission.k8s.io/v1")
	}
	// It becomes a part of paths that the API server is asked for. All that there are reviews of is in a namespace.
	if len(validation.IsDNS1123Label(review.Request.Namespace)) > 0 {
		return nil, errors.New("the review is about something in a namespace whose name cannot be one")
	}
	return review, nil
}

// timeLimit is how long an answer may take. The API server says how long it waits.
func timeLimit(r *http.Request) time.Duration {
	wait, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || wait <= 0 || wait > 30*time.Second {
		wait = defaultTimeout
	}
	return max(wait-margin, wait/2)
}

func answer(request *admissionv1.AdmissionRequest, v verdict) *admissionv1.AdmissionReview {
	response := &admissionv1.AdmissionResponse{
		UID: request.UID, Allowed: v.refusal == nil, Result: v.refusal, Warnings: boundWarnings(v.warnings),
	}
	if v.refusal == nil && len(v.patch) > 0 {
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = v.patch, &kind
	}
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: admissionv1.SchemeGroupVersion.String()},
		Response: response,
	}
}

// note counts an admission and puts it into the log. What the object says stays out of it, but for the reasons of a
// refusal.
func (h *handler) note(what string, request *admissionv1.AdmissionRequest, v verdict, took time.Duration) {
	h.Admitted(what, v.outcome, took)
	keys := []any{
		"what", what, "outcome", v.outcome, "object", request.Namespace + "/" + cmp.Or(request.Name, "(to be named)"),
		"dry_run", isDryRun(request), "warnings", len(v.warnings), observe.KeyDuration, took,
	}
	if len(v.class) > 0 {
		keys = append(keys, "classes", v.class)
	}
	switch {
	case v.outcome == outcomeFailed && v.refusal != nil:
		h.Log.Warn("admission failed", append(keys, observe.KeyError, v.refusal.Message)...)
	case v.refusal != nil:
		h.Log.Info("admission denied", append(keys, "reason", v.refusal.Message)...)
	case v.outcome == outcomeSkipped:
		h.Log.Debug("admission", keys...)
	default:
		h.Log.Info("admission", keys...)
	}
}

func isDryRun(request *admissionv1.AdmissionRequest) bool {
	return request.DryRun != nil && *request.DryRun
}

// admitPod translates a pod. Its classes are there before it is allowed: otherwise kubelet might look for one in vain. On
// a dry run nothing is written.
func (h *handler) admitPod(ctx context.Context, request *admissionv1.AdmissionRequest) verdict {
	if request.Resource.Resource != "pods" || request.SubResource != "" || request.Operation != admissionv1.Create {
		return fail(fmt.Errorf("the webhook is for pods that are being created; its configuration sends it %s of %s",
			request.Operation, request.Resource.Resource))
	}
	pod := &corev1.Pod{}
	if json.Unmarshal(request.Object.Raw, pod) != nil {
		return fail(errors.New("the pod in the review cannot be read"))
	}
	if _, asked := pod.Annotations[injectKey]; !asked {
		return verdict{outcome: outcomeSkipped}
	}
	before, err := json.Marshal(pod)
	if err != nil {
		return fail(errors.New("the pod cannot be encoded"))
	}
	own := pod.Namespace
	pod.Namespace = request.Namespace // a pod that is being created need not name it
	defaults, err := h.Namespaces.Annotations(ctx, request.Namespace)
	if err != nil {
		return fail(err)
	}
	translation, err := h.Policy.Translate(pod, defaults)
	if err != nil {
		denied := deny(err.Error())
		denied.warnings = translation.Warnings
		return denied
	}
	v := verdict{outcome: outcomeTranslated, warnings: translation.Warnings}
	if translation.Skipped != "" {
		v.outcome = outcomeSkipped
		return v
	}
	for _, class := range translation.Classes {
		v.class = append(v.class, class.Name)
		see := h.classes.ensure
		if isDryRun(request) {
			see = h.classes.look
		}
		if err := see(ctx, request.Namespace, class); err != nil {
			failed := fail(err)
			failed.class = v.class
			return failed
		}
	}
	after := translation.Pod.DeepCopy()
	after.Namespace = own
	if v.patch, err = patchOf(before, after); err != nil {
		return fail(err)
	}
	return v
}

// patchOf returns the patch from a pod's JSON to a pod. Both were encoded by the same types: what these do not know, for
// the API server is newer than we are, is in neither, and so stays as it is.
func patchOf(before []byte, pod *corev1.Pod) ([]byte, error) {
	after, err := json.Marshal(pod)
	if err != nil {
		return nil, errors.New("the translated pod cannot be encoded")
	}
	operations, err := jsonpatch.CreatePatch(before, after)
	if err != nil {
		return nil, errors.New("the translated pod cannot be compared with what it was")
	}
	if len(operations) == 0 {
		return nil, nil
	}
	return json.Marshal(operations)
}
