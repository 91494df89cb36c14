package provider

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"leasehold/internal/client"
	"leasehold/internal/lease"
	"leasehold/internal/render"
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

// What is wrong with the node, or with the provider, is nothing that a class's author could mend, and passes by itself.
func TestCodeTellsWhoCanMendIt(t *testing.T) {
	source := spec.Source{Method: "GET", Path: "kv/app"}
	rejected := &client.Error{Kind: client.Rejected, Op: "read", Path: "kv/app"}
	node := errors.New("the provider cannot write down what it holds: no space left on device")
	for _, row := range []struct {
		err  error
		want codes.Code
	}{
		{node, codes.Internal},
		{errors.Join(&render.Error{Objects: []string{"x"}, Source: source, Err: node}), codes.Internal},
		{errors.Join(&render.Error{Objects: []string{"x"}, Source: source, Err: errors.New("no key"), Unfit: true}), codes.FailedPrecondition},
		{errors.Join(&render.Error{Objects: []string{"x"}, Source: source, Err: rejected}), codes.FailedPrecondition},
		{errors.Join(node, rejected), codes.FailedPrecondition},
		{errors.New("the provider is ending"), codes.Internal},
		{fmt.Errorf("request a token of service account: %w", errors.New("403")), codes.Internal},
		{&PublishError{syscall.ENOSPC}, codes.Internal},
		{&lease.PanicError{}, codes.Internal},
		{slowError{}, codes.Internal},
		{errors.Join(&render.Error{Objects: []string{"x"}, Source: source, Err: errOldLogin}), codes.FailedPrecondition},
	} {
		if got := describe(spec.Mount{}, row.err).Code(); got != row.want {
			t.Errorf("%v: got code %v, want %v", row.err, got, row.want)
		}
	}
}
