package provider

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leasehold/internal/client"
	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// mostNamed is how many failures a message names. It ends in events and logs.
const mostNamed = 12

// describe turns a failed Mount into what the driver gets to see: kubelet shows the message in the pod's events, so it
// names pod, objects, Vault path, cause and cure.
//
// The code must be one that kubelet takes as final. After Canceled, DeadlineExceeded, Unavailable, ResourceExhausted
// or Aborted it keeps the volume's directory as "maybe mounted"; with rotation on, the driver then takes the directory
// for a fresh mount, skips the call and reports success, and the pod starts on an empty volume.
func describe(mount spec.Mount, err error) *status.Status {
	var faults spec.Faults
	if errors.As(err, &faults) {
		return status.New(codes.InvalidArgument, fmt.Sprintf("pod %s/%s: %v", mount.Pod.Namespace, mount.Pod.Name, faults))
	}
	causes := split(err)
	var sentences []string
	code := codes.Internal
	for i, cause := range causes {
		code = graver(code, codeOf(cause))
		if i >= mostNamed {
			continue
		}
		sentence := cause.Error()
		if cure := cure(mount, cause); cure != "" {
			sentence += "; " + cure
		}
		sentences = append(sentences, sentence)
	}
	if more := len(causes) - mostNamed; more > 0 {
		sentences = append(sentences, fmt.Sprintf("and %d more failures", more))
	}
	return status.New(code, fmt.Sprintf("pod %s/%s: %s", mount.Pod.Namespace, mount.Pod.Name, strings.Join(sentences, " | ")))
}

// split returns the errors that were joined into err.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// codeOf maps what to do next to a code. Everything is final; see describe.
func codeOf(err error) codes.Code {
	switch client.KindOf(err) {
	case client.Denied:
		return codes.PermissionDenied
	case client.Missing:
		return codes.NotFound
	case client.Rejected:
		return codes.FailedPrecondition
	case client.Unavailable, client.Expired:
		return codes.Internal
	}
	if failure := (*render.Error)(nil); errors.As(err, &failure) && failure.Unfit {
		return codes.FailedPrecondition // Vault's answer does not fit what the object asks of it
	}
	if errors.Is(err, errOldLogin) {
		return codes.FailedPrecondition
	}
	// The node is in trouble, not the class: waiting ended, there is no journal or no room in the volume, the API server
	// gives no token, the provider ends or has a defect. The next try goes on from there.
	return codes.Internal
}

// graver returns the code of two failures that a person must look at first: Internal may pass by itself.
func graver(a, b codes.Code) codes.Code {
	if a == codes.Internal {
		return b
	}
	return a
}

// cure says what is likely to help, or "".
func cure(mount spec.Mount, err error) string {
	var failure *client.Error
	if !errors.As(err, &failure) {
		return ""
	}
	vault, pod := mount.Class.Vault, mount.Pod
	switch failure.Kind {
	case client.Denied:
		if failure.Op == "login" {
			return fmt.Sprintf("check that auth/%s has the role %q and that it is bound to service account %s/%s and to audience %q",
				vault.AuthPath, vault.Role, pod.Namespace, pod.ServiceAccount, vault.Audience)
		}
		return fmt.Sprintf("a policy of Vault role %q must allow %q on that path", vault.Role, capability(sourceOf(err)))
	case client.Missing:
		if sourceOf(err).Lenient {
			return "check the path in the template, and that the secret was written and not deleted"
		}
		return "check secretPath (for KV version 2 it contains data/ after the mount), and that the secret was written and not deleted"
	case client.Unavailable:
		if cure := cureTLS(failure.Err); cure != "" {
			return cure
		}
		return fmt.Sprintf("the pod starts by itself once Vault at %s answers", vault.Address)
	case client.Expired:
		return "the next try logs in anew"
	case client.Rejected:
		return "" // the reason says it
	}
	return ""
}

// cureTLS says what is likely to help when a TLS handshake failed, or "".
func cureTLS(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		network   *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "name the authority of Vault's certificate with vaultCACertPath, or put it into a nodePublishSecretRef as ca.crt"
	case errors.As(err, &name):
		return "set vaultTLSServerName to a name that Vault's certificate is for"
	case errors.As(err, &network) && network.Op == "remote error": // an alert: Vault ended the handshake
		return "if Vault asks for a client certificate, put one that it accepts into a nodePublishSecretRef as tls.crt and tls.key"
	}
	return ""
}

// sourceOf is the source that failed; the zero Source if it was not about one.
func sourceOf(err error) spec.Source {
	var failure *render.Error
	if !errors.As(err, &failure) {
		return spec.Source{}
	}
	return failure.Source
}

// capability is what a Vault policy must allow for a source.
func capability(source spec.Source) string {
	switch source.Method {
	case http.MethodPut, http.MethodPost:
		return "update"
	case "LIST":
		return "list"
	default:
		return "read"
	}
}
