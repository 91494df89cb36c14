package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// polls is how many the story waits for: three of each pod, more or less.
const polls = 6

// tally is what the provider has counted.
type tally struct {
	mounts   float64 // Mount calls of the driver that were answered with files
	requests float64 // requests to Vault
}

// provider returns the path of the one provider of this cluster, which has one node, at the API server.
func provider(ctx context.Context) (string, error) {
	pods, err := items[pod](ctx, "kubectl get pods -n leasehold-system --selector app.kubernetes.io/component=provider")
	if err != nil {
		return "", err
	}
	pods = slices.DeleteFunc(pods, func(p pod) bool { return !p.ready() })
	if len(pods) != 1 {
		return "", fmt.Errorf("%d pods of the provider are ready, want 1", len(pods))
	}
	return "/api/v1/namespaces/leasehold-system/pods/" + pods[0].Metadata.Name + ":8080/proxy", nil
}

// tallyOf asks a provider through the API server.
func tallyOf(ctx context.Context, provider string) (tally, error) {
	metrics, err := shell(ctx, "kubectl get --raw "+provider+"/metrics")
	if err != nil {
		return tally{}, err
	}
	return count(metrics)
}

// count reads a provider's figures.
func count(metrics string) (t tally, err error) {
	var answered strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, `code="OK"`) {
			answered.WriteString(line)
		}
	}
	var errs [2]error
	t.mounts, errs[0] = facts.Figure(answered.String(), "leasehold_mount_duration_seconds_count")
	t.requests, errs[1] = facts.Figure(metrics, "leasehold_vault_request_duration_seconds_count")
	return t, errors.Join(errs[:]...)
}

// quiet tells whether there were polls, all of them answered without Vault.
func quiet(before, after tally) error {
	switch {
	case before.requests == 0:
		return errors.New("the provider tells of no requests to Vault, where it must have logged in")
	case after.mounts-before.mounts < polls:
		return fmt.Errorf("the driver polled %g times, want %d", after.mounts-before.mounts, polls)
	case after.requests != before.requests:
		return fmt.Errorf("the polls made %g requests to Vault, want none", after.requests-before.requests)
	}
	return nil
}

func (s *story) poll(ctx context.Context, text *page.Sheet) error {
	provider, err := provider(ctx)
	if err != nil {
		return err
	}
	before, err := tallyOf(ctx, provider)
	if err != nil {
		return err
	}
	start, after := time.Now(), before
	err = until(ctx, 30*time.Second, func(ctx context.Context) error {
		if after, err = tallyOf(ctx, provider); err != nil {
			return err
		}
		n := after.mounts - before.mounts
		text.Now(fmt.Sprintf("%g of %d", n, polls))
		if n < polls {
			return fmt.Errorf("the driver polled %g times, want %d", n, polls)
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(start)
	if err := quiet(before, after); err != nil {
		return err
	}
	if err := s.sides().OnlyOurs(ctx, s.logins); err != nil {
		return err
	}
	for i, name := range s.pods {
		now, err := files(ctx, name)
		if err != nil {
			return err
		}
		if now != s.logins[i] {
			return fmt.Errorf("the files of the pod %s changed", name)
		}
	}
	text.Table(
		[]string{"polls", fmt.Sprintf("%g", after.mounts-before.mounts), fmt.Sprintf("in %s, counted by Leasehold", page.Clock(took))},
		[]string{"requests to Vault", "0", "counted by Leasehold"},
		[]string{"new users", "0", "as PostgreSQL lists them"},
		[]string{"files that changed", "0", "as the pods see them"},
	)
	return nil
}
