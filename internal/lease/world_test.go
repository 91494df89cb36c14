package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

const (
	userPath       = "database/creds/app"
	loginPath      = "auth/kubernetes/login"
	revokePath     = "auth/token/revoke-self"
	renewTokenPath = "auth/token/renew-self"
	renewLeasePath = "sys/leases/renew"

	patience = 20 * time.Second // for what must happen; nothing waits so long when it does
)

var (
	userSource   = spec.Source{Method: http.MethodGet, Path: userPath}
	keySource    = spec.Source{Method: http.MethodGet, Path: "kv/app"}
	staticSource = spec.Source{Method: http.MethodGet, Path: "database/static-creds/shared"}
)

// world is a keeper, a fake Vault and fake pods. Vault is reached by pipes, so that all of it may live in a bubble.
type world struct {
	t       *testing.T
	vault   *vaulttest.Server
	network *network
	pods    *pods
	config  Config
	keeper  *Keeper
	log     *text
	jwt     redact.String
	expires time.Time // of jwt

	writes      atomic.Bool // the provider may write into the volumes
	stale       atomic.Int32
	unrevocable atomic.Int32
	fromMemory  atomic.Int32
	unwritten   atomic.Int32 // journal errors
	refills     atomic.Int32
	panics      atomic.Bool            // a refill does
	notAllowed  atomic.Pointer[error]  // what a refill fails with before it asks anybody
	beforeShow  atomic.Pointer[func()] // when the files have been made

	mu       sync.Mutex
	outcomes []string          // "released revoked", "renewed token ok", "replaced ok" ...
	files    map[string]string // what volumes show, by pod
}

// newWorld makes a world of whose keeper nothing runs by itself.
func newWorld(t *testing.T) *world {
	t.Helper()
	return worldAround(t, vaulttest.New(t))
}

// bubble runs a test in a world whose clock goes only while nobody has anything to do. Only the fake Vault's own
// listener, which nobody uses, stays outside.
func bubble(t *testing.T, test func(w *world)) {
	t.Helper()
	vault := vaulttest.New(t)
	synctest.Test(t, func(t *testing.T) {
		w := worldAround(t, vault)
		// Its password changed before the bubble's clock began.
		vault.Write("database/static-roles/shared", vaulttest.Data{"username": "shared", "rotation_period": "1h"})
		test(w)
	})
}

