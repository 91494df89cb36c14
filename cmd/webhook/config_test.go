package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"leasehold/internal/spec"
	"leasehold/internal/webhook"
)

// environment is a getenv of some variables.
func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

// podEnvironment is what the chart gives a pod.
var podEnvironment = environment(map[string]string{"POD_NAMESPACE": "leasehold-system", "POD_NAME": "leasehold-webhook-1"})

// parse parses flags in a pod, as one line.
func parse(line string) (config, error) {
	return parseConfig(strings.Fields(line), podEnvironment, io.Discard)
}

func TestDefaults(t *testing.T) {
	got, err := parse("")
	if err != nil {
		t.Fatal(err)
	}
	vault := spec.Vault{AuthPath: "kubernetes", Audience: "vault"}
	want := config{
		HTTPSAddr: ":9443", HTTPAddr: ":8080", Namespace: "leasehold-system", Identity: "leasehold-webhook-1",
		Service: "leasehold-webhook", Secret: "leasehold-webhook", Lease: "leasehold-webhook",
		Mutating: "leasehold-webhook", Validating: "leasehold-webhook",
		Policy: webhook.Policy{
			Vault: vault, DefaultTemplate: "map", Permissions: webhook.Compat, Impossible: webhook.Deny, ProviderName: "vault",
		},
		Operator:   spec.Operator{Vault: vault},
		ClassGrace: time.Hour, CertificateLife: 720 * time.Hour, Drain: 5 * time.Second,
		LogLevel: slog.LevelInfo, LogFormat: "json",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFlags(t *testing.T) {
	for line, set := range map[string]func(*config){
		"-https-addr=127.0.0.1:0":     func(c *config) { c.HTTPSAddr = "127.0.0.1:0" },
		"-http-addr=127.0.0.1:0":      func(c *config) { c.HTTPAddr = "127.0.0.1:0" },
		"-namespace=n":                func(c *config) { c.Namespace = "n" },
		"-identity=i":                 func(c *config) { c.Identity = "i" },
		"-service=s":                  func(c *config) { c.Service = "s" },
		"-secret=s":                   func(c *config) { c.Secret = "s" },
		"-lease=l":                    func(c *config) { c.Lease = "l" },
		"-mutating-configuration=m":   func(c *config) { c.Mutating = "m" },
		"-validating-configuration=v": func(c *config) { c.Validating = "v" },
		"-kubeconfig=/k":              func(c *config) { c.Kubeconfig = "/k" },
		"-provider-name=vault-2":      func(c *config) { c.Policy.ProviderName = "vault-2" },
		"-vault-addr=https://v.example": func(c *config) {
			c.Policy.Vault.Address, c.Operator.Vault.Address = "https://v.example", "https://v.example"
		},
		"-vault-namespace=team": func(c *config) { c.Policy.Vault.Namespace, c.Operator.Vault.Namespace = "team", "team" },
		"-vault-mount=jwt":      func(c *config) { c.Policy.Vault.AuthPath, c.Operator.Vault.AuthPath = "jwt", "jwt" },
		"-default-audience=a":   func(c *config) { c.Policy.Vault.Audience, c.Operator.Vault.Audience = "a", "a" },
		"-allowed-vault-addrs=http://a,https://b:1,": func(c *config) {
			c.Policy.Addresses = []string{"http://a", "https://b:1"}
			c.Operator.Addresses = c.Policy.Addresses
		},
		"-allow-skip-tls-verify": func(c *config) { c.Policy.SkipVerify, c.Operator.SkipVerify = true, true },
		"-allow-proxy":           func(c *config) { c.Policy.ProxyAllowed = true },
		"-tls-dir=/tls":          func(c *config) { c.Operator.TLSDirectory = "/tls" },
		"-default-role={namespace}-{serviceAccount}": func(c *config) { c.Policy.DefaultRole = "{namespace}-{serviceAccount}" },
		"-default-template=json":                     func(c *config) { c.Policy.DefaultTemplate = "json" },
		"-permissions=strict":                        func(c *config) { c.Policy.Permissions = webhook.Strict },
		"-impossible=warn":                           func(c *config) { c.Policy.Impossible = webhook.Warn },
		"-class-grace=2m":                            func(c *config) { c.ClassGrace = 2 * time.Minute },
		"-certificate-life=1m":                       func(c *config) { c.CertificateLife = time.Minute },
		"-drain=0s":                                  func(c *config) { c.Drain = 0 },
		"-log-level=debug":                           func(c *config) { c.LogLevel = slog.LevelDebug },
		"--log-format text":                          func(c *config) { c.LogFormat = "text" },
	} {
		want, err := parse("")
		if err != nil {
			t.Fatal(err)
		}
		set(&want)
		got, err := parse(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v, %v\nwant %+v", line, got, err, want)
		}
	}
}

// All faults at once, each with its flag.
func TestFaults(t *testing.T) {
	_, err := parseConfig(strings.Fields("-https-addr=9443 -http-addr=x -service=a.b -secret=A -lease= -mutating-configuration=/ "+
		"-validating-configuration=- -provider-name=a/b -vault-addr=ftp://v -allowed-vault-addrs=x -vault-mount=.. -tls-dir=tls "+
		"-default-template=xml -permissions=loose -impossible=ignore -class-grace=1m -certificate-life=59s -drain=15s -log-format=xml extra"),
		environment(nil), io.Discard)
	if err == nil {
		t.Fatal("got no error")
	}
	got := strings.Split(err.Error(), "\n")
	for _, want := range []string{
		"unexpected arguments", "-https-addr: ", "-http-addr: ", "-namespace: ", "-identity: ", "-service: ", "-secret: ", "-lease: ",
		"-mutating-configuration: ", "-validating-configuration: ", "-provider-name: ", "-default-template: ", "-permissions: ",
		"-impossible: ", "-class-grace: ", "-certificate-life: ", "-drain: ", "-log-format: ",
		"the default Vault address", "the allowed address", "the default auth path", "the TLS directory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got faults %q, want one with %q", got, want)
		}
	}
	if _, err := parse("-default-role=a\x00b"); err == nil || !strings.Contains(err.Error(), "-default-role") {
		t.Errorf("got %v, want a fault of -default-role", err)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseConfig([]string{"-help"}, environment(nil), &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	if !strings.Contains(out.String(), "-certificate-life") {
		t.Errorf("got %q, want the flags", out.String())
	}
	// Who asks for the version need not say anything else.
	if c, err := parseConfig([]string{"-version"}, environment(nil), io.Discard); err != nil || !c.ShowVersion {
		t.Errorf("got %v, want the version", err)
	}
}
