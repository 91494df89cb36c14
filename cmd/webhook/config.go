package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"leasehold/internal/spec"
	"leasehold/internal/webhook"
)

// config is what the operator of a cluster says, by flags; who we are comes from the pod, by environment variables.
type config struct {
	HTTPSAddr string // of the admission reviews
	HTTPAddr  string // of /livez, /readyz and /metrics

	Namespace  string // of the webhook itself, its Service, Secret and Lease
	Identity   string // name of this replica, unlike all others
	Service    string // by whose name the API server calls the webhook
	Secret     string // with the certificates that the replicas share
	Lease      string // of the replica that sweeps
	Mutating   string // name of the MutatingWebhookConfiguration
	Validating string // name of the ValidatingWebhookConfiguration
	Kubeconfig string // how the API server is reached; "" for a pod's service account

	Policy   webhook.Policy
	Operator spec.Operator

	ClassGrace      time.Duration
	CertificateLife time.Duration
	Drain           time.Duration

	LogLevel    slog.Level
	LogFormat   string
	ShowVersion bool
}

var (
	// objectName is what Kubernetes accepts as the name of most objects; serviceName that of a Service, which is a label of
	// a DNS name.
	objectName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	serviceName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

	// driverName is what the driver accepts as a provider's name.
	driverName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}$`)

	// defaultTemplate is what a secret without a template of its own can look like.
	defaultTemplate = regexp.MustCompile(`^(map|json|env|properties)$`)
)

// parseConfig reads flags and environment variables (a flag wins) and checks them all. Its error lists every fault;
// flag.ErrHelp means that help was asked for and has been printed to output.
func parseConfig(args []string, getenv func(string) string, output io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints errors; the usage is for who asks for it
	flags.StringVar(&c.HTTPSAddr, "https-addr", ":9443", "`address` of the admission reviews, behind the Service")
	flags.StringVar(&c.HTTPAddr, "http-addr", ":8080", "`address` of /livez, /readyz and /metrics")

	flags.StringVar(&c.Namespace, "namespace", getenv("POD_NAMESPACE"), "`name` of the webhook's own namespace [POD_NAMESPACE]")
	flags.StringVar(&c.Identity, "identity", getenv("POD_NAME"), "`name` of this replica, unlike all others [POD_NAME]")
	flags.StringVar(&c.Service, "service", "leasehold-webhook", "`name` of the Service by which the API server calls the webhook")
	flags.StringVar(&c.Secret, "secret", "leasehold-webhook", "`name` of the Secret with the certificates that the replicas share; it must exist")
	flags.StringVar(&c.Lease, "lease", "leasehold-webhook", "`name` of the Lease of the replica that sweeps unused classes; it must exist")
	flags.StringVar(&c.Mutating, "mutating-configuration", "leasehold-webhook", "`name` of the MutatingWebhookConfiguration that gets the authority")
	flags.StringVar(&c.Validating, "validating-configuration", "leasehold-webhook", "`name` of the ValidatingWebhookConfiguration that gets the authority")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "`file` that tells how to reach the API server; none: by the pod's service account")

	policy := &c.Policy
	flags.StringVar(&policy.ProviderName, "provider-name", "vault", "`name` of the provider in the classes that are made")
	flags.StringVar(&policy.Vault.Address, "vault-addr", "", "the provider's default Vault `URL`")
	flags.StringVar(&policy.Vault.Namespace, "vault-namespace", "", "the provider's default Vault `namespace`")
	flags.StringVar(&policy.Vault.AuthPath, "vault-mount", "kubernetes", "the provider's default mount `path` of the Vault auth method, below auth/")
	flags.StringVar(&policy.Vault.Audience, "default-audience", "vault", "the provider's default `audience` of service account tokens")
	allowed := flags.String("allowed-vault-addrs", "", "comma-separated `URLs` that pods may name, beside -vault-addr; * allows any")
	flags.BoolVar(&policy.SkipVerify, "allow-skip-tls-verify", false, "let pods ask for tls-skip-verify")
	flags.BoolVar(&policy.ProxyAllowed, "allow-proxy", false, "let pods have a proxy-address, which changes nothing: the provider has its own way to Vault")
	flags.StringVar(&c.Operator.TLSDirectory, "tls-dir", "", "the provider's `directory` below which classes may name TLS files")
	flags.StringVar(&policy.DefaultRole, "default-role", "", "Vault `role` of pods that name none; {serviceAccount} and {namespace} in it are replaced")
	flags.StringVar(&policy.DefaultTemplate, "default-template", "map", "map, json, env or properties: what a secret without a template looks like")
	permissions := flags.String("permissions", "compat", "compat: files that their readers could not read are made readable; strict: such pods are denied")
	impossible := flags.String("impossible", "deny", "deny or warn: what becomes of annotations that cannot work without a sidecar")

	flags.DurationVar(&c.ClassGrace, "class-grace", time.Hour, "how long a class is kept after a pod has last asked for it, if no pod names it")
	flags.DurationVar(&c.CertificateLife, "certificate-life", 30*24*time.Hour, "how long a certificate lives; it is renewed after two thirds of that")
	flags.DurationVar(&c.Drain, "drain", 5*time.Second, "how long to serve on when told to end, until the API server calls others")

	flags.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	flags.StringVar(&c.LogFormat, "log-format", "json", "json or text")
	flags.BoolVar(&c.ShowVersion, "version", false, "print the version and end")

	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(output)
			flags.Usage()
		}
		return config{}, err // a flag that cannot be read ends the reading: what follows it may be its value
	}
	if c.ShowVersion {
		return c, nil
	}
	for _, address := range strings.Split(*allowed, ",") {
		if address = strings.TrimSpace(address); address != "" {
			policy.Addresses = append(policy.Addresses, address)
		}
	}
	faults := c.check(flags.Args())
	switch *permissions {
	case "compat":
		policy.Permissions = webhook.Compat
	case "strict":
		policy.Permissions = webhook.Strict
	default:
		faults = append(faults, fmt.Errorf("-permissions: %q is neither compat nor strict", *permissions))
	}
	switch *impossible {
	case "deny":
		policy.Impossible = webhook.Deny
	case "warn":
		policy.Impossible = webhook.Warn
	default:
		faults = append(faults, fmt.Errorf("-impossible: %q is neither deny nor warn", *impossible))
	}
	// What classes are held against is what pods are: the provider's settings.
	c.Operator.Vault, c.Operator.Addresses, c.Operator.SkipVerify = policy.Vault, policy.Addresses, policy.SkipVerify
	if err := c.Operator.Validate(); err != nil {
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}

// check returns every fault of the settings that can be seen by themselves.
func (c config) check(rest []string) []error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(rest) > 0, "unexpected arguments: %q", rest)
	for _, setting := range []struct{ flag, address string }{{"-https-addr", c.HTTPSAddr}, {"-http-addr", c.HTTPAddr}} {
		if _, _, err := net.SplitHostPort(setting.address); err != nil {
			fault(true, "%s: %w", setting.flag, err)
		}
	}
	for _, setting := range []struct {
		flag, name string
		form       *regexp.Regexp
	}{
		{"-namespace", c.Namespace, serviceName},
		{"-identity", c.Identity, objectName},
		{"-service", c.Service, serviceName},
		{"-secret", c.Secret, objectName},
		{"-lease", c.Lease, objectName},
		{"-mutating-configuration", c.Mutating, objectName},
		{"-validating-configuration", c.Validating, objectName},
	} {
		fault(!setting.form.MatchString(setting.name), "%s: %q is not the name of one", setting.flag, setting.name)
	}
	fault(!driverName.MatchString(c.Policy.ProviderName), "-provider-name: %q must be 1 to 30 letters, digits, _ or -", c.Policy.ProviderName)
	fault(!defaultTemplate.MatchString(c.Policy.DefaultTemplate), "-default-template: %q is none of map, json, env and properties", c.Policy.DefaultTemplate)
	fault(len(c.Policy.DefaultRole) > 1024 || strings.ContainsFunc(c.Policy.DefaultRole, func(r rune) bool { return r < ' ' || r == 0x7f }),
		"-default-role: %q is no role: write it in one line", c.Policy.DefaultRole)
	fault(c.ClassGrace < webhook.MinGrace, "-class-grace: %s must be at least %s", c.ClassGrace, webhook.MinGrace)
	fault(c.CertificateLife < webhook.MinLife, "-certificate-life: %s must be at least %s", c.CertificateLife, webhook.MinLife)
	// A pod has 30 s to end by default, and the admissions at work need the rest of them.
	fault(c.Drain < 0 || c.Drain > 14*time.Second, "-drain: %s must be from 0s to 14s", c.Drain)
	fault(c.LogFormat != "json" && c.LogFormat != "text", "-log-format: %q is neither json nor text", c.LogFormat)
	return faults
}
