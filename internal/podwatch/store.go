package podwatch

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// store is what the reflector writes to: of each pod its UID and state. Nothing else of a pod outlives the call that
// brought it.
type store struct {
	changed func()

	mu     sync.Mutex
	states map[types.UID]State // Alive or Ended; nil until the first complete list
}

var _ cache.TransformingStore = (*store)(nil)

func newStore(changed func()) *store { return &store{changed: changed} }

func (s *store) look(uid string) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.states == nil {
		return Unknown
	}
	if state, found := s.states[types.UID(uid)]; found {
		return state
	}
	return Absent
}

// Replace takes a complete list.
func (s *store) Replace(list []any, _ string) error {
	states := make(map[types.UID]State, len(list))
	for _, item := range list {
		pod, err := asPod(item)
		if err != nil {
			return err
		}
		states[pod.UID] = stateOf(pod)
	}
	s.mu.Lock()
	s.states = states
	s.mu.Unlock()
	s.changed()
	return nil
}

// Add takes a pod that is new.
func (s *store) Add(item any) error { return s.Update(item) }

// Update takes a pod as it is now. Most updates change nothing that matters here.
func (s *store) Update(item any) error {
	pod, err := asPod(item)
	if err != nil {
		return err
	}
	state := stateOf(pod)
	s.mu.Lock()
	if s.states == nil { // a watch starts after a list, so this should not be; one pod is no complete list
		s.mu.Unlock()
		return nil
	}
	news := s.states[pod.UID] != state
	s.states[pod.UID] = state
	s.mu.Unlock()
	if news {
		s.changed()
	}
	return nil
}

// Delete takes a pod that is gone.
func (s *store) Delete(item any) error {
	pod, err := asPod(item)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.states, pod.UID)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Resync has no meaning here.
func (s *store) Resync() error { return nil }

// Transformer strips pods as they stream in: the reflector collects a whole list of them before it calls Replace.
func (s *store) Transformer() cache.TransformFunc { return strip }

// strip leaves of a pod what the reflector and this store need.
func strip(item any) (any, error) {
	pod, err := asPod(item)
	if err != nil {
		return nil, err
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion},
		Status:     corev1.PodStatus{Phase: pod.Status.Phase},
	}, nil
}

func asPod(item any) (*corev1.Pod, error) {
	pod, ok := item.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("the API server sent a %T instead of a pod", item)
	}
	return pod, nil
}

// stateOf is the whole rule. The kubelet sets a terminal phase after the last container has ended, and never takes it
// back.
func stateOf(pod *corev1.Pod) State {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed:
		return Ended
	case corev1.PodPending, corev1.PodRunning, corev1.PodUnknown: // the last is not set any more, and was no end
	}
	return Alive
}
