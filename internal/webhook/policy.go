package webhook

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/spec"
)

// Policy is what the operator decides for all admissions.
type Policy struct {
	// Vault are the provider's own defaults. A class leaves out what its pod does not ask for, so that they hold; here they
	// only serve to tell whether a class is complete and allowed.
	Vault spec.Vault

	Addresses       []string    // addresses of Vault that pods may name beside the default one; "*" allows any
	SkipVerify      bool        // pods may ask for tls-skip-verify
	ProxyAllowed    bool        // pods may have a proxy-address: the provider's own way to Vault serves them as well
	DefaultRole     string      // of pods that name none; {serviceAccount} and {namespace} are replaced; "" is none
	DefaultTemplate string      // of pods that name none: map, json, env or properties; "" is map
	Permissions     Permissions // what to do about files that their readers could not read; 0 is Compat
	Impossible      Impossible  // what to do about annotations that cannot work; 0 is Deny
	ProviderName    string      // spec.provider of the classes

	// CheckTemplate returns what is wrong with a template before it is ever used; nil: nobody knows.
	CheckTemplate func(spec.Template) error
}

// Permissions says what to do about a file that only root could read in a pod whose containers run as somebody else: the
// injector's files belong to the agent's user, and these belong to root.
type Permissions int

// The policies for permissions.
const (
	Compat Permissions = iota + 1 // let everybody in the pod read the file, and warn
	Strict                        // deny the pod
)

// Impossible says what to do about annotations that cannot work without a sidecar.
type Impossible int

// The policies for what cannot work.
const (
	Deny Impossible = iota + 1 // deny the pod, so that nobody finds out later
	Warn                       // admit the pod without them, and warn
)

// defaultTemplates are what a secret without a template can be written as. The first one is the default.
var defaultTemplates = []string{"map", "json", "env", "properties"}

// role returns the default role of a pod, "" without one.
func (p Policy) role(pod *corev1.Pod) string {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return strings.NewReplacer("{serviceAccount}", account, "{namespace}", pod.Namespace).Replace(p.DefaultRole)
}

// operator returns the policy as the provider has it.
func (p Policy) operator() spec.Operator {
	return spec.Operator{Vault: p.Vault, Addresses: p.Addresses, SkipVerify: p.SkipVerify}
}

// Denial is why a pod is denied: all reasons at once, each with the annotation, what is wrong with it and what to do
// instead.
type Denial []string

// Error lists the reasons in one line, numbered when there are several.
func (d Denial) Error() string {
	if len(d) == 1 {
		return d[0]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d reasons: ", len(d))
	for i, reason := range d {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "(%d) %s", i+1, reason)
	}
	return b.String()
}

// maxFindings bounds what an author can make long, and what ends in events.
const maxFindings = 100

// later is a part of a finding that takes time to find out: only what is said is looked for.
type later func() string

// String implements fmt.Stringer.
func (l later) String() string { return l() }

// findings are what is to be said about a pod's annotations.
type findings struct {
	denials  Denial
	warnings []string
	lenient  bool // what cannot work is a warning
}

func (f *findings) deny(format string, args ...any) {
	if len(f.denials) < maxFindings {
		f.denials = append(f.denials, fmt.Sprintf(format, args...))
	}
}

func (f *findings) warn(format string, args ...any) {
	if len(f.warnings) < maxFindings {
		f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
	}
}

// impossible is about what cannot work without a sidecar.
func (f *findings) impossible(format string, args ...any) {
	if f.lenient {
		f.warn(format, args...)
		return
	}
	f.deny(format, args...)
}
