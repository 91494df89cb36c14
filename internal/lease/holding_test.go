package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

// newHolding logs in without a volume.
func (w *world) newHolding() *Holding {
	w.t.Helper()
	session, err := w.keeper.config.Pool.Login(w.t.Context(), w.vault.Vault("app"), w.jwt)
	if err != nil {
		w.t.Fatal(err)
	}
	return newHolding(session, w.keeper.config.Stale)
}

// age lets a holding's grant of the database user be due since so long, and end after so long.
func (h *Holding) age(due, end time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	grant := h.grants[userSource]
	grant.span = span{due: time.Now().Add(-due), end: time.Now().Add(end)}
	h.grants[userSource] = grant
}

func TestReadIsAnsweredFromMemory(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	first := w.read(h)
	for range 10 {
		if again := w.read(h); again != first {
			t.Fatal("the grant changed though it was not due")
		}
	}
	w.wantCount("GET", userPath, 1)
	other := spec.Source{Method: http.MethodGet, Path: "kv/app"}
	if _, err := h.Read(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.wantCount("GET", other.Path, 1)
}

// A caller may leave while Vault makes the user. The next one finds it on its way, and no third is made.
func TestReadsShareOneRequestThatOutlivesThem(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	arrived, release := w.hold("GET", userPath)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := h.Read(ctx, userSource)
		left <- err
	}()
	await(t, arrived, "the request")
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the first caller got error %v, want context.Canceled", err)
	}
	for range 5 {
		if _, err := h.Read(ended(), userSource); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller on the way got error %v, want context.Canceled", err)
		}
	}
	release()
	w.read(h)
	h.requests.Wait()
	w.wantCount("GET", userPath, 1)
	if users := w.vault.Users(); len(users) != 1 {
		t.Errorf("got users %q, want one", users)
	}
}

func TestFailedReadIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	w.vault.Seal(true)
	if _, err := h.Read(t.Context(), userSource); client.KindOf(err) != client.Unavailable {
		t.Fatalf("got error %v, want an unavailable Vault", err)
	}
	w.vault.Seal(false)
	w.read(h)
	w.wantCount("GET", userPath, 2)
}

func TestDueGrantIsReadAnew(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	first := w.read(h)
	h.age(time.Second, time.Hour)
	second := w.read(h)
	if first == second {
		t.Error("a grant that was due is still there")
	}
	if again := w.read(h); again != second {
		t.Error("the fresh grant was not kept")
	}
	if n := w.stale.Load(); n != 0 {
		t.Errorf("got %d stale answers, want none", n)
	}
}

func TestOldGrantServesWhileVaultDoesNotAnswer(t *testing.T) {
	sealed := func(w *world) { w.vault.Seal(true) }
	down := func(w *world) { w.vault.Close() }
	forbidden := func(w *world) { w.vault.Write("sys/policies/acl/app", vaulttest.Data{"policy": ""}) }
	hanging := func(w *world) { w.hold("GET", userPath) }
	for name, row := range map[string]struct {
		trouble func(*world)
		end     time.Duration // of the old grant, from now
		late    bool          // the caller's time is over
		serves  bool
		kind    client.Kind
	}{
		"sealed":                   {trouble: sealed, end: time.Hour, serves: true},
		"down":                     {trouble: down, end: time.Hour, serves: true},
		"slower than the caller":   {trouble: hanging, end: time.Hour, late: true, serves: true},
		"sealed, and over":         {trouble: sealed, end: -1, kind: client.Unavailable},
		"slow, and over":           {trouble: hanging, end: -1, late: true},
		"refused: that is a no":    {trouble: forbidden, end: time.Hour, kind: client.Denied},
		"no trouble: read it anew": {trouble: func(*world) {}, end: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := w.newHolding()
			old := w.read(h)
			h.age(time.Second, row.end)
			row.trouble(w)
			ctx := t.Context()
			if row.late {
				ctx = ended()
			}
			grant, err := h.Read(ctx, userSource)
			if served := err == nil && string(grant.Data.Reveal()) == old; served != row.serves {
				t.Errorf("got the old grant: %v (error %v), want %v", served, err, row.serves)
			}
			if kind := client.KindOf(err); kind != row.kind {
				t.Errorf("got error %v, want kind %v", err, row.kind)
			}
			if counted := w.stale.Load() == 1; counted != row.serves {
				t.Errorf("counted as stale: %v, want %v", counted, row.serves)
			}
		})
	}
}

