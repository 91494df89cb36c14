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

// A policy is named by what it must allow, and a path is mended where it was written: in the class, or in a template.
func TestCureIsOfTheSource(t *testing.T) {
	mount := spec.Mount{Class: spec.Class{Vault: spec.Vault{Role: "app"}}}
	for _, row := range []struct {
		kind   client.Kind
		source spec.Source
		says   string
		silent string
	}{
		{client.Denied, spec.Source{Method: "GET"}, `Vault role "app" must allow "read" on that path`, "template"},
		{client.Denied, spec.Source{Method: "GET", Lenient: true}, `Vault role "app" must allow "read" on that path`, "template"},
		{client.Denied, spec.Source{Method: "LIST", Lenient: true}, `Vault role "app" must allow "list" on that path`, "read\" on"},
		{client.Denied, spec.Source{Method: "PUT", Lenient: true}, `Vault role "app" must allow "update" on that path`, "read\" on"},
		{client.Denied, spec.Source{Method: "POST"}, `Vault role "app" must allow "update" on that path`, "read\" on"},
		{client.Missing, spec.Source{Method: "GET"}, "check secretPath (for KV version 2 it contains data/ after the mount)", "template"},
		{client.Missing, spec.Source{Method: "GET", Lenient: true}, "check the path in the template", "data/"},
	} {
		cause := &client.Error{Kind: row.kind, Op: "read", Path: "kv/app"}
		got := describe(mount, errors.Join(&render.Error{Objects: []string{"x"}, Source: row.source, Err: cause})).Message()
		if !strings.Contains(got, `object "x": read "kv/app"`) || !strings.Contains(got, row.says) || strings.Contains(got, row.silent) {
			t.Errorf("%v of %+v: got %q, want it to say %q and not %q", row.kind, row.source, got, row.says, row.silent)
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
