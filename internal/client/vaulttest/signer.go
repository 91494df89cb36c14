package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"leasehold/internal/redact"
)

// Signer issues service account tokens as a cluster's API server does.
type Signer struct {
	tb  testing.TB
	key *ecdsa.PrivateKey
}

// NewSigner returns a signer with a key of its own.
func NewSigner(tb testing.TB) *Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &Signer{tb, key}
}

// PublicKey returns the PEM text for an auth method's jwt_validation_pubkeys or pem_keys.
func (s *Signer) PublicKey() string {
	s.tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		s.tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Claims say whom a token is for. The zero value is the pod "app-0" of service account "app" in namespace "shop", with
// the audience "vault", for an hour.
type Claims struct {
	Namespace, ServiceAccount, Pod, UID, Audience string

	Life time.Duration // until the token ends; negative: it has ended
}

// serviceAccountClaims are the claims of a token that is bound to a pod, as Kubernetes writes them.
type serviceAccountClaims struct {
	jwt.Claims
	Audience   []string `json:"aud"` // always a list, and the Kubernetes method takes nothing else
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		Pod            object `json:"pod"`
		ServiceAccount object `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Token signs a service account token.
func (s *Signer) Token(c Claims) redact.String {
	s.tb.Helper()
	or := func(value *string, otherwise string) {
		if *value == "" {
			*value = otherwise
		}
	}
	or(&c.Namespace, "shop")
	or(&c.ServiceAccount, "app")
	or(&c.Pod, "app-0")
	or(&c.UID, "uid-of-"+c.Pod)
	or(&c.Audience, Audience)
	if c.Life == 0 {
		c.Life = time.Hour
	}
	end := time.Now().Add(c.Life)
	begin := jwt.NewNumericDate(end.Add(-max(c.Life, time.Hour)))
	claims := serviceAccountClaims{Claims: jwt.Claims{
		Issuer:    "https://kubernetes.default.svc.cluster.local",
		Subject:   "system:serviceaccount:" + c.Namespace + ":" + c.ServiceAccount,
		Expiry:    jwt.NewNumericDate(end),
		NotBefore: begin,
		IssuedAt:  begin,
	}, Audience: []string{c.Audience}}
	claims.Kubernetes.Namespace = c.Namespace
	claims.Kubernetes.Pod = object{c.Pod, c.UID}
	claims.Kubernetes.ServiceAccount = object{c.ServiceAccount, "uid-of-" + c.ServiceAccount}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		s.tb.Fatal(err)
	}
	return redact.New(token)
}
