package main

import (
	"context"
	"strings"
	"time"

	"leasehold/test/integration/bed"
)

// vaultRequests is how many requests a pod costs Vault in an hour that has a token and a lease of an hour, after its first
// mount. The hour is a short one: everything but the length of a life is as it is, and the policy is made of fractions of
// that.
func vaultRequests(ctx context.Context, w *world) ([]reading, error) {
	const (
		volumes = 40
		hour    = 12 * time.Second // a life of a token and a lease
		hours   = 3                // of measuring
		role    = "short"
	)
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.role(ctx, role, hour, time.Hour); err != nil {
		return nil, err
	}
	proxy, err := w.bed.StartTrouble(s.vault.Address)
	if err != nil {
		return nil, err
	}
	var requests int
	var measured time.Duration
	err = w.withNode(ctx, bed.ProviderOptions{VaultAddress: proxy.Address}, func(n *node) error {
		all, err := n.add(volumes, role, credentials(role))
		if err != nil {
			return err
		}
		// They start at all moments of a life, so that as many renewals come at one time as at another.
		for _, v := range all {
			if err := n.mount(ctx, v); err != nil {
				return err
			}
			if err := pause(ctx, hour/volumes); err != nil {
				return err
			}
		}
		began, before := time.Now(), proxy.Total()
		if err := pause(ctx, hours*hour); err != nil {
			return err
		}
		requests, measured = proxy.Total()-before, time.Since(began)
		return nil
	})
	if err != nil {
		return nil, err
	}
	podHours := volumes * measured.Seconds() / hour.Seconds()
	return []reading{{float64(requests) / podHours, []string{
		note("%d requests in %.0f pod-hours, each of %v: %d volumes with a token and a lease, %v; with those before, %v", requests, podHours, hour, volumes,
			measured.Round(time.Second), renewals(proxy.Requests())),
	}}}, nil
}

// renewals leaves of requests those that prolong something.
func renewals(requests map[string]int) map[string]int {
	found := make(map[string]int)
	for request, n := range requests {
		if _, path, _ := strings.Cut(request, " "); path == "auth/token/renew-self" || path == "sys/leases/renew" {
			found[path] += n
		}
	}
	return found
}
