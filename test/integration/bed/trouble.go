package bed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Trouble is a reverse proxy before a Vault whose behaviour can be changed while it runs. A request that it passes on is
// carried out whether or not the client is still there, which is the worst that a network can do.
type Trouble struct {
	Address string // URL, in place of the Vault's

	server *http.Server
	pass   http.Handler
	closed chan struct{}

	mu     sync.Mutex
	usual  Behaviour
	byPath map[string]Behaviour // :: path without v1/ -> what is done there in place of usual
	counts map[string]int       // :: "METHOD path" -> requests that arrived
}

// Behaviour answers a request; pass has Vault answer it. The request's body can be read as often as one likes.
type Behaviour func(w http.ResponseWriter, r *http.Request, pass http.Handler)

// StartTrouble starts a proxy that passes everything on to a Vault at target (a URL).
func (b *Bed) StartTrouble(target string) (*Trouble, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("trouble: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("trouble: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t := &Trouble{
		Address: "http://" + l.Addr().String(),
		closed:  make(chan struct{}),
		usual:   Pass,
		byPath:  make(map[string]Behaviour),
		counts:  make(map[string]int),
	}
	quiet := log.New(io.Discard, "", 0)
	t.pass = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport,
		ErrorLog:  quiet,
		// Vault cannot be reached: the client is to see that, and not an answer of ours.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { drop(w) },
	}
	t.server = &http.Server{
		Handler: t, ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, clientKey{}, c) },
	}
	go func() { _ = t.server.Serve(l) }()
	b.onClose(func() error {
		close(t.closed)
		transport.CloseIdleConnections()
		return t.server.Close()
	})
	return t, nil
}

// ServeHTTP counts the request and does what it was told to.
func (t *Trouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		drop(w)
		return
	}
	again := r.WithContext(context.WithoutCancel(r.Context()))
	again.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) == 0 {
		again.Body = http.NoBody
	}
	path := vaultPath(r)

	t.mu.Lock()
	t.counts[r.Method+" "+path]++
	behave, ok := t.byPath[path]
	if !ok {
		behave = t.usual
	}
	t.mu.Unlock()
	behave(w, again, t.pass)
}

// clientKey is where a request's context has the connection that it came by.
type clientKey struct{}

// HungUp tells whether whoever sent a request that a Trouble has got has closed the connection: because it is dead, say. It
// asks the kernel, which knows at once.
func HungUp(r *http.Request) bool {
	c, ok := r.Context().Value(clientKey{}).(*net.TCPConn)
	if !ok {
		panic("bed: the request came by no TCP connection of a Trouble")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	up := false
	err = raw.Control(func(fd uintptr) {
		info, failure := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		up = failure == nil && info.State == unix.BPF_TCP_ESTABLISHED
	})
	return err != nil || !up
}

func vaultPath(r *http.Request) string {
	const prefix = "/v1/"
	if len(r.URL.Path) > len(prefix) && r.URL.Path[:len(prefix)] == prefix {
		return r.URL.Path[len(prefix):]
	}
	return r.URL.Path
}

// Set changes what is done with every request that comes from now on.
func (t *Trouble) Set(b Behaviour) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.usual = b
}

// SetPath changes what is done with the requests to one path, such as "auth/kubernetes/login". nil does as everywhere.
func (t *Trouble) SetPath(path string, b Behaviour) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b == nil {
		delete(t.byPath, path)
		return
	}
	t.byPath[path] = b
}

// Requests returns how many requests have arrived since the start or the last Reset, by "METHOD path".
func (t *Trouble) Requests() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// Count returns how many requests with that method and path have arrived.
func (t *Trouble) Count(method, path string) int { return t.Requests()[method+" "+path] }

// Total returns how many requests have arrived.
func (t *Trouble) Total() int {
	total := 0
	for _, n := range t.Requests() {
		total += n
	}
	return total
}

// Reset passes everything on again and forgets the counts.
func (t *Trouble) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.usual = Pass
	clear(t.byPath)
	clear(t.counts)
}

// Pass has Vault answer.
func Pass(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(w, r) }

// Refuse closes the connection without an answer; Vault never sees the request.
func Refuse(w http.ResponseWriter, _ *http.Request, _ http.Handler) { drop(w) }

// LoseAnswer has Vault carry the request out and closes the connection instead of answering.
func LoseAnswer(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	keep(r, pass)
	drop(w)
}

// CutAnswer has Vault carry the request out and closes the connection in the middle of the answer's body.
func CutAnswer(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	answer := keep(r, pass)
	maps.Copy(w.Header(), answer.header)
	w.Header().Set("Content-Length", strconv.Itoa(answer.body.Len()+1))
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes()[:answer.body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	drop(w)
}

// Nonsense answers 200 with a page that repeats the request's body, as a captive portal or a debugging proxy might.
func Nonsense(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<html><body><h1>Welcome</h1><pre>")
	_, _ = io.Copy(w, r.Body)
	_, _ = io.WriteString(w, "</pre></body></html>")
}

// BadGateway answers 502 as a load balancer does; Vault never sees the request.
func BadGateway(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	http.Error(w, "<html><body>502 Bad Gateway</body></html>", http.StatusBadGateway)
}

// TooMany answers 429 with Retry-After, as Vault's rate limit quotas do.
func TooMany(retryAfter time.Duration) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"errors":["request path \"\": rate limit quota exceeded"]}`)
	}
}

// Redirect answers 307 to the same path at another address, as a standby does that cannot forward.
func Redirect(address string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", address+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// Slow passes the request on after a time.
func Slow(d time.Duration) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		time.Sleep(d)
		pass.ServeHTTP(w, r)
	}
}

// Gate holds requests until it is opened.
type Gate struct {
	arrived chan struct{}
	open    chan struct{}
	once    sync.Once
}

// Arrived gets a value for every request that waits at the gate (up to a thousand unread ones).
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets all requests go on, those that wait and those that will come.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

func (g *Gate) wait(closed <-chan struct{}) {
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
	case <-closed:
	}
}

// Block holds the requests to a path before Vault sees them.
func (t *Trouble) Block(path string) *Gate {
	return t.gate(path, func(g *Gate) Behaviour {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			g.wait(t.closed)
			pass.ServeHTTP(w, r)
		}
	})
}

// BlockAnswer has Vault carry the requests to a path out, and holds its answers.
func (t *Trouble) BlockAnswer(path string) *Gate {
	return t.gate(path, func(g *Gate) Behaviour {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			answer := keep(r, pass)
			g.wait(t.closed)
			answer.send(w)
		}
	})
}

func (t *Trouble) gate(path string, behaviour func(*Gate) Behaviour) *Gate {
	g := &Gate{arrived: make(chan struct{}, 1000), open: make(chan struct{})}
	t.SetPath(path, behaviour(g))
	return g
}

// drop closes the client's connection, hard.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the other way to close it
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// kept is an answer of Vault that was not sent.
type kept struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func keep(r *http.Request, pass http.Handler) *kept {
	k := &kept{status: http.StatusOK, header: make(http.Header)}
	defer func() {
		// Without Vault there is no answer to keep; the error handler above wanted to close the connection.
		if cause := recover(); cause != nil && cause != http.ErrAbortHandler { //nolint:errorlint // a panic's value
			panic(cause)
		}
	}()
	pass.ServeHTTP(k, r)
	return k
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }

func (k *kept) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), k.header)
	w.WriteHeader(k.status)
	_, _ = w.Write(k.body.Bytes())
}
