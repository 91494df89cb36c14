package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

func (s *story) start(ctx context.Context, text *page.Sheet) (err error) {
	if s.signer, err = bed.NewSigner(bed.ES256); err != nil {
		return err
	}
	lap := time.Now()
	passed := func() string {
		defer func() { lap = time.Now() }()
		return page.Clock(time.Since(lap))
	}

	text.Now("PostgreSQL")
	if s.postgres, err = s.bed.StartPostgres(ctx); err != nil {
		return err
	}
	if err := facts.Stock(ctx, s.postgres); err != nil {
		return err
	}
	version, err := facts.PostgresVersion(ctx, s.postgres)
	if err != nil {
		return err
	}
	database := []string{"PostgreSQL " + version, s.postgres.Address, passed()}

	text.Now("Vault")
	if s.vault, err = s.bed.StartVault(ctx, bed.VaultOptions{Audit: true}); err != nil {
		return err
	}
	if version, err = facts.VaultVersion(ctx, s.vault); err != nil {
		return err
	}
	vault := []string{"Vault " + version, strings.TrimPrefix(s.vault.Address, "http://"), passed()}

	text.Now("the provider")
	if s.proxy, err = s.bed.StartTrouble(s.vault.Address); err != nil {
		return err
	}
	if s.provider, err = s.bed.StartProvider(ctx, bed.ProviderOptions{VaultAddress: s.proxy.Address}); err != nil {
		return err
	}
	if s.driver, err = s.bed.NewDriver(s.provider, s.signer); err != nil {
		return err
	}
	text.Table(database, vault, []string{"Leasehold's provider", "unix socket " + filepath.Base(s.provider.Socket()), passed()})
	return nil
}

func (s *story) configure(ctx context.Context, text *page.Sheet) error {
	for _, write := range []func() error{
		func() error { return s.vault.EnableDatabase(ctx, "database", s.postgres) },
		func() error { return facts.Allow(ctx, s.vault) },
		func() error { return s.vault.EnableJWT(ctx, "kubernetes", s.signer) },
		func() error {
			return s.vault.JWTRole(ctx, "kubernetes", "db-app", bed.Role{
				ServiceAccounts: []string{"shop/cart"}, Policies: []string{facts.Policy}, TTL: facts.Life,
			})
		},
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return facts.ShowRole(ctx, text, s.vault, func(role map[string]any) [][]string {
		claims, _ := role["bound_claims"].(map[string]any)
		return [][]string{
			{"  who may log in", facts.List(claims["sub"])},
			{"  with a token for", facts.List(role["bound_audiences"])},
		}
	})
}

func (s *story) writeClass(_ context.Context, text *page.Sheet) error {
	class, err := parseClass(classYAML)
	if err != nil {
		return err
	}
	s.parameters = class.Spec.Parameters
	text.Quote(classYAML)
	return nil
}
