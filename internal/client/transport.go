package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// The operations, as errors and metrics name them.
const (
	opLogin        = "login"
	opRead         = "read"
	opRenewToken   = "renew-token"
	opRenewLease   = "renew-lease"
	opRevoke       = "revoke"
	opCapabilities = "capabilities"
	opFindMount    = "find-mount"
)

// transportKey is what connections must have in common to be shared. The namespace is not among it: it is a header.
type transportKey struct {
	address string
	digest  [sha256.Size]byte
}

// transport is the connections to one Vault with one TLS material.
type transport struct {
	key   transportKey
	base  *http.Transport
	vault *api.Client
	turns chan struct{} // one element for each request in flight to the address; full = wait
	users int           // requests that hold or await a turn; guarded by Pool.mu
}

// newTransport returns a transport without connections.
func newTransport(key transportKey, m material, turns chan struct{}, c Config) (*transport, error) {
	u, err := url.Parse(key.address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is not the address of a Vault (http://... or https://...)", key.address)
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	var http1 http.Protocols
	http1.SetHTTP1(true)
	base := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		TLSClientConfig:        m.config.Clone(),
		TLSHandshakeTimeout:    10 * time.Second,
		Protocols:              &http1,
		DisableCompression:     true, // MaxAnswer is to bound what was sent as well as what we hold
		MaxIdleConnsPerHost:    c.MaxInFlight,
		MaxResponseHeaderBytes: 64 << 10,
		// Shorter than the idle timeouts of Vault (5 min) and of usual load balancers (60 s): since nothing is sent
		// twice, a connection that the other side closes at the same moment would cost the request.
		IdleConnTimeout: 30 * time.Second,
	}
	// MaxRetries stays 0: a request that is sent again may make a second database user.
	vault, err := api.NewClient(&api.Config{
		Address: key.address,
		HttpClient: &http.Client{
			Transport:     &gate{base: base, limit: c.MaxAnswer, allowed: c.Allowed},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, err
	}
	// The constructor has read VAULT_TOKEN, VAULT_NAMESPACE and VAULT_HEADERS, which are nobody's business here.
	vault.ClearToken()
	vault.SetHeaders(http.Header{api.RequestHeaderName: {"true"}, "User-Agent": {c.UserAgent}})
	return &transport{key: key, base: base, vault: vault, turns: turns}, nil
}

// inNamespace returns the client for a Vault namespace, "" for none.
func (t *transport) inNamespace(namespace string) *api.Client {
	if namespace == "" {
		return t.vault
	}
	return t.vault.WithNamespace(namespace)
}

// conn is the way to one Vault, as one login sees it.
type conn struct {
	pool  *Pool
	vault spec.Vault
}

// question is one request to Vault.
type question struct {
	op     string
	method string // GET, LIST, PUT or POST
	path   string // without v1/, with its ?query
	body   []byte // JSON, or nil
	token  redact.String
	jwt    redact.String // in the body: to be cleaned out of errors
}

// answer is what came back, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a question, once, and hands a success to accept, which says what is wrong with it or nil. The error is
// clean.
func (c conn) ask(ctx context.Context, q question, accept func(answer) *Error) error {
	start := time.Now()
	a, e := c.exchange(ctx, q)
	if e == nil {
		e = judge(q.op, a)
	}
	if e == nil {
		e = accept(a)
	}
	outcome := "ok"
	if e != nil {
		outcome = e.Kind.String()
	}
	if c.pool.config.Observe != nil {
		c.pool.config.Observe(q.op, outcome, time.Since(start))
	}
	if e == nil {
		return nil
	}
	e.Op, e.Path = q.op, q.path
	e.clean(q.token.Reveal(), q.jwt.Reveal())
	return e
}

// exchange awaits its turn, sends the question and reads the answer to its end, which ends the turn. Vault's library
// follows one redirect.
func (c conn) exchange(ctx context.Context, q question) (answer, *Error) {
	limit := c.pool.config.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("no answer within %v: %w", limit, context.DeadlineExceeded))
	defer cancel()
	m, err := load(c.vault.TLS) // each time: files change on the disk, and sessions live long
	if err != nil {
		return answer{}, &Error{Kind: Rejected, Err: fmt.Errorf("TLS: %w", err)}
	}
	t, err := c.pool.take(c.vault.Address, m)
	if err != nil {
		return answer{}, &Error{Kind: Rejected, Err: err}
	}
	defer c.pool.give(t)
	if ctx.Err() != nil { // a turn may be free all the same, and select would choose at random
		return answer{}, &Error{Kind: Unavailable, Err: context.Cause(ctx)}
	}
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	case <-ctx.Done():
		err := fmt.Errorf("waited behind %d requests in flight: %w", cap(t.turns), context.Cause(ctx))
		return answer{}, &Error{Kind: Unavailable, Err: err}
	}
	a, e := c.send(ctx, t, q)
	if e == nil && isRedirect(a.status) {
		return answer{}, &Error{Kind: Rejected, Status: a.status, Err: errors.New("a second redirect is not followed")}
	}
	return a, e
}

// send sends the question and reads the answer.
func (c conn) send(ctx context.Context, t *transport, q question) (answer, *Error) {
	// Once there is a connection the request may have been sent, and once sent it may have been carried out. The
	// trace's callbacks run in the sender's own goroutine, so that plain variables do.
	var connected, reused bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connected = false },
		GotConn: func(i httptrace.GotConnInfo) { connected, reused = true, i.Reused },
	})
	vault := t.inNamespace(c.vault.Namespace)
	req, err := request(vault, q)
	if err != nil {
		return answer{}, &Error{Kind: Rejected, Err: err}
	}
	failed := func(status int, err error) (answer, *Error) {
		if refused, ok := errors.AsType[*refusedRedirect](err); ok {
			return answer{}, &Error{Kind: Rejected, Status: refused.status, Err: refused}
		}
		if large, ok := errors.AsType[*tooLarge](err); ok {
			return answer{}, &Error{Kind: Rejected, Status: status, InDoubt: true, Err: large}
		}
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // the URL is in the error already, as the path
		}
		// Whether Go's transport meets an alert when it writes or when it reads shows in a prefix, which is nobody's business.
		if alert, ok := errors.AsType[*net.OpError](err); ok && isAlert(err) {
			err = alert
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		inDoubt := connected && (reused || !isAlert(err))
		return answer{}, &Error{Kind: Unavailable, Status: status, InDoubt: inDoubt, Err: err}
	}
	// The library's higher methods take the token from the client, which all pods of a Vault share here.
	resp, err := vault.RawRequestWithContext(traced, req) //nolint:staticcheck // see above
	status := 0
	if resp != nil {
		defer func() { _ = resp.Body.Close() }()
		status = resp.StatusCode
	}
	if _, answered := errors.AsType[*api.ResponseError](err); err != nil && !answered {
		return failed(status, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return failed(status, err)
	}
	return answer{status, resp.Header, body}, nil
}

