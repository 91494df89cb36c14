package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// The credentials of the pod shop/checkout end within seconds, so that the story can wait for it.
const (
	brief     = "db-brief"
	briefPath = "database/creds/" + brief
	briefLife = 8 * time.Second  // of a lease, or of its renewal
	briefMost = 10 * time.Second // of a lease with all its renewals

	status = "kubectl exec -n leasehold-system daemonset/leasehold-provider -- /provider status"
)

func (s *story) rotate(ctx context.Context, text *page.Sheet) error {
	if err := s.allow(ctx, brief, "checkout", briefLife, briefMost); err != nil {
		return err
	}
	text.Line("database/roles/" + brief)
	text.Line(fmt.Sprintf("  a user lives for %s, and for %s at most, however often its lease is renewed", briefLife, briefMost))
	if err := show(ctx, text, "kubectl apply -f "+folder+"checkout.yaml"); err != nil {
		return err
	}
	text.Now("the pod starts")
	if err := wait(ctx, "kubectl wait pod/checkout -n shop --for=condition=Ready --timeout=60s"); err != nil {
		return err
	}
	before, err := containerOf(ctx)
	if err != nil {
		return err
	}
	former, err := checkoutUser(ctx)
	if err != nil {
		return err
	}
	seen := time.Now()
	// What an operator sees of it.
	held, err := shell(ctx, status)
	if err != nil {
		return err
	}
	if err := facts.Mentions(held, "shop/checkout", briefPath, "shop/"+s.pods[0], "shop/"+s.pods[1], facts.CredsPath); err != nil {
		return err
	}
	text.Command(status)
	text.Quote(held)

	present, err := s.replaced(ctx, text, former)
	if err != nil {
		return err
	}
	replaced := time.Now()
	text.Now("the former user ends")
	err = until(ctx, 30*time.Second, func(ctx context.Context) error {
		users, err := facts.Users(ctx, s.postgres, brief)
		if err == nil && slices.Contains(facts.Names(users), former) {
			err = fmt.Errorf("the user %s, which has been replaced, is still there", former)
		}
		return err
	})
	if err != nil {
		return err
	}
	ended := time.Now()
	text.Now("what the pod says of its queries")
	var said stream
	err = until(ctx, 10*time.Second, func(ctx context.Context) error {
		log, err := shell(ctx, "kubectl logs -n shop checkout")
		if err != nil {
			return err
		}
		if said, err = streamOf(log); err == nil && said.Time.Before(ended) {
			err = errors.New("the pod shop/checkout has said nothing since its former user ended")
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := show(ctx, text, "kubectl logs -n shop checkout --tail=1 | jq --compact-output '{queries, failed, users}'"); err != nil {
		return err
	}
	after, err := containerOf(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the pod's container was not left alone: it was %+v, and is %+v", before, after)
	}
	span := said.Time.Sub(before.Started)
	if err := said.flawless(span); err != nil {
		return err
	}
	text.Gap()
	text.Table(
		[]string{"in the pod's files at first", former},
		[]string{fmt.Sprintf("and %.0f s later", replaced.Sub(seen).Seconds()), present},
		[]string{"both users were there", fmt.Sprintf("for %.0f s more; then the former ended by itself, with its lease", ended.Sub(replaced).Seconds())},
		[]string{"the container", "is the same, and was never restarted"},
	)
	text.Proved("In %.0f s there were %d queries, each on a connection of its own, as %d users one after the other. None failed.",
		span.Seconds(), said.Queries, said.Users)
	return nil
}

// allow writes into Vault that the pods of a service account of the shop may have users which live so long. Auth role, policy
// and database role have one name.
func (s *story) allow(ctx context.Context, role, account string, life, most time.Duration) error {
	err := s.vault.Write(ctx, "database/roles/"+role, map[string]any{
		"db_name": "postgres",
		"creation_statements": []string{
			`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
			`GRANT SELECT ON orders TO "{{name}}"`,
		},
		"default_ttl": int(life.Seconds()),
		"max_ttl":     int(most.Seconds()),
	})
	if err != nil {
		return err
	}
	if err := s.vault.Policy(ctx, role, `path "database/creds/`+role+`" { capabilities = ["read"] }`); err != nil {
		return err
	}
	return s.vault.Write(ctx, "auth/kubernetes/role/"+role, map[string]any{
		"bound_service_account_names":      []string{account},
		"bound_service_account_namespaces": []string{"shop"},
		"audience":                         "vault",
		"token_policies":                   []string{role},
		"token_ttl":                        int(facts.Life.Seconds()),
	})
}

// replaced waits until the pod's files name another user than the former one, and returns it. Both must be there at that
// moment.
func (s *story) replaced(ctx context.Context, text *page.Sheet, former string) (present string, err error) {
	text.Now("its lease comes to its end")
	err = until(ctx, 30*time.Second, func(ctx context.Context) (err error) {
		present, err = checkoutUser(ctx)
		if err == nil && present == former {
			err = fmt.Errorf("the pod's files still name the user %s", former)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	users, err := facts.Users(ctx, s.postgres, brief)
	if err != nil {
		return "", err
	}
	return present, facts.Exactly("users of the pod shop/checkout", facts.Names(users), []string{former, present})
}

// checkoutUser returns the user in the files of the pod shop/checkout, as the pod sees them.
func checkoutUser(ctx context.Context) (string, error) {
	return shell(ctx, "kubectl exec -n shop checkout -- cat /secrets/db/username")
}

// container is what would change if somebody had touched the container of the pod shop/checkout.
type container struct {
	Pod, ID  string
	Restarts int
	Started  time.Time // a whole second
}

func containerOf(ctx context.Context) (container, error) {
	type status struct {
		ContainerID  string
		RestartCount int
		State        struct{ Running struct{ StartedAt time.Time } }
	}
	type checkout struct {
		Metadata struct{ UID string }
		Status   struct{ ContainerStatuses []status }
	}
	pods, err := items[checkout](ctx, "kubectl get pods -n shop --selector app=checkout")
	if err != nil {
		return container{}, err
	}
	if len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 {
		return container{}, fmt.Errorf("there are %d pods checkout, want 1 with one container", len(pods))
	}
	c := pods[0].Status.ContainerStatuses[0]
	if c.State.Running.StartedAt.IsZero() {
		return container{}, errors.New("the container of the pod shop/checkout does not run")
	}
	return container{pods[0].Metadata.UID, c.ContainerID, c.RestartCount, c.State.Running.StartedAt}, nil
}

// stream is what the pod shop/checkout says of its queries.
type stream struct {
	Time                   time.Time
	Queries, Failed, Users int
}

// streamOf reads what the pod has said last. It also says something of every query that fails, which is an error.
func streamOf(log string) (last stream, err error) {
	for line := range strings.Lines(log) {
		var said struct {
			stream
			User, Error string
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			return stream{}, fmt.Errorf("the pod shop/checkout says %q: %w", line, err)
		}
		if said.Error != "" {
			return stream{}, fmt.Errorf("a query of the pod shop/checkout failed, as %s: %s", said.User, said.Error)
		}
		last = said.stream
	}
	if last.Time.IsZero() {
		return stream{}, errors.New("the pod shop/checkout has said nothing")
	}
	return last, nil
}

// flawless tells whether the pod has queried all the time, with more than one user, and no query failed.
func (s stream) flawless(span time.Duration) error {
	switch {
	case s.Failed > 0:
		return fmt.Errorf("%d of %d queries failed", s.Failed, s.Queries)
	case s.Users < 2:
		return fmt.Errorf("the queries were of %d users, want 2", s.Users)
	// Ten a second are asked for, and a busy machine may give less.
	case float64(s.Queries) < 2*span.Seconds():
		return fmt.Errorf("there were %d queries in %s, want ten a second", s.Queries, span)
	}
	return nil
}
