package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"leasehold/test/integration/bed"
)

// creation is what Vault has PostgreSQL do for each user.
var creation = []string{
	`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	`GRANT SELECT ON orders TO "{{name}}"`,
}

func (s *story) start(ctx context.Context, text *sheet) (err error) {
	if s.signer, err = bed.NewSigner(bed.ES256); err != nil {
		return err
	}
	lap := time.Now()
	passed := func() string {
		defer func() { lap = time.Now() }()
		return clock(time.Since(lap))
	}

	text.now("PostgreSQL")
	if s.postgres, err = s.bed.StartPostgres(ctx); err != nil {
		return err
	}
	root := login{"postgres", s.postgres.Password}
	if err := s.postgres.Exec(ctx, `CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2), (3)`); err != nil {
		return err
	}
	var version string
	if err := ask(ctx, s.postgres, root, `SELECT split_part(current_setting('server_version'), ' ', 1)`, &version); err != nil {
		return err
	}
	database := []string{"PostgreSQL " + version, s.postgres.Address, passed()}

	text.now("Vault")
	if s.vault, err = s.bed.StartVault(ctx, bed.VaultOptions{Audit: true}); err != nil {
		return err
	}
	health, err := s.vault.Client.Sys().HealthWithContext(ctx)
	if err != nil {
		return fmt.Errorf("ask Vault for its health: %w", err)
	}
	vault := []string{"Vault " + health.Version, strings.TrimPrefix(s.vault.Address, "http://"), passed()}

	text.now("the provider")
	if s.proxy, err = s.bed.StartTrouble(s.vault.Address); err != nil {
		return err
	}
	if s.provider, err = s.bed.StartProvider(ctx, bed.ProviderOptions{VaultAddress: s.proxy.Address}); err != nil {
		return err
	}
	if s.driver, err = s.bed.NewDriver(s.provider, s.signer); err != nil {
		return err
	}
	text.table(database, vault, []string{"Leasehold's provider", "unix socket " + filepath.Base(s.provider.Socket()), passed()})
	return nil
}

func (s *story) configure(ctx context.Context, text *sheet) error {
	hour := int(life.Seconds())
	for _, write := range []func() error{
		func() error { return s.vault.EnableDatabase(ctx, "database", s.postgres) },
		func() error {
			return s.vault.Write(ctx, "database/roles/db-app", map[string]any{
				"db_name": "postgres", "creation_statements": creation, "default_ttl": hour, "max_ttl": hour,
			})
		},
		func() error {
			return s.vault.Policy(ctx, "db-app", `path "`+credsPath+`" { capabilities = ["read"] }`)
		},
		func() error { return s.vault.EnableJWT(ctx, "kubernetes", s.signer) },
		func() error {
			return s.vault.JWTRole(ctx, "kubernetes", "db-app", bed.Role{
				ServiceAccounts: []string{"shop/cart"}, Policies: []string{"db-app"}, TTL: life,
			})
		},
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return s.showRole(ctx, text)
}

// showRole shows what the role db-app means: who may log in and what they may do, as Vault tells it, and the users.
func (s *story) showRole(ctx context.Context, text *sheet) error {
	const rolePath = "auth/kubernetes/role/db-app"
	role, err := s.vault.Client.Logical().ReadWithContext(ctx, rolePath)
	if err != nil {
		return fmt.Errorf("read %q: %w", rolePath, err)
	}
	if role == nil {
		return fmt.Errorf("read %q: nothing there", rolePath)
	}
	policy, err := s.vault.Client.Sys().GetPolicyWithContext(ctx, "db-app")
	if err != nil {
		return fmt.Errorf("read the policy db-app: %w", err)
	}
	claims, _ := role.Data["bound_claims"].(map[string]any)
	text.line(rolePath)
	text.table(
		[]string{"  who may log in", list(claims["sub"])},
		[]string{"  with a token for", list(role.Data["bound_audiences"])},
		[]string{"  what it may do", "policy " + list(role.Data["token_policies"])},
		[]string{"  how long", seconds(role.Data["token_ttl"])},
	)
	text.line("policy db-app")
	text.line("  " + policy)
	text.line("database/roles/db-app, for each read of " + credsPath)
	for _, statement := range creation {
		text.line("  " + statement)
	}
	text.line("  and after " + hours(life) + " Vault drops the role again")
	return nil
}

// list shows a list as Vault answers it.
func list(value any) string {
	values, _ := value.([]any)
	return strings.TrimSuffix(fmt.Sprintln(values...), "\n")
}

// seconds shows a number of seconds as Vault answers it.
func seconds(value any) string {
	d, err := time.ParseDuration(fmt.Sprint(value) + "s")
	if err != nil {
		return fmt.Sprint(value)
	}
	return hours(d)
}

// hours shows whole hours shortly.
func hours(d time.Duration) string { return strings.Replace(d.String(), "h0m0s", "h", 1) }

func (s *story) writeClass(_ context.Context, text *sheet) error {
	class, err := parseClass(classYAML)
	if err != nil {
		return err
	}
	s.parameters = class.Spec.Parameters
	text.quote(classYAML)
	return nil
}
