package lease

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

const (
	userPath   = "database/creds/app"
	loginPath  = "auth/kubernetes/login"
	revokePath = "auth/token/revoke-self"

	patience = 20 * time.Second // for what must happen; nothing waits so long when it does
)

var userSource = spec.Source{Method: http.MethodGet, Path: userPath}

// world is a keeper and a fake Vault. Nothing runs by itself: a test makes the keeper's passes, at whatever time it
// likes, so that none needs to go by.
type world struct {
	t           *testing.T
	vault       *vaulttest.Server
	keeper      *Keeper
	jwt         redact.String
	released    chan string // outcomes
	stale       atomic.Int32
	unrevocable atomic.Int32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := client.NewPool(client.Config{Timeout: patience, MaxInFlight: 32, MaxTransports: 8, MaxAnswer: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, vault: vaulttest.New(t), released: make(chan string, 100)}
	t.Cleanup(pool.Close)
	w.jwt = w.vault.Signer.Token(vaulttest.Claims{})
	w.keeper = NewKeeper(Config{
		Pool: pool, AbandonAfter: time.Minute, RevokeGrace: 10 * time.Minute, DrainTimeout: patience,
		Log:         slog.New(slog.DiscardHandler),
		Stale:       func() { w.stale.Add(1) },
		Unrevocable: func() { w.unrevocable.Add(1) },
		Released:    func(outcome string) { w.released <- outcome },
	})
	return w
}

// open is a Mount's first step, for a volume of the pod's.
func (w *world) open(pod string) *Volume {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	v, err := w.keeper.Open(ctx, Key{PodUID: pod, Target: "/pods/" + pod})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// holding is a Mount's second step, for a class with the Vault role.
func (w *world) holding(v *Volume, role string) *Holding {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	h, err := v.Holding(ctx, w.vault.Vault(role), w.jwt)
	if err != nil {
		w.t.Fatalf("holding for role %q: got error %v", role, err)
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
func (w *world) mount(pod string) (*Holding, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	v, err := w.keeper.Open(ctx, Key{PodUID: pod, Target: "/pods/" + pod})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	h, err := v.Holding(ctx, w.vault.Vault("app"), w.jwt)
	if err != nil {
		return nil, err
	}
	if _, err := h.Read(ctx, userSource); err != nil {
		return nil, err
	}
	v.Show(h, []spec.Source{userSource})
	return h, nil
}

// mounted is what a volume shows after a Mount that succeeded.
func (w *world) mounted(pod string) *Holding {
	w.t.Helper()
	h, err := w.mount(pod)
	if err != nil {
		w.t.Fatalf("mount: got error %v", err)
	}
	return h
}

// pass lets the keeper do what is due at a moment, and returns the next one.
func (w *world) pass(at time.Time) time.Time {
	next := w.keeper.pass(context.Background(), at)
	w.keeper.releases.Wait()
	return next
}

// run lets the keeper work until stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.keeper.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(stop)
	return stop
}

// wantReleased waits until the keeper has tried to give a token back.
func (w *world) wantReleased(want string) {
	w.t.Helper()
	select {
	case got := <-w.released:
		if got != want {
			w.t.Errorf("given back: got %q, want %q", got, want)
		}
	case <-time.After(patience):
		w.t.Fatalf("given back: got nothing, want %q", want)
	}
}

// wantNothingReleased checks that the keeper has not tried to give a token back.
func (w *world) wantNothingReleased() {
	w.t.Helper()
	select {
	case got := <-w.released:
		w.t.Errorf("given back: got %q, want nothing", got)
	default:
	}
	if n := w.vault.Count(http.MethodPost, revokePath); n != 0 {
		w.t.Errorf("got %d requests to revoke, want none", n)
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

// otherRole makes a second Vault role for the same service account, and returns its name.
func (w *world) otherRole(more vaulttest.Data) string {
	role := vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vaulttest.Audience}, "token_policies": []string{"app"},
		"token_ttl": "1h",
	}
	for k, v := range more {
		role[k] = v
	}
	w.vault.Write("auth/kubernetes/role/other", role)
	return "other"
}

// hold keeps the next request "METHOD path" from Vault until release is called; arrived tells that it came.
func (w *world) hold(method, path string) (arrived <-chan struct{}, release func()) {
	came, held := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	w.t.Cleanup(release)
	var taken atomic.Bool
	w.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == method && strings.TrimPrefix(r.URL.Path, "/v1/") == path && !taken.Swap(true) {
			close(came)
			<-held
		}
		return false
	})
	return came, release
}

// leaveAtLogin is a Mount that is cancelled while Vault is at its login. Vault goes on when release is called.
func (w *world) leaveAtLogin(v *Volume) (release func()) {
	w.t.Helper()
	arrived, release := w.hold("POST", loginPath)
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := v.Holding(ctx, w.vault.Vault("app"), w.jwt); !errors.Is(err, context.Canceled) {
		w.t.Fatalf("got error %v, want context.Canceled", err)
	}
	return release
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
