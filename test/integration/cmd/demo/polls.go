package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// tally is what the provider and the proxy before Vault have counted.
type tally struct {
	proxy           int     // requests that reached the proxy
	requests        float64 // requests to Vault, as the provider tells
	mounts, seconds float64 // Mount calls, and the time in them, as the provider tells
}

func (s *story) tally(ctx context.Context) (t tally, err error) {
	metrics, err := s.provider.Metrics(ctx)
	if err != nil {
		return t, err
	}
	t.proxy = requests(s.proxy, "")
	var errs [3]error
	t.requests, errs[0] = facts.Figure(metrics, "leasehold_vault_request_duration_seconds_count")
	t.mounts, errs[1] = facts.Figure(metrics, "leasehold_mount_duration_seconds_count")
	t.seconds, errs[2] = facts.Figure(metrics, "leasehold_mount_duration_seconds_sum")
	return t, errors.Join(errs[:]...)
}

// quiet tells whether n Mount calls have been answered without Vault.
func quiet(before, after tally, n int) error {
	switch {
	case before.proxy == 0 || before.requests != float64(before.proxy):
		return fmt.Errorf("before the polls the provider told of %g requests to Vault, and %d arrived", before.requests, before.proxy)
	case after.proxy != before.proxy || after.requests != before.requests:
		return fmt.Errorf("the polls made %d requests to Vault, and the provider tells of %g, want none",
			after.proxy-before.proxy, after.requests-before.requests)
	case after.mounts-before.mounts != float64(n):
		return fmt.Errorf("the provider tells of %g Mount calls, want %d", after.mounts-before.mounts, n)
	}
	return nil
}

func (s *story) poll(ctx context.Context, text *page.Sheet) error {
	before, err := s.tally(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	for i := range polls {
		if i%50 == 0 {
			text.Now(fmt.Sprintf("%d of %d", i, polls))
		}
		if _, err := s.volumes[i%len(s.volumes)].Mount(ctx); err != nil {
			return err
		}
	}
	each := time.Since(start) / polls
	after, err := s.tally(ctx)
	if err != nil {
		return err
	}
	if err := quiet(before, after, polls); err != nil {
		return err
	}
	if err := s.sides().OnlyOurs(ctx, s.logins); err != nil {
		return err
	}
	for i, v := range s.volumes {
		files, err := v.Files()
		if err != nil {
			return err
		}
		if loginOf(files) != s.logins[i] {
			return fmt.Errorf("the files of shop/%s changed", v.Pod.Name)
		}
	}
	inside := time.Duration((after.seconds - before.seconds) / polls * float64(time.Second))
	text.Table(
		[]string{"requests to Vault", "0", "counted by a proxy in front of Vault, and by the provider itself"},
		[]string{"new users", "0", "as PostgreSQL lists them"},
		[]string{"files that changed", "0", ""},
		[]string{"time of one poll", page.Clock(each), fmt.Sprintf("through the driver's code; %s of it in the provider", page.Clock(inside))},
	)
	return nil
}
