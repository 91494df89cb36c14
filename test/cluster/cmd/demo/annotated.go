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

// The pods of shop/billing are written for Vault's sidecar injector. Their credentials end within seconds, as those of
// shop/checkout do.
const (
	billing     = "billing"
	billingPath = "database/creds/" + billing
	billingLife = 12 * time.Second // of a lease, or of its renewal
	billingMost = 15 * time.Second // of a lease with all its renewals
	billingPods = 5

	billingLogs = "kubectl logs -n shop --selector app=billing --prefix --tail=1"
	madeClasses = "kubectl get secretproviderclasses -n shop --selector leasehold.dev/made-by=webhook"
)

func (s *story) annotated(ctx context.Context, text *page.Sheet) error {
	if err := s.allow(ctx, billing, "billing", billingLife, billingMost); err != nil {
		return err
	}
	annotations, err := excerptOf("billing.yaml", "annotations:")
	if err != nil {
		return err
	}
	text.Line("of " + folder + "billing.yaml, where nothing speaks of Leasehold")
	text.Quote(annotations)
	if err := show(ctx, text, "kubectl apply -f "+folder+"billing.yaml"); err != nil {
		return err
	}
	text.Now("five pods start")
	if err := wait(ctx, "kubectl rollout status deployment/billing -n shop --timeout=120s"); err != nil {
		return err
	}
	for _, command := range []string{"kubectl get pods -n shop --selector app=billing", madeClasses} {
		if err := show(ctx, text, command); err != nil {
			return err
		}
	}
	if s.billing, err = s.single(ctx); err != nil {
		return err
	}
	text.Now("waiting for the pods' first words")
	var said string
	err = until(ctx, 20*time.Second, func(ctx context.Context) (err error) {
		if said, err = shell(ctx, billingLogs); err != nil {
			return err
		}
		s.bills, err = bills(said, s.billing)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.present(ctx, s.bills); err != nil {
		return err
	}
	text.Command(billingLogs)
	text.Quote(said)
	text.Proved("Five pods of one container each, one class that the webhook made for all of them, five users.")
	return nil
}

// single returns the names of the pods of shop/billing. Each must have one container, which is its own, and there must be one
// class for all.
func (s *story) single(ctx context.Context) ([]string, error) {
	type deployed struct {
		pod
		Spec struct {
			Containers, InitContainers []struct{ Name string }
		}
	}
	pods, err := items[deployed](ctx, "kubectl get pods -n shop --selector app=billing")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pods {
		if !p.ready() || len(p.Spec.Containers) != 1 || len(p.Spec.InitContainers) != 0 {
			return nil, fmt.Errorf("the pod %s is not ready or has a container that is not its own", p.Metadata.Name)
		}
		names = append(names, p.Metadata.Name)
	}
	if len(names) != billingPods {
		return nil, fmt.Errorf("there are %d pods of shop/billing, want %d", len(names), billingPods)
	}
	classes, err := items[struct{}](ctx, madeClasses)
	if err == nil && len(classes) != 1 {
		err = fmt.Errorf("the webhook made %d classes, want one for all pods", len(classes))
	}
	return names, err
}

// bills reads which user each pod of shop/billing is in PostgreSQL's own words. No two may be one.
func bills(log string, pods []string) (map[string]string, error) {
	said, err := answers(log, pods)
	if err != nil {
		return nil, err
	}
	users := make(map[string]string, len(said))
	seen := make(map[string]string, len(said))
	for pod, words := range said {
		user, orders, _ := strings.Cut(words, "|")
		if !strings.HasPrefix(user, "v-") || orders != fmt.Sprint(facts.Orders) {
			return nil, fmt.Errorf("the pod %s says %q, want its user and %d orders", pod, words, facts.Orders)
		}
		if seen[user] != "" {
			return nil, fmt.Errorf("the pods %s and %s are one user, %s", pod, seen[user], user)
		}
		users[pod], seen[user] = user, pod
	}
	return users, nil
}

// present tells whether PostgreSQL has all of these users. It may have more of the role: former ones, which are ending.
func (s *story) present(ctx context.Context, users map[string]string) error {
	all, err := facts.Users(ctx, s.postgres, billing)
	if err != nil {
		return err
	}
	for pod, user := range users {
		if !slices.Contains(facts.Names(all), user) {
			return fmt.Errorf("PostgreSQL has no user %s, which the pod %s is", user, pod)
		}
	}
	return nil
}

func (s *story) rotateAll(ctx context.Context, text *page.Sheet) error {
	var present map[string]string
	err := until(ctx, 60*time.Second, func(ctx context.Context) error {
		said, err := shell(ctx, billingLogs)
		if err != nil {
			return err
		}
		if present, err = bills(said, s.billing); err != nil {
			return err
		}
		n := others(s.bills, present)
		text.Now(fmt.Sprintf("%d of %d", n, billingPods))
		if n < billingPods {
			return fmt.Errorf("%d of %d pods have another user", n, billingPods)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.present(ctx, present); err != nil {
		return err
	}
	var rows [][]string
	for _, pod := range s.billing {
		rows = append(rows, []string{pod, "is now", present[pod]})
	}
	log, err := shell(ctx, "kubectl logs -n shop --selector app=billing --tail=-1")
	if err != nil {
		return err
	}
	queries, err := answered(log)
	if err != nil {
		return err
	}
	again, err := s.single(ctx)
	if err != nil {
		return err
	}
	if !slices.Equal(again, s.billing) {
		return fmt.Errorf("the pods of shop/billing are %v, and were %v", again, s.billing)
	}
	s.bills = present
	text.Table(rows...)
	text.Proved("The same five pods, five other users. There were %d queries so far, and none failed.", queries)
	return nil
}

// others counts the pods that have another user than before.
func others(before, now map[string]string) (n int) {
	for pod, user := range now {
		if user != before[pod] {
			n++
		}
	}
	return n
}

// answered counts the answers in what pods of shop/billing wrote. Anything else that they wrote is of a query that failed.
func answered(log string) (n int, err error) {
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "v-") || !strings.HasSuffix(line, fmt.Sprintf("|%d", facts.Orders)) {
			return 0, fmt.Errorf("a query of shop/billing failed: %s", line)
		}
		n++
	}
	if n == 0 {
		return 0, errors.New("the pods of shop/billing have said nothing")
	}
	return n, nil
}

// scale ends all pods of shop/billing but one.
func (s *story) scale(ctx context.Context, text *page.Sheet) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ended := make(map[string]bool)
	watching, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		told := 0
		watched <- lines(ctx, "kubectl get pods -n shop --selector app=billing --watch --output-watch-events "+
			`--output=jsonpath='{.object.metadata.name} {.type} {.object.status.phase}{"\n"}'`, func(line string) bool {
			if told++; told == billingPods {
				close(watching)
			}
			name, event, _ := strings.Cut(line, " ")
			var end ending
			if end.note(event, time.Now()); !end.over.IsZero() {
				ended[name] = true
			}
			return len(ended) < billingPods-1
		})
	}()
	select {
	case <-watching:
	case err := <-watched:
		return errors.Join(errUnwatched, err)
	}
	asked := time.Now()
	if err := show(ctx, text, "kubectl scale deployment billing -n shop --replicas=1"); err != nil {
		return err
	}
	text.Now("four pods end")
	if err := <-watched; err != nil || len(ended) != billingPods-1 {
		return errors.Join(errUnwatched, err)
	}
	over := time.Now()
	text.Now("their users go")
	for {
		left, err := facts.Users(ctx, s.postgres, billing)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(left, func(u facts.Ending) bool { return s.of(u.Name, ended) }) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	dropped := time.Now()
	if err := show(ctx, text, "kubectl get pods -n shop --selector app=billing"); err != nil {
		return err
	}
	text.Gap()
	text.Table(
		[]string{"the containers of four pods have ended", "after " + page.Clock(over.Sub(asked)), "says the API server"},
		[]string{"the users of all four are gone", "after " + page.Clock(dropped.Sub(asked)), "says PostgreSQL"},
	)
	text.Proved("Four pods less, and %s later four users less. The pod that stays goes on with its own.", page.Clock(dropped.Sub(over)))
	return nil
}

// of tells whether a user is that of one of these pods of shop/billing.
func (s *story) of(user string, pods map[string]bool) bool {
	for pod, has := range s.bills {
		if has == user && pods[pod] {
			return true
		}
	}
	return false
}
