package lease

import (
	"context"
	"errors"
	"time"

	"leasehold/internal/observe"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Life is what is known of a pod.
type Life int

// The lives of a pod. One that is being deleted is alive: it may be finishing its last transaction.
const (
	Unknown Life = iota // nobody has told yet which pods there are
	Alive
	Ended  // its containers have ended for good, or it is gone for certain
	Absent // it is not among those that are known: it may be new, or gone, or the list may be old
)

// Pods says which pods of the node live, and speaks to their owners.
type Pods interface {
	// Look tells what is known of a pod, without asking anybody.
	Look(pod spec.Pod) Life

	// Confirm asks the API server for just this pod, with its UID: it is Alive or Ended.
	Confirm(ctx context.Context, pod spec.Pod) (Life, error)

	// Event tells the pod's owner something by an Event. It returns at once, and does what it can.
	Event(pod spec.Pod, reason, message string)

	// Token asks the API server for a token of the pod's service account that is bound to the pod.
	Token(ctx context.Context, pod spec.Pod, audience string) (token redact.String, expires time.Time, err error)
}

// attendance is where the keeper stands with finding out whether a volume's pod lives.
type attendance struct {
	busy    bool      // the API server is being asked
	after   time.Time // it is not to be asked again before
	gone    bool      // it has confirmed that the pod is gone
	awaited bool      // the pod has ended, and who has the volume in his hands is to tell when he closes it
}

const (
	// confirmAgain is how long an answer of the API server holds that a pod lives which the watch does not know.
	confirmAgain = 10 * time.Second

	confirmTimeout = 15 * time.Second
)

// attend tells whether the pod has ended, or else what there is to ask about that, and when to look again. v.mu is held.
func (v *Volume) attend(now time.Time) (ended bool, e *errand, again time.Time) {
	a, pods := &v.attended, v.keeper.config.Pods
	if pods == nil || v.ended || a.busy {
		return false, nil, time.Time{}
	}
	pod := v.mount.Pod
	switch pods.Look(pod) {
	case Unknown, Alive:
		a.after = time.Time{}
		return false, nil, time.Time{}
	case Ended:
		return true, nil, time.Time{}
	case Absent:
	}
	switch {
	case a.gone:
		return true, nil, time.Time{}
	case a.after.After(now):
		return false, nil, a.after
	}
	return false, &errand{volume: v, begin: v.departs(&a.busy), run: func(ctx context.Context) error { return v.confirm(ctx, pod) }}, time.Time{}
}

// confirm asks the API server whether a pod that the watch does not know is gone: what the watch knows may be old.
func (v *Volume) confirm(ctx context.Context, pod spec.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	life, err := v.keeper.config.Pods.Confirm(ctx, pod)
	v.mu.Lock()
	a := &v.attended
	a.busy = false
	a.gone = err == nil && life == Ended
	a.after = time.Now().Add(jittered(confirmAgain))
	v.mu.Unlock()
	if err != nil && !errors.Is(err, context.Canceled) {
		v.keeper.log(v).Warn("cannot confirm that the pod is gone; what it has is kept meanwhile", observe.KeyError, err)
	}
	return err
}

// finish ends the volume of a pod that has ended. If somebody has it in his hands, it returns when to try again; who
// closes it has it tried sooner.
func (v *Volume) finish(now time.Time) (again time.Time) {
	v.mu.Lock()
	v.attended.awaited = true
	v.mu.Unlock()
	select {
	case <-v.turn:
	default:
		return now.Add(time.Second)
	}
	v.end(now)
	v.keeper.log(v).Debug("the pod has ended: giving back what it had")
	v.turn <- struct{}{}
	return time.Time{}
}

// event tells the pod's owner something, if there is somebody to tell it.
func (k *Keeper) event(pod spec.Pod, reason, message string) {
	if k.config.Pods != nil {
		k.config.Pods.Event(pod, reason, message)
	}
}
