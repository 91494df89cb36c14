package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"leasehold/test/integration/bed"
)

// login is what a pod found in its volume.
type login struct{ user, password string }

// distinct tells whether every login is complete and has nothing in common with another.
func distinct(logins []login) error {
	users, passwords := make(map[string]bool), make(map[string]bool)
	for i, l := range logins {
		switch {
		case l.user == "" || l.password == "":
			return fmt.Errorf("pod %d of %d has no user name or no password", i+1, len(logins))
		case users[l.user]:
			return fmt.Errorf("two pods have the same user, %s", l.user)
		case passwords[l.password]:
			return errors.New("two pods have the same password")
		}
		users[l.user], passwords[l.password] = true, true
	}
	return nil
}

// exactly tells whether got holds what want holds, in any order.
func exactly(what string, got, want []string) error {
	g, w := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(g, w) {
		return fmt.Errorf("%s: there are %d (%s), want these %d: %s", what, len(g), strings.Join(g, ", "), len(w), strings.Join(w, ", "))
	}
	return nil
}

// ask asks a question of PostgreSQL as a user, and reads the one row of the answer.
func ask(ctx context.Context, postgres *bed.Postgres, who login, question string, answer ...any) error {
	c, err := pgx.Connect(ctx, postgres.URL(who.user, who.password))
	if err != nil {
		return fmt.Errorf("log in to PostgreSQL as %s: %w", who.user, err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := c.QueryRow(ctx, question).Scan(answer...); err != nil {
		return fmt.Errorf("ask PostgreSQL as %s: %w", who.user, err)
	}
	return nil
}

// ending is something that ends by itself: a user of PostgreSQL, a lease of Vault.
type ending struct {
	name string
	at   time.Time
}

func names(all []ending) []string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.name
	}
	return names
}

// users returns the users that Vault made, as PostgreSQL lists them.
func users(ctx context.Context, postgres *bed.Postgres) ([]ending, error) {
	c, err := pgx.Connect(ctx, postgres.URL("postgres", postgres.Password))
	if err != nil {
		return nil, fmt.Errorf("log in to PostgreSQL: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	rows, err := c.Query(ctx, `SELECT rolname, rolvaliduntil FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY rolname`)
	if err != nil {
		return nil, fmt.Errorf("list the users of PostgreSQL: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e ending, err error) {
		err = row.Scan(&e.name, &e.at)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the users of PostgreSQL: %w", err)
	}
	return all, nil
}

// leases returns the leases below a path, as Vault lists them.
func leases(ctx context.Context, vault *bed.Vault, prefix string) ([]ending, error) {
	ids, err := vault.Leases(ctx, prefix)
	if err != nil {
		return nil, err
	}
	all := make([]ending, 0, len(ids))
	for _, id := range ids {
		lease, err := vault.Client.Sys().LookupWithContext(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look the lease %s up: %w", id, err)
		}
		text, _ := lease.Data["expire_time"].(string)
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("the end of the lease %s: %w", id, err)
		}
		all = append(all, ending{id, at})
	}
	return all, nil
}

// requests sums what a proxy has counted, whatever the method; on one path, or on all if that is "".
func requests(proxy *bed.Trouble, path string) int {
	total := 0
	for request, n := range proxy.Requests() {
		if path == "" || strings.HasSuffix(request, " "+path) {
			total += n
		}
	}
	return total
}

// figure sums the series of a metric in the text that Prometheus reads.
func figure(metrics, name string) (float64, error) {
	sum, found := 0.0, false
	lines := bufio.NewScanner(strings.NewReader(metrics))
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if of, _, _ := strings.Cut(series, "{"); of != name {
			continue
		}
		// A label's value may hold a space: the figure is what follows the last one.
		value = value[strings.LastIndex(value, " ")+1:]
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("the provider's metric %s: %w", name, err)
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, fmt.Errorf("the provider has no metric %s", name)
	}
	return sum, lines.Err()
}