func TestHoldingServes(t *testing.T) {
	w := newWorld(t)
	vault := w.vault.Vault("app")
	for name, row := range map[string]struct {
		change func(*Holding)
		vault  func(*spec.Vault)
		want   bool
	}{
		"as it is":          {want: true},
		"another role":      {vault: func(v *spec.Vault) { v.Role = "other" }},
		"another namespace": {vault: func(v *spec.Vault) { v.Namespace = "team" }},
		"another authority": {vault: func(v *spec.Vault) { v.TLS.CA = "pem" }},
		"token over":        {change: func(h *Holding) { h.life.end = time.Now() }},
		"token due":         {change: func(h *Holding) { h.life.due = time.Now() }, want: true},
		"token revoked": {change: func(h *Holding) {
			if err := h.release(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := h.Read(t.Context(), userSource); client.KindOf(err) != client.Expired {
				t.Errorf("read with a revoked token: got error %v, want Expired", err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, v := w.newHolding(), vault
			if row.change != nil {
				row.change(h)
			}
			if row.vault != nil {
				row.vault(&v)
			}
			if got := h.serves(v, time.Now()); got != row.want {
				t.Errorf("serves: got %v, want %v", got, row.want)
			}
		})
	}
	if (*Holding)(nil).serves(vault, time.Now()) {
		t.Error("nothing serves, want something that does")
	}
}

func TestLostAnswerLeavesADoubt(t *testing.T) {
	for status, want := range map[int]bool{http.StatusBadGateway: true, http.StatusInternalServerError: false} {
		w := newWorld(t)
		h := w.newHolding()
		w.vault.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, `{"errors":["trouble"]}`)
			return true
		})
		if _, err := h.Read(t.Context(), userSource); err == nil {
			t.Fatalf("%d: got no error", status)
		}
		w.vault.Intercept(nil)
		w.read(h) // a good answer does not find the lease that was lost
		if got := h.inDoubt(); got != want {
			t.Errorf("%d: in doubt: got %v, want %v", status, got, want)
		}
	}
}

// A lease that is granted while its token is being revoked might outlive it.
func TestReleaseWaitsForRequestsOnTheirWay(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	arrived, overtaken := make(chan struct{}), make(chan struct{})
	w.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		switch strings.TrimPrefix(r.URL.Path, "/v1/") {
		case userPath:
			close(arrived)
			select {
			case <-overtaken:
				t.Error("the token was revoked while a read was on its way")
			case <-time.After(100 * time.Millisecond): // long enough for a revocation that does not wait
			}
		case revokePath:
			close(overtaken)
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := h.Read(ctx, userSource); !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v, want context.Canceled", err)
	}
	if err := h.release(t.Context()); err != nil {
		t.Errorf("release: got error %v", err)
	}
	if leases, tokens := w.vault.Leases(), w.vault.Tokens(); len(leases)+len(tokens) != 0 {
		t.Errorf("left in Vault: leases %q and %d tokens, want nothing", leases, len(tokens))
	}
}

// A file may be one small field of a large answer, so the limit on files bounds no memory.
func TestHoldingIsBounded(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", 900<<10)
	for i := range 10 {
		w.vault.Write(fmt.Sprintf("kv/large%d", i), vaulttest.Data{"text": large})
	}
	v := w.open("a")
	h := w.holding(v, "app")
	read := func(i int) error {
		_, err := h.Read(t.Context(), spec.Source{Method: http.MethodGet, Path: fmt.Sprintf("kv/large%d", i)})
		return err
	}
	for i := range 9 {
		if err := read(i); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	if err := read(9); client.KindOf(err) != client.Rejected || !strings.Contains(err.Error(), "8388608 bytes") {
		t.Errorf("got error %v, want Rejected with the limit", err)
	}
	// What the class does not name any more makes room.
	v.Show(h, []spec.Source{{Method: http.MethodGet, Path: "kv/large0"}})
	if err := read(9); err != nil {
		t.Errorf("after the others were forgotten: %v", err)
	}
	if n := len(h.grants); n != 2 {
		t.Errorf("got %d grants, want 2", n)
	}
}

func TestPanicInARequestFailsItAlone(t *testing.T) {
	var crew sync.WaitGroup
	_, err := depart(&crew, "read \"x\"", func() (int, error) { panic("hvs.secret") }).wait(t.Context())
	if err == nil || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("got error %v, want one without the panic's value", err)
	}
}

// What panics has nothing to give, and must not look as if it had: an empty grant would be served until its token ends.
func TestPanicInAReadKeepsNothing(t *testing.T) {
	w := newWorld(t)
	h := w.newHolding()
	sound := h.session
	h.session = nil
	if _, err := h.Read(t.Context(), userSource); !isPanic(err) {
		t.Fatalf("got error %v, want a PanicError", err)
	}
	h.session = sound
	if n := len(h.grants); n != 0 {
		t.Errorf("got %d grants after the panic, want none", n)
	}
	if !h.inDoubt() {
		t.Error("the token is not in doubt, though the answer that was lost may have been a lease")
	}
	if user := w.read(h); user == "" {
		t.Error("got an empty grant")
	}
}

func isPanic(err error) bool {
	panicked := (*PanicError)(nil)
	return errors.As(err, &panicked)
}