func worldAround(t *testing.T, vault *vaulttest.Server) *world {
	t.Helper()
	w := &world{t: t, vault: vault, network: newNetwork(t, vault), pods: newPods(), log: &text{}, files: map[string]string{}}
	pool, err := client.NewPool(client.Config{
		Timeout: patience, MaxInFlight: 64, MaxTransports: 8, MaxAnswer: 1 << 20, Dial: w.network.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.writes.Store(true)
	w.newToken(365 * 24 * time.Hour)
	w.config = Config{
		Pool: pool, Pods: w.pods, AbandonAfter: time.Minute, SettleTimeout: patience, Publishes: true,
		Log:           slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Stale:         func() { w.stale.Add(1) },
		FromMemory:    func() { w.fromMemory.Add(1) },
		Unrevocable:   func() { w.unrevocable.Add(1) },
		JournalFailed: func() { w.unwritten.Add(1) },
		Released:      func(outcome string) { w.happened("released " + outcome) },
		Renewed:       func(what, outcome string) { w.happened("renewed " + what + " " + outcome) },
		Replaced:      func(outcome string) { w.happened("replaced " + outcome) },
	}
	w.keeper = NewKeeper(w.config)
	w.keeper.refill = w.refill
	return w
}

// newToken gives the pods' next Mounts a service account token that lives so long.
func (w *world) newToken(life time.Duration) {
	w.jwt = w.vault.Signer.Token(vaulttest.Claims{Life: life})
	w.expires = time.Now().Add(life).UTC()
}

// order is what a Mount of a pod's volume asks for: a database user.
func (w *world) order(pod string, changes ...func(*spec.Mount)) spec.Mount {
	m := spec.Mount{
		Class: spec.Class{
			Vault:     w.vault.Vault("app"),
			Objects:   []spec.Object{{Name: "user", Source: userSource, Mode: 0o644}},
			Lifecycle: spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67, RevokeGrace: 10 * time.Minute},
		},
		Pod: spec.Pod{
			Namespace: "shop", Name: pod, UID: "uid-of-" + pod, ServiceAccount: "app", Token: w.jwt, TokenExpires: w.expires,
		},
		Volume: "/pods/" + pod, Mode: 0o644,
	}
	for _, change := range changes {
		change(&m)
	}
	return m
}

// as is a class of another Vault role.
func (w *world) as(role string) func(*spec.Mount) {
	return func(m *spec.Mount) { m.Class.Vault.Role = role }
}

// of is a class of these sources.
func of(sources ...spec.Source) func(*spec.Mount) {
	return func(m *spec.Mount) {
		m.Class.Objects = nil
		for i, s := range sources {
			m.Class.Objects = append(m.Class.Objects, spec.Object{Name: fmt.Sprintf("file%d", i), Source: s, Mode: 0o644})
		}
	}
}

// template is a class of one file, whose template asks for the paths in its lines after the first. One that ends with /* is
// a list, and all that is in it.
func template(paths ...string) func(*spec.Mount) {
	text := "a text\n" + strings.Join(paths, "\n")
	return func(m *spec.Mount) {
		m.Class.Objects = []spec.Object{{Name: "file", Template: spec.Template{Text: text}, Mode: 0o644}}
	}
}

// asked is how a template asks for a path.
func asked(path string) spec.Source {
	return spec.Source{Method: http.MethodGet, Path: path, Lenient: true}
}

// listed is how a template asks for a list.
func listed(path string) spec.Source { return spec.Source{Method: "LIST", Path: path, Lenient: true} }

// execute asks for what a template does.
func execute(text string, ask func(spec.Source) (string, error)) error {
	_, paths, _ := strings.Cut(text, "\n")
	for _, path := range strings.Fields(paths) {
		folder, all := strings.CutSuffix(path, "/*")
		if !all {
			if _, err := ask(asked(path)); err != nil {
				return err
			}
			continue
		}
		answer, err := ask(listed(folder))
		if err != nil {
			return err
		}
		var list struct{ Keys []string }
		if err := json.Unmarshal([]byte(answer), &list); err != nil {
			return err
		}
		for _, key := range list.Keys {
			if _, err := ask(asked(folder + "/" + key)); err != nil {
				return err
			}
		}
	}
	return nil
}

func frozen(m *spec.Mount) { m.Class.Lifecycle.Frozen = true }

// open is a Mount's first step.
func (w *world) open(pod string, changes ...func(*spec.Mount)) *Volume {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	v, err := w.keeper.Open(ctx, w.order(pod, changes...))
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// holding is a Mount's second step.
func (w *world) holding(v *Volume) *Holding {
	w.t.Helper()
	h, err := v.Holding(w.t.Context())
	if err != nil {
		w.t.Fatalf("holding: got error %v", err)
	}
	return h
}

// read is a Mount's third step. It returns the database user.
func (w *world) read(h *Holding) string {
	w.t.Helper()
	grant, err := h.Read(w.t.Context(), userSource)
	if err != nil {
		w.t.Fatalf("read: got error %v", err)
	}
	return string(grant.Data.Reveal())
}

// mount is a whole Mount of a pod's volume.
func (w *world) mount(pod string, changes ...func(*spec.Mount)) (*Holding, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 4*patience)
	defer cancel()
	v, err := w.keeper.Open(ctx, w.order(pod, changes...))
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return w.fill(ctx, v, true)
}

// mounted is what a volume shows after a Mount that succeeded.
func (w *world) mounted(pod string, changes ...func(*spec.Mount)) *Holding {
	w.t.Helper()
	h, err := w.mount(pod, changes...)
	if err != nil {
		w.t.Fatalf("mount: got error %v", err)
	}
	return h
}

// refill is what the provider does when the keeper asks it to.
func (w *world) refill(ctx context.Context, v *Volume) error {
	w.refills.Add(1)
	if w.panics.Load() {
		panic("a value that must not be told")
	}
	if err := w.notAllowed.Load(); err != nil {
		return *err
	}
	_, err := w.fill(ctx, v, false)
	return err
}

// fill does what the provider does in a Mount, and in a refill.
func (w *world) fill(ctx context.Context, v *Volume, mount bool) (*Holding, error) {
	h, frozen := v.Frozen()
	if !frozen {
		var err error
		if h, err = v.Holding(ctx); err != nil {
			return nil, err
		}
	}
	var all []string
	var grants []client.Grant
	ask := func(source spec.Source) (string, error) {
		grant, found := client.Grant{}, false
		if frozen {
			grant, found = h.Remembered(source)
		}
		if !found {
			var err error
			if grant, err = h.Read(ctx, source); err != nil {
				return "", err
			}
		}
		if !slices.ContainsFunc(grants, func(g client.Grant) bool { return g.Source == source }) {
			grants = append(grants, grant)
		}
		all = append(all, string(grant.Data.Reveal()))
		return string(grant.Data.Reveal()), nil
	}
	for _, source := range v.Mount().Class.Sources() {
		if _, err := ask(source); err != nil {
			return nil, err
		}
	}
	for _, o := range v.Mount().Class.Objects {
		if err := execute(o.Template.Text, ask); err != nil {
			return nil, err
		}
	}
	written := w.writes.Load()
	v.Written(written)
	if !written && !mount {
		return nil, errors.New("the volume is not where the provider may write")
	}
	if do := w.beforeShow.Load(); do != nil {
		(*do)()
	}
	v.Show(h, grants)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[v.Mount().Pod.Name] = strings.Join(all, "\n")
	return h, nil
}

// of returns the grants of some sources, as far as there are any.
func (h *Holding) of(sources ...spec.Source) []client.Grant {
	var grants []client.Grant
	for _, source := range sources {
		grant, _ := h.Remembered(source)
		grant.Source = source
		grants = append(grants, grant)
	}
	return grants
}

// shows is what the files of a pod's volume were made of.
func (w *world) shows(pod string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.files[pod]
}

// volume is the keeper's volume of a pod, nil if it has none.
func (w *world) volume(pod string) *Volume {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	return w.keeper.volumes[keyOf(w.order(pod))]
}

// holds is what the volume of the pod "a" shows, nil if nothing.
func (w *world) holds() *Holding {
	v := w.volume("a")
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown
}

// pass lets the keeper do what is due now.
func (w *world) pass() {
	w.keeper.pass(context.Background(), time.Now())
	w.keeper.errands.Wait()
}

// run lets the keeper work until stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	k := w.keeper
	go func() {
		defer close(done)
		k.Run(ctx, w.refill)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(stop)
	return stop
}

// restart is another instance on the same journal.
func (w *world) restart(dir string) {
	w.t.Helper()
	w.keeper = NewKeeper(w.config)
	w.keeper.refill = w.refill
	if err := w.keeper.Resume(dir, true); err != nil {
		w.t.Fatal(err)
	}
}

// happened notes an outcome.
func (w *world) happened(outcome string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes = append(w.outcomes, outcome)
}

// take returns the outcomes since the last time.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	outcomes := w.outcomes
	w.outcomes = nil
	return outcomes
}

