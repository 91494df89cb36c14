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

// patient has a provider keep what a failed Mount has gained for longer than a test takes, so that a token which is given
// back is given back for another reason. Without it, a provider of a test gives up after half a second.
const patient = "--abandon-after=1h"

// fails mounts and wants a failure of that code, and an error that names the pod and says all of the parts, but no JWT,
// whoever echoed it. Nothing is written then: the volume stays as it was.
func fails(t testing.TB, v *bed.Volume, code codes.Code, parts ...string) {
	t.Helper()
	before := files(t, v)
	_, err := mount(t, v)
	wantStatus(t, err, code, append([]string{"pod " + v.Pod.Namespace + "/" + v.Pod.Name + ": "}, parts...)...)
	if err != nil {
		if leaks := bed.Leaks(shared.signer.Issued(), map[string][]byte{"error": []byte(err.Error())}); len(leaks) > 0 {
			t.Errorf("the error shows a JWT: %v", leaks)
		}
	}
	if !maps.Equal(files(t, v), before) {
		t.Error("the volume's files changed although the Mount failed")
	}
}

// wantCount compares the number of requests that a proxy has seen since its last Reset.
func wantCount(t testing.TB, proxy *bed.Trouble, method, path string, want int) {
	t.Helper()
	if got := proxy.Count(method, path); got != want {
		t.Errorf("requests %s %s: got %d, want %d", method, path, got, want)
	}
}

// trouble is a way in which a request to Vault fails.
type trouble struct {
	name      string
	behaviour bed.Behaviour
	says      string // in the error
	inDoubt   bool   // Vault may have carried the request out: what the token has is not known any more
	done      int    // how often Vault did
}

var troubles = []trouble{
	{"connection closed", bed.Refuse, "connection reset by peer", true, 0},
	{"bad gateway", bed.BadGateway, "vault is unavailable (502): the answer is not Vault's (text/plain", true, 0},
	{"too many requests", bed.TooMany(7 * time.Second), "vault is unavailable (429): request path \"\": rate limit quota exceeded", false, 0},
	{"nonsense", bed.Nonsense, "vault is unavailable (200): the answer is not Vault's (text/html", true, 0},
	{"answer lost", bed.LoseAnswer, "connection reset by peer", true, 1},
	{"answer cut", bed.CutAnswer, "vault is unavailable (200): ", true, 1},
}

// TestTroubledRead has a read fail after a login that succeeded. kubelet's next try goes on with the token of the first,
// unless the first read may have made a user that nobody knows: then the token is given back, and the user goes with it.
func TestTroubledRead(t *testing.T) {
	t.Parallel()
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
	for _, row := range troubles {
		t.Run(row.name, func(t *testing.T) {
			role := role(t, bed.Role{})
			path := "database/creds/" + role
			volume := newVolume(t, provider, class(role, credentials(role)))
			proxy.Reset()
			proxy.SetPath(path, row.behaviour)
			fails(t, volume, codes.Internal, `objects "username", "password": read "`+path+`": `, row.says,
				"the pod starts by itself once Vault at "+proxy.Address+" answers")
			holds(t, role, 1, row.done)

			proxy.SetPath(path, nil)
			mustMount(t, volume)
			logins := 1
			if row.inDoubt {
				logins = 2
			}
			wantRequests(t, proxy, role, logins, 2)
			holds(t, role, 1, 1)
			logIn(t, volume)
		})
	}
}

// TestTroubledReadIsGivenUp has a read fail, and no next try.
func TestTroubledReadIsGivenUp(t *testing.T) {
	t.Parallel()
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	for _, row := range troubles {
		t.Run(row.name, func(t *testing.T) {
			role := role(t, bed.Role{})
			path := "database/creds/" + role
			proxy.Reset()
			proxy.SetPath(path, row.behaviour)
			fails(t, newVolume(t, provider, class(role, credentials(role))), codes.Internal, row.says)
			wantRequests(t, proxy, role, 1, 1)
			left(t, role)
			wantCount(t, proxy, "POST", "auth/token/revoke-self", 1)
		})
	}
}

