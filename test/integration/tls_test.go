package integration

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// connection is a way to be told about the TLS of a Vault, and what comes of it.
type connection struct {
	name       string
	args       []string          // the operator's
	parameters map[string]string // of the class
	secrets    map[string]string // of the nodePublishSecretRef
	code       codes.Code
	says       []string // in the error; none: the mount succeeds
}

// try mounts the word through each connection.
func try(t *testing.T, w *world, role string, connections []connection) {
	t.Helper()
	for _, row := range connections {
		t.Run(row.name, func(t *testing.T) {
			provider := startProvider(t, bed.ProviderOptions{VaultAddress: w.vault.Address, Args: row.args})
			parameters := class(role, word)
			maps.Copy(parameters, row.parameters)
			volume := newVolume(t, provider, parameters)
			volume.Secrets = row.secrets
			if row.says != nil {
				fails(t, volume, row.code, row.says...)
				return
			}
			mustMount(t, volume)
			wantFiles(t, files(t, volume), map[string]string{"word": "word of " + role})
		})
	}
}

// text reads a file.
func text(t testing.TB, path string) string {
	t.Helper()
	contents, err := os.ReadFile(path)
	must(t, "read", err)
	return string(contents)
}

// newAuthority makes an authority that the Vaults know nothing of.
func newAuthority(t testing.TB) *bed.Authority {
	t.Helper()
	authority, err := shared.bed.NewAuthority()
	must(t, "authority", err)
	return authority
}

const tlsFailed = `login "` + loginPath + `": vault is unavailable: `

// unknownAuthority is what an error says when the certificate of Vault is of another authority.
var unknownAuthority = []string{
	tlsFailed + "tls: failed to verify certificate: x509: certificate signed by unknown authority",
	"; name the authority of Vault's certificate with vaultCACertPath, or put it into a nodePublishSecretRef as ca.crt",
}

