package client_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// The contract suite holds vaulttest honest: the same behaviours, configured by the same requests, are checked on the
// fake and on a real Vault. For the real one set
//
//	LEASEHOLD_CONTRACT_VAULT_ADDR         its address
//	LEASEHOLD_CONTRACT_VAULT_TOKEN        a root token
//	LEASEHOLD_CONTRACT_POSTGRES           postgres://user:password@host:port/database, as Vault reaches it
//	LEASEHOLD_CONTRACT_VAULT_UNSEAL_KEY   also check a sealed Vault, and unseal it again
//	LEASEHOLD_CONTRACT_REQUIRED           1 = fail without a real Vault
const (
	envAddress  = "LEASEHOLD_CONTRACT_VAULT_ADDR"
	envToken    = "LEASEHOLD_CONTRACT_VAULT_TOKEN"
	envPostgres = "LEASEHOLD_CONTRACT_POSTGRES"
	envUnseal   = "LEASEHOLD_CONTRACT_VAULT_UNSEAL_KEY"
	envRequired = "LEASEHOLD_CONTRACT_REQUIRED"
)

func TestContract(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		testContract(t, world{address: vaulttest.New(t).Address(), root: vaulttest.RootToken})
	})
	t.Run("real", func(t *testing.T) {
		w := world{address: os.Getenv(envAddress), root: os.Getenv(envToken), postgres: os.Getenv(envPostgres)}
		switch {
		case w.address == "" && w.root == "" && os.Getenv(envRequired) == "1":
			t.Fatalf("%s=1, but %s and %s are unset: only the fake was checked", envRequired, envAddress, envToken)
		case w.address == "" && w.root == "":
			t.Skipf("ONLY THE FAKE WAS CHECKED: %s and %s are unset", envAddress, envToken)
		case w.address == "" || w.root == "" || w.postgres == "":
			t.Fatalf("%s, %s and %s must be set together", envAddress, envToken, envPostgres)
		}
		w.real, w.unseal = true, os.Getenv(envUnseal)
		testContract(t, w)
	})
}

// world is a Vault, fake or real, and the names under which this run has configured it.
type world struct {
	address, root string
	postgres      string // "": the fake's database engine needs none
	unseal        string // key, "" to leave a real Vault unsealed
	real          bool

	id     string // prefix of all names, so that runs against one server do not meet
	signer *vaulttest.Signer
	pool   *client.Pool
}

// admin makes a request as Vault's administrator and returns status and body.
func (w world) admin(t *testing.T, method, path string, data vaulttest.Data) (int, []byte) {
	t.Helper()
	body, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.Context(): the cleanup needs it too.
	req, err := http.NewRequest(method, w.address+"/v1/"+path, bytes.NewReader(body)) //nolint:noctx // see above
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", w.root)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, said
}

// write configures the Vault, or ends the test. A new KV v2 mount is upgraded in the background and answers 400 until
// then.
func (w world) write(t *testing.T, path string, data vaulttest.Data) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, said := w.admin(t, http.MethodPost, path, data)
		if status < 300 {
			return
		}
		if !bytes.Contains(said, []byte("Upgrading from non-versioned")) || time.Now().After(deadline) {
			t.Fatalf("write %q: got status %d: %s", path, status, said)
		}
	}
}

// mount mounts a secrets engine under a name of this run and returns its path.
func (w world) mount(t *testing.T, name string, data vaulttest.Data) string {
	t.Helper()
	path := w.id + name
	w.write(t, "sys/mounts/"+path, data)
	w.atEnd(t, "sys/mounts/"+path)
	return path
}

// atEnd deletes what would be left behind in a real Vault.
func (w world) atEnd(t *testing.T, path string) {
	t.Helper()
	if !w.real {
		return
	}
	t.Cleanup(func() {
		if status, said := w.admin(t, http.MethodDelete, path, nil); status >= 300 {
			t.Errorf("delete %q: got status %d: %s", path, status, said)
		}
	})
}

