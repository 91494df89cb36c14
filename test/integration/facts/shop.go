package facts

import (
	"context"
	"fmt"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/page"
)

// What every demo tells of is a shop, whose pods may look at its orders as long as they have a user of PostgreSQL.
const (
	CredsPath = "database/creds/db-app" // each read of it makes a user
	RolePath  = "auth/kubernetes/role/db-app"
	Policy    = "db-app"

	// DatabaseRole is the one that those users are of.
	DatabaseRole = "db-app"

	// Life is that of a pod's Vault token, and of the user that hangs on it.
	Life = time.Hour

	// Question is what a pod asks of PostgreSQL. The answer has the pod's user and Orders.
	Question = `SELECT current_user, count(*) FROM orders`
	Orders   = 3
)

// creation is what Vault has PostgreSQL do for each user.
var creation = []string{
	`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	`GRANT SELECT ON orders TO "{{name}}"`,
}

// Stock makes the table that the shop's pods look at. It may be there already.
func Stock(ctx context.Context, postgres *bed.Postgres) error {
	return postgres.Exec(ctx, `CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY);
		INSERT INTO orders SELECT generate_series(1, `+fmt.Sprint(Orders)+`) ON CONFLICT DO NOTHING`)
}

// Allow writes into Vault what a user may do in PostgreSQL, and the policy that lets a token have one. The database engine
// must be there, at database.
func Allow(ctx context.Context, vault *bed.Vault) error {
	err := vault.Write(ctx, "database/roles/db-app", map[string]any{
		"db_name": "postgres", "creation_statements": creation, "default_ttl": int(Life.Seconds()), "max_ttl": int(Life.Seconds()),
	})
	if err != nil {
		return err
	}
	return vault.Policy(ctx, Policy, `path "`+CredsPath+`" { capabilities = ["read"] }`)
}

// ShowRole shows what the Vault role means, as Vault tells it: who may log in, in the rows that who makes of the role, what
// they may do, and which users that makes.
func ShowRole(ctx context.Context, text *page.Sheet, vault *bed.Vault, who func(role map[string]any) [][]string) error {
	role, err := Read(ctx, vault, RolePath)
	if err != nil {
		return err
	}
	policy, err := vault.Client.Sys().GetPolicyWithContext(ctx, Policy)
	if err != nil {
		return fmt.Errorf("read the policy %s: %w", Policy, err)
	}
	text.Line(RolePath)
	text.Table(append(who(role),
		[]string{"  what it may do", "policy " + List(role["token_policies"])},
		[]string{"  how long", Seconds(role["token_ttl"])},
	)...)
	text.Line("policy " + Policy)
	text.Line("  " + policy)
	text.Line("database/roles/db-app, for each read of " + CredsPath)
	for _, statement := range creation {
		text.Line("  " + statement)
	}
	text.Line("  and after " + hours(Life) + " Vault drops the role again")
	return nil
}
