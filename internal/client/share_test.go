package client_test

import (
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// A connection carries the client certificate of the volume that made it. Another volume must not come to Vault by it.
func TestClientCertificateIsNotShared(t *testing.T) {
	server, pod := newIdentity(t), newIdentity(t)
	s := serveTLS(t, server, pod.cert)
	pool := newPool(t, client.Config{})
	v := vaultAt(s.URL)
	v.TLS = spec.TLS{CA: server.cert, ServerName: "vault.example", Cert: pod.cert, Key: redact.New(pod.key)}
	open(t, pool, v)

	without := v
	without.TLS.Cert, without.TLS.Key = "", redact.String{}
	_, err := pool.Login(t.Context(), without, redact.New(stubJWT))
	wantError(t, err, client.Unavailable, "tls: certificate required", false)
}
