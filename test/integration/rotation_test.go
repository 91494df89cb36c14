package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"leasehold/test/integration/bed"
)

// changesBySelf waits until the volume's files have changed though nobody polls.
func changesBySelf(t testing.TB, v *bed.Volume, before map[string]string) {
	t.Helper()
	eventually(t, "new files", func(context.Context) error {
		if maps.Equal(files(t, v), before) {
			return errors.New("they have not changed")
		}
		return nil
	})
	logIn(t, v)
}

// TestReplacedWithoutPolls has the provider write new credentials into a volume by itself, before the old ones end.
func TestReplacedWithoutPolls(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	must(t, "database role", shared.vault.AddDatabaseRole(t.Context(), "database", name, bed.DatabaseRole{TTL: 10 * time.Second, MaxTTL: 20 * time.Second}))
	c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := c.start(t, class(name, credentials(name)))
	mustMount(t, v)
	for range 2 {
		before := files(t, v)
		changesBySelf(t, v, before)
		must(t, "log in with the old credentials", shared.postgres.Login(t.Context(), before["username"], before["password"]))
	}
	wantRequests(t, trouble, name, 1, 3)
	seen := look(t, v)
	mustMount(t, v)
	if now := look(t, v); now != seen {
		t.Errorf("the volume after a poll: got %s, want it as the provider wrote it: %s", now, seen)
	}
	waitCounted(t, c.Provider, `leasehold_replacements_total{outcome="ok"}`, 2)
}

// TestScheduledRoleRotates has Vault change a password at the times of a schedule. At such a time Vault tells when the next one
// is, also while it has not come to changing the password yet; and it takes up to five seconds for that.
func TestScheduledRoleRotates(t *testing.T) {
	t.Parallel()
	name, static, user := role(t, bed.Role{}), shared.unique("scheduled"), shared.unique("user")
	must(t, "static role", shared.vault.AddScheduledRole(t.Context(), "database", static, shared.postgres, user, "* * * * *"))
	path := "database/static-creds/" + static
	password := func() any {
		answer, err := shared.vault.Client.Logical().ReadWithContext(t.Context(), path)
		must(t, "read the static role", err)
		return answer.Data["password"]
	}
	c := startCluster(t, bed.ProviderOptions{VaultAddress: shared.vault.Address})
	v := c.start(t, class(name, fmt.Sprintf(`
- {objectName: username, secretPath: %[1]s, secretKey: username}
- {objectName: password, secretPath: %[1]s, secretKey: password}
`, path)))
	mustMount(t, v)
	before := files(t, v)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); password() == before["password"]; <-tick.C {
		if time.Since(began) > 2*time.Minute {
			t.Fatal("Vault has not changed the password, though its time comes every minute")
		}
	}
	changed := time.Now()
	changesBySelf(t, v, before)
	const most = 15 * time.Second // it is looked at every second then, and ten seconds after the first Mount
	t.Logf("Vault changed the password at %s, and the volume had it %v later", changed.Format("15:04:05.000"), time.Since(changed).Round(time.Millisecond))
	if took := time.Since(changed); took > most {
		t.Errorf("the volume had the new password after %v, want %v at most", took.Round(time.Millisecond), most)
	}
}

// TestRevokedBehindOurBack has an administrator end what a running pod needs. The next renewal finds out.
func TestRevokedBehindOurBack(t *testing.T) {
	t.Parallel()
	for what, row := range map[string]struct {
		revoke func(ctx context.Context, h holdings) error
		logins int
	}{
		"token": {func(ctx context.Context, h holdings) error {
			return shared.vault.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": h.tokens[0]})
		}, 2},
		"lease": {func(ctx context.Context, h holdings) error {
			return shared.vault.Write(ctx, "sys/leases/revoke", map[string]any{"lease_id": h.leases[0], "sync": true})
		}, 1},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			trouble := startTrouble(t)
			name := role(t, bed.Role{TTL: 10 * time.Second})
			must(t, "database role", shared.vault.AddDatabaseRole(ctx, "database", name, bed.DatabaseRole{TTL: 10 * time.Second}))
			c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
			v := c.start(t, class(name, credentials(name)))
			mustMount(t, v)
			holds(t, name, 1, 1)
			before := files(t, v)
			h, err := shared.held(ctx, name)
			must(t, "what it holds", err)
			must(t, "revoke", row.revoke(ctx, h))
			changesBySelf(t, v, before)
			wantRequests(t, trouble, name, row.logins, 2)
			holds(t, name, 1, 1)
		})
	}
}

// TestRoleIsShortened has an administrator shorten how long a role's users live, below what a running pod was promised.
func TestRoleIsShortened(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	must(t, "database role", shared.vault.AddDatabaseRole(ctx, "database", name, bed.DatabaseRole{TTL: 9 * time.Second, MaxTTL: time.Hour}))
	c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := c.start(t, class(name, credentials(name)))
	mustMount(t, v)
	before := files(t, v)
	must(t, "database role", shared.vault.AddDatabaseRole(ctx, "database", name, bed.DatabaseRole{TTL: 5 * time.Second, MaxTTL: 12 * time.Second}))
	changesBySelf(t, v, before)
	must(t, "log in with the old credentials", shared.postgres.Login(ctx, before["username"], before["password"]))
	before = files(t, v)
	changesBySelf(t, v, before)
	wantRequests(t, trouble, name, 1, 3)
}

// TestVaultRestartsWithItsStorage renews, after Vault has come back, what it gave before. No volume notices.
func TestVaultRestartsWithItsStorage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, role := startVault(t, bed.VaultOptions{})
	must(t, "role", w.vault.JWTRole(ctx, "kubernetes", role, bed.Role{
		ServiceAccounts: []string{"apps/db-app"}, Policies: []string{role}, TTL: 20 * time.Second,
	}))
	must(t, "database role", w.vault.AddDatabaseRole(ctx, "database", role, bed.DatabaseRole{TTL: 20 * time.Second}))
	proxy, err := shared.bed.StartTrouble(w.vault.Address)
	must(t, "trouble", err)
	c := startCluster(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	v := c.start(t, class(role, credentials(role)+word))
	versions := mustMount(t, v)
	before := files(t, v)
	must(t, "restart", w.vault.Restart(ctx))
	eventually(t, "renewals", func(context.Context) error {
		tokens, leases := counted(t, c.Provider, `leasehold_renewals_total{outcome="ok",what="token"}`),
			counted(t, c.Provider, `leasehold_renewals_total{outcome="ok",what="lease"}`)
		if tokens < 2 || leases < 2 {
			return fmt.Errorf("got %d of the token and %d of the lease, want two each", tokens, leases)
		}
		return nil
	})
	polled(t, v, versions, before)
	logIn(t, v)
	wantRequests(t, proxy, role, 1, 1)
	holdsIn(t, w, role, 1, 1)
}
