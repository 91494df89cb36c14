package node

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"leasehold/test/integration/bed"
)

// identities are the control plane's certificates and kubeconfigs.
type identities struct {
	dir       string // kubeconfigs and the service accounts' keys
	authority *bed.Authority
	pairs     map[string]bed.KeyPair
}

// The clients of the API server, and who they are to it.
var clients = map[string]pkix.Name{
	"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
	"controller-manager": {CommonName: "system:kube-controller-manager"},
	"scheduler":          {CommonName: "system:kube-scheduler"},
	"proxy":              {CommonName: "system:kube-proxy"},
	"node":               {CommonName: "system:node:" + Name, Organization: []string{"system:nodes"}},
	"apiserver-kubelet":  {CommonName: "apiserver-kubelet", Organization: []string{"system:masters"}},
	"front-proxy":        {CommonName: "front-proxy"},
}

// newIdentities makes them all.
func newIdentities(b *bed.Bed, dir string) (*identities, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	authority, err := b.NewAuthority()
	if err != nil {
		return nil, err
	}
	i := &identities{dir: dir, authority: authority, pairs: make(map[string]bed.KeyPair)}
	i.pairs["apiserver"], err = authority.Issue("apiserver", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.ParseIP(address), net.ParseIP(bed.Loopback), net.ParseIP(apiService)},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	for name, subject := range clients {
		i.pairs[name], err = authority.Issue(name, &x509.Certificate{
			Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			return nil, err
		}
		if err := i.writeKubeconfig(name); err != nil {
			return nil, err
		}
	}
	return i, i.writeServiceAccountKeys()
}

// kubeconfig is the path of a client's.
func (i *identities) kubeconfig(client string) string {
	return filepath.Join(i.dir, client+".kubeconfig")
}

// writeKubeconfig writes one that needs no other file.
func (i *identities) writeKubeconfig(client string) error {
	var encoded []any
	for _, file := range []string{i.authority.CertFile, i.pairs[client].CertFile, i.pairs[client].KeyFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		encoded = append(encoded, base64.StdEncoding.EncodeToString(text))
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: leasehold, cluster: {server: "https://%s", certificate-authority-data: %s}}]
users: [{name: %[3]s, user: {client-certificate-data: %[4]s, client-key-data: %[5]s}}]
contexts: [{name: leasehold, context: {cluster: leasehold, user: %[3]s}}]
current-context: leasehold
`, append([]any{net.JoinHostPort(address, apiPort), encoded[0], client}, encoded[1:]...)...)
	return os.WriteFile(i.kubeconfig(client), []byte(text), 0o600)
}

// signingKey and verifyingKey are those of service account tokens.
func (i *identities) signingKey() string   { return filepath.Join(i.dir, "service-accounts.key") }
func (i *identities) verifyingKey() string { return filepath.Join(i.dir, "service-accounts.pub") }

func (i *identities) writeServiceAccountKeys() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(
		bed.WritePEM(i.signingKey(), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		bed.WritePEM(i.verifyingKey(), "PUBLIC KEY", public),
	)
}

// flags returns the two flags that name a pair, such as --tls-cert-file=... and --tls-private-key-file=...
func (i *identities) flags(pair, certFlag, keyFlag string) string {
	return strings.Join([]string{"--" + certFlag + "=" + i.pairs[pair].CertFile, "--" + keyFlag + "=" + i.pairs[pair].KeyFile}, " ")
}
