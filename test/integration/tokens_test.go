package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// TestBatchToken has a role give tokens that can be neither renewed nor revoked: it works, and says what it costs.
func TestBatchToken(t *testing.T) {
	t.Parallel()
	role := role(t, bed.Role{TokenType: "batch", TTL: time.Minute})
	provider := startProvider(t, bed.ProviderOptions{})
	volume := newVolume(t, provider, class(role, credentials(role)))
	mustMount(t, volume)
	logIn(t, volume)
	holds(t, role, 0, 1) // Vault does not list batch tokens
	if got := counted(t, provider, "leasehold_unrevocable_logins_total"); got != 1 {
		t.Errorf("unrevocable logins: got %d, want 1", got)
	}
	log, err := provider.Log()
	must(t, "log", err)
	const warning = "the login gave a batch token, which cannot be revoked"
	warnings := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"level":"WARN"`) && strings.Contains(line, warning) && strings.Contains(line, `"role":"`+role+`"`) {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("warnings that say %q: got %d, want 1", warning, warnings)
	}
}

// TestTokenWithUseLimit has a role whose tokens end after so many requests.
func TestTokenWithUseLimit(t *testing.T) {
	t.Parallel()
	role := role(t, bed.Role{NumUses: 5})
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
	fails(t, newVolume(t, provider, class(role, credentials(role))), codes.FailedPrecondition,
		`login "`+loginPath+`": refused (200): the token has a use limit (token_num_uses = 5)`, "set it to 0 in the role")
	wantRequests(t, proxy, role, 1, 0)
	left(t, role)
}

// neededPolicy is what a token must be able to do without the policy "default", as errors quote it.
const neededPolicy = `path "auth/token/renew-self" { capabilities = ["update"] } ` +
	`path "auth/token/revoke-self" { capabilities = ["update"] } ` +
	`path "sys/leases/renew" { capabilities = ["update"] } ` +
	`path "sys/capabilities-self" { capabilities = ["update"] }`

// TestTokenWithoutDefaultPolicy follows the advice of the error.
func TestTokenWithoutDefaultPolicy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	role := role(t, bed.Role{NoDefaultPolicy: true, TTL: time.Hour})
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	volume := newVolume(t, provider, class(role, credentials(role)))
	lacks := []string{`login "` + loginPath + `": refused (200): the token lacks the policy "default"`, neededPolicy}
	fails(t, volume, codes.FailedPrecondition, append(lacks, "it lives until its own end")...)
	holds(t, role, 1, 0) // nobody can give it back but an administrator

	rules := bed.MayRead("database/creds/" + role)
	must(t, "policy", shared.vault.Policy(ctx, role, rules+`path "auth/token/revoke-self" { capabilities = ["update"] }`))
	fails(t, volume, codes.FailedPrecondition, lacks...)
	holds(t, role, 1, 0) // the second token could be given back, and was
	wantRequests(t, proxy, role, 2, 0)

	must(t, "policy", shared.vault.Policy(ctx, role, rules+neededPolicy))
	mustMount(t, volume)
	logIn(t, volume)
	holds(t, role, 2, 1)
	other := newVolume(t, provider, class(role, credentials(role)+"- {objectName: none, secretPath: kv/data/none}\n"))
	fails(t, other, codes.PermissionDenied, `object "none": `)
	holds(t, role, 2, 1) // what it had is given back
	waitCounted(t, provider, `leasehold_releases_total{outcome="revoked"}`, 1)
}

// TestTokenEnds polls a volume whose token has ended by itself, and its user with it.
func TestTokenEnds(t *testing.T) {
	t.Parallel()
	role := role(t, bed.Role{TTL: 6 * time.Second, MaxTTL: 6 * time.Second})
	provider := startProvider(t, bed.ProviderOptions{})
	volume := newVolume(t, provider, class(role, credentials(role)))
	mustMount(t, volume)
	before := files(t, volume)
	logIn(t, volume)
	left(t, role)
	if err := shared.postgres.Login(t.Context(), before["username"], before["password"]); err == nil {
		t.Error("the user of a token that has ended could log in")
	}
	mustMount(t, volume)
	logIn(t, volume)
	if after := files(t, volume); after["username"] == before["username"] || after["password"] == before["password"] {
		t.Error("a poll after the token's end left old credentials in the volume")
	}
}

// TestTokenIsReplacedInTime polls a volume all through the life of its token: its files work at any time.
func TestTokenIsReplacedInTime(t *testing.T) {
	t.Parallel()
	role := role(t, bed.Role{TTL: 6 * time.Second, MaxTTL: 15 * time.Second})
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	volume := newVolume(t, provider, class(role, credentials(role)))
	mustMount(t, volume)
	before := files(t, volume)
	changes(t, volume)
	logIn(t, volume)
	must(t, "log in with the old credentials", shared.postgres.Login(t.Context(), before["username"], before["password"]))
	wantRequests(t, proxy, role, 2, 2)
	holds(t, role, 1, 1) // the first token and its user have ended
	logIn(t, volume)
}

// changes polls the volume until its files change, and returns when that poll began.
func changes(t testing.TB, v *bed.Volume) time.Time {
	t.Helper()
	before := files(t, v)
	var at time.Time
	eventually(t, "new files", func(context.Context) error {
		at = time.Now()
		mustMount(t, v)
		if maps.Equal(files(t, v), before) {
			return errors.New("they have not changed")
		}
		return nil
	})
	return at
}

// TestLeaseIsDue polls a volume whose lease ends for good long before its token. It is renewed as long as Vault lets it, and
// replaced when a renewal comes back short; until then no poll asks for anything.
func TestLeaseIsDue(t *testing.T) {
	t.Parallel()
	const ttl, life = 6 * time.Second, 15 * time.Second
	role := role(t, bed.Role{})
	must(t, "database role", shared.vault.AddDatabaseRole(t.Context(), "database", role, bed.DatabaseRole{TTL: ttl, MaxTTL: life}))
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	volume := newVolume(t, provider, class(role, credentials(role)))
	asked := time.Now()
	mustMount(t, volume)
	before := files(t, volume)
	if at := changes(t, volume); at.Sub(asked) < life-ttl-time.Second { // Vault counts in whole seconds
		t.Errorf("new files after %s, want them when a renewal for %s goes beyond %s", at.Sub(asked), ttl, life)
	}
	must(t, "log in with the old credentials", shared.postgres.Login(t.Context(), before["username"], before["password"]))
	logIn(t, volume)
	wantRequests(t, proxy, role, 1, 2) // the same token
	if got := proxy.Count("POST", "sys/leases/renew"); got < 2 {
		t.Errorf("renewals of the lease: got %d, want 2 at least", got)
	}
	holds(t, role, 1, 1) // the first lease has ended by itself
	logIn(t, volume)
}

// TestRefreshIsDueWhileVaultIsAway has a poll come when Vault cannot tell what is new: the old files stay as long as they
// work.
func TestRefreshIsDueWhileVaultIsAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	role := role(t, bed.Role{})
	must(t, "put", shared.vault.PutKV2(ctx, "kv", role, map[string]any{"word": "word before the outage"}))
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	parameters := class(role, credentials(role)+"- {objectName: word, secretPath: kv/data/"+role+", secretKey: word}\n")
	parameters["refresh"] = "1s"
	volume := newVolume(t, provider, parameters)
	mustMount(t, volume)
	before := files(t, volume)
	proxy.Set(bed.BadGateway)
	must(t, "put", shared.vault.PutKV2(ctx, "kv", role, map[string]any{"word": "word after the outage"}))
	eventually(t, "stale answer", func(context.Context) error {
		mustMount(t, volume)
		if counted(t, provider, "leasehold_stale_answers_total") == 0 {
			return errors.New("not due yet")
		}
		return nil
	})
	wantFiles(t, files(t, volume), before)
	logIn(t, volume)
	proxy.Set(bed.Pass)
	mustMount(t, volume)
	before["word"] = "word after the outage"
	wantFiles(t, files(t, volume), before)
	wantRequests(t, proxy, role, 1, 1)
}

// TestStaticRoleRotates polls a volume with a user whose password Vault changes.
func TestStaticRoleRotates(t *testing.T) {
	t.Parallel()
	role, static := role(t, bed.Role{}), shared.unique("rotating")
	user := shared.unique("static") // not the role's name: that is told to everybody
	must(t, "static role", shared.vault.AddStaticRole(t.Context(), "database", static, shared.postgres, user, 5*time.Second))
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	path := "database/static-creds/" + static
	volume := newVolume(t, provider, class(role, fmt.Sprintf(`
- {objectName: username, secretPath: %[1]s, secretKey: username}
- {objectName: password, secretPath: %[1]s, secretKey: password}
`, path)))
	mustMount(t, volume)
	logIn(t, volume)
	for range 2 {
		changes(t, volume)
		logIn(t, volume)
	}
	wantRequests(t, proxy, role, 1, 0)
	// A poll a few milliseconds apart: what is not due costs nothing.
	if got := proxy.Count("GET", path); got < 3 || got > 30 {
		t.Errorf("reads of the static role: got %d, want about 3", got)
	}
}

// TestPollsIssueNoCertificate keeps Vault's storage from filling up with certificates.
func TestPollsIssueNoCertificate(t *testing.T) {
	t.Parallel()
	role := role(t, bed.Role{})
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	volume := newVolume(t, provider, class(role, `
- {objectName: tls.crt, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: poll.example, ttl: 1h}, secretKey: certificate}
- {objectName: tls.key, secretPath: pki/issue/web, method: PUT, secretArgs: {ttl: 1h, common_name: poll.example}, secretKey: private_key}
`))
	versions, before := mustMount(t, volume), files(t, volume)
	keyPairName(t, before["tls.crt"], before["tls.key"])
	for range 50 {
		if again := mustMount(t, volume); !maps.Equal(again, versions) {
			t.Fatalf("versions after a poll: got %v, want %v", again, versions)
		}
	}
	wantFiles(t, files(t, volume), before)
	wantCount(t, proxy, "PUT", "pki/issue/web", 1)
}

// TestPollsBeforeTheRefresh keeps a secret without a lease as it was read, for as long as the refresh interval says.
func TestPollsBeforeTheRefresh(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	role := role(t, bed.Role{})
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	must(t, "put", shared.vault.PutKV2(ctx, "kv", role, map[string]any{"word": "word at the first mount"}))
	parameters := class(role, "- {objectName: word, secretPath: kv/data/"+role+", secretKey: word}\n")
	volume := newVolume(t, provider, parameters)
	versions := mustMount(t, volume)
	must(t, "put", shared.vault.PutKV2(ctx, "kv", role, map[string]any{"word": "word after the first mount"}))
	for range 50 {
		if again := mustMount(t, volume); !maps.Equal(again, versions) {
			t.Fatalf("versions after a poll: got %v, want %v", again, versions)
		}
	}
	wantFiles(t, files(t, volume), map[string]string{"word": "word at the first mount"})
	wantCount(t, proxy, "GET", "kv/data/"+role, 1)

	other := newVolume(t, provider, parameters) // a volume of its own reads for itself
	mustMount(t, other)
	wantFiles(t, files(t, other), map[string]string{"word": "word after the first mount"})
}