// TestTroubledLogin has the login fail. A token whose answer was lost cannot be given back, by nobody: it has no user, and
// ends by itself.
func TestTroubledLogin(t *testing.T) {
	t.Parallel()
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
	for _, row := range troubles {
		t.Run(row.name, func(t *testing.T) {
			role := role(t, bed.Role{TTL: time.Hour})
			volume := newVolume(t, provider, class(role, credentials(role)))
			proxy.Reset()
			proxy.SetPath(loginPath, row.behaviour)
			fails(t, volume, codes.Internal, `login "`+loginPath+`": `, row.says,
				"the pod starts by itself once Vault at "+proxy.Address+" answers")
			holds(t, role, row.done, 0)

			proxy.SetPath(loginPath, nil)
			mustMount(t, volume)
			wantRequests(t, proxy, role, 2, 1)
			holds(t, role, row.done+1, 1)
			logIn(t, volume)
		})
	}
}

// TestSecondSourceDenied has the policy allow one source of two. What the first gave is kept for the next try, which comes
// after somebody has mended the policy.
func TestSecondSourceDenied(t *testing.T) {
	t.Parallel()
	proxy := startTrouble(t)
	ctx := t.Context()
	role, other := role(t, bed.Role{}), role(t, bed.Role{})
	path := "database/creds/" + role
	objects := credentials(role) + fmt.Sprintf("- {objectName: forbidden, secretPath: database/creds/%s}\n", other)
	says := []string{
		`object "forbidden": read "database/creds/` + other + `": permission denied (403)`,
		`a policy of Vault role "` + role + `" must allow "read" on that path`,
	}

	t.Run("given up", func(t *testing.T) {
		provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
		fails(t, newVolume(t, provider, class(role, objects)), codes.PermissionDenied, says...)
		wantCount(t, proxy, "GET", path, 1)
		left(t, role)
	})
	t.Run("mended", func(t *testing.T) {
		proxy.Reset()
		provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
		volume := newVolume(t, provider, class(role, objects))
		fails(t, volume, codes.PermissionDenied, says...)
		holds(t, role, 1, 1)
		must(t, "policy", shared.vault.Policy(ctx, role, bed.MayRead(path, "database/creds/"+other)))
		mustMount(t, volume)
		wantRequests(t, proxy, role, 1, 1)
		wantCount(t, proxy, "GET", "database/creds/"+other, 2)
		holds(t, role, 1, 1)
		logIn(t, volume)
	})
}

// holdsIn is holds for a Vault or a PostgreSQL that are not the shared ones.
func holdsIn(t testing.TB, w *world, role string, tokens, users int) {
	t.Helper()
	eventually(t, "what role "+role+" holds", func(ctx context.Context) error {
		h, err := w.held(ctx, role)
		if err == nil && (len(h.tokens) != tokens || len(h.leases) != users || len(h.users) != users) {
			err = fmt.Errorf("got %v, want %d tokens and %d database users", h, tokens, users)
		}
		return err
	})
}

// TestPostgresDown has Vault answer that it cannot make a user.
func TestPostgresDown(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	postgres, err := shared.bed.StartPostgres(ctx)
	must(t, "postgresql", err)
	role := role(t, bed.Role{})
	path := "database/creds/" + role
	// The role's users are in a PostgreSQL of its own: the others' is to run.
	must(t, "connection", shared.vault.Write(ctx, "database/config/"+role, map[string]any{
		"plugin_name":    "postgresql-database-plugin",
		"connection_url": "postgresql://{{username}}:{{password}}@" + postgres.Address + "/postgres?sslmode=disable",
		"username":       "postgres", "password": postgres.Password, "allowed_roles": []string{role},
	}))
	must(t, "database role", shared.vault.Write(ctx, "database/roles/"+role, map[string]any{
		"db_name": role, "default_ttl": 3600,
		"creation_statements": []string{`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`},
	}))
	w := &world{vault: shared.vault, postgres: postgres, tokenRole: make(map[string]string), tokenSeen: make(map[string]time.Time)}
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
	hasty := startProvider(t, bed.ProviderOptions{})
	volume := newVolume(t, provider, class(role, credentials(role)))

	must(t, "stop", postgres.Stop())
	says := []string{`objects "username", "password": read "` + path + `": vault is unavailable (500): `, "connection refused"}
	fails(t, newVolume(t, hasty, class(role, credentials(role))), codes.Internal, says...)
	waitCounted(t, hasty, `leasehold_releases_total{outcome="revoked"}`, 1) // for nobody tried again
	fails(t, volume, codes.Internal, says...)
	fails(t, volume, codes.Internal, says...)
	must(t, "start", postgres.Start(ctx))
	holdsIn(t, w, role, 1, 0)
	mustMount(t, volume)
	wantRequests(t, proxy, role, 1, 3)
	holdsIn(t, w, role, 1, 1)
	f := files(t, volume)
	must(t, "log in", postgres.Login(ctx, f["username"], f["password"]))
}

