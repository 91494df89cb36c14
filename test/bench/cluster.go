package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"leasehold/test/integration/bed"
)

// cluster is a real API server with its etcd, and nothing else of Kubernetes: pods are objects there that nobody runs, which
// is all that a pod's end looks like from outside. Whoever has the token may do everything.
type cluster struct {
	url        string
	kubeconfig string // file
	authority  string // file, PEM
	token      string
	http       *http.Client
	processes  []*bed.Process // in the order of their start
}

// object is a Kubernetes object, as JSON has it.
type object map[string]any

// withCluster starts an API server, has something done with it, and ends it: it would disturb other measurements.
func (w *world) withCluster(ctx context.Context, do func(c *cluster) error) error {
	c, err := w.newCluster(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	return do(c)
}

func (w *world) newCluster(ctx context.Context) (_ *cluster, err error) {
	program, err := w.program("kubeone")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(w.bed.Dir, w.unique("cluster"))
	authority, err := w.bed.NewAuthority()
	if err := errors.Join(err, os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	serving, err1 := authority.Server("kube-apiserver")
	accounts, err2 := authority.Issue("service-accounts", &x509.Certificate{})
	ports, err3 := freePorts(3)
	text, err4 := os.ReadFile(authority.CertFile)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	clients, peers := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	c := &cluster{
		url: "https://127.0.0.1:" + ports[2], kubeconfig: filepath.Join(dir, "kubeconfig"), authority: authority.CertFile, token: rand.Text(),
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 16,
		}},
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	tokens := filepath.Join(dir, "tokens.csv")
	err = errors.Join(
		os.WriteFile(tokens, fmt.Appendf(nil, "%s,bench,bench,\"system:masters\"\n", c.token), 0o600),
		os.WriteFile(c.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: bench, user: {token: %q}}]
`, c.url, c.authority, c.token), 0o600),
	)
	if err != nil {
		return nil, err
	}
	err = c.start(ctx, w, program, "etcd", "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
	if err != nil {
		return nil, err
	}
	err = c.start(ctx, w, program, "kube-apiserver", "--etcd-servers="+clients, "--bind-address=127.0.0.1", "--secure-port="+ports[2],
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16", "--cert-dir="+dir,
		"--tls-cert-file="+serving.CertFile, "--tls-private-key-file="+serving.KeyFile,
		"--authorization-mode=AlwaysAllow", "--token-auth-file="+tokens,
		"--service-account-issuer="+bed.Issuer, "--service-account-key-file="+accounts.CertFile, "--service-account-signing-key-file="+accounts.KeyFile,
		"--disable-admission-plugins=ServiceAccount") // nobody is here to make accounts
	if err != nil {
		return nil, err
	}
	ready := func(ctx context.Context) error {
		_, err := c.ask(ctx, http.MethodGet, "/readyz", nil)
		return err
	}
	if err := c.processes[1].Within(ctx, time.Minute, ready); err != nil {
		return nil, err
	}
	return c, c.create(ctx, "/api/v1/namespaces", object{"metadata": object{"name": appsSpace}})
}

func (c *cluster) start(ctx context.Context, w *world, program string, arguments ...string) error {
	p, err := w.bed.Start(w.unique(arguments[0]), exec.CommandContext(context.WithoutCancel(ctx), program, arguments...))
	if err == nil {
		c.processes = append(c.processes, p)
	}
	return err
}

// close ends both. What they kept is nobody's any more, so there is no need to ask them.
func (c *cluster) close() {
	c.http.CloseIdleConnections()
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Kill()
	}
}

// freePorts returns ports of 127.0.0.1 that nobody listens on just now.
func freePorts(count int) (ports []string, err error) {
	for range count {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // all of them at the end: so no two are the same
		address, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("listening at %v, which is no TCP address", l.Addr())
		}
		ports = append(ports, strconv.Itoa(address.Port))
	}
	return ports, nil
}

// send makes a request; a body is JSON.
func (c *cluster) send(ctx context.Context, method, path string, body object) (*http.Response, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return c.http.Do(request)
}

// ask makes a request and returns the answer's JSON.
func (c *cluster) ask(ctx context.Context, method, path string, body object) ([]byte, error) {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: status %d: %s", method, path, answer.StatusCode, text)
	}
	return text, err
}

func (c *cluster) create(ctx context.Context, path string, o object) error {
	_, err := c.ask(ctx, http.MethodPost, path, o)
	return err
}
