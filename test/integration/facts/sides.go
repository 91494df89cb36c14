package facts

import (
	"context"
	"fmt"
	"slices"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/page"
)

// Sides are the two that know of a user: PostgreSQL, which has it, and Vault, which drops it when the lease ends.
type Sides struct {
	Postgres *bed.Postgres
	Vault    *bed.Vault
}

// OnlyOurs tells whether the users that Vault made are those of the logins.
func (s Sides) OnlyOurs(ctx context.Context, logins []Login) error {
	made, err := Users(ctx, s.Postgres, DatabaseRole)
	if err != nil {
		return err
	}
	return onlyOurs(made, logins)
}

func onlyOurs(made []Ending, logins []Login) error {
	want := make([]string, len(logins))
	for i, l := range logins {
		want[i] = l.User
	}
	return Exactly("users of PostgreSQL that Vault made", Names(made), want)
}

// Compare shows the users of the logins and their leases, and tells whether there is one of each for each login, with most
// of its life before it, and none besides.
func (s Sides) Compare(ctx context.Context, text *page.Sheet, logins []Login) error {
	made, err := Users(ctx, s.Postgres, DatabaseRole)
	if err != nil {
		return err
	}
	held, err := Leases(ctx, s.Vault, CredsPath)
	if err != nil {
		return err
	}
	rows := [][]string{{"PostgreSQL, pg_roles", "valid until (UTC)"}}
	for _, user := range made {
		rows = append(rows, []string{"  " + user.Name, user.At.UTC().Format(time.DateTime)})
	}
	rows = append(rows, []string{"Vault, sys/leases", "ends (UTC)"})
	for _, lease := range held {
		rows = append(rows, []string{"  " + lease.Name, lease.At.UTC().Format(time.DateTime)})
	}
	text.Table(rows...)
	if err := onlyOurs(made, logins); err != nil {
		return err
	}
	if len(held) != len(made) {
		return fmt.Errorf("there are %d leases for %d users", len(held), len(made))
	}
	for _, e := range slices.Concat(made, held) {
		if left := time.Until(e.At); left < Life/2 || left > Life+time.Minute {
			return fmt.Errorf("%s ends in %s, want about %s", e.Name, left.Round(time.Second), Life)
		}
	}
	text.Proved("One user and one lease for each pod, and none besides. Within the hour they are gone.")
	return nil
}
