package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"leasehold/test/integration/bed"
)

// world is what measurements share: a bed, and in it what has been asked for.
type world struct {
	bed      *bed.Bed
	programs string // directory of this program and the others that the Makefile builds
	known    *stores
	count    int // makes names unique
}

// stores are the servers that a provider speaks to.
type stores struct {
	postgres *bed.Postgres
	vault    *bed.Vault
	signer   *bed.Signer
}

func newWorld() (*world, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := bed.Open()
	if err != nil {
		return nil, err
	}
	return &world{bed: b, programs: filepath.Dir(program)}, nil
}

func (w *world) close() error { return w.bed.Close() }

// program returns the path of a program that the Makefile builds beside this one.
func (w *world) program(name string) (string, error) {
	path := filepath.Join(w.programs, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; \"make bench\" builds it", err)
	}
	return path, nil
}

// unique returns a name that nothing else has.
func (w *world) unique(prefix string) string {
	w.count++
	return fmt.Sprintf("%s-%d", prefix, w.count)
}

// The role whose credentials live for an hour, and the secret beside them.
const (
	hourRole = "hour"
	secret   = "kv/data/app"
)

// stores starts PostgreSQL and Vault when they are first asked for. Vault keeps its storage in memory, which makes it as
// quick as it can be: what comes on top of its own time shows the more.
func (w *world) stores(ctx context.Context) (*stores, error) {
	if w.known != nil {
		return w.known, nil
	}
	s := &stores{}
	var err error
	if s.postgres, err = w.bed.StartPostgres(ctx); err != nil {
		return nil, err
	}
	if s.vault, err = w.bed.StartVault(ctx, bed.VaultOptions{InMemory: true}); err != nil {
		return nil, err
	}
	if s.signer, err = bed.NewSigner(bed.ES256); err != nil {
		return nil, err
	}
	v := s.vault
	err = errors.Join(
		v.EnableJWT(ctx, "kubernetes", s.signer),
		v.EnableDatabase(ctx, "database", s.postgres),
		v.EnableKV(ctx, "kv", 2),
		v.PutKV2(ctx, "kv", "app", map[string]any{"word": "xyzzy"}),
		v.Policy(ctx, "app", bed.MayRead("database/creds/*", secret)),
		s.role(ctx, hourRole, time.Hour, 24*time.Hour),
	)
	if err != nil {
		return nil, err
	}
	w.known = s
	return s, nil
}

// role makes a Vault role and a database role of one name, whose tokens and leases live so long, and with renewals no
// longer than most.
func (s *stores) role(ctx context.Context, name string, ttl, most time.Duration) error {
	return errors.Join(
		s.vault.AddDatabaseRole(ctx, "database", name, bed.DatabaseRole{TTL: ttl, MaxTTL: most}),
		s.vault.JWTRole(ctx, "kubernetes", name, bed.Role{
			ServiceAccounts: []string{appsSpace + "/" + appAccount}, Policies: []string{"app"}, TTL: ttl, MaxTTL: 24 * time.Hour,
		}))
}

// tokens signs service account tokens for logins that no Mount makes.
func (s *stores) tokens(count int) ([]string, error) {
	tokens := make([]string, count)
	for i := range tokens {
		var err error
		pod := bed.Pod{Namespace: appsSpace, Name: "bare", UID: "00000000-0000-4000-8000-000000000003", ServiceAccount: appAccount}
		if tokens[i], err = s.signer.Token(pod, "vault", time.Hour); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// credentials are the objects of a class that shows a database user of a role.
func credentials(role string) string {
	return fmt.Sprintf("- {objectName: username, secretPath: database/creds/%[1]s, secretKey: username}\n"+
		"- {objectName: password, secretPath: database/creds/%[1]s, secretKey: password}\n", role)
}

// withSecret are those of the role that lives for an hour, and a file of a KV secret: what most measurements mount.
func withSecret() string {
	return credentials(hourRole) + "- {objectName: word, secretPath: " + secret + ", secretKey: word}\n"
}