// startVault starts a Vault for one test, and returns it with its one role: for the service account apps/db-app, which may
// read kv/ and make users of the shared PostgreSQL by the dynamic role of the same name.
func startVault(t testing.TB, o bed.VaultOptions) (w *world, role string) {
	t.Helper()
	ctx := t.Context()
	o.Audit = true // for the canary
	vault, err := shared.bed.StartVault(ctx, o)
	must(t, "vault", err)
	role = shared.unique("own")
	must(t, "jwt", vault.EnableJWT(ctx, "kubernetes", shared.signer))
	must(t, "kv", vault.EnableKV(ctx, "kv", 2))
	must(t, "put", vault.PutKV2(ctx, "kv", "app", map[string]any{"word": "word of " + role}))
	must(t, "database", vault.EnableDatabase(ctx, "database", shared.postgres))
	must(t, "database role", vault.AddDatabaseRole(ctx, "database", role, bed.DatabaseRole{TTL: time.Hour}))
	must(t, "policy", vault.Policy(ctx, role, bed.MayRead("kv/data/*", "database/creds/"+role)))
	must(t, "role", vault.JWTRole(ctx, "kubernetes", role, bed.Role{ServiceAccounts: []string{"apps/db-app"}, Policies: []string{role}}))
	return &world{vault: vault, postgres: shared.postgres, tokenRole: make(map[string]string), tokenSeen: make(map[string]time.Time)}, role
}

// word is an object of startVault's Vaults.
const word = "- {objectName: word, secretPath: kv/data/app, secretKey: word}\n"

// TestVaultAway seals Vault and stops it, between two sources of one volume: the first try got a user but not the word.
func TestVaultAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, role := startVault(t, bed.VaultOptions{})
	vault := w.vault
	proxy, err := shared.bed.StartTrouble(vault.Address)
	must(t, "trouble", err)
	// The proxy counts, and lets the first try get one source of two; after that the trouble is Vault's own.
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: []string{patient}})
	direct := startProvider(t, bed.ProviderOptions{VaultAddress: vault.Address})
	parameters := class(role, credentials(role)+word)
	volume := newVolume(t, provider, parameters)
	running := newVolume(t, provider, parameters)
	mustMount(t, running)
	before := files(t, running)
	proxy.SetPath("kv/data/app", bed.TooMany(time.Second))
	fails(t, volume, codes.Internal, `object "word": read "kv/data/app": vault is unavailable (429)`)
	proxy.Reset()

	cure := "; the pod starts by itself once Vault at " + vault.Address + " answers"
	must(t, "seal", vault.Seal(ctx))
	fails(t, volume, codes.Internal, `object "word": read "kv/data/app": vault is unavailable (503): Vault is sealed`)
	fails(t, newVolume(t, direct, parameters), codes.Internal, `login "`+loginPath+`": vault is unavailable (503): Vault is sealed`, cure)
	must(t, "unseal", vault.Unseal(ctx))

	must(t, "stop", vault.Stop())
	fails(t, newVolume(t, direct, parameters), codes.Internal, `login "`+loginPath+`": vault is unavailable: `, "connection refused", cure)
	mustMount(t, running)
	if got := files(t, running); got["password"] != before["password"] {
		t.Error("the volume of a running pod changed while Vault was away")
	}
	must(t, "start", vault.Start(ctx))

	mustMount(t, volume)
	wantRequests(t, proxy, role, 0, 0)
	holdsIn(t, w, role, 2, 2)
	logIn(t, volume)
}

// TestGivingBackIsTriedAgain has the proxy refuse what gives a token back. Vault hears of it later.
func TestGivingBackIsTriedAgain(t *testing.T) {
	t.Parallel()
	const revoke = "auth/token/revoke-self"
	proxy := startTrouble(t)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address})
	role := role(t, bed.Role{})
	proxy.SetPath("database/creds/"+role, bed.LoseAnswer)
	proxy.SetPath(revoke, bed.BadGateway)
	fails(t, newVolume(t, provider, class(role, credentials(role))), codes.Internal, "connection reset by peer")
	eventually(t, "first try to give back", func(context.Context) error {
		if proxy.Count("POST", revoke) == 0 {
			return errors.New("no request yet")
		}
		return nil
	})
	holds(t, role, 1, 1)
	proxy.SetPath(revoke, nil)
	left(t, role)
	waitCounted(t, provider, `leasehold_releases_total{outcome="revoked"}`, 1)
	if got := counted(t, provider, `leasehold_releases_total{outcome="unavailable"}`); got < 1 {
		t.Errorf("releases that Vault did not answer: got %d, want at least 1", got)
	}
}

