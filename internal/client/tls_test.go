package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// identity is a self-signed certificate, which is its own authority, and its key.
type identity struct{ cert, key string }

func newIdentity(t *testing.T) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"vault.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return identity{text("CERTIFICATE", der), text("PRIVATE KEY", pkcs8)}
}

// serveTLS starts a server with the identity; with a client's certificate it wants that one.
func serveTLS(t *testing.T, id identity, clientCert string) *httptest.Server {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(id.cert), []byte(id.key))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(stub(answering(200, "application/json", stubData)))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clientCert != "" {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AppendCertsFromPEM([]byte(clientCert))
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	server, other, pod := newIdentity(t), newIdentity(t), newIdentity(t)
	plain, mutual := serveTLS(t, server, ""), serveTLS(t, server, pod.cert)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tls/ca.crt": server.cert, "tls/other.crt": other.cert, "tls/pod.crt": pod.cert, "tls/pod.key": pod.key,
		"tls/cas/1.crt": other.cert, "tls/cas/2.crt": server.cert, "tls/empty/.keep/x": "",
		"tls/noise.crt": "noise", "outside.crt": server.cert, "tls/projected/..1/ca.crt": server.cert,
	} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	for link, target := range map[string]string{
		"tls/out.crt": "../outside.crt", "tls/abs.crt": filepath.Join(dir, "outside.crt"), "tls/outdir": "..",
		"tls/in.crt": "ca.crt", "tls/projected/..data": "..1", "tls/projected/ca.crt": "..data/ca.crt",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "tls")
	own := func(name string) spec.File { return spec.File{Path: filepath.Join(root, name)} }
	tenant := func(name string) spec.File { return spec.File{Root: root, Path: name} }
	const name = "vault.example"

	for _, tt := range []struct {
		name string
		to   *httptest.Server
		tls  spec.TLS
		kind client.Kind // 0: works
		want string
	}{
		{name: "right CA", tls: spec.TLS{CACert: own("ca.crt")}},
		{
			name: "wrong CA", tls: spec.TLS{CACert: own("other.crt")}, kind: client.Unavailable,
			want: "x509: certificate signed by unknown authority",
		},
		{name: "system's CAs", kind: client.Unavailable, want: "x509: "},
		{name: "CA directory", tls: spec.TLS{CADirectory: own("cas")}},
		{name: "CA directory of a projected volume", tls: spec.TLS{CADirectory: tenant("projected")}},
		{name: "CA directory without files", tls: spec.TLS{CADirectory: tenant("empty")}, kind: client.Rejected, want: "no file in it"},
		{name: "CA as text", tls: spec.TLS{CA: server.cert, CACert: own("other.crt")}},
		{
			name: "CA as wrong text", tls: spec.TLS{CA: other.cert, CACert: own("ca.crt")}, kind: client.Unavailable,
			want: "unknown authority",
		},
		{name: "no CA in the file", tls: spec.TLS{CACert: own("noise.crt")}, kind: client.Rejected, want: "no PEM certificate"},
		{name: "no file", tls: spec.TLS{CACert: tenant("nothing.crt")}, kind: client.Rejected, want: "CA certificate: "},
		{name: "a directory", tls: spec.TLS{CACert: tenant("cas")}, kind: client.Rejected, want: "not a regular file"},
		{
			name: "server name", tls: spec.TLS{CA: server.cert, ServerName: "another.example"}, kind: client.Unavailable,
			want: "certificate is valid for vault.example, not another.example",
		},
		{name: "skip verify", tls: spec.TLS{SkipVerify: true}},

		{name: "tenant's file", tls: spec.TLS{CACert: tenant("ca.crt")}},
		{name: "tenant's link inside", tls: spec.TLS{CACert: tenant("in.crt")}},
		{name: "tenant's link outside", tls: spec.TLS{CACert: tenant("out.crt")}, kind: client.Rejected, want: "escapes"},
		{name: "tenant's absolute link", tls: spec.TLS{CACert: tenant("abs.crt")}, kind: client.Rejected, want: "escapes"},
		{
			name: "tenant's link to a directory", tls: spec.TLS{CACert: tenant("outdir/outside.crt")}, kind: client.Rejected,
			want: "escapes",
		},
		{name: "tenant's directory outside", tls: spec.TLS{CADirectory: tenant("outdir")}, kind: client.Rejected, want: "escapes"},
		{name: "tenant's ..", tls: spec.TLS{CACert: tenant("../outside.crt")}, kind: client.Rejected, want: "leads out"},
		{name: "tenant's inner ..", tls: spec.TLS{CACert: tenant("cas/../../outside.crt")}, kind: client.Rejected, want: "leads out"},
		{
			name: "tenant's absolute path", tls: spec.TLS{CACert: tenant(filepath.Join(dir, "outside.crt"))},
			kind: client.Rejected, want: "leads out",
		},

		{name: "mTLS by files", to: mutual, tls: spec.TLS{CA: server.cert, ClientCert: tenant("pod.crt"), ClientKey: tenant("pod.key")}},
		{name: "mTLS by texts", to: mutual, tls: spec.TLS{CA: server.cert, Cert: pod.cert, Key: redact.New(pod.key)}},
		{
			name: "mTLS without a certificate", to: mutual, tls: spec.TLS{CA: server.cert}, kind: client.Unavailable,
			want: "tls: certificate required",
		},
		{
			name: "mTLS with another certificate", to: mutual, kind: client.Unavailable, want: "remote error: tls: ",
			tls: spec.TLS{CA: server.cert, Cert: other.cert, Key: redact.New(other.key)},
		},
		{name: "certificate without key", tls: spec.TLS{Cert: pod.cert}, kind: client.Rejected, want: "has no key"},
		{name: "key without certificate", tls: spec.TLS{Key: redact.New(pod.key)}, kind: client.Rejected, want: "has no certificate"},
		{
			name: "key of another", tls: spec.TLS{Cert: pod.cert, Key: redact.New(other.key)}, kind: client.Rejected,
			want: "private key does not match public key",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.to == nil {
				tt.to = plain
			}
			if tt.tls.ServerName == "" {
				tt.tls.ServerName = name
			}
			v := vaultAt(tt.to.URL)
			v.TLS = tt.tls
			_, err := newPool(t, client.Config{}).Login(t.Context(), v, redact.New(stubJWT))
			if tt.kind != 0 {
				wantError(t, err, tt.kind, tt.want, false)
			} else if err != nil {
				t.Errorf("got error %v", err)
			}
		})
	}
}

