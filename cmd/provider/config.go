package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// config is what the operator of a node says, by flags and by the environment variables of the vault command.
type config struct {
	ProvidersDir string // directory of the providers' sockets, shared with the driver
	ProviderName string // spec.provider of the classes to serve: the socket is <ProvidersDir>/<ProviderName>.sock
	StateDir     string // directory of what the node's instances of the provider share: lock and journal
	HTTPAddr     string // of /livez, /readyz and /metrics

	JournalOnDisk bool   // the journal need not be on a tmpfs
	NodeName      string // whose pods are watched; "" if none are
	Kubeconfig    string // how the API server is reached; "" for a pod's service account
	TokenRequests bool   // may ask the API server for pods' tokens
	Publish       bool   // may write into pods' volumes by itself
	PodsDir       string // kubelet's directory of pods

	Operator     spec.Operator
	Client       client.Config
	MountTimeout time.Duration // how long a Mount waits for Vault before it fails
	AbandonAfter time.Duration // a volume that never mounted is given up after its last try

	LogLevel    slog.Level
	LogFormat   string
	ShowVersion bool
}

// nodeName is what Kubernetes accepts as a node's name; it goes into a selector here.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// driverName is what the driver accepts as a provider's name; it is a path component here.
var driverName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}$`)

// parseConfig reads flags and environment variables (a flag wins) and checks them all. Its error lists every fault;
// flag.ErrHelp means that help was asked for and has been printed to output.
func parseConfig(args []string, getenv func(string) string, output io.Writer) (config, error) {
	var c config
	var faults []error

	envBool := func(name string) bool {
		text := getenv(name)
		if text == "" {
			return false
		}
		value, err := strconv.ParseBool(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("environment variable %s: %q is not true or false", name, text))
		}
		return value
	}
	flags := flag.NewFlagSet("provider", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints errors; the usage is for who asks for it
	flags.StringVar(&c.ProvidersDir, "providers-dir", "/var/run/secrets-store-csi-providers",
		"`directory` of the providers' sockets, shared with the Secrets Store CSI driver")
	flags.StringVar(&c.ProviderName, "provider-name", "vault",
		"`name` that SecretProviderClasses give as spec.provider; the socket is <providers-dir>/<name>.sock")
	flags.StringVar(&c.StateDir, "state-dir", "/run/leasehold",
		"`directory` of the node, on a tmpfs, with the lock of the one instance that answers and the journal of what it holds")
	flags.BoolVar(&c.JournalOnDisk, "journal-on-disk", false,
		"let the journal lie on a disk; whoever reads that disk then has the tokens of all pods of the node")
	flags.StringVar(&c.HTTPAddr, "http-addr", ":8080", "`address` of /livez, /readyz and /metrics")

	flags.StringVar(&c.NodeName, "node-name", getenv("NODE_NAME"),
		"`name` of the node, whose pods are watched so that credentials end with them [NODE_NAME]; none: no pod is watched")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "`file` that tells how to reach the API server; none: by the pod's service account")
	flags.BoolVar(&c.TokenRequests, "token-requests", false,
		"ask the API server for a pod's service account token when the driver brings none; takes the right to make tokens")
	flags.BoolVar(&c.Publish, "publish", true, "write new files into the volumes of running pods at once, not only when the driver polls")
	flags.StringVar(&c.PodsDir, "pods-dir", "/var/lib/kubelet/pods", "kubelet's `directory` of pods, below which -publish writes")

	vault := &c.Operator.Vault
	flags.StringVar(&vault.Address, "vault-addr", getenv("VAULT_ADDR"),
		"default Vault `URL` [VAULT_ADDR]; classes may name no other unless -allowed-vault-addrs lists it")
	flags.StringVar(&vault.Namespace, "vault-namespace", getenv("VAULT_NAMESPACE"), "default Vault `namespace` [VAULT_NAMESPACE]")
	flags.StringVar(&vault.AuthPath, "vault-mount", "kubernetes", "default mount `path` of the Vault auth method, below auth/")
	flags.StringVar(&vault.Audience, "default-audience", "vault", "default `audience` of the service account token that logs in")
	flags.StringVar(&vault.TLS.CACert.Path, "vault-tls-ca-cert", getenv("VAULT_CACERT"), "PEM `file` of certificate authorities for Vault [VAULT_CACERT]")
	flags.StringVar(&vault.TLS.CADirectory.Path, "vault-tls-ca-directory", getenv("VAULT_CAPATH"), "`directory` of such files [VAULT_CAPATH]")
	flags.StringVar(&vault.TLS.ClientCert.Path, "vault-tls-client-cert", getenv("VAULT_CLIENT_CERT"), "PEM `file` of the client certificate for Vault [VAULT_CLIENT_CERT]")
	flags.StringVar(&vault.TLS.ClientKey.Path, "vault-tls-client-key", getenv("VAULT_CLIENT_KEY"), "PEM `file` of its key [VAULT_CLIENT_KEY]")
	flags.StringVar(&vault.TLS.ServerName, "vault-tls-server-name", getenv("VAULT_TLS_SERVER_NAME"), "`name` to verify in Vault's certificate [VAULT_TLS_SERVER_NAME]")
	flags.BoolVar(&vault.TLS.SkipVerify, "vault-tls-skip-verify", envBool("VAULT_SKIP_VERIFY"), "do not verify Vault's certificate, for classes that say nothing [VAULT_SKIP_VERIFY]")

	allowed := flags.String("allowed-vault-addrs", "", "comma-separated `URLs` that classes may name as vaultAddress, beside -vault-addr; * allows any")
	flags.StringVar(&c.Operator.TLSDirectory, "tls-dir", "", "`directory` below which classes may name TLS files; none: they may not")
	flags.BoolVar(&c.Operator.SkipVerify, "allow-skip-tls-verify", false, "let classes ask for vaultSkipTLSVerify")

	flags.DurationVar(&c.MountTimeout, "mount-timeout", 45*time.Second, "how long a Mount waits for Vault; kubelet waits 2m")
	flags.DurationVar(&c.AbandonAfter, "abandon-after", 5*time.Minute,
		"how long what a failed Mount gained is kept for the next try, before it is revoked; kubelet tries every 2m2s at the latest")
	// Vault gives up a request after 90 s by default. Whoever gives up sooner does not know whether a user was made.
	flags.DurationVar(&c.Client.Timeout, "vault-timeout", 100*time.Second, "limit of one request to Vault; Vault's own is 90s")
	flags.IntVar(&c.Client.MaxInFlight, "vault-max-in-flight", 32, "requests in flight at most, per Vault")
	flags.IntVar(&c.Client.MaxTransports, "vault-max-transports", 64, "connection pools kept at most; one serves one Vault and one TLS configuration")
	flags.Int64Var(&c.Client.MaxAnswer, "vault-max-answer", 4<<20, "`bytes` of an answer of Vault at most")

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
			c.Operator.Addresses = append(c.Operator.Addresses, address)
		}
	}
	return c, errors.Join(append(faults, c.check(flags.Args())...)...)
}

// check returns every fault of the settings.
func (c config) check(rest []string) []error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(rest) > 0, "unexpected arguments: %q", rest)
	fault(!filepath.IsAbs(c.ProvidersDir), "-providers-dir: %q is not an absolute path", c.ProvidersDir)
	fault(!filepath.IsAbs(c.StateDir), "-state-dir: %q is not an absolute path", c.StateDir)
	fault(filepath.IsAbs(c.StateDir) && len(statusSocket(c.StateDir, c.ProviderName)) > longestSocket,
		"-state-dir: %q is too long: the path of a socket below it may have %d characters", c.StateDir, longestSocket)
	fault(!filepath.IsAbs(c.PodsDir), "-pods-dir: %q is not an absolute path", c.PodsDir)
	fault(c.NodeName != "" && !nodeName.MatchString(c.NodeName), "-node-name: %q is not the name of a node", c.NodeName)
	fault(c.NodeName == "" && c.Kubeconfig != "", "-kubeconfig: it is for watching pods, which takes -node-name")
	fault(c.NodeName == "" && c.TokenRequests, "-token-requests: it takes -node-name")
	fault(!driverName.MatchString(c.ProviderName), "-provider-name: %q must be 1 to 30 letters, digits, _ or -", c.ProviderName)
	if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
		fault(true, "-http-addr: %w", err)
	}
	fault(c.LogFormat != "json" && c.LogFormat != "text", "-log-format: %q is neither json nor text", c.LogFormat)
	// kubelet gives up after two minutes, and treats its own deadline as "maybe mounted": answer well before.
	fault(c.MountTimeout <= 0 || c.MountTimeout > 100*time.Second, "-mount-timeout: %s must be above 0 and at most 1m40s", c.MountTimeout)
	fault(c.AbandonAfter <= 0, "-abandon-after: %s must be above 0", c.AbandonAfter)
	fault(c.Client.Timeout <= 0 || c.Client.Timeout > 110*time.Second, "-vault-timeout: %s must be above 0 and at most 1m50s", c.Client.Timeout)
	fault(c.Client.MaxInFlight < 1, "-vault-max-in-flight: %d must be at least 1", c.Client.MaxInFlight)
	fault(c.Client.MaxTransports < 1, "-vault-max-transports: %d must be at least 1", c.Client.MaxTransports)
	fault(c.Client.MaxAnswer < 1, "-vault-max-answer: %d must be at least 1", c.Client.MaxAnswer)
	if err := c.Operator.Validate(); err != nil {
		faults = append(faults, err)
	}
	return faults
}
