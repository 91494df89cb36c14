package main

import (
	"context"
	"errors"

	"leasehold/test/integration/bed"
)

// mountFirst compares a first Mount with the two requests that it makes, one at a time and in turns.
func mountFirst(ctx context.Context, w *world) ([]reading, error) {
	const runs, each = 21, 20
	var all rounds
	err := w.withNode(ctx, bed.ProviderOptions{}, func(n *node) error {
		client := newBare(n.stores.vault.Address, 1)
		defer client.close()
		volumes, err1 := n.add(1+runs*each, hourRole, credentials(hourRole))
		tokens, err2 := n.stores.tokens(1 + runs*each)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		// One of each, for the i-th time. The first time makes the connections.
		both := func(i int) (ours, theirs float64, err error) {
			ours, err1 := timed(func() error { return n.mount(ctx, volumes[i]) })
			theirs, err2 := timed(func() error { return client.pair(ctx, hourRole, tokens[i]) })
			return ours, theirs, errors.Join(err1, err2)
		}
		if _, _, err := both(0); err != nil {
			return err
		}
		for run := range runs {
			var ours, theirs []float64
			for i := range each {
				our, their, err := both(1 + run*each + i)
				if err != nil {
					return err
				}
				ours, theirs = append(ours, our), append(theirs, their)
			}
			all.ours, all.theirs = append(all.ours, median(ours)), append(all.theirs, median(theirs))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ratio, spread := all.ratio()
	return []reading{{ratio, []string{
		note("a first Mount %.2f ms, the two requests %.2f ms: medians of %d rounds of %d in turns; ratios of the rounds %s",
			1e3*median(all.ours), 1e3*median(all.theirs), runs, each, span(spread)),
	}}}, nil
}

// mountStorm compares the wall time of a node's first Mounts at its start with that of the requests that they make.
func mountStorm(ctx context.Context, w *world) ([]reading, error) {
	const runs, volumes, together = 9, 250, 32
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	client := newBare(s.vault.Address, together)
	defer client.close()
	var all rounds
	for run := range runs {
		ours := func() error {
			took, err := w.storm(ctx, volumes, together)
			all.ours = append(all.ours, took)
			return err
		}
		theirs := func() error {
			tokens, err := s.tokens(volumes)
			if err != nil {
				return err
			}
			took, err := timed(func() error {
				return inParallel(ctx, together, volumes, func(ctx context.Context, i int) error { return client.pair(ctx, hourRole, tokens[i]) })
			})
			all.theirs = append(all.theirs, took)
			return err
		}
		// Vault and PostgreSQL have ever more to keep: neither is always the second.
		if run%2 == 1 {
			ours, theirs = theirs, ours
		}
		if err := ours(); err != nil {
			return nil, err
		}
		if err := theirs(); err != nil {
			return nil, err
		}
	}
	ratio, spread := all.ratio()
	return []reading{{ratio, []string{
		note("%d first Mounts, %d at once, %.2f s; the same pairs of requests %.2f s: medians of %d rounds in turns, each with a new provider; "+
			"ratios of the rounds %s", volumes, together, median(all.ours), median(all.theirs), runs, span(spread)),
	}}}, nil
}

// storm is the wall time of a new node's first Mounts.
func (w *world) storm(ctx context.Context, count, together int) (seconds float64, err error) {
	err = w.withNode(ctx, bed.ProviderOptions{}, func(n *node) error {
		volumes, err := n.add(count, hourRole, credentials(hourRole))
		if err != nil {
			return err
		}
		seconds, err = timed(func() error {
			return inParallel(ctx, together, count, func(ctx context.Context, i int) error { return n.mount(ctx, volumes[i]) })
		})
		return err
	})
	return seconds, err
}
