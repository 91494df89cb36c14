package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"leasehold/internal/observe"
)

// SweepConfig is what a Sweep is made of. All of it is required.
type SweepConfig struct {
	API    *API
	Leader *Leader
	Grace  time.Duration // how long a class is kept after a pod has last asked for it; at least MinGrace
	Log    *slog.Logger
	Swept  func() // a class was deleted
	Failed func() // a sweep could not do all
}

// Sweep deletes classes that nobody uses any more: of those with our label, what no pod names and nobody has asked for
// during a grace. What cannot be deleted now is deleted later; nothing depends on it.
//
// It is safe against a pod that is being admitted meanwhile. The classes are listed before the pods: a pod that names one
// is either among them, or is not there yet. One that is not there yet was admitted either with a touch, which makes the
// deletion fail, or within a quarter of the grace after the last one, so that the class is not old enough by far.
type Sweep struct{ config SweepConfig }

// NewSweep checks the configuration; Run does the work.
func NewSweep(c SweepConfig) (*Sweep, error) {
	switch {
	case c.API == nil || c.Leader == nil || c.Log == nil || c.Swept == nil || c.Failed == nil:
		return nil, errors.New("the sweep needs the API server, the leader's Lease, a logger and somebody to count")
	case c.Grace < MinGrace:
		return nil, errors.New("the sweep needs a grace of at least " + MinGrace.String())
	}
	return &Sweep{c}, nil
}

// SweepEvery is how often classes are looked over, for a grace.
func SweepEvery(grace time.Duration) time.Duration { return min(grace/12, 10*time.Minute) }

// Run sweeps now and then, while this replica leads, until ctx ends.
func (s *Sweep) Run(ctx context.Context) {
	every := SweepEvery(s.config.Grace)
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		turn, cancel := context.WithTimeout(ctx, every)
		err := s.once(turn)
		cancel()
		if err != nil && ctx.Err() == nil {
			s.config.Failed()
			s.config.Log.Warn("unused classes stay for now, until the next sweep", observe.KeyError, err)
		}
	}
}

// once sweeps if this replica leads.
func (s *Sweep) once(ctx context.Context) error {
	leads, err := s.config.Leader.Lead(ctx)
	if err != nil || !leads {
		return err
	}
	old, err := s.oldClasses(ctx, time.Now())
	if err != nil {
		return err
	}
	var failed []error
	for namespace, classes := range old {
		named, err := s.named(ctx, namespace)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, class := range classes {
			if !named[class.Name] {
				failed = append(failed, s.remove(ctx, class))
			}
		}
	}
	return errors.Join(failed...)
}

// oldClasses returns the classes of ours that nobody has asked for during the grace, by namespace.
func (s *Sweep) oldClasses(ctx context.Context, now time.Time) (map[string][]secretProviderClass, error) {
	old := make(map[string][]secretProviderClass)
	page := func() *secretProviderClassList { return &secretProviderClassList{} }
	err := list(ctx, s.config.API, classPlace("", ""), LabelMadeBy+"="+madeBy, page, func(l *secretProviderClassList) {
		for _, c := range l.Items {
			if c.Labels[LabelMadeBy] == madeBy && now.Sub(lastAsked(c)) > s.config.Grace {
				c.Spec = classSpec{} // only its name matters from here on
				old[c.Namespace] = append(old[c.Namespace], c)
			}
		}
	})
	return old, err
}

// lastAsked is when a class was last asked for; if it does not say so, when it was made.
func lastAsked(c secretProviderClass) time.Time {
	asked, err := time.Parse(time.RFC3339, c.Annotations[AnnotationLastAsked])
	if err != nil || asked.Before(c.CreationTimestamp.Time) {
		return c.CreationTimestamp.Time
	}
	return asked
}

// named returns the classes that the pods of a namespace name, whatever their phase.
func (s *Sweep) named(ctx context.Context, namespace string) (map[string]bool, error) {
	names := make(map[string]bool)
	page := func() *corev1.PodList { return &corev1.PodList{} }
	err := list(ctx, s.config.API, place{group: coreGroup, namespace: namespace, resource: "pods"}, "", page, func(l *corev1.PodList) {
		for _, pod := range l.Items {
			for _, v := range pod.Spec.Volumes {
				if v.CSI != nil {
					names[v.CSI.VolumeAttributes[classAttribute]] = true
				}
			}
		}
	})
	return names, err
}

// remove deletes a class if it still is as it was when it was found to be unused.
func (s *Sweep) remove(ctx context.Context, class secretProviderClass) error {
	p := classPlace(class.Namespace, class.Name)
	err := s.config.API.deleteUnchanged(ctx, p, class.ObjectMeta)
	switch {
	case apierrors.IsConflict(err), isMissing(err, p):
		return nil // somebody has asked for it just now, or has deleted it
	case err != nil:
		return err
	}
	s.config.Swept()
	s.config.Log.Info("class swept", "class", types.NamespacedName{Namespace: class.Namespace, Name: class.Name}.String())
	return nil
}
