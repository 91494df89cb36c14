package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// environment is a getenv of some variables.
func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

// parse parses flags without an environment, as one line.
func parse(line string) (config, error) {
	return parseConfig(strings.Fields(line), environment(nil), io.Discard)
}

func TestDefaults(t *testing.T) {
	got, err := parse("")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		ProvidersDir: "/var/run/secrets-store-csi-providers", ProviderName: "vault", StateDir: "/run/leasehold", HTTPAddr: ":8080",
		Publish: true, PodsDir: "/var/lib/kubelet/pods",
		Operator:     spec.Operator{Vault: spec.Vault{AuthPath: "kubernetes", Audience: "vault"}},
		Client:       client.Config{Timeout: 100 * time.Second, MaxInFlight: 32, MaxTransports: 64, MaxAnswer: 4 << 20},
		MountTimeout: 45 * time.Second, AbandonAfter: 5 * time.Minute, LogLevel: slog.LevelInfo, LogFormat: "json",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFlags(t *testing.T) {
	for line, set := range map[string]func(*config){
		"-providers-dir=/run/p":         func(c *config) { c.ProvidersDir = "/run/p" },
		"-provider-name=vault-2":        func(c *config) { c.ProviderName = "vault-2" },
		"-state-dir=/run/s":             func(c *config) { c.StateDir = "/run/s" },
		"-http-addr=127.0.0.1:0":        func(c *config) { c.HTTPAddr = "127.0.0.1:0" },
		"-journal-on-disk":              func(c *config) { c.JournalOnDisk = true },
		"-publish=false":                func(c *config) { c.Publish = false },
		"-pods-dir=/k/pods":             func(c *config) { c.PodsDir = "/k/pods" },
		"-node-name=n1.example":         func(c *config) { c.NodeName = "n1.example" },
		"-node-name=n -kubeconfig=/k":   func(c *config) { c.NodeName, c.Kubeconfig = "n", "/k" },
		"-node-name=n -token-requests":  func(c *config) { c.NodeName, c.TokenRequests = "n", true },
		"-vault-addr=https://v.example": func(c *config) { c.Operator.Vault.Address = "https://v.example" },
		"-vault-namespace=team":         func(c *config) { c.Operator.Vault.Namespace = "team" },
		"-vault-mount=jwt":              func(c *config) { c.Operator.Vault.AuthPath = "jwt" },
		"-default-audience=a":           func(c *config) { c.Operator.Vault.Audience = "a" },
		"-vault-tls-ca-cert=/ca":        func(c *config) { c.Operator.Vault.TLS.CACert.Path = "/ca" },
		"-vault-tls-ca-directory=/cas":  func(c *config) { c.Operator.Vault.TLS.CADirectory.Path = "/cas" },
		"-vault-tls-server-name=v":      func(c *config) { c.Operator.Vault.TLS.ServerName = "v" },
		"-vault-tls-skip-verify":        func(c *config) { c.Operator.Vault.TLS.SkipVerify = true },
		"-allowed-vault-addrs=http://a,https://b:1,": func(c *config) {
			c.Operator.Addresses = []string{"http://a", "https://b:1"}
		},
		"-allowed-vault-addrs=*":  func(c *config) { c.Operator.Addresses = []string{"*"} },
		"-tls-dir=/tls":           func(c *config) { c.Operator.TLSDirectory = "/tls" },
		"-allow-skip-tls-verify":  func(c *config) { c.Operator.SkipVerify = true },
		"-mount-timeout=1m40s":    func(c *config) { c.MountTimeout = 100 * time.Second },
		"-abandon-after=1s":       func(c *config) { c.AbandonAfter = time.Second },
		"-vault-timeout=1s":       func(c *config) { c.Client.Timeout = time.Second },
		"-vault-max-in-flight=1":  func(c *config) { c.Client.MaxInFlight = 1 },
		"-vault-max-transports=1": func(c *config) { c.Client.MaxTransports = 1 },
		"-vault-max-answer=1":     func(c *config) { c.Client.MaxAnswer = 1 },
		"-log-level=debug":        func(c *config) { c.LogLevel = slog.LevelDebug },
		"-log-level WARN":         func(c *config) { c.LogLevel = slog.LevelWarn },
		"--log-format text":       func(c *config) { c.LogFormat = "text" },
		"-vault-tls-client-cert=/c -vault-tls-client-key=/k": func(c *config) {
			c.Operator.Vault.TLS.ClientCert.Path, c.Operator.Vault.TLS.ClientKey.Path = "/c", "/k"
		},
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

// The variables are those of the vault command. A flag wins.
func TestEnvironment(t *testing.T) {
	variables := map[string]string{
		"VAULT_ADDR": "https://v.example", "VAULT_NAMESPACE": "team", "VAULT_CACERT": "/ca", "VAULT_CAPATH": "/cas",
		"VAULT_CLIENT_CERT": "/c", "VAULT_CLIENT_KEY": "/k", "VAULT_TLS_SERVER_NAME": "v", "VAULT_SKIP_VERIFY": "true",
		"VAULT_TOKEN": "nobody's business",
	}
	want := spec.Vault{
		Address: "https://v.example", Namespace: "team", AuthPath: "kubernetes", Audience: "vault",
		TLS: spec.TLS{
			CACert: spec.File{Path: "/ca"}, CADirectory: spec.File{Path: "/cas"}, ClientCert: spec.File{Path: "/c"},
			ClientKey: spec.File{Path: "/k"}, ServerName: "v", SkipVerify: true,
		},
	}
	c, err := parseConfig(nil, environment(variables), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Operator.Vault; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	flags := strings.Fields("-vault-addr=https://flag.example -vault-namespace= -vault-tls-skip-verify=false")
	if c, err = parseConfig(flags, environment(variables), io.Discard); err != nil {
		t.Fatal(err)
	}
	want.Address, want.Namespace, want.TLS.SkipVerify = "https://flag.example", "", false
	if got := c.Operator.Vault; got != want {
		t.Errorf("with flags: got  %+v\nwant %+v", got, want)
	}
}

// The node's name comes from Kubernetes, by a variable of the pod. A flag wins here, too.
func TestNodeNameFromTheEnvironment(t *testing.T) {
	node := environment(map[string]string{"NODE_NAME": "n1"})
	for line, want := range map[string]string{"": "n1", "-node-name=n2": "n2", "-node-name=": ""} {
		c, err := parseConfig(strings.Fields(line), node, io.Discard)
		if err != nil || c.NodeName != want {
			t.Errorf("%q: got node %q (%v), want %q", line, c.NodeName, err, want)
		}
	}
}

func TestFaultySettings(t *testing.T) {
	for line, want := range map[string]string{
		"extra words":                            `unexpected arguments: ["extra" "words"]`,
		"-providers-dir=here":                    `-providers-dir: "here" is not an absolute path`,
		"-providers-dir=":                        `-providers-dir: "" is not an absolute path`,
		"-provider-name=../vault":                `-provider-name: "../vault" must be 1 to 30 letters, digits, _ or -`,
		"-provider-name=":                        `-provider-name: "" must be`,
		"-state-dir=/" + strings.Repeat("s", 90): `characters`,
		"-pods-dir=pods":                         `-pods-dir: "pods" is not an absolute path`,
		"-node-name=n,metadata.name=x":           `-node-name: "n,metadata.name=x" is not the name of a node`,
		"-kubeconfig=/k":                         `-kubeconfig: it is for watching pods, which takes -node-name`,
		"-token-requests":                        `-token-requests: it takes -node-name`,
		"-http-addr=8080":                        `-http-addr: address 8080: missing port in address`,
		"-log-format=yaml":                       `-log-format: "yaml" is neither json nor text`,
		"-mount-timeout=0s":                      `-mount-timeout: 0s must be above 0 and at most 1m40s`,
		"-mount-timeout=100001ms":                `-mount-timeout: 1m40.001s must be above 0 and at most 1m40s`,
		"-abandon-after=-1s":                     `-abandon-after: -1s must be above 0`,
		"-vault-timeout=0s":                      `-vault-timeout: 0s must be above 0`,
		"-vault-timeout=2m":                      `-vault-timeout: 2m0s must be above 0 and at most 1m50s`,
		"-vault-max-in-flight=0":                 `-vault-max-in-flight: 0 must be at least 1`,
		"-vault-max-transports=0":                `-vault-max-transports: 0 must be at least 1`,
		"-vault-max-answer=-1":                   `-vault-max-answer: -1 must be at least 1`,
		"-vault-addr=vault.example":              `the default Vault address "vault.example" must begin with https:// or http://`,
		"-allowed-vault-addrs=https://a/..":      `the allowed address "https://a/.." must have a plain path`,
		"-vault-tls-client-cert=/c":              `the default client certificate and its key go together`,
		"-tls-dir=tls":                           `the TLS directory "tls" must be an absolute path`,
		"-log-level=loud":                        `invalid value "loud" for flag -log-level`,
		"-nonsense":                              `flag provided but not defined: -nonsense`,
	} {
		c, err := parse(line)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %v, want one line with %s", line, err, want)
		}
		if c.ShowVersion {
			t.Errorf("%s: the version is to be shown", line)
		}
	}
	_, err := parseConfig(nil, environment(map[string]string{"VAULT_SKIP_VERIFY": "maybe"}), io.Discard)
	if want := `environment variable VAULT_SKIP_VERIFY: "maybe" is not true or false`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

// An operator mends all settings in one go.
func TestAllFaultsAtOnce(t *testing.T) {
	line := "-providers-dir=here -provider-name=a/b -state-dir=there -http-addr=x -log-format=xml -mount-timeout=2h -abandon-after=0s " +
		"-kubeconfig=/k -token-requests -pods-dir=p " +
		"-vault-timeout=0s -vault-max-in-flight=0 -vault-max-transports=0 -vault-max-answer=0 -vault-addr=ftp://v extra"
	_, err := parseConfig(strings.Fields(line), environment(map[string]string{"VAULT_SKIP_VERIFY": "maybe"}), io.Discard)
	if err == nil {
		t.Fatal("got no error")
	}
	faults := strings.Split(err.Error(), "\n")
	for _, about := range []string{
		"VAULT_SKIP_VERIFY", "unexpected arguments", "-providers-dir", "-provider-name", "-state-dir", "-http-addr", "-log-format",
		"-mount-timeout", "-abandon-after", "-kubeconfig", "-token-requests", "-pods-dir", "-vault-timeout", "-vault-max-in-flight", "-vault-max-transports",
		"-vault-max-answer", "the default Vault address",
	} {
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, about) }) {
			t.Errorf("got no fault about %s in %q", about, faults)
		}
	}
	if len(faults) != 17 {
		t.Errorf("got %d faults, want 17: %q", len(faults), faults)
	}
}

func TestVersionNeedsNoSettings(t *testing.T) {
	c, err := parse("-version -providers-dir=here")
	if err != nil || !c.ShowVersion {
		t.Errorf("got %v, %v; want the version to be shown", c.ShowVersion, err)
	}
}

// Help names every flag, what it is for and its default.
func TestHelp(t *testing.T) {
	var help bytes.Buffer
	if _, err := parseConfig([]string{"-help"}, environment(nil), &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("got error %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{
		"-providers-dir directory", `(default "/var/run/secrets-store-csi-providers")`, "-vault-addr URL", "[VAULT_ADDR]",
		"-mount-timeout duration", "(default 45s)", "[NODE_NAME]", "-publish", "(default INFO)", "-version",
	} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("got no %q in the help:\n%s", want, help.String())
		}
	}
}
