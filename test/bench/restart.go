package main

import (
	"context"
	"fmt"

	"leasehold/test/integration/bed"
)

// restart is how long a provider takes from its start until it is ready, with a journal of 250 volumes.
func restart(ctx context.Context, w *world) ([]reading, error) {
	const volumes, runs = 250, 9
	took, err := w.restarts(ctx, volumes, runs)
	if err != nil {
		return nil, err
	}
	return []reading{{1e3 * median(took), []string{
		note("from exec to ready, journal of %d volumes: median of %d; 0 logins and 0 new leases", volumes, runs),
	}}}, nil
}

// restartGrowth compares that with a thousand volumes and with a hundred.
func restartGrowth(ctx context.Context, w *world) ([]reading, error) {
	const few, many, runs = 100, 1000, 7
	took := make(map[int]float64)
	var notes []string
	for _, volumes := range []int{few, many} {
		all, err := w.restarts(ctx, volumes, runs)
		if err != nil {
			return nil, err
		}
		took[volumes] = median(all)
		notes = append(notes, note("journal of %d volumes: %.0f ms, median of %d", volumes, 1e3*took[volumes], runs))
	}
	return []reading{{took[many] / took[few], notes}}, nil
}

// restarts restarts the provider of a full node again and again, and has the driver poll every volume in the end: nothing of
// it may ask Vault for anything.
func (w *world) restarts(ctx context.Context, volumes, runs int) (took []float64, err error) {
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	proxy, err := w.bed.StartTrouble(s.vault.Address)
	if err != nil {
		return nil, err
	}
	err = w.withNode(ctx, bed.ProviderOptions{VaultAddress: proxy.Address}, func(n *node) error {
		all, err := n.fill(ctx, volumes, hourRole, withSecret())
		if err != nil {
			return err
		}
		before := proxy.Total()
		for range runs {
			if err := n.provider.Terminate(); err != nil {
				return err
			}
			seconds, err := timed(func() (err error) {
				n.provider, err = w.bed.StartProvider(ctx, n.options)
				return err
			})
			if err != nil {
				return err
			}
			took = append(took, seconds)
		}
		err = inParallel(ctx, atOnce, len(all), func(ctx context.Context, i int) error { return n.mount(ctx, all[i]) })
		if err != nil {
			return err
		}
		if asked := proxy.Total() - before; asked != 0 {
			return fmt.Errorf("%d requests reached Vault in %d restarts and a poll of each volume, want none: %v", asked, runs, proxy.Requests())
		}
		return nil
	})
	return took, err
}
