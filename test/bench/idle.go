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
// Just after a start nothing of an hour's lease is renewed. So one of the volumes has leases of some seconds: such that just
// as many renewals come as from 250 volumes with an hour's.
func idle(ctx context.Context, w *world) ([]reading, error) {
	const (
		volumes  = 250
		pollings = time.Minute // each volume is polled so often
		length   = 45 * time.Second
		ttl      = time.Hour / volumes // 14.4 s
		restless = "restless"
	)
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.role(ctx, restless, ttl.Truncate(time.Second), time.Hour); err != nil {
		return nil, err
	}
	var took time.Duration
	var renewals, polled float64
	err = w.withNode(ctx, bed.ProviderOptions{}, func(n *node) error {
		all, err := n.fill(ctx, volumes-1, hourRole, withSecret())
		if err != nil {
			return err
		}
		more, err := n.fill(ctx, 1, restless, credentials(restless))
		if err != nil {
			return err
		}
		all = append(all, more...)
		// The first poll of a volume looks at it more closely than those of the rest of its life.
		settle := 3 * time.Second
		if err := pause(ctx, settle); err != nil {
			return err
		}
		err = inParallel(ctx, atOnce, len(all), func(ctx context.Context, i int) error { return n.mount(ctx, all[i]) })
		if err := errors.Join(err, pause(ctx, settle)); err != nil {
			return err
		}
		renewed := func() (float64, error) {
			tokens, err := metric(ctx, n.provider, `leasehold_renewals_total{outcome="ok",what="token"}`)
			if err != nil {
				return 0, err
			}
			leases, err := metric(ctx, n.provider, `leasehold_renewals_total{outcome="ok",what="lease"}`)
			return tokens + leases, err
		}
		before, err := renewed()
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
		after, err := renewed()
		renewals = after - before
		return err
	})
	if err != nil {
		return nil, err
	}
	minutes := length.Minutes()
	return []reading{{took.Seconds() / minutes, []string{
		note("%d volumes for %v: %.0f polls a minute, %.1f renewals a minute (250 volumes with leases of 1 h: 13.1)",
			volumes, length, polled/minutes, renewals/minutes),
	}}}, nil
}
