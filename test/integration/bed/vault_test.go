package bed_test

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
)

func startVault(t *testing.T, b *bed.Bed, o bed.VaultOptions) *bed.Vault {
	t.Helper()
	v, err := b.StartVault(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestVaultRestartKeepsData(t *testing.T) {
	v := startVault(t, bedtest.Open(t), bed.VaultOptions{Audit: true})
	ctx := t.Context()
	check(t, "enable", v.EnableKV(ctx, "kv", 2))
	check(t, "put", v.PutKV2(ctx, "kv", "app", map[string]any{"word": "first"}))
	address := v.Address
	check(t, "restart", v.Restart(ctx))
	check(t, "kill", v.Kill())
	check(t, "start", v.Start(ctx))
	if v.Address != address {
		t.Errorf("address: got %s, want the same as before, %s", v.Address, address)
	}
	answer, err := v.Client.KVv2("kv").Get(ctx, "app")
	check(t, "get", err)
	if got := answer.Data["word"]; got != "first" {
		t.Errorf("secret after two restarts: got %v, want %q", got, "first")
	}
}

func TestVaultInMemoryForgets(t *testing.T) {
	v := startVault(t, bedtest.Open(t), bed.VaultOptions{InMemory: true})
	root := v.RootToken
	check(t, "enable", v.EnableKV(t.Context(), "kv", 1))
	check(t, "restart", v.Restart(t.Context()))
	if v.RootToken == root {
		t.Error("root token: got the same after a restart, want a new Vault")
	}
	check(t, "enable again", v.EnableKV(t.Context(), "kv", 1))
}

func TestVaultSeals(t *testing.T) {
	v := startVault(t, bedtest.Open(t), bed.VaultOptions{InMemory: true})
	ctx := t.Context()
	check(t, "seal", v.Seal(ctx))
	_, err := v.Tokens(ctx)
	if got := status(err); got != http.StatusServiceUnavailable {
		t.Errorf("sealed: got status %d (%v), want 503", got, err)
	}
	check(t, "unseal", v.Unseal(ctx))
	if _, err := v.Tokens(ctx); err != nil {
		t.Errorf("unsealed: got error %v", err)
	}
}

func status(err error) int {
	if e := (*api.ResponseError)(nil); errors.As(err, &e) {
		return e.StatusCode
	}
	return 0
}

func TestVaultClientCerts(t *testing.T) {
	b := bedtest.Open(t)
	v := startVault(t, b, bed.VaultOptions{InMemory: true, ClientCerts: true})
	if !strings.HasPrefix(v.Address, "https://") {
		t.Errorf("address: got %s, want https", v.Address)
	}
	other, err := b.NewAuthority()
	check(t, "authority", err)
	stranger, err := other.Client("stranger")
	check(t, "issue", err)
	for _, row := range []struct {
		name string
		ca   string
		own  bed.KeyPair
		ok   bool
	}{
		{"right", v.Authority.CertFile, v.Identity, true},
		{"wrong authority", other.CertFile, v.Identity, false},
		{"wrong certificate", v.Authority.CertFile, stranger, false},
		{"no certificate", v.Authority.CertFile, bed.KeyPair{}, false},
	} {
		config := api.DefaultConfig()
		config.Address, config.MaxRetries = v.Address, 0
		check(t, row.name, config.ConfigureTLS(&api.TLSConfig{CACert: row.ca, ClientCert: row.own.CertFile, ClientKey: row.own.KeyFile}))
		client, err := api.NewClient(config)
		check(t, row.name, err)
		if _, err := client.Sys().SealStatusWithContext(t.Context()); (err == nil) != row.ok {
			t.Errorf("%s: got error %v, want success %t", row.name, err, row.ok)
		}
	}
}

func TestVaultSaysWhyItDidNotStart(t *testing.T) {
	t.Setenv("VAULT_BIN", "/bin/false")
	_, err := bedtest.Open(t).StartVault(t.Context(), bed.VaultOptions{})
	if err == nil || !strings.Contains(err.Error(), "vault ended before it was ready: exit status 1") {
		t.Errorf("got error %v, want one that says that it ended", err)
	}
	t.Setenv("VAULT_BIN", "/no/such/vault")
	_, err = bedtest.Open(t).StartVault(t.Context(), bed.VaultOptions{})
	if err == nil || !strings.Contains(err.Error(), "VAULT_BIN") {
		t.Errorf("got error %v, want one that names VAULT_BIN", err)
	}
}

// TestStory walks the way of a pod: log in, read everything, see the user in PostgreSQL, end the token.
func TestStory(t *testing.T) {
	b := bedtest.Open(t)
	ctx := t.Context()
	v := startVault(t, b, bed.VaultOptions{Audit: true, MaxLeaseTTL: time.Hour})
	postgres, err := b.StartPostgres(ctx)
	check(t, "postgresql", err)
	signer, err := bed.NewSigner(bed.RS256)
	check(t, "signer", err)
	check(t, "story", v.Story(ctx, postgres, signer, bed.DatabaseRole{TTL: time.Minute}))
	check(t, "put", v.PutKV1(ctx, "kv1", "app", map[string]any{"password": "correct horse", "username": "not-a-secret"}))
	check(t, "put", v.PutKV2(ctx, "kv", "app", map[string]any{"nested": map[string]any{"x": "battery <staple>"}}))

	pod := bed.Pod{Namespace: "apps", Name: "db-app-1", UID: "11111111-2222-4333-8444-555555555555", ServiceAccount: "db-app"}
	jwt, err := signer.Token(pod, "vault", time.Hour)
	check(t, "token", err)
	before, err := v.Tokens(ctx)
	check(t, "tokens", err)
	client, err := v.Login(ctx, "kubernetes", "db-app", jwt)
	check(t, "login", err)

	pod.ServiceAccount = "other"
	other, err := signer.Token(pod, "vault", time.Hour)
	check(t, "token", err)
	if _, err := v.Login(ctx, "kubernetes", "db-app", other); status(err) != http.StatusBadRequest {
		t.Errorf("login of a service account that is not bound: got %v, want 400", err)
	}

	creds, err := client.Logical().ReadWithContext(ctx, "database/creds/db-app")
	check(t, "creds", err)
	static, err := client.Logical().ReadWithContext(ctx, "database/static-creds/db-static")
	check(t, "static", err)
	_, err = client.Logical().ReadWithContext(ctx, "kv1/app")
	check(t, "kv1", err)
	_, err = client.Logical().ReadWithContext(ctx, "kv/data/app")
	check(t, "kv", err)
	cert, err := client.Logical().WriteWithContext(ctx, "pki/issue/web", map[string]any{"common_name": "app.example"})
	check(t, "pki", err)
	for _, s := range []*api.Secret{creds, static} {
		check(t, "log in", postgres.Login(ctx, text(s, "username"), text(s, "password")))
	}
	if err := postgres.Login(ctx, text(creds, "username"), "wrong"); err == nil {
		t.Error("login with a wrong password: got no error")
	}

	roles, err := postgres.Roles(ctx)
	check(t, "roles", err)
	if want := []string{text(creds, "username")}; !slices.Equal(roles, want) {
		t.Errorf("users that Vault made: got %q, want %q", roles, want)
	}
	leases, err := v.Leases(ctx, "database/creds")
	check(t, "leases", err)
	if want := []string{creds.LeaseID}; !slices.Equal(leases, want) {
		t.Errorf("leases: got %q, want %q", leases, want)
	}
	during, err := v.Tokens(ctx)
	check(t, "tokens", err)
	if got, want := len(during), len(before)+1; got != want {
		t.Errorf("tokens: got %d, want %d", got, want)
	}
	check(t, "revoke", client.Auth().Token().RevokeSelfWithContext(ctx, ""))
	after, err := v.Tokens(ctx)
	check(t, "tokens", err)
	if got, want := len(after), len(before); got != want {
		t.Errorf("tokens after the end: got %d, want %d", got, want)
	}

	secrets, err := bed.Secrets(v.AuditFile)
	check(t, "secrets", err)
	for name, want := range map[string]string{
		"root token": v.RootToken, "token": client.Token(), "jwt": jwt, "refused jwt": other,
		"password": text(creds, "password"), "static password": text(static, "password"), "superuser": postgres.Password,
		"kv1": "correct horse", "kv2": "battery <staple>", "private key": text(cert, "private_key"),
	} {
		if !slices.Contains(secrets, want) {
			t.Errorf("secrets of the audit file: %s is missing", name)
		}
	}
	for _, no := range []string{text(creds, "username"), "not-a-secret", "kubernetes", "database", creds.LeaseID, "postgres"} {
		if slices.Contains(secrets, no) {
			t.Errorf("secrets of the audit file: %q is none", no)
		}
	}
	audit, err := os.ReadFile(v.AuditFile)
	check(t, "audit", err)
	if got := len(bed.Leaks(secrets, map[string][]byte{"audit": audit})); got < len(secrets) {
		t.Errorf("leaks in the audit file itself: got %d, want at least one for each of %d secrets", got, len(secrets))
	}
}

func text(s *api.Secret, key string) string {
	value, _ := s.Data[key].(string)
	return value
}