// wantOutcomes checks what has happened since the last time, in any order.
func (w *world) wantOutcomes(want ...string) {
	w.t.Helper()
	got := w.take()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("outcomes: got %q, want %q", got, want)
	}
}

// wantLeft checks how many tokens live in Vault, and how many volumes the keeper has.
func (w *world) wantLeft(tokens, volumes int) {
	w.t.Helper()
	if got := len(w.vault.Tokens()); got != tokens {
		w.t.Errorf("got %d live tokens, want %d", got, tokens)
	}
	if got := w.keeper.Held(); got != volumes {
		w.t.Errorf("got %d volumes held, want %d", got, volumes)
	}
}

// wantCount checks how often a request was made.
func (w *world) wantCount(method, path string, want int) {
	w.t.Helper()
	if got := w.vault.Count(method, path); got != want {
		w.t.Errorf("got %d requests %s %s, want %d", got, method, path, want)
	}
}

// otherRole makes a second Vault role, "other", for the same service account.
func (w *world) otherRole(more vaulttest.Data) {
	role := vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vaulttest.Audience}, "token_policies": []string{"app"},
		"token_ttl": "1h",
	}
	maps.Copy(role, more)
	w.vault.Write("auth/kubernetes/role/other", role)
}

// gate is where somebody is held up: the first call of pass returns when release is called, and later ones at once. arrived
// tells of the first one.
func (w *world) gate() (pass func(), arrived <-chan struct{}, release func()) {
	came, held := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	w.t.Cleanup(release)
	var taken atomic.Bool
	return func() {
		if !taken.Swap(true) {
			close(came)
			<-held
		}
	}, came, release
}

