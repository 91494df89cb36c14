package podwatchtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
)

var (
	pods            = schema.GroupResource{Resource: "pods"}
	serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	eventResource   = schema.GroupResource{Resource: "events"}
)

func (s *Server) newRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/pods", s.serve("", s.listOrWatch))
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods/{name}", s.serve("get pods", s.getPod))
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/events", s.serve("create events", s.createEvent))
	mux.HandleFunc("PATCH /api/v1/namespaces/{namespace}/events/{name}", s.serve("patch events", s.patchEvent))
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", s.serve("create serviceaccounts/token", s.createToken))
	mux.HandleFunc("/", s.serve("other", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, apierrors.NewForbidden(schema.GroupResource{}, "", fmt.Errorf("%s %s is not for you", r.Method, r.URL.Path)))
	}))
	return mux
}

// serve notes a request and lets the interceptor have it first.
func (s *Server) serve(what string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		what := what
		if what == "" {
			what = "list pods"
			if isTrue(r, "watch") {
				what = "watch pods"
			}
		}
		s.mu.Lock()
		s.requests = append(s.requests, what)
		intercept := s.intercept
		s.mu.Unlock()
		if intercept == nil || !intercept(w, r) {
			answer(w, r)
		}
	}
}

func isTrue(r *http.Request, option string) bool {
	yes, _ := strconv.ParseBool(r.URL.Query().Get(option))
	return yes
}

func (s *Server) getPod(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	pod := s.pods[key(r.PathValue("namespace"), r.PathValue("name"))]
	s.mu.Unlock()
	if pod == nil {
		s.fail(w, r, apierrors.NewNotFound(pods, r.PathValue("name")))
		return
	}
	s.answer(w, r, http.StatusOK, pod)
}

func (s *Server) listOrWatch(w http.ResponseWriter, r *http.Request) {
	selector, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	if isTrue(r, "watch") {
		s.watch(w, r, selector)
		return
	}
	s.mu.Lock()
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(s.revision)}}
	for _, pod := range s.chosen(selector) {
		list.Items = append(list.Items, *pod)
	}
	s.mu.Unlock()
	s.answer(w, r, http.StatusOK, list)
}

// chosen returns the selected pods, by name.
func (s *Server) chosen(selector fields.Selector) []*corev1.Pod {
	var all []*corev1.Pod
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		if pod := s.pods[name]; matches(selector, pod) {
			all = append(all, pod)
		}
	}
	return all
}

func matches(selector fields.Selector, pod *corev1.Pod) bool {
	return selector.Matches(fields.Set{
		"metadata.namespace": pod.Namespace, "metadata.name": pod.Name,
		"spec.nodeName": pod.Spec.NodeName, "status.phase": string(pod.Status.Phase),
	})
}

// watch streams changes until the time asked for is over or the connection ends.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, selector fields.Selector) {
	query := r.URL.Query()
	from, _ := strconv.ParseInt(query.Get("resourceVersion"), 10, 64)
	initial := isTrue(r, "sendInitialEvents")
	s.mu.Lock()
	var first []watch.Event
	switch {
	case initial && s.plain:
		s.mu.Unlock()
		s.fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Message: "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
		}})
		return
	case initial || from == 0:
		for _, pod := range s.chosen(selector) {
			first = append(first, watch.Event{Type: watch.Added, Object: pod})
		}
		from = s.revision
		if initial {
			first = append(first, watch.Event{Type: watch.Bookmark, Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: fmt.Sprint(from), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}}})
		}
	}
	s.mu.Unlock()

	var over <-chan time.Time
	if seconds, _ := strconv.Atoi(query.Get("timeoutSeconds")); seconds > 0 {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		over = timer.C
	}
	stream := s.codec.stream(w, r)
	if !stream.send(first) {
		return
	}
	for {
		s.mu.Lock()
		news := s.news
		next, missed := s.since(from, selector)
		from = s.revision
		s.mu.Unlock()
		if !stream.send(next) || missed {
			return
		}
		select {
		case <-news:
		case <-over:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// since returns the changes after a revision, or an error event if they are not all remembered.
func (s *Server) since(from int64, selector fields.Selector) (next []watch.Event, missed bool) {
	if from < s.oldest {
		return []watch.Event{{Type: watch.Error, Object: expired(from, s.oldest)}}, true
	}
	i, _ := slices.BinarySearchFunc(s.changes, from+1, func(c change, revision int64) int { return cmp.Compare(c.revision, revision) })
	for _, c := range s.changes[i:] {
		if matches(selector, c.pod) {
			next = append(next, watch.Event{Type: c.kind, Object: c.pod})
		}
	}
	return next, false
}

func expired(from, oldest int64) *metav1.Status {
	status := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", from, oldest)).Status()
	return &status
}

func (s *Server) createEvent(w http.ResponseWriter, r *http.Request) {
	event := &corev1.Event{}
	if !s.read(w, r, event) {
		return
	}
	namespace := r.PathValue("namespace")
	if event.InvolvedObject.Namespace != namespace || event.Name == "" || event.Reason == "" {
		s.fail(w, r, apierrors.NewInvalid(schema.GroupKind{Kind: "Event"}, event.Name, nil))
		return
	}
	event.Namespace = namespace
	s.mu.Lock()
	id := key(namespace, event.Name)
	_, taken := s.events[id]
	if !taken {
		s.events[id] = event
		s.names = append(s.names, id)
	}
	s.mu.Unlock()
	if taken {
		s.fail(w, r, apierrors.NewAlreadyExists(eventResource, event.Name))
		return
	}
	s.answer(w, r, http.StatusCreated, event)
}

func (s *Server) patchEvent(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		s.fail(w, r, apierrors.NewBadRequest("a merge patch is needed"))
		return
	}
	s.mu.Lock()
	id := key(r.PathValue("namespace"), r.PathValue("name"))
	event := s.events[id]
	if event != nil {
		event = event.DeepCopy()
		// A merge patch of fields that are no objects is what decoding over them does.
		if err = json.Unmarshal(body, event); err == nil {
			s.events[id] = event
		}
	}
	s.mu.Unlock()
	switch {
	case event == nil:
		s.fail(w, r, apierrors.NewNotFound(eventResource, r.PathValue("name")))
	case err != nil:
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
	default:
		s.answer(w, r, http.StatusOK, event)
	}
}

// createToken grants a token as the real API server does: bound to a pod that there is, with this UID and account.
func (s *Server) createToken(w http.ResponseWriter, r *http.Request) {
	asked := &authenticationv1.TokenRequest{}
	if !s.read(w, r, asked) {
		return
	}
	granted := TokenRequest{
		Namespace: r.PathValue("namespace"), ServiceAccount: r.PathValue("name"),
		Audiences: asked.Spec.Audiences, Expires: time.Now().Add(time.Hour).Truncate(time.Second),
	}
	if seconds := asked.Spec.ExpirationSeconds; seconds != nil {
		if *seconds < 600 {
			s.fail(w, r, apierrors.NewInvalid(schema.GroupKind{Kind: "TokenRequest"}, "", nil))
			return
		}
		granted.Expires = time.Now().Add(time.Duration(*seconds) * time.Second).Truncate(time.Second)
	}
	s.mu.Lock()
	if bound := asked.Spec.BoundObjectRef; bound != nil {
		granted.Pod, granted.PodUID = bound.Name, string(bound.UID)
		if err := s.checkBinding(granted, bound); err != nil {
			s.mu.Unlock()
			s.fail(w, r, err)
			return
		}
	}
	s.tokens = append(s.tokens, granted)
	number, sign := len(s.tokens), s.sign
	s.mu.Unlock()
	token, err := fmt.Sprintf("token-of-%s-%d", granted.Pod, number), error(nil)
	if sign != nil {
		token, err = sign(granted)
	}
	if err != nil {
		s.fail(w, r, apierrors.NewInternalError(err))
		return
	}
	asked.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(granted.Expires)}
	s.answer(w, r, http.StatusCreated, asked)
}