// Files are read for each request, and connections are shared by their contents: a rotated CA takes effect at once, also
// for the sessions from before, which could not be given back otherwise.
func TestRotatedCA(t *testing.T) {
	old, next := newIdentity(t), newIdentity(t)
	s := serveTLS(t, old, "")
	file := filepath.Join(t.TempDir(), "ca.crt")
	v := vaultAt(s.URL)
	v.TLS = spec.TLS{CACert: spec.File{Path: file}, ServerName: "vault.example"}
	pool := newPool(t, client.Config{})

	writeFile(t, file, old.cert)
	before := open(t, pool, v)
	writeFile(t, file, next.cert)
	_, err := pool.Login(t.Context(), v, redact.New(stubJWT))
	wantError(t, err, client.Unavailable, "unknown authority", false)
	_, err = before.Read(t.Context(), get("x"))
	wantError(t, err, client.Unavailable, "unknown authority", false)
	writeFile(t, file, next.cert+old.cert)
	open(t, pool, v)
	if _, err := before.Read(t.Context(), get("x")); err != nil {
		t.Errorf("session from before: got error %v", err)
	}
}

// A downgrade would send the token in the clear.
func TestRedirectFromTLSToPlain(t *testing.T) {
	plain := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("got a request, want none") }))
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	v := vaultAt(s.URL)
	v.TLS.CA = pemOf(s)
	pool := newPool(t, client.Config{Allowed: func(string) error { return nil }})
	_, err := pool.Login(t.Context(), v, redact.New(stubJWT))
	wantError(t, err, client.Rejected, "not encrypted", false)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
