// Package facts has the shop that every demo tells of, and what a demo verifies before it tells it: logins that have nothing
// in common, users and leases that are there and no others, figures of the provider.
package facts

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

// Login is what a pod found in its volume.
type Login struct{ User, Password string }

// Distinct tells whether every login is complete and has nothing in common with another.
func Distinct(logins []Login) error {
	users, passwords := make(map[string]bool), make(map[string]bool)
	for i, l := range logins {
		switch {
		case l.User == "" || l.Password == "":
			return fmt.Errorf("pod %d of %d has no user name or no password", i+1, len(logins))
		case users[l.User]:
			return fmt.Errorf("two pods have the same user, %s", l.User)
		case passwords[l.Password]:
			return errors.New("two pods have the same password")
		}
		users[l.User], passwords[l.Password] = true, true
	}
	return nil
}

// Exactly tells whether got holds what want holds, in any order.
func Exactly(what string, got, want []string) error {
	g, w := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(g, w) {
		return fmt.Errorf("%s: there are %d (%s), want these %d: %s", what, len(g), strings.Join(g, ", "), len(w), strings.Join(w, ", "))
	}
	return nil
}

// Mentions tells whether a message has all that it should.
func Mentions(message string, wants ...string) error {
	for _, want := range wants {
		if !strings.Contains(message, want) {
			return fmt.Errorf("the message does not say %q: %s", want, message)
		}
	}
	return nil
}

// Ask asks a question of PostgreSQL as a user, and reads the one row of the answer.
func Ask(ctx context.Context, postgres *bed.Postgres, who Login, question string, answer ...any) error {
	c, err := pgx.Connect(ctx, postgres.URL(who.User, who.Password))
	if err != nil {
		return fmt.Errorf("log in to PostgreSQL as %s: %w", who.User, err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := c.QueryRow(ctx, question).Scan(answer...); err != nil {
		return fmt.Errorf("ask PostgreSQL as %s: %w", who.User, err)
	}
	return nil
}

// Ending is something that ends by itself: a user of PostgreSQL, a lease of Vault.
type Ending struct {
	Name string
	At   time.Time
}

// Names returns the names alone.
func Names(all []Ending) []string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.Name
	}
	return names
}

// Users returns the users that Vault made for a database role, as PostgreSQL lists them. A role's name of more than 8 characters
// is cut in theirs.
func Users(ctx context.Context, postgres *bed.Postgres, role string) ([]Ending, error) {
	c, err := pgx.Connect(ctx, postgres.URL("postgres", postgres.Password))
	if err != nil {
		return nil, fmt.Errorf("log in to PostgreSQL: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	// Vault names them by who logged in, role, chance and time.
	rows, err := c.Query(ctx, `SELECT rolname, rolvaliduntil FROM pg_roles WHERE rolname LIKE $1 ORDER BY rolname`, "v-%-"+role+"-%")
	if err != nil {
		return nil, fmt.Errorf("list the users of PostgreSQL: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Ending, err error) {
		err = row.Scan(&e.Name, &e.At)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the users of PostgreSQL: %w", err)
	}
	return all, nil
}

// Leases returns the leases below a path, as Vault lists them.
func Leases(ctx context.Context, vault *bed.Vault, prefix string) ([]Ending, error) {
	ids, err := vault.Leases(ctx, prefix)
	if err != nil {
		return nil, err
	}
	all := make([]Ending, 0, len(ids))
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
		all = append(all, Ending{id, at})
	}
	return all, nil
}

// Figure sums the series of a metric in the text that Prometheus reads.
func Figure(metrics, name string) (float64, error) {
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