func (s *Server) checkBinding(t TokenRequest, bound *authenticationv1.BoundObjectReference) *apierrors.StatusError {
	pod := s.pods[key(t.Namespace, t.Pod)]
	switch {
	case bound.Kind != "Pod" || bound.APIVersion != "v1":
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", bound.Kind))
	case pod == nil:
		return apierrors.NewNotFound(pods, t.Pod)
	case t.PodUID != "" && string(pod.UID) != t.PodUID:
		return apierrors.NewConflict(serviceAccounts, t.ServiceAccount,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record", t.PodUID))
	case pod.Spec.ServiceAccountName != t.ServiceAccount:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", t.ServiceAccount))
	}
	return nil
}

// codec reads and writes objects as clients ask for, JSON or protobuf.
type codec struct{ serializer.CodecFactory }

func newCodec() codec {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Pod{}, &corev1.PodList{}, &corev1.Event{})
	s.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenRequest{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	return codec{serializer.NewCodecFactory(s)}
}

// accepted returns the first media type of a request that we know.
func (c codec) accepted(r *http.Request) runtime.SerializerInfo {
	known := c.SupportedMediaTypes()
	for _, wish := range strings.Split(r.Header.Get("Accept"), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(wish), ";")
		if info, ok := runtime.SerializerInfoForMediaType(known, name); ok {
			return info
		}
	}
	return known[0]
}

// encoder writes objects with their kind and version.
func (c codec) encoder(e runtime.Encoder) runtime.Encoder {
	return c.WithoutConversion().EncoderForVersion(e, corev1.SchemeGroupVersion)
}

// read reads the body, or answers that it cannot.
func (s *Server) read(w http.ResponseWriter, r *http.Request, into runtime.Object) bool {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, _, err = s.codec.UniversalDeserializer().Decode(body, nil, into)
	}
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
	}
	return err == nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, code int, object runtime.Object) {
	info := s.codec.accepted(r)
	var body bytes.Buffer
	if err := s.codec.encoder(info.Serializer).Encode(object, &body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", info.MediaType)
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err *apierrors.StatusError) {
	status := err.Status()
	s.answer(w, r, int(status.Code), &status)
}

// stream is a watch's answer.
type stream struct {
	flush   *http.ResponseController
	encoder *restwatch.Encoder
}

func (c codec) stream(w http.ResponseWriter, r *http.Request) stream {
	info := c.accepted(r)
	contentType := info.MediaType
	if info.MediaType != runtime.ContentTypeJSON {
		contentType += ";stream=watch"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	frames := streaming.NewEncoder(info.StreamSerializer.NewFrameWriter(w), c.encoder(info.StreamSerializer.Serializer))
	return stream{http.NewResponseController(w), restwatch.NewEncoder(frames, c.encoder(info.Serializer))}
}

// send sends events at once, and tells whether the connection took them.
func (s stream) send(events []watch.Event) bool {
	for _, e := range events {
		if s.encoder.Encode(&e) != nil {
			return false
		}
	}
	return s.flush.Flush() == nil
}
