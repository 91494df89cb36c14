package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// The keys of the Secret that the replicas share.
const (
	keyAuthorities  = "ca.crt"  // all authorities that the API server is to trust, the oldest first
	keyAuthorityKey = "ca.key"  // the key of the last of them
	keyServing      = "tls.crt" // what the replicas serve with
	keyServingKey   = "tls.key"
)

// backdate is how far before its making a certificate begins to be valid, for clocks that go wrong.
const backdate = time.Hour

// validity says how long certificates live. An authority lives four times as long as what it signs and gets its successor
// at half of that: so an authority is still trusted when the last that it has signed ends.
type validity struct {
	serving time.Duration
	// settle is how long a new authority is in the configurations before anything that it signed is served: more than it
	// takes until every API server has heard of it.
	settle time.Duration
}

func validityOf(serving time.Duration) validity {
	return validity{serving: serving, settle: min(serving/20, 10*time.Minute)}
}

func (v validity) authority() time.Duration { return 4 * v.serving }

// keychain is what the replicas share: authorities, the key of the newest one, and the certificate to serve with. Its
// steps are pure, and each of them leaves the API server with an authority that it can verify what is served by.
type keychain struct {
	authorities []*x509.Certificate // at least one, the oldest first
	key         *ecdsa.PrivateKey   // of the last
	serving     *tls.Certificate    // with its Leaf; nil: none
}

// bundle is what goes into the webhook configurations.
func (k keychain) bundle() []byte {
	var all []byte
	for _, c := range k.authorities {
		all = append(all, encodeCertificate(c.Raw)...)
	}
	return all
}

// newest is the authority that signs.
func (k keychain) newest() *x509.Certificate { return k.authorities[len(k.authorities)-1] }

// serves tells whether who trusts the bundle would trust what is served under a name, and why not.
func (k keychain) serves(bundle []byte, name string, now time.Time) error {
	if k.serving == nil {
		return errors.New("there is no certificate to serve with")
	}
	return verify(k.serving.Leaf, bundle, name, now)
}

// verify does what the API server does.
func verify(leaf *x509.Certificate, bundle []byte, name string, now time.Time) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("it holds no certificate authority")
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// holds tells whether an authority is in a bundle.
func holds(bundle []byte, authority *x509.Certificate) bool {
	return bytes.Contains(bundle, bytes.TrimSpace(encodeCertificate(authority.Raw)))
}

// next takes the keychain as far as it may go now: at most one step, after which everybody has to hear of it. It returns
// the same one, and false, when there is nothing to do. Trusted tells whether all webhook configurations have the newest
// authority.
func (k keychain) next(name string, v validity, trusted bool, now time.Time) (keychain, bool, error) {
	valid := slices.DeleteFunc(slices.Clone(k.authorities), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
	dropped := len(valid) != len(k.authorities)
	k.authorities = valid
	alone := len(valid) == 0

	// A new authority comes first into the bundle, beside the old one; nothing is signed by it yet.
	if alone || k.key == nil || now.After(k.newest().NotAfter.Add(-v.authority()/2)) {
		authority, key, err := newAuthority(v, now)
		if err != nil {
			return k, false, err
		}
		k.authorities, k.key = append(k.authorities, authority), key
		if k.serves(k.bundle(), name, now) == nil {
			return k, true, nil
		}
	}
	served := k.serves(k.bundle(), name, now) == nil
	if served && now.Before(k.serving.Leaf.NotAfter.Add(-v.serving/3)) && k.serving.Leaf.CheckSignatureFrom(k.newest()) == nil {
		return k, dropped, nil
	}
	// What is served still holds, so there is time to wait until everybody trusts the newest authority. If nothing holds,
	// there is nothing to lose.
	if settled := trusted && !now.Before(k.newest().NotBefore.Add(backdate+v.settle)); served && !settled {
		return k, dropped, nil
	}
	serving, err := k.sign(name, v, now)
	if err != nil {
		return k, false, err
	}
	k.serving = serving
	return k, true, nil
}

func newAuthority(v validity, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("leasehold webhook authority %x", serial.Bytes()[:4])},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(v.authority()),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}

// sign makes a certificate to serve with.
func (k keychain) sign(name string, v validity, now time.Time) (*tls.Certificate, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	end := now.Add(v.serving)
	if last := k.newest().NotAfter; end.After(last) {
		end = last
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "leasehold webhook"}, // names are in the next field, which knows no limit of 64 characters
		DNSNames:     []string{name},
		NotBefore:    now.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.newest(), key.Public(), k.key)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and of one length
	return key, new(big.Int).SetBytes(serial), nil
}

// data is the keychain as the Secret has it.
func (k keychain) data() (map[string][]byte, error) {
	authorityKey, err := encodeKey(k.key)
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{keyAuthorities: k.bundle(), keyAuthorityKey: authorityKey}
	if k.serving != nil {
		key, ok := k.serving.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, errors.New("the serving certificate has a foreign key")
		}
		if data[keyServingKey], err = encodeKey(key); err != nil {
			return nil, err
		}
		data[keyServing] = encodeCertificate(k.serving.Certificate[0])
	}
	return data, nil
}

// parseKeychain reads what the Secret has. Of one that somebody has damaged, it takes what is whole: authorities stay
// trusted, and what is missing is made anew. The second result tells of what was lost, and never quotes it.
func parseKeychain(data map[string][]byte) (keychain, error) {
	var k keychain
	var lost []error
	for rest := bytes.TrimSpace(data[keyAuthorities]); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			lost = append(lost, fmt.Errorf("%s holds what is no PEM", keyAuthorities))
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !certificate.IsCA {
			lost = append(lost, fmt.Errorf("%s holds what is no certificate authority", keyAuthorities))
			continue
		}
		k.authorities = append(k.authorities, certificate)
	}
	if text := data[keyAuthorityKey]; len(text) > 0 && len(k.authorities) > 0 {
		pair, err := tls.X509KeyPair(encodeCertificate(k.newest().Raw), text)
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if err != nil || !ok {
			lost = append(lost, fmt.Errorf("%s is not the key of the last authority in %s", keyAuthorityKey, keyAuthorities))
		} else {
			k.key = key
		}
	}
	if text := data[keyServing]; len(text) > 0 {
		pair, err := tls.X509KeyPair(text, data[keyServingKey])
		_, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if err != nil || !ok {
			lost = append(lost, fmt.Errorf("%s and %s do not go together", keyServing, keyServingKey))
		} else {
			k.serving = &pair
		}
	}
	return k, errors.Join(lost...)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("a key cannot be written down")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
