package bed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

// VaultOptions say what a Vault is to be like. The zero value is a plain HTTP server with file storage.
type VaultOptions struct {
	TLS             bool          // serve HTTPS with a certificate of a private authority
	ClientCerts     bool          // accept clients with a certificate of that authority only (implies TLS)
	InMemory        bool          // storage ends with the process: a restarted Vault is a new one
	Audit           bool          // write AuditFile
	MaxLeaseTTL     time.Duration // 0: Vault's own, 768h
	DefaultLeaseTTL time.Duration // 0: MaxLeaseTTL
}

// Vault is a real Vault server. After StartVault it is initialised and unsealed.
type Vault struct {
	Address   string // URL, the same for the Vault's whole life
	RootToken string
	UnsealKey string      // the only one
	Client    *api.Client // with the root token

	LogFile   string
	AuditFile string     // every request and answer in clear (log_raw), one JSON object a line; "" without Audit
	Authority *Authority // nil without TLS
	Identity  KeyPair    // a client's certificate that it accepts; zero without ClientCerts

	bed     *Bed
	name    string
	binary  string
	config  string
	options VaultOptions
	process *Process // nil while it is stopped
}

// StartVault starts the binary that the environment variable VAULT_BIN or LEASEHOLD_VAULT names, which may be a stock
// vault or bao, or else the one that the Makefile builds from test/vault.
func (b *Bed) StartVault(ctx context.Context, o VaultOptions) (*Vault, error) {
	v, err := b.newVault(o)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	b.onClose(v.end)
	if err := v.Start(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// newVault lays out the files of a Vault.
func (b *Bed) newVault(o VaultOptions) (*Vault, error) {
	path, err := builtBinary("vault", "VAULT_BIN", "LEASEHOLD_VAULT")
	if err != nil {
		return nil, err
	}
	dir, err := b.newDir("vault")
	if err != nil {
		return nil, err
	}
	port, err := b.port("vault")
	if err != nil {
		return nil, err
	}
	o.TLS = o.TLS || o.ClientCerts
	v := &Vault{bed: b, name: filepath.Base(dir), binary: path, options: o}
	v.LogFile = b.logFile(v.name)
	v.config = filepath.Join(dir, "config.hcl")
	if o.Audit {
		v.AuditFile = filepath.Join(dir, "audit.log")
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	scheme, listener := "http", "  tls_disable = true\n"
	if o.TLS {
		scheme = "https"
		if listener, transport.TLSClientConfig, err = v.secure(); err != nil {
			return nil, err
		}
	}
	host := net.JoinHostPort(b.Host, strconv.Itoa(port))
	v.Address = scheme + "://" + host
	b.onClose(func() error { transport.CloseIdleConnections(); return nil })
	if v.Client, err = newClient(v.Address, transport); err != nil {
		return nil, err
	}

	var hcl strings.Builder
	if o.InMemory {
		hcl.WriteString("storage \"inmem\" {}\n")
	} else {
		fmt.Fprintf(&hcl, "storage \"file\" {\n  path = %q\n}\n", filepath.Join(dir, "data"))
	}
	fmt.Fprintf(&hcl, "listener \"tcp\" {\n  address = %q\n%s}\n", host, listener)
	fmt.Fprintf(&hcl, "api_addr = %q\ndisable_mlock = true\nlog_level = \"info\"\n", v.Address)
	if o.DefaultLeaseTTL == 0 {
		o.DefaultLeaseTTL = o.MaxLeaseTTL
	}
	if o.DefaultLeaseTTL > 0 {
		fmt.Fprintf(&hcl, "default_lease_ttl = %q\n", o.DefaultLeaseTTL)
	}
	if o.MaxLeaseTTL > 0 {
		fmt.Fprintf(&hcl, "max_lease_ttl = %q\n", o.MaxLeaseTTL)
	}
	return v, os.WriteFile(v.config, []byte(hcl.String()), 0o600)
}

// secure makes the certificates, and returns the listener's lines and the root client's side of it.
func (v *Vault) secure() (string, *tls.Config, error) {
	authority, err := v.bed.NewAuthority()
	if err != nil {
		return "", nil, err
	}
	v.Authority = authority
	server, err := authority.Server(v.name, net.ParseIP(v.bed.Host))
	if err != nil {
		return "", nil, err
	}
	lines := fmt.Sprintf("  tls_cert_file = %q\n  tls_key_file = %q\n", server.CertFile, server.KeyFile)
	roots := x509.NewCertPool()
	roots.AddCert(authority.cert)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if !v.options.ClientCerts {
		return lines, config, nil
	}
	if v.Identity, err = authority.Client(v.name + "-client"); err != nil {
		return "", nil, err
	}
	own, err := tls.LoadX509KeyPair(v.Identity.CertFile, v.Identity.KeyFile)
	if err != nil {
		return "", nil, err
	}
	config.Certificates = []tls.Certificate{own}
	lines += fmt.Sprintf("  tls_client_ca_file = %q\n  tls_require_and_verify_client_cert = true\n", authority.CertFile)
	return lines, config, nil
}

// newClient makes a client that takes nothing from VAULT_* environment variables but what it must.
func newClient(address string, transport *http.Transport) (*api.Client, error) {
	client, err := api.NewClient(&api.Config{Address: address, HttpClient: &http.Client{Transport: transport}, MaxRetries: 0})
	if err != nil {
		return nil, err
	}
	client.ClearNamespace()
	client.ClearToken()
	return client, nil
}

// Start starts a Vault that was stopped or killed, at the same address and with the same storage, and unseals it.
func (v *Vault) Start(ctx context.Context) error {
	if v.process != nil {
		return fmt.Errorf("%s is running", v.name)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), v.binary, "server", "-config="+v.config)
	cmd.Env = withoutVault(os.Environ())
	p, err := v.bed.Start(v.name, cmd)
	if err != nil {
		return err
	}
	v.process = p
	var initialised bool
	err = p.Until(ctx, func(ctx context.Context) (err error) {
		initialised, err = v.Client.Sys().InitStatusWithContext(ctx)
		return err
	})
	switch {
	case err != nil:
	case initialised:
		err = v.Unseal(ctx)
	default:
		err = v.initialise(ctx)
	}
	if err != nil {
		v.process = nil
		p.Kill()
	}
	return err
}

func (v *Vault) initialise(ctx context.Context) error {
	v.Client.ClearToken()
	answer, err := v.Client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialise %s: %w", v.name, err)
	}
	v.RootToken, v.UnsealKey = answer.RootToken, answer.KeysB64[0]
	v.Client.SetToken(v.RootToken)
	if err := v.Unseal(ctx); err != nil {
		return err
	}
	if v.AuditFile == "" {
		return nil
	}
	err = v.Client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type:    "file",
		Options: map[string]string{"file_path": v.AuditFile, "log_raw": "true"},
	})
	if err != nil {
		return fmt.Errorf("enable the audit device of %s: %w", v.name, err)
	}
	return nil
}