// hold keeps the next request "METHOD path" from Vault until release is called; arrived tells that it came.
func (w *world) hold(method, path string) (arrived <-chan struct{}, release func()) {
	pass, arrived, release := w.gate()
	w.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == method && strings.TrimPrefix(r.URL.Path, "/v1/") == path {
			pass()
		}
		return false
	})
	return arrived, release
}

// holdToken holds up the next service account token that the API server is asked for.
func (w *world) holdToken() (arrived <-chan struct{}, release func()) {
	pass, arrived, release := w.gate()
	w.pods.tell(func(p *pods) {
		p.token = func(string) (redact.String, time.Time, error) {
			pass()
			return w.jwt, w.expires, nil
		}
	})
	return arrived, release
}

// holdWord holds up the API server's next word on a pod that the watch does not know.
func (w *world) holdWord() (arrived <-chan struct{}, release func()) {
	pass, arrived, release := w.gate()
	w.pods.tell(func(p *pods) { p.confirming = pass })
	return arrived, release
}

// holdFiles holds up the next writing of files.
func (w *world) holdFiles() (arrived <-chan struct{}, release func()) {
	pass, arrived, release := w.gate()
	w.beforeShow.Store(&pass)
	return arrived, release
}

// holdRecord holds up the writing of a pod's next record: its file is a pipe that nobody reads.
func (w *world) holdRecord(pod string) (arrived <-chan struct{}, release func()) {
	w.t.Helper()
	pipe := filepath.Join(w.keeper.journal.dir, nameOf(keyOf(w.order(pod)))+partSuffix)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.keeper.journal.sync = false // as in memory: a pipe cannot be synced
	came := make(chan struct{})
	go func() {
		var v *Volume
		for w.t.Context().Err() == nil {
			switch {
			case v == nil:
				v = w.volume(pod)
			case v.writing.TryLock():
				v.writing.Unlock()
			default: // whoever writes a volume's record has this lock
				close(came)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	release = sync.OnceFunc(func() {
		reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			w.t.Error(err)
			return
		}
		w.t.Cleanup(func() { _ = reader.Close() })
	})
	w.t.Cleanup(release)
	return came, release
}

// answer has Vault answer a request "METHOD path" with a status, and a header as "name: value" or "".
func (w *world) answer(method, path string, status int, header string) {
	w.vault.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || strings.TrimPrefix(r.URL.Path, "/v1/") != path {
			return false
		}
		if name, value, found := strings.Cut(header, ": "); found {
			rw.Header().Set(name, value)
		}
		rw.WriteHeader(status)
		_, _ = rw.Write([]byte(`{"errors":["trouble"]}`))
		return true
	})
}