// isAlert tells whether the other side ended the TLS handshake. In TLS 1.3 a refused client certificate comes to light
// only after our side has finished it and sent the request, which nobody will have read.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// request builds the request. It lets no ".." lead to another path of the same host.
func request(vault *api.Client, q question) (*api.Request, error) {
	name, query, _ := strings.Cut(q.path, "?")
	if slices.Contains(strings.Split(name, "/"), "..") {
		return nil, errors.New(`a Vault path must not contain ".."`)
	}
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the query of the Vault path: %w", err)
	}
	method := q.method
	if method == "LIST" {
		method = http.MethodGet // with list=true, which proxies understand as well
		parameters.Set("list", "true")
	}
	req := vault.NewRequest(method, "/v1/"+name)
	req.Params = parameters
	req.ClientToken = q.token.Reveal()
	req.WrapTTL = "" // not that of VAULT_WRAP_TTL
	if q.body != nil {
		req.BodyBytes = q.body
		req.Obj = json.RawMessage(q.body) // what is sent again after a redirect
		req.Headers.Set("Content-Type", "application/json")
	}
	return req, nil
}

// gate stands between Vault's library and the network.
type gate struct {
	base    *http.Transport
	limit   int64 // bytes of one answer
	allowed func(address string) error
}

// RoundTrip implements [http.RoundTripper].
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet {
		// Go's transport sends a GET again by itself when a reused connection turns out to be dead, for HTTP holds
		// that harmless. A GET of database/creds makes a user. A body that cannot be had anew forbids it; an empty
		// one does not show on the wire.
		req = req.WithContext(req.Context()) // a copy: a round trip must not change its request
		req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader("")), nil, 0
	}
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if isRedirect(resp.StatusCode) {
		if err := g.mayFollow(req.URL, resp.Header.Get("Location")); err != nil {
			_ = resp.Body.Close()
			return nil, &refusedRedirect{resp.StatusCode, err}
		}
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: g.limit, limit: g.limit}
	return resp, nil
}

// refusedRedirect says why a redirect is not followed.
type refusedRedirect struct {
	status int
	error
}

// mayFollow returns why a redirect may not be followed, or nil: a standby of Vault that cannot forward a request
// answers with the address of the active node. The token travels along, so the operator's policy has the say.
func (g *gate) mayFollow(from *url.URL, location string) error {
	target, err := from.Parse(location)
	if err != nil || location == "" {
		return errors.New("a redirect without a sensible location")
	}
	origin := target.Scheme + "://" + target.Host
	switch {
	case target.Scheme != "https" && target.Scheme != "http" || target.Host == "" || target.User != nil:
		return fmt.Errorf("a redirect to %q, which is no address of a Vault", origin)
	case from.Scheme == "https" && target.Scheme != "https":
		return fmt.Errorf("a redirect from https to %q, which is not encrypted", origin)
	case g.allowed == nil:
		return fmt.Errorf("a redirect to %q: none is allowed", origin)
	}
	if err := g.allowed(origin); err != nil {
		return fmt.Errorf("a redirect to %q: %w", origin, err)
	}
	return nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect:
		return true
	}
	return false
}

// boundedBody is an answer's body that fails beyond a limit.
type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

// Read implements [io.Reader].
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, &tooLarge{b.limit}
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, &tooLarge{b.limit}
	}
	return n, err
}

// tooLarge says that an answer is larger than MaxAnswer.
type tooLarge struct{ limit int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("the answer is larger than the limit of %d bytes", e.limit)
}
