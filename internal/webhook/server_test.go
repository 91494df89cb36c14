package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// caller is the API server, with the authorities that its configuration has. As that one does, it keeps to HTTP/1.1, so that
// connections are used one review at a time and many are kept.
func caller(t *testing.T, m *machine, address string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundles(t, m)[0])) {
		t.Fatal("the configuration holds no authority")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: serviceHost, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// send sends a review over the network.
func send(t *testing.T, client *http.Client, path string, body []byte) ([]byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost,
		fmt.Sprintf("https://%s%s?timeout=10s", serviceHost, path), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(response.Body)
}

// serve starts a replica, and waits until the API server trusts it.
func serve(t *testing.T, m *machine, handler http.Handler, drain time.Duration) (address string, stop func() error) {
	t.Helper()
	certificates := m.certificates(life)
	background(t, certificates.Run)
	until(t, "the certificate is trusted", func() bool { return certificates.Ready() == nil })
	server, err := NewServer(handler, certificates, drain, m.logger())
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(cancel)
	return l.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

// The webhook from end to end: a review goes in over TLS as the API server sends it, and a patch comes out.
func TestServer(t *testing.T) {
	m := newNetwork(t)
	address, stop := serve(t, m, m.handler(), 0)
	client := caller(t, m, address)
	pod := podText(introduction)
	text, err := send(t, client, PathPods, reviewText(t, request("pods", "Pod", pod)))
	if err != nil {
		t.Fatal(err)
	}
	patched(t, pod, readResponse(t, text))
	m.wantClasses(1)
	if err := stop(); err != nil {
		t.Errorf("got %v at the end", err)
	}
	if _, err := send(t, client, PathPods, nil); err == nil {
		t.Error("it still serves after its end")
	}
}

// When it is told to end, the API server may not know yet: what comes in meanwhile is answered, and what is at work is
// finished.
func TestServerDrains(t *testing.T) {
	m := newNetwork(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-leave
		}
		_, _ = io.WriteString(w, "answered")
	})
	address, stop := serve(t, m, handler, time.Second)
	client, latecomer := caller(t, m, address), caller(t, m, address)
	slow := make(chan error, 1)
	go func() {
		text, err := send(t, client, "/slow", nil)
		if err == nil && string(text) != "answered" {
			err = fmt.Errorf("got %q", text)
		}
		slow <- err
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	until(t, "it has heard that it is to end", func() bool { return strings.Contains(m.log.String(), "ending: still serving") })
	if text, err := send(t, latecomer, "/quick", nil); err != nil || string(text) != "answered" {
		t.Errorf("while it drains: got %q, %v", text, err)
	}
	until(t, "it takes no new connections", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(leave)
	if err := <-slow; err != nil {
		t.Errorf("what was at work: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v at the end", err)
	}
}

// While it drains, it takes leave of its clients: none of them keeps a connection that would be cut off at the end.
func TestServerPartsFromItsClients(t *testing.T) {
	m := newNetwork(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	address, stop := serve(t, m, handler, time.Second)
	client := caller(t, m, address)
	from := func() string {
		text, err := send(t, client, PathPods, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := from()
	if again := from(); again != first {
		t.Fatalf("got two connections, %s and %s, for two reviews: before the end one is kept", first, again)
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	until(t, "it has heard that it is to end", func() bool { return strings.Contains(m.log.String(), "ending: still serving") })
	if last := from(); last != first {
		t.Errorf("the first review after that came over %s, want the connection that was kept, %s", last, first)
	}
	if next := from(); next == first {
		t.Error("the connection was kept though the server is ending")
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v at the end", err)
	}
}

// pipes is a network without time: for synctest.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

// The API server makes connections before it needs them, and keeps them for 90 s. None of these is closed on it.
func TestServerKeepsUnusedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		certificates := m.certificates(life)
		background(t, certificates.Run)
		synctest.Wait()
		server, err := NewServer(m.handler(), certificates, 0, m.logger())
		if err != nil {
			t.Fatal(err)
		}
		l := make(pipes)
		background(t, func(ctx context.Context) {
			if err := server.Serve(ctx, l); err != nil {
				t.Error(err)
			}
		})
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(bundles(t, m)[0]))
		ours, theirs := net.Pipe()
		l <- theirs
		c := tls.Client(ours, &tls.Config{RootCAs: roots, ServerName: serviceHost, MinVersion: tls.VersionTLS12})
		defer func() { _ = c.Close() }()
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		read := bufio.NewReader(c)
		review := func(length int, body []byte) (int, error) {
			if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: webhook\r\nContent-Length: %d\r\n\r\n%s", PathPods, length, body); err != nil {
				return 0, err
			}
			response, err := http.ReadResponse(read, nil)
			if err != nil {
				return 0, err
			}
			_, err = io.Copy(io.Discard, response.Body)
			return response.StatusCode, errors.Join(err, response.Body.Close())
		}
		body := reviewText(t, request("pods", "Pod", podText(introduction)))
		for _, which := range []string{"first", "second"} {
			time.Sleep(90 * time.Second)
			if code, err := review(len(body), body); err != nil || code != http.StatusOK {
				t.Fatalf("the %s review: got %d, %v, want 200", which, code, err)
			}
		}
		// A body that does not come in holds nothing up for ever.
		began := time.Now()
		if code, err := review(1, nil); err != nil || code != http.StatusBadRequest || time.Since(began) > bodyTimeout {
			t.Errorf("a review without its body: got %d, %v after %v, want 400 after %v", code, err, time.Since(began), bodyTimeout)
		}
	})
}

func TestServerWithoutCertificate(t *testing.T) {
	m := newNetwork(t)
	server, err := NewServer(http.NotFoundHandler(), m.certificates(life), 0, m.logger())
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { _ = server.Serve(ctx, l) })
	_, err = (&tls.Dialer{Config: &tls.Config{ServerName: serviceHost, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err == nil {
		t.Error("got a connection without a certificate")
	}
}