// leaveAtLogin is a Mount that is cancelled while Vault is at its login. Vault goes on when release is called.
func (w *world) leaveAtLogin(v *Volume) (release func()) {
	w.t.Helper()
	arrived, release := w.hold("POST", loginPath)
	if _, err := w.leaveAt(arrived, v); !errors.Is(err, context.Canceled) {
		w.t.Fatalf("got error %v, want context.Canceled", err)
	}
	return release
}

// leaveAt is the second step of a Mount that is cancelled when something has arrived.
func (w *world) leaveAt(arrived <-chan struct{}, v *Volume) (*Holding, error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	return v.Holding(ctx)
}

// ended is a context of a caller who has gone.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// await waits for a channel to be closed.
func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: it did not happen", what)
	}
}

// network leads to one server, by pipes.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
	down   atomic.Bool // connections are refused, and those that there are fail

	mu   sync.Mutex
	ends []net.Conn // of the server
}

// newNetwork serves a handler until the test ends.
func newNetwork(t *testing.T, handler http.Handler) *network {
	n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(n)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return n
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if n.down.Load() {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		n.mu.Lock()
		defer n.mu.Unlock()
		n.ends = append(n.ends, theirs)
		return ours, nil
	case <-n.closed:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// cut takes the network down, or brings it up again.
func (n *network) cut(down bool) {
	n.down.Store(down)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.ends {
		_ = c.Close()
	}
	n.ends = nil
}

// Accept, Close and Addr make the network a listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listening; it is called once.
func (n *network) Close() error {
	close(n.closed)
	return nil
}

// Addr is an address that nobody looks at.
func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// pods is a cluster that knows what a test tells it. All pods live unless it says otherwise.
type pods struct {
	mu       sync.Mutex
	lives    map[string]Life // by name, as the watch has it
	gone     map[string]bool // by name, as the API server has it
	err      error           // of the API server
	confirms int
	events   []string // "pod reason: message"
	token    func(audience string) (redact.String, time.Time, error)

	confirming func() // before the API server tells of a pod; nil for nothing
}

func newPods() *pods { return &pods{lives: map[string]Life{}, gone: map[string]bool{}} }

func (p *pods) set(name string, life Life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lives[name] = life
}

// tell changes what the pods know.
func (p *pods) tell(change func(*pods)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *pods) Look(pod spec.Pod) Life {
	p.mu.Lock()
	defer p.mu.Unlock()
	if life, found := p.lives[pod.Name]; found {
		return life
	}
	return Alive
}

func (p *pods) Confirm(_ context.Context, pod spec.Pod) (Life, error) {
	p.mu.Lock()
	confirming := p.confirming
	p.mu.Unlock()
	if confirming != nil {
		confirming()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.confirms++
	switch {
	case p.err != nil:
		return Unknown, p.err
	case p.gone[pod.Name]:
		return Ended, nil
	}
	return Alive, nil
}

func (p *pods) Event(pod spec.Pod, reason, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, pod.Name+" "+reason+": "+message)
}

func (p *pods) Token(_ context.Context, _ spec.Pod, audience string) (redact.String, time.Time, error) {
	p.mu.Lock()
	token := p.token
	p.mu.Unlock()
	return token(audience)
}

// takeEvents returns the events since the last time.
func (p *pods) takeEvents() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.events
	p.events = nil
	return events
}

// wantEvent checks that there was exactly one event since the last time, and what it says.
func (w *world) wantEvent(parts ...string) {
	w.t.Helper()
	events := w.pods.takeEvents()
	if len(events) != 1 {
		w.t.Errorf("got events %q, want one with %q", events, parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(events[0], part) {
			w.t.Errorf("got event %q, want %q in it", events[0], part)
		}
	}
}

// wantNoEvent checks that there was none.
func (w *world) wantNoEvent() {
	w.t.Helper()
	if events := w.pods.takeEvents(); len(events) != 0 {
		w.t.Errorf("got events %q, want none", events)
	}
}

// text is a log.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}