// setup configures everything that the suite reads. It returns the world with its names.
func (w world) setup(t *testing.T) world {
	t.Helper()
	random := make([]byte, 4)
	_, _ = rand.Read(random)
	w.id = "contract-" + hex.EncodeToString(random) + "-"
	w.signer = vaulttest.NewSigner(t)
	w.pool = newPool(t, client.Config{})

	kv1 := w.mount(t, "kv1", vaulttest.Data{"type": "kv", "options": vaulttest.Data{"version": "1"}})
	w.write(t, kv1+"/app", vaulttest.Data{"password": "v1", "number": json.Number("12345678901234567890")})
	w.write(t, kv1+"/forbidden", vaulttest.Data{"password": "x"})
	kv2 := w.mount(t, "kv2", vaulttest.Data{"type": "kv", "options": vaulttest.Data{"version": "2"}})
	w.write(t, kv2+"/data/app", vaulttest.Data{"data": vaulttest.Data{"password": "v2"}})
	w.write(t, kv2+"/data/gone", vaulttest.Data{"data": vaulttest.Data{"password": "old"}})
	w.write(t, kv2+"/data/deep/inner", vaulttest.Data{"data": vaulttest.Data{"password": "deep"}})
	if status, said := w.admin(t, http.MethodDelete, kv2+"/data/gone", nil); status != http.StatusNoContent {
		t.Fatalf("delete a KV v2 secret: got status %d: %s", status, said)
	}
	w.database(t)
	pki := w.mount(t, "pki", vaulttest.Data{"type": "pki"})
	w.write(t, pki+"/root/generate/internal", vaulttest.Data{"common_name": "contract", "ttl": "24h"})
	web := vaulttest.Data{"allowed_domains": "example.com", "allow_subdomains": true, "max_ttl": "1h"}
	w.write(t, pki+"/roles/web", web)
	web["generate_lease"] = true
	w.write(t, pki+"/roles/leased", web)

	w.policy(t, "app", `
		path "`+kv1+`/*"         { capabilities = ["read", "list", "update"] }
		path "`+kv1+`/forbidden" { capabilities = ["deny"] }
		path "`+kv2+`/*"         { capabilities = ["read", "list"] }
		path "`+w.id+`db/*"      { capabilities = ["read", "update", "list"] }
		path "`+w.id+`nowhere/*" { capabilities = ["read"] }
		path "`+pki+`/*"         { capabilities = ["read", "update"] }`)
	w.policy(t, "narrow", `
		path "`+kv2+`/data/*"     { capabilities = ["read"] }
		path "`+kv2+`/metadata/*" { capabilities = ["list"] }`)
	w.policy(t, "keep", `
		path "auth/token/renew-self"  { capabilities = ["update"] }
		path "auth/token/revoke-self" { capabilities = ["update"] }
		path "sys/leases/renew"       { capabilities = ["update"] }
		path "sys/capabilities-self"  { capabilities = ["update"] }`)
	w.policy(t, "half", `
		path "auth/token/revoke-self" { capabilities = ["update"] }
		path "sys/capabilities-self"  { capabilities = ["update"] }`)
	w.auth(t)
	return w
}

func (w world) policy(t *testing.T, name, text string) {
	t.Helper()
	w.write(t, "sys/policies/acl/"+w.id+name, vaulttest.Data{"policy": text})
	w.atEnd(t, "sys/policies/acl/"+w.id+name)
}

// database configures the database engine. A static role needs a user that exists: the first user of the role "maker"
// brings those of both along, and takes them away again.
func (w world) database(t *testing.T) {
	t.Helper()
	db, static, scheduled := w.mount(t, "db", vaulttest.Data{"type": "database"}), w.id+"static", w.id+"scheduled"
	w.write(t, db+"/config/pg", vaulttest.Data{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": w.postgres,
	})
	w.userRole(t, "app", "10m", "1h")
	w.write(t, db+"/roles/maker", vaulttest.Data{
		"db_name": "pg", "default_ttl": "10m", "max_ttl": "1h",
		"creation_statements":   []string{createUser, `CREATE ROLE "` + static + `" LOGIN`, `CREATE ROLE "` + scheduled + `" LOGIN`},
		"revocation_statements": []string{dropUser, `DROP ROLE IF EXISTS "` + static + `"`, `DROP ROLE IF EXISTS "` + scheduled + `"`},
	})
	if status, said := w.admin(t, http.MethodGet, db+"/creds/maker", nil); status != http.StatusOK {
		t.Fatalf("make the users of the static roles: got status %d: %s", status, said)
	}
	rotate := []string{`ALTER ROLE "{{name}}" PASSWORD '{{password}}'`}
	w.write(t, db+"/static-roles/shared", vaulttest.Data{
		"db_name": "pg", "username": static, "rotation_period": "1h", "rotation_statements": rotate,
	})
	w.write(t, db+"/static-roles/scheduled", vaulttest.Data{
		"db_name": "pg", "username": scheduled, "rotation_schedule": "0 * * * *", "rotation_statements": rotate,
	})
}

