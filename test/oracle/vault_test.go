package oracle

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// vault is what Vault knows in the archive vault.txtar. Its sections are answers, each with the request before it:
// method, path, with PUT the arguments as JSON, and the status unless it is 200. There is one KV version 2, at kv.
type vault map[request]reply

// request is what an answer is the answer to. The path has the query.
type request struct{ method, path, args string }

// reply is Vault's answer.
type reply struct {
	status int
	body   []byte
}

// kv is the mount of the KV version 2.
const kv = "kv/"

// readVault reads the archive. The words between @ are replaced by certificates, which are new at each run.
func readVault(t *testing.T) vault {
	t.Helper()
	text, err := os.ReadFile("testdata/vault.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for word, text := range certificates(t) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, "@"+word+"@", strings.Trim(string(quoted), `"`))
	}
	filled := strings.NewReplacer(pairs...)
	v := make(vault)
	for _, section := range txtar.Parse(text).Files {
		fields := strings.Fields(section.Name)
		if len(fields) < 2 {
			t.Fatalf("vault.txtar: section %q: want a method and a path", section.Name)
		}
		asked, answer := request{method: fields[0], path: fields[1]}, reply{http.StatusOK, []byte(filled.Replace(string(section.Data)))}
		for _, field := range fields[2:] {
			if status, err := strconv.Atoi(field); err == nil {
				answer.status = status
				continue
			}
			asked.args = field
		}
		if !json.Valid(answer.body) {
			t.Fatalf("vault.txtar: section %q: that is not JSON", section.Name)
		}
		v[asked] = answer
	}
	return v
}

// ask returns the answer to a request, for consul-template and for us alike.
func (v vault) ask(r request) reply {
	if r.method == http.MethodPost {
		r.method = http.MethodPut
	}
	if found, ok := v[r]; ok {
		return found
	}
	return reply{http.StatusNotFound, []byte(`{"errors":[]}`)}
}

// read answers a source as the provider's holding does.
func (v vault) read(s spec.Source) (client.Grant, error) {
	answer := v.ask(request{s.Method, s.Path, s.Args})
	if answer.status == http.StatusNotFound && s.Lenient {
		answer = v.ask(request{s.Method, inner(s.Method, s.Path), s.Args})
	}
	if answer.status == http.StatusNotFound && s.Lenient && s.Method == "LIST" {
		return client.Grant{Source: s, Data: redact.NewBytes([]byte(`{"keys":[]}`))}, nil
	}
	if answer.status != http.StatusOK {
		return client.Grant{}, &client.Error{Kind: client.Missing, Op: "read", Path: s.Path, Status: answer.status}
	}
	var said struct {
		LeaseID       string          `json:"lease_id"`
		LeaseDuration int64           `json:"lease_duration"`
		Renewable     bool            `json:"renewable"`
		Data          json.RawMessage `json:"data"`
		Warnings      []string        `json:"warnings"`
	}
	if err := json.Unmarshal(answer.body, &said); err != nil {
		return client.Grant{}, err
	}
	return client.Grant{
		Source: s, Data: redact.NewBytes(said.Data), LeaseID: said.LeaseID, Renewable: said.Renewable, Warnings: said.Warnings,
		LeaseDuration: time.Duration(said.LeaseDuration) * time.Second, Obtained: since,
	}, nil
}

// inner is a path of the KV version 2 with the part that templates may leave out.
func inner(method, path string) string {
	part := "data/"
	if method == "LIST" {
		part = "metadata/"
	}
	below, isKV := strings.CutPrefix(path, kv)
	if !isKV {
		return path
	}
	return kv + part + below
}

// ServeHTTP answers consul-template's Vault client.
func (v vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if mounted, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		mount, _, _ := strings.Cut(mounted, "/")
		options := "null"
		if mount+"/" == kv {
			options = `{"version":"2"}`
		}
		_, _ = fmt.Fprintf(w, `{"data":{"path":"%s/","type":"kv","options":%s}}`, mount, options)
		return
	}
	asked := request{method: r.Method, path: path}
	query := r.URL.Query()
	if query.Get("list") == "true" {
		asked.method = "LIST"
		query.Del("list")
	}
	if len(query) > 0 {
		asked.path += "?" + query.Encode()
	}
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		asked.args = string(bytes.TrimSpace(body))
	}
	answer := v.ask(asked)
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body)
}

// wire joins a client and a server without a network: it is the dialer of one and the listener of the other.
type wire struct {
	waiting chan net.Conn
	closed  chan struct{}
}

// serve has a handler answer all who dial the wire, until the test ends.
func serve(t *testing.T, handler http.Handler) *wire {
	w := &wire{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan error)
	go func() { done <- server.Serve(w) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server of the answers: got %v, want it closed", err)
		}
	})
	return w
}

// Dial connects to the server.
func (w *wire) Dial(network, address string) (net.Conn, error) {
	return w.DialContext(context.Background(), network, address)
}

// DialContext connects to the server.
func (w *wire) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case w.waiting <- theirs:
		return ours, nil
	case <-w.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for somebody to dial.
func (w *wire) Accept() (net.Conn, error) {
	select {
	case conn := <-w.waiting:
		return conn, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. The server calls it once.
func (w *wire) Close() error {
	close(w.closed)
	return nil
}

// Addr is nowhere.
func (w *wire) Addr() net.Addr { return &net.UnixAddr{Name: "wire", Net: "pipe"} }

// certificates makes a root authority, one below it, and the certificates of two servers with their keys, as PEM.
func certificates(t *testing.T) map[string]string {
	t.Helper()
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	texts := make(map[string]string)
	issue := func(word string, authority bool, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		draft := &x509.Certificate{
			SerialNumber: big.NewInt(int64(len(texts) + 1)), Subject: pkix.Name{CommonName: word + ".example"},
			DNSNames: []string{word + ".example"}, NotBefore: start, NotAfter: start.Add(1000 * time.Hour),
			IsCA: authority, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent, signer = draft, key
		}
		der, err := x509.CreateCertificate(rand.Reader, draft, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		// Vault ends its PEM texts without a newline.
		texts[word] = strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		texts[word+"-key"] = strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
		return made, key
	}
	root, rootKey := issue("root", true, nil, nil)
	middle, middleKey := issue("middle", true, root, rootKey)
	issue("web", false, middle, middleKey)
	issue("other", false, middle, middleKey)
	return texts
}