// TestSlowVault has Vault answer when the Mount has stopped waiting. A later try finds the answer: one login, one user.
func TestSlowVault(t *testing.T) {
	t.Parallel()
	proxy := startTrouble(t)
	const limit = 500 * time.Millisecond
	args := []string{"--mount-timeout=" + limit.String()}
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: append(args, patient)})
	hasty := startProvider(t, bed.ProviderOptions{VaultAddress: proxy.Address, Args: args})
	const says = "no answer within 500ms; the request goes on, and kubelet's next try finds its answer"
	for _, op := range []string{"login", "read"} {
		t.Run(op, func(t *testing.T) {
			role := role(t, bed.Role{})
			path, prefix := loginPath, ""
			if op == "read" {
				path, prefix = "database/creds/"+role, `objects "username", "password": `
			}
			message := prefix + op + ` "` + path + `": ` + says
			volume := newVolume(t, provider, class(role, credentials(role)))
			proxy.Reset()
			gate := proxy.BlockAnswer(path)
			defer gate.Open()
			start := time.Now()
			fails(t, volume, codes.Internal, message)
			if took := time.Since(start); took < limit || took > patience/2 {
				t.Errorf("the Mount took %s, want about %s", took, limit)
			}
			fails(t, volume, codes.Internal, message)
			gate.Open()
			eventually(t, "mount", func(ctx context.Context) error {
				_, err := mountWithin(ctx, t, volume)
				return err
			})
			wantRequests(t, proxy, role, 1, 1)
			holds(t, role, 1, 1)
			logIn(t, volume)
		})
		t.Run(op+" given up", func(t *testing.T) {
			role := role(t, bed.Role{})
			path, tokens, users := loginPath, 1, 0
			if op == "read" {
				path, users = "database/creds/"+role, 1
			}
			proxy.Reset()
			gate := proxy.BlockAnswer(path)
			defer gate.Open()
			fails(t, newVolume(t, hasty, class(role, credentials(role))), codes.Internal, says)
			holds(t, role, tokens, users) // Vault has done it
			gate.Open()
			left(t, role)
		})
	}
}

// TestStandby has the address that the provider knows answer with a redirect to the Vault that is active.
func TestStandby(t *testing.T) {
	t.Parallel()
	standby := startTrouble(t)
	standby.Set(bed.Redirect(shared.vault.Address))

	t.Run("allowed", func(t *testing.T) {
		role := role(t, bed.Role{})
		provider := startProvider(t, bed.ProviderOptions{
			VaultAddress: standby.Address, Args: []string{"--allowed-vault-addrs=" + shared.vault.Address},
		})
		volume := newVolume(t, provider, class(role, credentials(role)+`
- {objectName: tls, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: standby.example}}
`))
		mustMount(t, volume)
		holds(t, role, 1, 1)
		logIn(t, volume)
		if f := files(t, volume); !strings.Contains(f["tls"], "PRIVATE KEY") {
			t.Error("the body of a request was lost by the redirect: got no certificate")
		}
	})
	t.Run("outside the policy", func(t *testing.T) {
		role := role(t, bed.Role{})
		provider := startProvider(t, bed.ProviderOptions{VaultAddress: standby.Address})
		refused := `refused (307): a redirect to "` + shared.vault.Address + `": address "` + shared.vault.Address + `" is outside the ` +
			`operator's policy: use the operator's own address, or ask the operator of the node to allow this one`
		volume := newVolume(t, provider, class(role, credentials(role)))
		fails(t, volume, codes.FailedPrecondition, `login "`+loginPath+`": `, refused)
		left(t, role)

		// And after a login that the active Vault answered.
		path := "database/creds/" + role
		standby.Set(bed.Pass)
		standby.SetPath(path, bed.Redirect(shared.vault.Address))
		fails(t, volume, codes.FailedPrecondition, `objects "username", "password": read "`+path+`": `, refused)
		left(t, role)
	})
}
