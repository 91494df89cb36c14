package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Leader lets one of several replicas do what need not be done twice. They agree by a Lease: who holds it writes into it
// from time to time, and when that has stopped for long enough, another one takes it. As with client-go's election, no
// replica compares its clock with that of another: each measures by its own how long the Lease has stood still.
//
// Two may believe that they lead for a moment. What they do must bear that; a sweep does, for it deletes only what is as
// it was.
type Leader struct {
	api      *API
	place    place
	identity string
	patience time.Duration

	seen      string    // resource version of the Lease when it last changed
	seenSince time.Time // when that was, by our clock
}

// NewLeader returns who takes part in an election under its own name, unique among the replicas. The Lease must exist;
// its holder has to call Lead several times within patience. It is for one goroutine.
func NewLeader(api *API, namespace, lease, identity string, patience time.Duration) (*Leader, error) {
	if api == nil || namespace == "" || lease == "" || identity == "" || patience < time.Second {
		return nil, errors.New("an election needs the API server, the namespace and name of a Lease, who takes part, and patience")
	}
	return &Leader{
		api: api, identity: identity, patience: patience,
		place: place{group: coordinationGroup, namespace: namespace, resource: "leases", name: lease},
	}, nil
}

// Lead tells whether we hold the Lease, and prolongs or takes it if we may.
func (l *Leader) Lead(ctx context.Context) (bool, error) {
	lease := &coordinationv1.Lease{}
	if err := l.api.get(ctx, l.place, lease); err != nil {
		if isMissing(err, l.place) {
			err = fmt.Errorf("%w; Leasehold's chart makes it", err)
		}
		return false, err
	}
	now := time.Now()
	if l.seen != lease.ResourceVersion {
		l.seen, l.seenSince = lease.ResourceVersion, now
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if holder != l.identity && holder != "" && now.Sub(l.seenSince) < l.patience {
		return false, nil
	}
	seconds, renewed := int32(l.patience/time.Second), metav1.NewMicroTime(now) //nolint:gosec // a minute or so
	if holder != l.identity {
		turns := int32(1)
		if lease.Spec.LeaseTransitions != nil {
			turns += *lease.Spec.LeaseTransitions
		}
		lease.Spec.HolderIdentity, lease.Spec.AcquireTime, lease.Spec.LeaseTransitions = &l.identity, &renewed, &turns
	}
	lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &renewed, &seconds
	err := l.api.update(ctx, l.place, lease)
	switch {
	case apierrors.IsConflict(err):
		return false, nil // another one was faster
	case err != nil:
		return false, err
	}
	l.seen, l.seenSince = lease.ResourceVersion, now
	return true, nil
}
