package main

import (
	"context"
	"errors"
	"fmt"
	"time"
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
	t.requests, errs[0] = figure(metrics, "leasehold_vault_request_duration_seconds_count")
	t.mounts, errs[1] = figure(metrics, "leasehold_mount_duration_seconds_count")
	t.seconds, errs[2] = figure(metrics, "leasehold_mount_duration_seconds_sum")
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

func (s *story) poll(ctx context.Context, text *sheet) error {
	before, err := s.tally(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	for i := range polls {
		if i%50 == 0 {
			text.now(fmt.Sprintf("%d of %d", i, polls))
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
	made, err := users(ctx, s.postgres)
	if err != nil {
		return err
	}
	if err := s.onlyOurs(made); err != nil {
		return err
	}
	for i, v := range s.volumes {
		files, err := v.Files()
		if err != nil {
			return err
		}
		if (login{string(files["db-user"]), string(files["db-password"])}) != s.logins[i] {
			return fmt.Errorf("the files of shop/%s changed", v.Pod.Name)
		}
	}
	inside := time.Duration((after.seconds - before.seconds) / polls * float64(time.Second))
	text.table(
		[]string{"requests to Vault", "0", "counted by a proxy in front of Vault, and by the provider itself"},
		[]string{"new users", "0", "as PostgreSQL lists them"},
		[]string{"files that changed", "0", ""},
		[]string{"time of one poll", clock(each), fmt.Sprintf("through the driver's code; %s of it in the provider", clock(inside))},
	)
	return nil
}
