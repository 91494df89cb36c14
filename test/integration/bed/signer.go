package bed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is the "iss" of the tokens: the default of a cluster.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// The algorithms of a Signer: a kube-apiserver's key is one or the other.
const (
	ES256 = jose.ES256
	RS256 = jose.RS256
)

// Pod is a pod as its tokens and volumes name it.
type Pod struct{ Namespace, Name, UID, ServiceAccount string }

// Signer signs service account tokens as a kube-apiserver does.
type Signer struct {
	PublicKey string // PEM, for jwt_validation_pubkeys of Vault's JWT method

	signer jose.Signer

	mu     sync.Mutex
	issued []string
}

// NewSigner makes a key of the algorithm, ES256 or RS256.
func NewSigner(algorithm jose.SignatureAlgorithm) (*Signer, error) {
	key, err := newKey(algorithm)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", rand.Text())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return &Signer{PublicKey: string(block), signer: signer}, nil
}

func newKey(algorithm jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		return rsa.GenerateKey(rand.Reader, 2048)
	default:
		return nil, fmt.Errorf("algorithm %q is neither ES256 nor RS256", algorithm)
	}
}

// named is an object that a token is bound to.
type named struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// binding is the claim "kubernetes.io" of a token that is bound to a pod.
type binding struct {
	Namespace      string `json:"namespace"`
	Node           named  `json:"node"`
	Pod            named  `json:"pod"`
	ServiceAccount named  `json:"serviceaccount"`
}

// Token returns a token of the pod's service account, bound to the pod, for one audience. A negative ttl makes one that
// has ended.
func (s *Signer) Token(pod Pod, audience string, ttl time.Duration) (string, error) {
	now := time.Now()
	standard := jwt.Claims{
		Issuer:    Issuer,
		Subject:   subject(pod.Namespace, pod.ServiceAccount),
		Audience:  jwt.Audience{audience},
		Expiry:    jwt.NewNumericDate(now.Add(ttl)),
		NotBefore: jwt.NewNumericDate(now.Add(min(ttl, 0))),
		IssuedAt:  jwt.NewNumericDate(now.Add(min(ttl, 0))),
		ID:        rand.Text(),
	}
	bound := map[string]any{"kubernetes.io": binding{
		Namespace:      pod.Namespace,
		Node:           named{Name: "node", UID: "00000000-0000-4000-8000-000000000001"},
		Pod:            named{Name: pod.Name, UID: pod.UID},
		ServiceAccount: named{Name: pod.ServiceAccount, UID: "00000000-0000-4000-8000-000000000002"},
	}}
	token, err := jwt.Signed(s.signer).Claims(standard).Claims(bound).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign a token for %s/%s: %w", pod.Namespace, pod.ServiceAccount, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued = append(s.issued, token)
	return token, nil
}

// Issued returns all tokens that were signed, for the search of what leaked.
func (s *Signer) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

func subject(namespace, serviceAccount string) string {
	return "system:serviceaccount:" + namespace + ":" + serviceAccount
}
