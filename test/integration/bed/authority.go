package bed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a private certificate authority, for one bed.
type Authority struct {
	CertFile string // its own certificate, PEM

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// KeyPair names a certificate and its key, both PEM files.
type KeyPair struct{ CertFile, KeyFile string }

// NewAuthority makes a certificate authority. Two of them know nothing of each other.
func (b *Bed) NewAuthority() (*Authority, error) {
	dir, err := b.newDir("authority")
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "bed authority " + filepath.Base(dir)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	a := &Authority{dir: dir}
	pair, err := a.Issue("ca", template)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a.CertFile = pair.CertFile
	return a, nil
}

// Server issues a certificate for localhost and the addresses.
func (a *Authority) Server(name string, addresses ...net.IP) (KeyPair, error) {
	return a.Issue(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		IPAddresses: append(addresses, net.IPv4(127, 0, 0, 1)),
		DNSNames:    []string{"localhost"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// Client issues a client certificate.
func (a *Authority) Client(name string) (KeyPair, error) {
	return a.Issue(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Issue writes a key and a certificate as template says, signed with the authority's key, or with its own when the
// authority has none yet. Serial number and time are not the caller's: it is valid for a month.
func (a *Authority) Issue(name string, template *x509.Certificate) (KeyPair, error) {
	pair := KeyPair{CertFile: filepath.Join(a.dir, name+".crt"), KeyFile: filepath.Join(a.dir, name+".key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return KeyPair{}, err
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return KeyPair{}, err
		}
		a.key = key
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	if err := WritePEM(pair.CertFile, "CERTIFICATE", der); err != nil {
		return KeyPair{}, err
	}
	return pair, WritePEM(pair.KeyFile, "PRIVATE KEY", keyDER)
}

// WritePEM writes one block that the owner alone can read.
func WritePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
