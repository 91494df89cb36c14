package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// The stub is a Vault at its worst: it logs everybody in, and answers every other request by a handler of the test.
// Where a sane Vault will do, use vaulttest.

const (
	stubToken = "hvs.CAESIcanaryOfTheTokenThatMustNotBePrinted"
	stubJWT   = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canaryOfTheSignatureThatMustNotBePrinted"
	stubLogin = `{"request_id":"1","auth":{"client_token":"` + stubToken + `","accessor":"a","token_type":"service",` +
		`"policies":["default"],"lease_duration":60}}`
	stubData = `{"request_id":"2","data":{"password":"x"}}`
)

// stub wraps a handler for everything but logins.
func stub(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/login") {
			_, _ = io.WriteString(w, stubLogin)
			return
		}
		h(w, r)
	})
}

// answering is a handler with one answer.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// serve starts a plain server.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func vaultAt(address string) spec.Vault {
	return spec.Vault{Address: address, AuthPath: "kubernetes", Role: "app"}
}

// open logs in, or ends the test.
func open(t testing.TB, pool *client.Pool, v spec.Vault) *client.Session {
	t.Helper()
	s, err := pool.Login(t.Context(), v, redact.New(stubJWT))
	if err != nil {
		t.Fatalf("login: got error %v", err)
	}
	return s
}

func get(path string) spec.Source { return spec.Source{Method: "GET", Path: path} }

// furnished starts a fake Vault and returns it with a JWT that it accepts.
func furnished(t testing.TB) (*vaulttest.Server, redact.String) {
	v := vaulttest.New(t)
	return v, v.Signer.Token(vaulttest.Claims{})
}
