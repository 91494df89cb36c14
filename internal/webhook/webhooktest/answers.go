package webhooktest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := parsePath(r.URL.Path)
	watches, _ := strconv.ParseBool(r.URL.Query().Get("watch"))
	verb := map[string]string{
		http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete", http.MethodGet: "get",
	}[r.Method]
	if r.Method == http.MethodGet && p.name == "" {
		verb = "list"
		if watches {
			verb = "watch"
		}
	}
	s.mu.Lock()
	s.requests = append(s.requests, verb+" "+p.resource)
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	if verb == "watch" {
		s.watch(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	code, answer := s.answer(verb, r, p, body)
	s.mu.Unlock()
	Answer(w, code, answer)
}

// Answer writes an object or a status as JSON.
func Answer(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object)
}

// Failure is a status of the API server that says no.
func Failure(code int, reason metav1.StatusReason, resource, name, message string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), //nolint:gosec // of HTTP
		Reason: reason, Message: message, Details: &metav1.StatusDetails{Kind: resource, Name: name},
	}
}

func failure(code int, reason metav1.StatusReason, p place, message string) (int, any) {
	return code, Failure(code, reason, p.resource, p.name, fmt.Sprintf("%s %q: %s", p.resource, p.name, message))
}

// answer does what is asked. The caller has the lock.
func (s *Server) answer(verb string, r *http.Request, p place, body []byte) (int, any) {
	at := strings.TrimRight(r.URL.Path, "/")
	if verb == "list" {
		return http.StatusOK, s.list(p, r.URL.Query().Get("labelSelector"), r.URL.Query().Get("continue"))
	}
	object := Object{}
	if verb == "create" || verb == "update" {
		kind := kinds[p.resource]
		if err := json.Unmarshal(body, &object); err != nil || object.Text("apiVersion") != kind[0] || object.Text("kind") != kind[1] {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, p, "the body is no "+kind[1])
		}
	}
	if verb == "create" {
		name := object.Text("metadata", "name")
		p.name, at = name, at+"/"+name
		if namespace := s.objects["/api/v1/namespaces/"+p.namespace]; namespace == nil && p.namespace != "" {
			return http.StatusNotFound, Failure(http.StatusNotFound, metav1.StatusReasonNotFound, "namespaces", p.namespace,
				fmt.Sprintf("namespaces %q not found", p.namespace))
		}
		if s.objects[at] != nil {
			return failure(http.StatusConflict, metav1.StatusReasonAlreadyExists, p, "already exists")
		}
		return http.StatusCreated, s.store(at, object)
	}
	live := s.objects[at]
	if verb == "get" && s.memory != nil && r.URL.Query().Get("resourceVersion") == "0" {
		live = s.memory[at]
	}
	if live == nil {
		return failure(http.StatusNotFound, metav1.StatusReasonNotFound, p, "not found")
	}
	switch verb {
	case "get":
		return http.StatusOK, live
	case "update":
		if !fits(live, object.Text("metadata", "uid"), object.Text("metadata", "resourceVersion")) {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, p, "the object has been modified")
		}
		return http.StatusOK, s.store(at, object)
	case "patch":
		return s.patch(at, live, r.Header.Get("Content-Type"), p, body)
	case "delete":
		options := metav1.DeleteOptions{}
		if err := json.Unmarshal(body, &options); len(body) > 0 && err != nil {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, p, "the body is no DeleteOptions")
		}
		if c := options.Preconditions; c != nil && !fits(live, string(value(c.UID)), value(c.ResourceVersion)) {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, p, "the preconditions failed")
		}
		s.remove(at)
		return http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
	}
	return failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, p, "no such verb")
}

func value[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

// fits tells whether an object is the one that was meant, as it was; "" means any.
func fits(live Object, uid, version string) bool {
	return (uid == "" || uid == live.Text("metadata", "uid")) && (version == "" || version == live.Text("metadata", "resourceVersion"))
}

// patch merges, or does the operations "add" and "replace" of a JSON patch.
func (s *Server) patch(at string, live Object, contentType string, p place, body []byte) (int, any) {
	object := live.copy()
	switch contentType {
	case "application/merge-patch+json":
		patch := Object{}
		if err := json.Unmarshal(body, &patch); err != nil {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, p, "the body is no patch")
		}
		merge(object, patch)
	case "application/json-patch+json":
		text, err := json.Marshal(object)
		if err == nil {
			text, err = ApplyPatch(text, body)
		}
		if err == nil {
			object = Object{}
			err = json.Unmarshal(text, &object)
		}
		if err != nil {
			return failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, p, err.Error())
		}
	default:
		return failure(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, p, contentType)
	}
	if !fits(live, object.Text("metadata", "uid"), object.Text("metadata", "resourceVersion")) {
		return failure(http.StatusConflict, metav1.StatusReasonConflict, p, "the object has been modified")
	}
	return http.StatusOK, s.store(at, object)
}

func merge(into, patch map[string]any) {
	for key, value := range patch {
		inner, isObject := value.(map[string]any)
		old, wasObject := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isObject && wasObject:
			merge(old, inner)
		default:
			into[key] = value
		}
	}
}

// kinds are the kinds of resources: version and name.
var kinds = map[string][2]string{
	"namespaces":                      {"v1", "Namespace"},
	"pods":                            {"v1", "Pod"},
	"secrets":                         {"v1", "Secret"},
	"leases":                          {"coordination.k8s.io/v1", "Lease"},
	"mutatingwebhookconfigurations":   {"admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"},
	"validatingwebhookconfigurations": {"admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"},
	"secretproviderclasses":           {"secrets-store.csi.x-k8s.io/v1", "SecretProviderClass"},
}

// list lists what is in all namespaces or in one, and has the label key=value, from a path on.
func (s *Server) list(p place, selector, from string) Object {
	items, next := []Object{}, ""
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		other := parsePath(key)
		label, wanted, selects := strings.Cut(selector, "=")
		if other.resource != p.resource || p.namespace != "" && p.namespace != other.namespace || key < from ||
			selects && s.objects[key].Text("metadata", "labels", label) != wanted {
			continue
		}
		if s.page > 0 && len(items) == s.page {
			next = key
			break
		}
		items = append(items, s.objects[key])
	}
	return Object{
		"apiVersion": kinds[p.resource][0], "kind": kinds[p.resource][1] + "List", "items": items,
		"metadata": map[string]any{"resourceVersion": fmt.Sprint(s.revision), "continue": next},
	}
}

// watch streams changes until the connection ends. Lists are not streamed.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	p, query := parsePath(r.URL.Path), r.URL.Query()
	if query.Get("sendInitialEvents") != "" {
		code, status := failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, p, "sendInitialEvents is forbidden")
		Answer(w, code, status)
		return
	}
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	flush, encoder := http.NewResponseController(w), json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for flush.Flush() == nil {
		s.mu.Lock()
		news, changes := s.news, s.changes
		s.mu.Unlock()
		for _, c := range changes {
			if c.revision > from && parsePath(c.path).resource == p.resource {
				from = c.revision
				if encoder.Encode(Object{"type": c.kind, "object": c.object}) != nil {
					return
				}
			}
		}
		if flush.Flush() != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}
