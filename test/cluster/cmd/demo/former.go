package main

import (
	"context"
	"fmt"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// former tells whether an earlier demo left pods, or users of PostgreSQL.
func (s *story) former(ctx context.Context) (bool, error) {
	pods, err := shell(ctx, "kubectl get pods -n shop --output=name")
	if err != nil {
		return false, err
	}
	users, err := s.users(ctx)
	return pods != "" || users > 0, err
}

// users counts those that Vault has made for the shop, whoever they are for.
func (s *story) users(ctx context.Context) (int, error) {
	n := 0
	for _, role := range []string{facts.DatabaseRole, brief, billing} {
		users, err := facts.Users(ctx, s.postgres, role)
		if err != nil {
			return 0, err
		}
		n += len(users)
	}
	return n, nil
}

// clear ends what an earlier demo left, so that whoever looks at PostgreSQL sees this demo's users alone. That has its time
// when Leasehold is installed: without it, a poll of the driver waits for it, and the end of the pod for that poll; and it is
// Leasehold that gives back what the pods had.
func (s *story) clear(ctx context.Context, text *page.Sheet) error {
	text.Now("the pods end")
	// Events go too: they are told by the names of pods that will be there again.
	const all = "kubectl delete deployments,pods,events --all -n shop --cascade=foreground --timeout=180s"
	if _, err := shell(ctx, all); err != nil {
		return err
	}
	text.Now("their users go")
	none := func(ctx context.Context) error {
		n, err := s.users(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("there still are %d users of PostgreSQL of an earlier demo", n)
		}
		return err
	}
	start := time.Now()
	if err := until(ctx, 5*time.Second, none); err == nil {
		text.Proved("No user of an earlier demo is left, %s after its last pod.", page.Clock(time.Since(start)))
		return nil
	}
	// Users without a pod: somebody who looked around has asked Vault for them, or took Leasehold's journal away.
	text.Now("users without a pod are revoked")
	for _, path := range []string{facts.CredsPath, briefPath, billingPath} {
		if err := s.vault.Client.Sys().RevokePrefixWithContext(ctx, path); err != nil {
			return fmt.Errorf("revoke the leases of an earlier demo: %w", err)
		}
	}
	if err := until(ctx, 20*time.Second, none); err != nil {
		return err
	}
	text.Proved("No user of an earlier demo is left. Some were of no pod: Vault was told to revoke them.")
	return nil
}