// withoutVault removes the variables that would configure a stock server or its clients.
func withoutVault(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "VAULT_") && !strings.HasPrefix(variable, "BAO_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// Stop ends the server as an operator would (SIGTERM). What it stored is there at the next Start.
func (v *Vault) Stop() error { return v.stop((*Process).terminate) }

// Kill ends the server without a warning.
func (v *Vault) Kill() error { return v.stop((*Process).end) }

func (v *Vault) stop(how func(*Process) error) error {
	if v.process == nil {
		return fmt.Errorf("%s is not running", v.name)
	}
	p := v.process
	v.process = nil
	return how(p)
}

// end is Stop for the bed's Close, where it does not matter whether the server still runs.
func (v *Vault) end() error {
	if v.process == nil {
		return nil
	}
	return v.Stop()
}

// Restart is Stop and Start.
func (v *Vault) Restart(ctx context.Context) error {
	return errors.Join(v.Stop(), v.Start(ctx))
}

// Seal has the server refuse everything with 503 until Unseal.
func (v *Vault) Seal(ctx context.Context) error {
	if err := v.Client.Sys().SealWithContext(ctx); err != nil {
		return fmt.Errorf("seal %s: %w", v.name, err)
	}
	return nil
}

// Unseal returns when the server is active.
func (v *Vault) Unseal(ctx context.Context) error {
	if _, err := v.Client.Sys().UnsealWithContext(ctx, v.UnsealKey); err != nil {
		return fmt.Errorf("unseal %s: %w", v.name, err)
	}
	return v.process.Until(ctx, func(ctx context.Context) error {
		health, err := v.Client.Sys().HealthWithContext(ctx)
		if err == nil && (health.Sealed || health.Standby) {
			err = fmt.Errorf("sealed %t, standby %t", health.Sealed, health.Standby)
		}
		return err
	})
}

// Freeze stops the server in the middle of whatever it does (SIGSTOP): connections are made, nothing answers.
func (v *Vault) Freeze() error { return v.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (v *Vault) Thaw() error { return v.process.cmd.Process.Signal(syscall.SIGCONT) }

// Leases returns the lease ids below a path such as "database/creds", as Vault lists them; "" lists all, those of logins
// included.
func (v *Vault) Leases(ctx context.Context, prefix string) ([]string, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	answer, err := v.Client.Logical().ListWithContext(ctx, "sys/leases/lookup/"+prefix)
	if err != nil {
		return nil, fmt.Errorf("list leases below %q: %w", prefix, err)
	}
	var leases []string
	for _, key := range keys(answer) {
		if !strings.HasSuffix(key, "/") {
			leases = append(leases, prefix+key)
			continue
		}
		below, err := v.Leases(ctx, prefix+key)
		if err != nil {
			return nil, err
		}
		leases = append(leases, below...)
	}
	return leases, nil
}

// Tokens returns the accessors of all service tokens that live, the root token's included. Batch tokens have none.
func (v *Vault) Tokens(ctx context.Context) ([]string, error) {
	answer, err := v.Client.Logical().ListWithContext(ctx, "auth/token/accessors")
	if err != nil {
		return nil, fmt.Errorf("list token accessors: %w", err)
	}
	return keys(answer), nil
}

// keys returns what a LIST answered; an empty list is a 404 without an answer.
func keys(answer *api.Secret) []string {
	if answer == nil {
		return nil
	}
	list, _ := answer.Data["keys"].([]any)
	names := make([]string, 0, len(list))
	for _, name := range list {
		names = append(names, fmt.Sprint(name))
	}
	return names
}
