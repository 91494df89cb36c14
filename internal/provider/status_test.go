package provider

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// TestHandshakeHasACureOfItsOwn keeps "the pod starts by itself" for what passes by itself.
func TestHandshakeHasACureOfItsOwn(t *testing.T) {
	mount := spec.Mount{Class: spec.Class{Vault: spec.Vault{Address: "https://vault.example"}}}
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	for _, row := range []struct {
		err  error
		want string
	}{
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "vaultCACertPath"},
		{&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "other"}}, "vaultTLSServerName"},
		{alert, "tls.crt and tls.key"},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, "the pod starts by itself once Vault at https://vault.example answers"},
		{nil, "the pod starts by itself"},
	} {
		got := describe(mount, &client.Error{Kind: client.Unavailable, Op: "login", Path: "auth/kubernetes/login", Err: row.err}).Message()
		if !strings.Contains(got, row.want) {
			t.Errorf("%v: got %q, want it to say %q", row.err, got, row.want)
		}
	}
}
