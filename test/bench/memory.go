package main

import (
	"context"
	"errors"
	"time"

	"leasehold/test/integration/bed"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// residentMemory is what a provider has in memory when it holds 250 volumes and nobody wants anything of it.
func residentMemory(ctx context.Context, w *world) ([]reading, error) {
	const volumes, settle, samples, every = 250, 15 * time.Second, 5, time.Second
	var resident, anonymous []float64
	var busy memory
	err := w.withNode(ctx, bed.ProviderOptions{}, func(n *node) error {
		_, err := n.fill(ctx, volumes, hourRole, withSecret())
		if err != nil {
			return err
		}
		pid := n.provider.Pid()
		if busy, err = memoryOf(pid); err != nil {
			return err
		}
		if err := pause(ctx, settle); err != nil {
			return err
		}
		for range samples {
			m, err := memoryOf(pid)
			if err := errors.Join(err, pause(ctx, every)); err != nil {
				return err
			}
			resident, anonymous = append(resident, m.resident/mib), append(anonymous, m.anonymous/mib)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []reading{
		{median(resident), []string{note("%d volumes, idle for %v; just after they were mounted, %d at once, it was %.1f MiB", volumes, settle, atOnce, busy.resident/mib)}},
		{median(anonymous), []string{note("median of %d samples; just after the volumes were mounted it was %.1f MiB", samples, busy.anonymous/mib)}},
	}, nil
}

// liveHeap is what a volume costs of the heap, and how that grows. The collector runs ten times as often as usual there, so
// that what it counts is hardly more than what is alive.
func liveHeap(ctx context.Context, w *world) ([]reading, error) {
	steps := []int{0, 100, 1000, 2000}
	heap := make(map[int]float64)
	err := w.withNode(ctx, bed.ProviderOptions{Env: []string{"GOGC=10"}}, func(n *node) error {
		for _, volumes := range steps {
			if _, err := n.fill(ctx, volumes-len(n.volumes), hourRole, withSecret()); err != nil {
				return err
			}
			live, err := alive(ctx, n.provider)
			if err != nil {
				return err
			}
			heap[volumes] = live
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	first, few, many, most := heap[0], heap[100], heap[1000], heap[2000]
	return []reading{
		{(most - first) / 2000 / kib, []string{note("live heap %.2f MiB without volumes, %.2f MiB with 2000", first/mib, most/mib)}},
		{many / few, []string{note("live heap %.2f MiB with 100 volumes (%.1f KiB each), %.2f MiB with 1000 (%.1f KiB each)",
			few/mib, (few-first)/100/kib, many/mib, (many-first)/1000/kib)}},
	}, nil
}

// alive is the live heap of a provider, in bytes: the least of many looks, for between two collections there is garbage, too.
// Each look makes some, so that collections go on.
func alive(ctx context.Context, p *bed.Provider) (least float64, err error) {
	const looks = 60
	for i := range looks {
		bytes, err := metric(ctx, p, "go_memstats_heap_alloc_bytes")
		if err != nil {
			return 0, err
		}
		if i == 0 || bytes < least {
			least = bytes
		}
	}
	return least, nil
}