const (
	createUser = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`
	dropUser   = `DROP ROLE IF EXISTS "{{name}}"`
)

// userRole makes a database role whose users live that long, or changes it.
func (w world) userRole(t *testing.T, name, ttl, limit string) {
	t.Helper()
	w.write(t, w.id+"db/roles/"+name, vaulttest.Data{
		"db_name": "pg", "default_ttl": ttl, "max_ttl": limit,
		"creation_statements": []string{createUser}, "revocation_statements": []string{dropUser},
	})
}

// auth configures the JWT and the Kubernetes method, both trusting the signer.
func (w world) auth(t *testing.T) {
	t.Helper()
	jwt := "auth/" + w.id + "jwt"
	w.write(t, "sys/"+jwt, vaulttest.Data{"type": "jwt"})
	w.atEnd(t, "sys/"+jwt)
	w.write(t, jwt+"/config", vaulttest.Data{"jwt_validation_pubkeys": []string{w.signer.PublicKey()}})
	for name, extra := range map[string]vaulttest.Data{
		"app":      {},
		"batch":    {"token_type": "batch"},
		"limited":  {"token_num_uses": 3},
		"bare":     {"token_no_default_policy": true},
		"kept":     {"token_no_default_policy": true, "token_policies": []string{w.id + "app", w.id + "keep"}},
		"half":     {"token_no_default_policy": true, "token_policies": []string{w.id + "app", w.id + "half"}},
		"audience": {"bound_audiences": []string{"another"}},
		"narrow":   {"token_policies": []string{w.id + "narrow"}},
	} {
		w.role(t, name, extra)
	}

	reviewer := reviewTokens(t)
	kubernetes := "auth/" + w.id + "kubernetes"
	w.write(t, "sys/"+kubernetes, vaulttest.Data{"type": "kubernetes"})
	w.atEnd(t, "sys/"+kubernetes)
	w.write(t, kubernetes+"/config", vaulttest.Data{
		"kubernetes_host": reviewer.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": "reviewer",
		"kubernetes_ca_cert": pemOf(reviewer), "pem_keys": []string{w.signer.PublicKey()},
	})
	w.write(t, kubernetes+"/role/app", vaulttest.Data{
		"bound_service_account_names": "app", "bound_service_account_namespaces": "shop",
		"audience": vaulttest.Audience, "token_policies": []string{w.id + "app"}, "token_ttl": "30m",
	})
}

// role makes a role of the JWT method like "app" but for what is extra, or changes it.
func (w world) role(t *testing.T, name string, extra vaulttest.Data) {
	t.Helper()
	role := vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": "system:serviceaccount:shop:app",
		"bound_audiences": []string{vaulttest.Audience}, "token_policies": []string{w.id + "app"}, "token_ttl": "30m",
	}
	maps.Copy(role, extra)
	w.write(t, "auth/"+w.id+"jwt/role/"+name, role)
}

// reviewTokens starts what the Kubernetes method asks whether a token is still good: an API server's TokenReview that
// finds every token to be shop/app's.
func reviewTokens(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(vaulttest.Data{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": vaulttest.Data{
				"authenticated": true, "audiences": []string{vaulttest.Audience},
				"user": vaulttest.Data{"username": "system:serviceaccount:shop:app", "uid": "uid-of-app"},
			},
		})
	}))
	t.Cleanup(s.Close)
	return s
}

// pemOf returns the certificate of a test server, which is its own authority.
func pemOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// newPool returns a pool with the given configuration, and what tests need for what it leaves out.
func newPool(t testing.TB, c client.Config) *client.Pool {
	t.Helper()
	c.Timeout = max(c.Timeout, 0)
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 8
	}
	if c.MaxTransports == 0 {
		c.MaxTransports = 8
	}
	if c.MaxAnswer == 0 {
		c.MaxAnswer = 1 << 20
	}
	pool, err := client.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// login logs in with the JWT method.
func (w world) login(t *testing.T, role string, c vaulttest.Claims) (*client.Session, error) {
	t.Helper()
	return w.loginBy(t, "jwt", role, w.signer.Token(c))
}

func (w world) loginBy(t *testing.T, method, role string, jwt redact.String) (*client.Session, error) {
	t.Helper()
	v := spec.Vault{Address: w.address, AuthPath: w.id + method, Role: role}
	return w.pool.Login(t.Context(), v, jwt)
}

// session logs in, or ends the test.
func (w world) session(t *testing.T, role string) *client.Session {
	t.Helper()
	s, err := w.login(t, role, vaulttest.Claims{})
	if err != nil {
		t.Fatalf("login as %q: got error %v, want a session", role, err)
	}
	return s
}

// wantError checks the kind of an error, that a reason contains a text, and whether it is in doubt.
func wantError(t *testing.T, err error, kind client.Kind, text string, inDoubt bool) {
	t.Helper()
	e, ok := err.(*client.Error) //nolint:errorlint // the package promises this type, unwrapped
	if !ok {
		t.Fatalf("got error %v (%T), want a *client.Error of kind %v", err, err, kind)
	}
	if e.Kind != kind || e.InDoubt != inDoubt || !strings.Contains(e.Error(), text) {
		t.Errorf("got %v error, in doubt %t: %q\nwant %v, in doubt %t, with %q",
			e.Kind, e.InDoubt, e.Error(), kind, inDoubt, text)
	}
	if strings.ContainsAny(e.Error(), "\n\r\t") {
		t.Errorf("got an error of more than one line: %q", e.Error())
	}
}

func testContract(t *testing.T, w world) {
	w = w.setup(t)
	t.Run("login", func(t *testing.T) { contractLogin(t, w) })
	t.Run("read", func(t *testing.T) { contractRead(t, w) })
	t.Run("lenient", func(t *testing.T) { contractLenient(t, w) })
	t.Run("token", func(t *testing.T) { contractToken(t, w) })
	t.Run("renew token", func(t *testing.T) { contractRenewToken(t, w) })
	t.Run("renew lease", func(t *testing.T) { contractRenewLease(t, w) })
	t.Run("sealed", func(t *testing.T) { contractSealed(t, w) }) // last
}

func contractLogin(t *testing.T, w world) {
	for _, tt := range []struct {
		name, method, role string
		claims             vaulttest.Claims
		reason             string // of a Denied; "" for a session
	}{
		{name: "jwt", method: "jwt", role: "app"},
		{
			name: "jwt: unknown role", method: "jwt", role: "nobody",
			reason: `denied (400): role "nobody" could not be found`,
		},
		{
			name: "jwt: service account not bound", method: "jwt", role: "app",
			claims: vaulttest.Claims{ServiceAccount: "other"},
			reason: "denied (400): error validating token: invalid subject (sub) claim",
		},
		{
			name: "jwt: wrong audience", method: "jwt", role: "audience",
			reason: "denied (400): error validating token: invalid audience (aud) claim",
		},
		{
			name: "jwt: expired", method: "jwt", role: "app", claims: vaulttest.Claims{Life: -time.Hour},
			reason: "denied (400): error validating token: invalid expiration time (exp) claim: token is expired",
		},
		{name: "no such auth method", method: "nowhere", role: "app", reason: "permission denied (403)"},
		{name: "kubernetes", method: "kubernetes", role: "app"},
		{
			name: "kubernetes: unknown role", method: "kubernetes", role: "nobody",
			reason: `denied (400): invalid role name "nobody"`,
		},
		{
			name: "kubernetes: service account not bound", method: "kubernetes", role: "app",
			claims: vaulttest.Claims{ServiceAccount: "other"}, reason: "denied (403): service account name not authorized",
		},
		{
			name: "kubernetes: namespace not bound", method: "kubernetes", role: "app",
			claims: vaulttest.Claims{Namespace: "other"}, reason: "denied (403): namespace not authorized",
		},
		{
			name: "kubernetes: wrong audience", method: "kubernetes", role: "app",
			claims: vaulttest.Claims{Audience: "https://kubernetes"}, reason: "denied (403): invalid audience (aud) claim",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := w.loginBy(t, tt.method, tt.role, w.signer.Token(tt.claims))
			if tt.reason != "" {
				wantError(t, err, client.Denied, tt.reason, false)
				return
			}
			if err != nil {
				t.Fatalf("got error %v, want a session", err)
			}
			if got, want := s.End().Sub(s.Start()), 30*time.Minute; got != want {
				t.Errorf("got a token for %v, want %v", got, want)
			}
			if d := s.End().Sub(s.Start()); d != 30*time.Minute || !s.Renewable() {
				t.Errorf("got duration %v, renewable %t, want 30m that can be renewed", d, s.Renewable())
			}
			if !s.Revocable() || s.Accessor() == "" {
				t.Errorf("got revocable %t, accessor %q, want a service token", s.Revocable(), s.Accessor())
			}
		})
	}
	t.Run("signed by another", func(t *testing.T) {
		jwt := vaulttest.NewSigner(t).Token(vaulttest.Claims{})
		_, err := w.loginBy(t, "jwt", "app", jwt)
		wantError(t, err, client.Denied, "no known key successfully validated the token signature", false)
		_, err = w.loginBy(t, "kubernetes", "app", jwt)
		wantError(t, err, client.Denied, "permission denied (403)", false)
	})
}

func contractRead(t *testing.T, w world) {
	s := w.session(t, "app")
	for _, tt := range []struct {
		name, method, path, args string
		kind                     client.Kind // 0 for a grant
		reason                   string
		data                     []string // texts in the data
		lease                    time.Duration
		renewable                bool
	}{
		{name: "kv v1", path: "kv1/app", data: []string{`"v1"`, "12345678901234567890"}, lease: 768 * time.Hour},
		{name: "kv v1 missing", path: "kv1/nothing", kind: client.Missing, reason: `nothing found (404)`},
		{name: "kv v1 denied", path: "kv1/forbidden", kind: client.Denied, reason: "permission denied (403)"},
		{name: "kv v1 list", method: "LIST", path: "kv1", data: []string{`["app","forbidden"]`}},
		{
			name: "kv v1 write", method: "PUT", path: "kv1/app", args: `{"password":"v1","number":12345678901234567890}`,
			kind: client.Rejected, reason: "Vault answered without data",
		},
		{name: "kv v2", path: "kv2/data/app", data: []string{`{"password":"v2"}`, `"version":1`}},
		{name: "kv v2 with a query", path: "kv2/data/app?version=1", data: []string{`{"password":"v2"}`}},
		{name: "kv v2 missing", path: "kv2/data/nothing", kind: client.Missing, reason: "nothing found (404)"},
		{name: "kv v2 missing version", path: "kv2/data/app?version=7", kind: client.Missing, reason: "found (404)"},
		{name: "kv v2 deleted", path: "kv2/data/gone", kind: client.Missing, reason: "(404): version 1 was deleted at 2"},
		{
			name: "kv v2 without data/", path: "kv2/app", kind: client.Missing,
			reason: "Invalid path for a versioned K/V secrets engine",
		},
		{name: "no mount", path: "nowhere/x", kind: client.Missing, reason: "no handler for route"},
		{name: "database", path: "db/creds/app", data: []string{"username", "password"}, lease: 10 * time.Minute, renewable: true},
		{name: "database: unknown role", path: "db/creds/nobody", kind: client.Rejected, reason: "unknown role: nobody"},
		{
			name: "database: PUT", method: "PUT", path: "db/creds/app", args: `{"x":1}`, kind: client.Rejected,
			reason: "(405): unsupported operation",
		},
		{name: "database: LIST", method: "LIST", path: "db/creds/app", kind: client.Missing, reason: "unsupported path"},
		{name: "static role", path: "db/static-creds/shared", data: []string{"username", "password", `"ttl":3`, "last_vault_rotation"}},
		{
			name: "static role with a schedule", path: "db/static-creds/scheduled",
			data: []string{"username", "password", `"ttl":`, "last_vault_rotation", `"rotation_schedule":"0 * * * *"`},
		},
		{
			name: "pki", method: "PUT", path: "pki/issue/web", args: `{"common_name":"a.example.com"}`,
			data: []string{"BEGIN CERTIFICATE", "PRIVATE KEY", `"expiration":1`},
		},
		{name: "pki: GET", path: "pki/issue/web", kind: client.Rejected, reason: "(405): unsupported operation"},
		{
			name: "pki: no arguments", method: "PUT", path: "pki/issue/web", kind: client.Rejected,
			reason: "(400): the common_name field is required",
		},
		{
			name: "pki: bad arguments", method: "POST", path: "pki/issue/web", args: `{"common_name":"a.example.org"}`,
			kind: client.Rejected, reason: "(400): common name a.example.org not allowed by this role",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := spec.Source{Method: tt.method, Path: w.id + tt.path, Args: tt.args}
			if src.Method == "" {
				src.Method = "GET"
			}
			g, err := s.Read(t.Context(), src)
			if tt.kind != 0 {
				wantError(t, err, tt.kind, tt.reason, false)
				return
			}
			if err != nil {
				t.Fatalf("got error %v, want a grant", err)
			}
			for _, text := range tt.data {
				if !strings.Contains(string(g.Data.Reveal()), text) {
					t.Errorf("got data without %q", text)
				}
			}
			if g.LeaseDuration != tt.lease || g.Renewable != tt.renewable || (g.LeaseID != "") != tt.renewable {
				t.Errorf("got lease %q for %v, renewable %t, want %v, %t",
					g.LeaseID, g.LeaseDuration, g.Renewable, tt.lease, tt.renewable)
			}
			if g.Source != src || g.Obtained.Before(s.Start()) {
				t.Errorf("got source %v at %v, want %v after %v", g.Source, g.Obtained, src, s.Start())
			}
		})
	}
	t.Run("pki with a lease", func(t *testing.T) {
		args := `{"common_name":"a.example.com"}`
		g, err := s.Read(t.Context(), spec.Source{Method: "PUT", Path: w.id + "pki/issue/leased", Args: args})
		if err != nil || g.LeaseID == "" || g.Renewable || g.LeaseDuration < 59*time.Minute {
			t.Errorf("got lease %q for %v, renewable %t, error %v, want one for an hour that cannot be renewed",
				g.LeaseID, g.LeaseDuration, g.Renewable, err)
		}
	})
	t.Run("two reads are two users", func(t *testing.T) {
		src := spec.Source{Method: "GET", Path: w.id + "db/creds/app"}
		one, err := s.Read(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		two, err := s.Read(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(one.Data.Reveal(), two.Data.Reveal()) || one.LeaseID == two.LeaseID {
			t.Error("got the same credentials twice, want two users")
		}
	})
}

// contractLenient reads as templates ask: with a pool that knows nothing of the mounts, and with one that does.
func contractLenient(t *testing.T, w world) {
	for _, tt := range []struct {
		role, method, path string
		kind               client.Kind // 0 for a grant
		asked              string      // the path that the error is about
		text               string      // in the data, or in the error
	}{
		{path: "kv2/app", text: `{"password":"v2"}`},
		{path: "kv2/app?version=1", text: `{"password":"v2"}`},
		{path: "kv2/deep/inner", text: `{"password":"deep"}`},
		{path: "kv2/data/app", text: `{"password":"v2"}`},
		{path: "kv2/metadata/app", text: `"current_version":1`},
		{path: "kv2/config", text: `"max_versions":0`},
		{path: "kv2/app?version=7", kind: client.Missing, asked: "kv2/data/app?version=7", text: "nothing found (404)"},
		{path: "kv2/nothing", kind: client.Missing, asked: "kv2/data/nothing", text: "nothing found (404)"},
		{path: "kv2/gone", kind: client.Missing, asked: "kv2/data/gone", text: "(404): version 1 was deleted at 2"},
		{path: "kv2", kind: client.Missing, asked: "kv2/data", text: "nothing found (404)"},
		{role: "narrow", path: "kv2/app", text: `{"password":"v2"}`},
		{role: "narrow", path: "kv2/data/app", text: `{"password":"v2"}`},
		{role: "narrow", path: "kv2/nothing", kind: client.Missing, asked: "kv2/data/nothing", text: "nothing found (404)"},
		{role: "narrow", path: "kv2/config", kind: client.Missing, asked: "kv2/data/config", text: "nothing found (404)"},
		{role: "narrow", path: "kv2/metadata/app", kind: client.Denied, asked: "kv2/metadata/app", text: "permission denied (403)"},
		{role: "narrow", path: "kv1/app", kind: client.Denied, asked: "kv1/app", text: "permission denied (403)"},
		{path: "kv1/app", text: `"v1"`},
		{path: "kv1/nothing", kind: client.Missing, asked: "kv1/nothing", text: "nothing found (404)"},
		{path: "kv1/forbidden", kind: client.Denied, asked: "kv1/forbidden", text: "permission denied (403)"},
		{path: "nowhere/x", kind: client.Missing, asked: "nowhere/x", text: "no handler for route"},
		{path: "elsewhere/x", kind: client.Denied, asked: "elsewhere/x", text: "permission denied (403)"},
		{path: "db/creds/app", text: "username"},
		{path: "db/creds/nobody", kind: client.Rejected, asked: "db/creds/nobody", text: "unknown role: nobody"},

		{method: "LIST", path: "kv1", text: `{"keys":["app","forbidden"]}`},
		{method: "LIST", path: "kv1/nothing", text: `{"keys":[]}`},
		{method: "LIST", path: "kv2", text: `{"keys":["app","deep/","gone"]}`},
		{method: "LIST", path: "kv2/metadata", text: `{"keys":["app","deep/","gone"]}`},
		{method: "LIST", path: "kv2/deep", text: `{"keys":["inner"]}`},
		{method: "LIST", path: "kv2/metadata/deep", text: `{"keys":["inner"]}`},
		{method: "LIST", path: "kv2/data/deep", text: `{"keys":[]}`},
		{method: "LIST", path: "kv2/nothing", text: `{"keys":[]}`},
		{role: "narrow", method: "LIST", path: "kv2/deep", text: `{"keys":["inner"]}`},
		{role: "narrow", method: "LIST", path: "kv2/data/deep", kind: client.Denied, asked: "kv2/data/deep", text: "permission denied (403)"},
		{role: "narrow", method: "LIST", path: "kv1", kind: client.Denied, asked: "kv1", text: "permission denied (403)"},
	} {
		role, method := cmp.Or(tt.role, "app"), cmp.Or(tt.method, "GET")
		t.Run(fmt.Sprintf("%s %s as %s", method, tt.path, role), func(t *testing.T) {
			w.pool = newPool(t, client.Config{})
			s := w.session(t, role)
			src := spec.Source{Method: method, Path: w.id + tt.path, Lenient: true}
			for _, known := range []bool{false, true} {
				g, err := s.Read(t.Context(), src)
				switch {
				case tt.kind != 0:
					wantError(t, err, tt.kind, tt.text, false)
					if e, ok := errors.AsType[*client.Error](err); ok && e.Path != w.id+tt.asked {
						t.Errorf("mount known %t: got an error about %q, want %q", known, e.Path, w.id+tt.asked)
					}
				case err != nil || !strings.Contains(string(g.Data.Reveal()), tt.text) || g.Source != src:
					t.Errorf("mount known %t: got error %v, source %+v; want data with %q", known, err, g.Source, tt.text)
				}
				if known {
					return
				}
				if _, err := w.session(t, "narrow").Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "kv2/app", Lenient: true}); err != nil {
					t.Fatalf("learn the mount: got error %v", err)
				}
			}
		})
	}
}

func contractToken(t *testing.T, w world) {
	t.Run("revoke ends token and leases", func(t *testing.T) {
		s := w.session(t, "app")
		g, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "db/creds/app"})
		if err != nil {
			t.Fatal(err)
		}
		if status, said := w.lookup(t, g.LeaseID); status != http.StatusOK {
			t.Fatalf("lease before: got status %d: %s, want 200", status, said)
		}
		if err := s.Revoke(t.Context()); err != nil {
			t.Fatalf("revoke: got error %v", err)
		}
		_, err = s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "kv1/app"})
		wantError(t, err, client.Expired, "(403): permission denied; invalid token", false)
		if err := s.Revoke(t.Context()); err != nil {
			t.Errorf("second revoke: got error %v, want none: the token is gone", err)
		}
		// Vault ends the leases after it has answered.
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			status, said := w.lookup(t, g.LeaseID)
			if status == http.StatusBadRequest && strings.Contains(said, "invalid lease") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("lease after: got status %d: %s, want 400: invalid lease", status, said)
			}
		}
	})
	t.Run("batch token", func(t *testing.T) {
		s := w.session(t, "batch")
		if s.Revocable() || s.Accessor() != "" || s.End().Sub(s.Start()) != 30*time.Minute {
			t.Errorf("got revocable %t, accessor %q, life %v, want a batch token for 30m",
				s.Revocable(), s.Accessor(), s.End().Sub(s.Start()))
		}
		if _, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "kv1/app"}); err != nil {
			t.Errorf("read: got error %v", err)
		}
		wantError(t, s.Revoke(t.Context()), client.Rejected, "batch tokens cannot be revoked", false)
	})
	for _, tt := range []struct {
		name, role, text string
		inDoubt          bool // the token could not be revoked
	}{
		{name: "use limit", role: "limited", text: "(token_num_uses = 3)"},
		{name: "no default policy", role: "bare", inDoubt: true, text: `give the role this policy: ` +
			`path "auth/token/renew-self" { capabilities = ["update"] } ` +
			`path "auth/token/revoke-self" { capabilities = ["update"] } ` +
			`path "sys/leases/renew" { capabilities = ["update"] } ` +
			`path "sys/capabilities-self" { capabilities = ["update"] }`},
		{name: "half of the needed policy", role: "half", text: `the token lacks the policy "default"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.login(t, tt.role, vaulttest.Claims{})
			wantError(t, err, client.Rejected, tt.text, tt.inDoubt)
		})
	}
	t.Run("needed policy instead of the default one", func(t *testing.T) {
		if err := w.session(t, "kept").Revoke(t.Context()); err != nil {
			t.Errorf("revoke: got error %v", err)
		}
	})
}