func TestPrivateAuthority(t *testing.T) {
	t.Parallel()
	w, role := startVault(t, bed.VaultOptions{TLS: true, InMemory: true})
	right, wrong := w.vault.Authority.CertFile, newAuthority(t).CertFile
	dir := t.TempDir()
	write(t, filepath.Join(dir, "right.pem"), text(t, right))
	write(t, filepath.Join(dir, "wrong.pem"), text(t, wrong))
	must(t, "directory", os.Mkdir(filepath.Join(dir, "both"), 0o700))
	write(t, filepath.Join(dir, "both", "1.pem"), text(t, wrong))
	write(t, filepath.Join(dir, "both", "2.pem"), text(t, right))
	operatorsRight, operatorsWrong, offer := "--vault-tls-ca-cert="+right, "--vault-tls-ca-cert="+wrong, "--tls-dir="+dir
	type m = map[string]string

	try(t, w, role, []connection{
		{name: "none", says: unknownAuthority, code: codes.Internal},
		{name: "operator's", args: []string{operatorsRight}},
		{name: "operator's, wrong", args: []string{operatorsWrong}, says: unknownAuthority, code: codes.Internal},
		{name: "class's", args: []string{offer}, parameters: m{"vaultCACertPath": "right.pem"}},
		{name: "class's, absolute", args: []string{offer}, parameters: m{"vaultCACertPath": dir + "/right.pem"}},
		{name: "class's directory", args: []string{offer}, parameters: m{"vaultCADirectory": "both"}},
		{name: "class's, wrong", args: []string{offer}, parameters: m{"vaultCACertPath": "wrong.pem"}, says: unknownAuthority, code: codes.Internal},
		{
			name: "class's, missing", args: []string{offer}, parameters: m{"vaultCACertPath": "none.pem"},
			says: []string{`login "` + loginPath + `": refused: TLS: CA certificate: `, "none.pem", "no such file"}, code: codes.FailedPrecondition,
		},
		{name: "class's before the operator's", args: []string{operatorsWrong, offer}, parameters: m{"vaultCACertPath": "right.pem"}},
		{
			name: "class's in place of the operator's", args: []string{operatorsRight, offer}, parameters: m{"vaultCACertPath": "wrong.pem"},
			says: unknownAuthority, code: codes.Internal,
		},
		{name: "Secret's", secrets: m{"ca.crt": text(t, right)}},
		{name: "Secret's, wrong", args: []string{operatorsRight}, secrets: m{"ca.crt": text(t, wrong)}, says: unknownAuthority, code: codes.Internal},
		{name: "Secret's before the class's", args: []string{offer}, parameters: m{"vaultCACertPath": "wrong.pem"}, secrets: m{"ca.crt": text(t, right)}},
		{
			name: "Secret's without PEM", secrets: m{"ca.crt": "bm90IFBFTQ=="}, code: codes.InvalidArgument,
			says: []string{"ca.crt of the nodePublishSecretRef has no PEM block of kind CERTIFICATE"},
		},

		{name: "server name", args: []string{operatorsRight}, parameters: m{"vaultTLSServerName": "localhost"}},
		{
			name: "server name, another", args: []string{operatorsRight}, parameters: m{"vaultTLSServerName": "other.example"},
			says: []string{
				tlsFailed + "tls: failed to verify certificate: x509: certificate is valid for localhost, not other.example",
				"; set vaultTLSServerName to a name that Vault's certificate is for",
			}, code: codes.Internal,
		},
		{
			name: "operator's server name", args: []string{operatorsRight, "--vault-tls-server-name=other.example"},
			says: []string{"not other.example"}, code: codes.Internal,
		},

		{name: "not verified", args: []string{"--allow-skip-tls-verify"}, parameters: m{"vaultSkipTLSVerify": "true"}},
		{name: "not verified by the operator", args: []string{"--vault-tls-skip-verify"}},
		{
			name: "verified, although it need not be", args: []string{"--allow-skip-tls-verify"}, parameters: m{"vaultSkipTLSVerify": "false"},
			says: unknownAuthority, code: codes.Internal,
		},
		{
			name: "not to be verified, but not allowed", parameters: m{"vaultSkipTLSVerify": "true"}, code: codes.InvalidArgument,
			says: []string{"parameter vaultSkipTLSVerify is not allowed by the operator of the node"},
		},
	})
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	w, role := startVault(t, bed.VaultOptions{ClientCerts: true, InMemory: true})
	own := w.vault.Identity
	stranger, err := newAuthority(t).Client("stranger")
	must(t, "client", err)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tls.crt"), text(t, own.CertFile))
	write(t, filepath.Join(dir, "tls.key"), text(t, own.KeyFile))
	ca := "--vault-tls-ca-cert=" + w.vault.Authority.CertFile
	flags := func(pair bed.KeyPair) []string {
		return []string{ca, "--vault-tls-client-cert=" + pair.CertFile, "--vault-tls-client-key=" + pair.KeyFile, "--tls-dir=" + dir}
	}
	type m = map[string]string
	secret := func(pair bed.KeyPair) m {
		return m{"tls.crt": text(t, pair.CertFile), "tls.key": text(t, pair.KeyFile)}
	}
	paths := m{"vaultTLSClientCertPath": "tls.crt", "vaultTLSClientKeyPath": "tls.key"}

	try(t, w, role, []connection{
		{name: "none", args: []string{ca}, code: codes.Internal, says: []string{
			tlsFailed + "remote error: tls: certificate required",
			"; if Vault asks for a client certificate, put one that it accepts into a nodePublishSecretRef as tls.crt and tls.key",
		}},
		{name: "operator's", args: flags(own)},
		{name: "class's", args: []string{ca, "--tls-dir=" + dir}, parameters: paths},
		{name: "class's before the operator's", args: flags(stranger), parameters: paths},
		{name: "Secret's", args: []string{ca}, secrets: secret(own)},
		{name: "Secret's before the operator's", args: flags(stranger), secrets: secret(own)},
		{
			name: "Secret's in place of the operator's", args: flags(own), secrets: secret(stranger),
			code: codes.Internal, says: []string{tlsFailed + "remote error: tls: "},
		},
		{
			name: "Secret's without a key", args: []string{ca}, secrets: m{"tls.crt": text(t, own.CertFile)},
			code: codes.InvalidArgument, says: []string{"tls.crt and tls.key of the nodePublishSecretRef go together"},
		},
		{
			name: "Secret's with another key", args: []string{ca}, secrets: m{"tls.crt": text(t, own.CertFile), "tls.key": text(t, stranger.KeyFile)},
			code: codes.FailedPrecondition, says: []string{"refused: TLS: client certificate: tls: private key does not match public key"},
		},
	})
}

// TestAuthorityChangesOnDisk has the operator's file change while the provider runs, as a projected volume does. The next
// login sees it; what is mounted needs no login.
func TestAuthorityChangesOnDisk(t *testing.T) {
	t.Parallel()
	w, role := startVault(t, bed.VaultOptions{TLS: true, InMemory: true})
	right, wrong := text(t, w.vault.Authority.CertFile), text(t, newAuthority(t).CertFile)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, wrong)
	provider := startProvider(t, bed.ProviderOptions{VaultAddress: w.vault.Address, Args: []string{"--vault-tls-ca-cert=" + file}})
	first, second := newVolume(t, provider, class(role, word)), newVolume(t, provider, class(role, word))

	fails(t, first, codes.Internal, unknownAuthority...)
	write(t, file, right)
	mustMount(t, first)
	write(t, file, wrong)
	fails(t, second, codes.Internal, unknownAuthority...)
	mustMount(t, first)
	write(t, file, wrong+right)
	mustMount(t, second)
}
