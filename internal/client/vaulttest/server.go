// Package vaulttest is a Vault for unit tests: a fake with the answers and the error texts of the real one.
//
// [New] starts one that is furnished already: the service account "app" of namespace "shop" may log in as role "app"
// and read kv/app, secret/data/app, database/creds/app, database/static-creds/shared and, by PUT, pki/issue/app. More is configured as in a real Vault, by [Server.Write] with the paths and
// arguments of Vault's HTTP API. What happened can be asked afterwards: requests, live leases, live tokens.
//
//	v := vaulttest.New(t)
//	session, err := pool.Login(ctx, v.Vault("app"), v.Signer.Token(vaulttest.Claims{}))
//
// It speaks only what Leasehold needs. The contract suite of package client runs against it and against a real Vault
// alike, and fails when the two disagree.
package vaulttest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"leasehold/internal/spec"
)

const (
	// RootToken may do everything.
	RootToken = "root"
	// AuthPath is where the furnished auth method is mounted.
	AuthPath = "kubernetes"
	// Audience is the audience that the furnished role asks for.
	Audience = "vault"
)

// Data is a JSON object: what is written to Vault.
type Data = map[string]any

// Server is a fake Vault. It is safe for concurrent use.
type Server struct {
	Signer *Signer // whom the furnished auth method trusts

	tb   testing.TB
	http *httptest.Server

	mu        sync.Mutex // guards all below
	intercept func(http.ResponseWriter, *http.Request) bool
	sealed    bool
	requests  []string          // "GET kv/app", in the order of their arrival
	mounts    map[string]*mount // mount path -> engine
	auths     map[string]*auth  // mount path below auth/ -> auth method
	policies  map[string][]rule // policy name -> rules
	tokens    map[string]*token // token -> what it may
	leases    map[string]*lease // lease id -> lease
}

// New starts a furnished Vault that ends with the test.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{
		Signer:   NewSigner(tb),
		tb:       tb,
		mounts:   map[string]*mount{},
		auths:    map[string]*auth{},
		policies: map[string][]rule{"default": parsePolicy(defaultPolicy)},
		tokens:   map[string]*token{RootToken: {kind: "service", policies: []string{"root"}}},
		leases:   map[string]*lease{},
	}
	s.http = httptest.NewServer(s)
	tb.Cleanup(s.http.Close)
	s.furnish()
	s.mu.Lock()
	s.requests = nil
	s.mu.Unlock()
	return s
}

// furnish makes what most tests need.
func (s *Server) furnish() {
	s.Write("sys/mounts/kv", Data{"type": "kv", "options": Data{"version": "1"}})
	s.Write("sys/mounts/secret", Data{"type": "kv", "options": Data{"version": "2"}})
	s.Write("sys/mounts/database", Data{"type": "database"})
	s.Write("sys/mounts/pki", Data{"type": "pki"})
	s.Write("kv/app", Data{"username": "app", "password": "kv-v1-password"})
	s.Write("secret/data/app", Data{"data": Data{"username": "app", "password": "kv-v2-password"}})
	s.Write("database/roles/app", Data{"default_ttl": "1h", "max_ttl": "24h"})
	s.Write("database/static-roles/shared", Data{"username": "shared", "rotation_period": "1h"})
	s.Write("pki/roles/app", Data{"allowed_domains": "example.com", "allow_subdomains": true, "max_ttl": "1h"})
	s.Write("sys/policies/acl/app", Data{"policy": `
		path "kv/*"       { capabilities = ["read", "list"] }
		path "secret/*"   { capabilities = ["read", "list"] }
		path "database/*" { capabilities = ["read"] }
		path "pki/*"      { capabilities = ["read", "update"] }`})
	s.Write("sys/auth/"+AuthPath, Data{"type": "jwt"})
	s.Write("auth/"+AuthPath+"/config", Data{"jwt_validation_pubkeys": []string{s.Signer.PublicKey()}})
	s.Write("auth/"+AuthPath+"/role/app", Data{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": "system:serviceaccount:shop:app",
		"bound_audiences": []string{Audience}, "token_policies": []string{"app"}, "token_ttl": "1h",
	})
}

// Address returns the address, http://127.0.0.1:port.
func (s *Server) Address() string { return s.http.URL }

// Vault returns the way to this Vault with the furnished auth method.
func (s *Server) Vault(role string) spec.Vault {
	return spec.Vault{Address: s.http.URL, AuthPath: AuthPath, Role: role, Audience: Audience}
}

// Write configures the server as its administrator. A failure ends the test.
func (s *Server) Write(path string, data Data) {
	s.tb.Helper()
	if status, body := s.admin(http.MethodPost, path, data); status >= 300 {
		s.tb.Fatalf("write %q: got status %d: %s", path, status, body)
	}
}

// Delete deletes as the administrator. A failure ends the test.
func (s *Server) Delete(path string) {
	s.tb.Helper()
	if status, body := s.admin(http.MethodDelete, path, nil); status >= 300 {
		s.tb.Fatalf("delete %q: got status %d: %s", path, status, body)
	}
}

// admin makes a request with the root token, without the network and without being counted or intercepted.
func (s *Server) admin(method, path string, data Data) (int, string) {
	s.tb.Helper()
	body, err := json.Marshal(data)
	if err != nil {
		s.tb.Fatal(err)
	}
	r := httptest.NewRequestWithContext(s.tb.Context(), method, "/v1/"+path, bytes.NewReader(body))
	r.Header.Set("X-Vault-Token", RootToken)
	w := httptest.NewRecorder()
	s.serve(w, r)
	return w.Code, w.Body.String()
}

// Intercept gives f each request first; f returns true if it answered in Vault's stead. Nil takes it away.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Seal seals the server, or unseals it.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// Close ends the server before the test does: it is then a Vault that is down.
func (s *Server) Close() { s.http.Close() }

// Requests returns the requests of clients so far as "METHOD path", path without v1/ and query.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns how many requests with this method and path clients have made.
func (s *Server) Count(method, path string) int {
	n := 0
	for _, r := range s.Requests() {
		if r == method+" "+path {
			n++
		}
	}
	return n
}

// Leases returns the ids of the live leases, sorted.
func (s *Server) Leases() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return slices.Sorted(maps.Keys(s.leases))
}

// Users returns the names of the live database users, sorted: one for each lease of database/creds.
func (s *Server) Users() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var users []string
	for _, l := range s.leases {
		if l.user != "" {
			users = append(users, l.user)
		}
	}
	slices.Sort(users)
	return users
}

// Tokens returns the live tokens that logins have given out, sorted, so that a test can search for them where they must
// not be.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var tokens []string
	for id := range s.tokens {
		if id != RootToken {
			tokens = append(tokens, id)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// ServeHTTP serves Vault's HTTP API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	intercept := s.intercept
	s.requests = append(s.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/"))
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	s.serve(w, r)
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	rep := s.handle(r, body)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	if rep.status == http.StatusNoContent {
		w.WriteHeader(rep.status)
		return
	}
	w.WriteHeader(rep.status)
	_ = json.NewEncoder(w).Encode(rep.body)
}