// lookup asks for a lease.
func (w world) lookup(t *testing.T, lease string) (int, string) {
	t.Helper()
	status, said := w.admin(t, http.MethodPut, "sys/leases/lookup", vaulttest.Data{"lease_id": lease})
	return status, string(said)
}

func contractSealed(t *testing.T, w world) {
	if w.real && w.unseal == "" {
		t.Skipf("NOT CHECKED on the real Vault: %s is unset", envUnseal)
	}
	s := w.session(t, "app")
	if status, said := w.admin(t, http.MethodPut, "sys/seal", nil); status != http.StatusNoContent {
		t.Fatalf("seal: got status %d: %s", status, said)
	}
	if w.real {
		t.Cleanup(func() {
			status, said := w.admin(t, http.MethodPut, "sys/unseal", vaulttest.Data{"key": w.unseal})
			if status != http.StatusOK || !bytes.Contains(said, []byte(`"sealed":false`)) {
				t.Errorf("unseal: got status %d: %s", status, said)
			}
		})
	}
	_, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "kv1/app"})
	wantError(t, err, client.Unavailable, "(503): Vault is sealed", false)
	_, err = w.login(t, "app", vaulttest.Claims{})
	wantError(t, err, client.Unavailable, "(503): Vault is sealed", false)
}
