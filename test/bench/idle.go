package main

import (
	"context"
	"errors"
	"time"

	"leasehold/test/integration/bed"
)

// idle is how much of a processor a provider takes that holds 250 volumes for an hour each, while the driver polls each
// once a minute.
//
// Just after a start nothing of an hour's lease is renewed, and no secret is read anew. So one of the volumes has leases of some
// seconds, and one looks after its secret as often: such that just as many renewals come as from 250 volumes with an hour's,
// and as many reads as from 250 with a secret each.
func idle(ctx context.Context, w *world) ([]reading, error) {
	const (
		volumes  = 250
		pollings = time.Minute // each volume is polled so often
		length   = 45 * time.Second
		ttl      = time.Hour / volumes // 14.4 s
		restless = "restless"
		refresh  = 5 * time.Minute / volumes // 1.2 s; the provider's default is five minutes
	)
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.role(ctx, restless, ttl.Truncate(time.Second), time.Hour); err != nil {
		return nil, err
	}
	var took time.Duration
	var renewals, refreshed, polled float64
	err = w.withNode(ctx, bed.ProviderOptions{}, func(n *node) error {
		all, err := n.fill(ctx, volumes-2, hourRole, withSecret())
		if err != nil {
			return err
		}
		more, err := n.fill(ctx, 1, restless, credentials(restless))
		if err != nil {
			return err
		}
		curious, err := n.add(1, hourRole, withSecret())
		if err != nil {
			return err
		}
		if err := errors.Join(curious[0].set("refresh", refresh.String()), n.mount(ctx, curious[0])); err != nil {
			return err
		}
		all = append(append(all, more...), curious...)
		// The first poll of a volume looks at it more closely than those of the rest of its life.
		settle := 3 * time.Second
		if err := pause(ctx, settle); err != nil {
			return err
		}
		err = inParallel(ctx, atOnce, len(all), func(ctx context.Context, i int) error { return n.mount(ctx, all[i]) })
		if err := errors.Join(err, pause(ctx, settle)); err != nil {
			return err
		}
		done := func() (renewals, refreshed float64, err error) {
			tokens, err1 := metric(ctx, n.provider, `leasehold_renewals_total{outcome="ok",what="token"}`)
			leases, err2 := metric(ctx, n.provider, `leasehold_renewals_total{outcome="ok",what="lease"}`)
			refreshed, err3 := metric(ctx, n.provider, `leasehold_replacements_total{outcome="ok"}`)
			return tokens + leases, refreshed, errors.Join(err1, err2, err3)
		}
		renewals, refreshed, err = done()
		if err != nil {
			return err
		}
		first, err := cpuOf(n.provider.Pid())
		if err != nil {
			return err
		}
		tick := time.NewTicker(pollings / volumes)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < length; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := n.mount(ctx, all[int(polled)%volumes]); err != nil {
				return err
			}
			polled++
		}
		last, err := cpuOf(n.provider.Pid())
		if err != nil {
			return err
		}
		took = last - first
		moreRenewals, moreRefreshed, err := done()
		renewals, refreshed = moreRenewals-renewals, moreRefreshed-refreshed
		return err
	})
	if err != nil {
		return nil, err
	}
	minutes := length.Minutes()
	return []reading{{took.Seconds() / minutes, []string{
		note("%d volumes for %v: %.0f polls a minute, %.1f renewals a minute (250 volumes with leases of 1 h: 13.1), %.1f reads of a "+
			"secret a minute (250 volumes with one each: 52.6)", volumes, length, polled/minutes, renewals/minutes, refreshed/minutes),
	}}}, nil
}
