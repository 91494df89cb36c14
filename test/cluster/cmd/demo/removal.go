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

// remove deletes a pod of the Deployment, which then makes another one.
func (s *story) remove(ctx context.Context, text *page.Sheet) error {
	name, login := s.pods[0], s.logins[0]
	left, err := s.left(ctx, login.User)
	if err != nil {
		return err
	}
	leases, err := s.vault.Leases(ctx, facts.CredsPath)
	if err != nil {
		return err
	}
	end, err := endOf(ctx, text, name, login.User)
	if err != nil {
		return err
	}
	if err := s.denied(ctx, login); err != nil {
		return err
	}
	text.Now("another pod starts in its place")
	if err := wait(ctx, "kubectl rollout status deployment/cart -n shop --timeout=60s"); err != nil {
		return err
	}
	if s.pods, s.logins, err = carts(ctx); err != nil {
		return err
	}
	if slices.Contains(s.pods, name) {
		return fmt.Errorf("the pod %s is still there", name)
	}
	err = until(ctx, 10*time.Second, func(ctx context.Context) error {
		now, err := s.vault.Leases(ctx, facts.CredsPath)
		if err != nil {
			return err
		}
		return exchanged(leases, now)
	})
	if err != nil {
		return err
	}
	if err := s.sides().OnlyOurs(ctx, s.logins); err != nil {
		return err
	}
	text.Gap()
	text.Table(end.rows()...)
	text.Proved("The user went %s after its pod had ended, with %d minutes of its life before it. PostgreSQL refuses it, and Vault "+
		"has no lease of it any more: there are two, for the pod that stayed and for the new one, each with a user of its own.",
		page.Clock(max(end.dropped.Sub(end.over), 0)), left/time.Minute)
	return nil
}

// left returns how long a user may still live, as PostgreSQL says.
func (s *story) left(ctx context.Context, user string) (time.Duration, error) {
	users, err := facts.Users(ctx, s.postgres, facts.DatabaseRole)
	if err != nil {
		return 0, err
	}
	for _, u := range users {
		if u.Name == user {
			return time.Until(u.At), nil
		}
	}
	return 0, fmt.Errorf("PostgreSQL has no user %s", user)
}

// denied tells whether PostgreSQL refuses a login because there is no such user.
func (s *story) denied(ctx context.Context, login facts.Login) error {
	var user string
	err := facts.Ask(ctx, s.postgres, login, `SELECT current_user`, &user)
	if err == nil {
		return fmt.Errorf("PostgreSQL still lets %s in", login.User)
	}
	return facts.Mentions(err.Error(), "password authentication failed") // which is what it says of a user that is not there
}

// ending is the end of a pod and of its user.
type ending struct {
	asked   time.Time // somebody asked for it
	over    time.Time // the pod is in a final phase, so that its last container has ended, as the API server tells whoever watches
	gone    time.Time // the pod is deleted, as it tells as well
	dropped time.Time // PostgreSQL has the user no more
}

// note takes in a line of the watch, "TYPE PHASE". It tells whether there is more to come.
func (e *ending) note(line string, now time.Time) (more bool) {
	kind, phase, _ := strings.Cut(strings.TrimSpace(line), " ")
	if e.over.IsZero() && (phase == "Succeeded" || phase == "Failed" || kind == "DELETED") {
		e.over = now
	}
	if kind == "DELETED" {
		e.gone = now
	}
	return kind != "DELETED"
}

// rows tells it in the order in which it happened.
func (e ending) rows() [][]string {
	type event struct {
		at         time.Time
		what, says string
	}
	events := []event{
		{e.over, "its containers have ended", "the API server"},
		{e.dropped, "its user is gone", "PostgreSQL"},
		{e.gone, "the pod is deleted", "the API server"},
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	rows := make([][]string, len(events))
	for i, event := range events {
		rows[i] = []string{event.what, "after " + page.Clock(event.at.Sub(e.asked)), "says " + event.says}
	}
	return rows
}

// endOf deletes a pod of the shop, and watches it and its user go. PostgreSQL looks every 10 ms.
func endOf(ctx context.Context, text *page.Sheet, name, user string) (ending, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var end ending
	watching, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		begun := false
		watched <- lines(ctx, "kubectl get pods -n shop --field-selector metadata.name="+name+" --watch --output-watch-events "+
			`--output=jsonpath='{.type} {.object.status.phase}{"\n"}'`, func(line string) bool {
			if !begun {
				begun = true
				close(watching)
			}
			return end.note(line, time.Now())
		})
	}()
	var dropped time.Time
	gone := make(chan error, 1)
	go func() {
		_, err := shell(ctx, `PGOPTIONS="-c statement_timeout=60s" psql --quiet --command="DO \$\$ BEGIN
			WHILE EXISTS (SELECT FROM pg_roles WHERE rolname = '`+user+`') LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$"`)
		dropped = time.Now()
		gone <- err
	}()
	select {
	case <-watching:
	case err := <-watched:
		return ending{}, errors.Join(errUnwatched, err)
	}
	asked := time.Now()
	if err := show(ctx, text, "kubectl delete pod -n shop "+name); err != nil {
		return ending{}, err
	}
	text.Now("its user goes")
	if err := errors.Join(<-watched, <-gone); err != nil {
		return ending{}, err
	}
	if end.gone.IsZero() {
		return ending{}, errUnwatched
	}
	end.asked, end.dropped = asked, dropped
	return end, nil
}

var errUnwatched = errors.New("the watch of the pod ended before the pod")

// exchanged tells whether of two leases one is still there, and one has another in its place.
func exchanged(before, after []string) error {
	stayed := 0
	for _, id := range after {
		if slices.Contains(before, id) {
			stayed++
		}
	}
	if len(before) != 2 || len(after) != 2 || stayed != 1 {
		return fmt.Errorf("there were %d leases in Vault and are %d, of which %d are the same, want 2, 2 and 1", len(before), len(after), stayed)
	}
	return nil
}
