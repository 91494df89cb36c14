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
	users, err := facts.Users(ctx, s.postgres)
	return pods != "" || len(users) > 0, err
}

// clear ends what an earlier demo left, so that whoever looks at PostgreSQL sees this demo's users alone. That has its time
// when Leasehold is installed: without it, a poll of the driver waits for it, and the end of the pod for that poll.
func (s *story) clear(ctx context.Context, text *page.Sheet) error {
	text.Now("the pods end")
	// Events go too: they are told by the names of pods that will be there again.
	const all = "kubectl delete deployments,pods,events --all -n shop --cascade=foreground --timeout=180s"
	if _, err := shell(ctx, all); err != nil {
		return err
	}
	text.Now("their users are revoked")
	if err := s.vault.Client.Sys().RevokePrefixWithContext(ctx, facts.CredsPath); err != nil {
		return fmt.Errorf("revoke the leases of an earlier demo: %w", err)
	}
	return until(ctx, 20*time.Second, func(ctx context.Context) error { return s.sides().OnlyOurs(ctx, nil) })
}
