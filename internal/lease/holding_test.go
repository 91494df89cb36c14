package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

func TestReadIsAnsweredFromMemory(t *testing.T) {
	w := newWorld(t)
	h := w.holding(w.open("a"))
	first := w.read(h)
	for range 10 {
		if again := w.read(h); again != first {
			t.Fatal("the grant changed though it was not due")
		}
	}
	w.wantCount("GET", userPath, 1)
	if _, err := h.Read(t.Context(), keySource); err != nil {
		t.Fatal(err)
	}
	w.wantCount("GET", keySource.Path, 1)
}

// A caller may leave while Vault makes the user. The next one finds it on its way, and no second is made.
func TestReadsShareOneRequestThatOutlivesThem(t *testing.T) {
	w := newWorld(t)
	h := w.holding(w.open("a"))
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
	h := w.holding(w.open("a"))
	w.vault.Seal(true)
	if _, err := h.Read(t.Context(), userSource); client.KindOf(err) != client.Unavailable {
		t.Fatalf("got error %v, want an unavailable Vault", err)
	}
	w.vault.Seal(false)
	w.read(h)
	w.wantCount("GET", userPath, 2)
}

func TestDueGrantIsReadAnew(t *testing.T) {
	bubble(t, func(w *world) {
		h := w.holding(w.open("a"))
		h.token.Renewable = false
		first := w.read(h)
		h.grants[userSource].term.Renewable = false
		time.Sleep(45 * time.Minute)
		second := w.read(h)
		if first == second {
			w.t.Error("a grant that was due is still there")
		}
		if again := w.read(h); again != second {
			w.t.Error("the fresh grant was not kept")
		}
		if n := w.stale.Load(); n != 0 {
			w.t.Errorf("got %d stale answers, want none", n)
		}
	})
}

func TestOldGrantServesWhileVaultDoesNotAnswer(t *testing.T) {
	sealed := func(w *world) { w.vault.Seal(true) }
	down := func(w *world) { w.network.cut(true) }
	forbidden := func(w *world) { w.vault.Write("sys/policies/acl/app", vaulttest.Data{"policy": ""}) }
	hanging := func(w *world) { w.hold("GET", userPath) }
	const due, over = 45 * time.Minute, 61 * time.Minute
	for name, row := range map[string]struct {
		trouble func(*world)
		after   time.Duration
		late    bool // the caller's time is over
		serves  bool
		kind    client.Kind
	}{
		"sealed":                   {trouble: sealed, after: due, serves: true},
		"down":                     {trouble: down, after: due, serves: true},
		"slower than the caller":   {trouble: hanging, after: due, late: true, serves: true},
		"sealed, and over":         {trouble: sealed, after: over, kind: client.Unavailable},
		"slow, and over":           {trouble: hanging, after: over, late: true},
		"refused: that is a no":    {trouble: forbidden, after: due, kind: client.Denied},
		"no trouble: read it anew": {trouble: func(*world) {}, after: due},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.vault.Write("auth/kubernetes/role/app", vaulttest.Data{
					"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vaulttest.Audience},
					"token_policies": []string{"app"}, "token_ttl": "24h",
				})
				h := w.holding(w.open("a"))
				old := w.read(h)
				h.grants[userSource].term.Renewable = false
				time.Sleep(row.after)
				row.trouble(w)
				ctx := w.t.Context()
				if row.late {
					ctx = ended()
				}
				grant, err := h.Read(ctx, userSource)
				if served := err == nil && string(grant.Data.Reveal()) == old; served != row.serves {
					w.t.Errorf("got the old grant: %v (error %v), want %v", served, err, row.serves)
				}
				if kind := client.KindOf(err); kind != row.kind {
					w.t.Errorf("got error %v, want kind %v", err, row.kind)
				}
				if counted := w.stale.Load() == 1; counted != row.serves {
					w.t.Errorf("counted as stale: %v, want %v", counted, row.serves)
				}
			})
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
		"token over":        {change: func(h *Holding) { h.token.End = time.Now() }},
		"token due":         {change: func(h *Holding) { h.token.Short = true }, want: true},
		"token lost":        {change: func(h *Holding) { h.token.Lost = true }, want: true}, // Vault may only refuse to renew it
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
			h, v := w.holding(w.open(strings.ReplaceAll(name, " ", "-"))), vault
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

// A new lease is of no use under a token that ends before the lease's first renewal.
func TestWantsSuccessor(t *testing.T) {
	now := began.Add(time.Hour)
	life := spec.Lifecycle{RenewAt: 0.5, Refresh: time.Minute}
	lease := func(t term) map[spec.Source]*held {
		t.Kind, t.Start, t.Full = kindLease, began, 4*time.Hour
		return map[spec.Source]*held{userSource: {term: t}}
	}
	due, fine := term{End: began.Add(2 * time.Hour)}, term{End: began.Add(4 * time.Hour)}
	for name, row := range map[string]struct {
		token  term
		grants map[spec.Source]*held
		dead   bool
		want   bool
	}{
		"token that can be renewed":             {token: term{End: now.Add(time.Minute), Renewable: true, Start: now}, grants: lease(due)},
		"token without end":                     {token: term{Start: began}, grants: lease(due)},
		"token that outlives the first renewal": {token: term{Start: now, End: now.Add(5 * time.Hour)}, grants: lease(due)},
		"token that does not":                   {token: term{Start: now, End: now.Add(time.Hour)}, grants: lease(due), want: true},
		"but no lease is due":                   {token: term{Start: now, End: now.Add(time.Hour)}, grants: lease(fine)},
		"a secret that is due has no lease": {
			token:  term{Start: now, End: now.Add(time.Hour)},
			grants: map[spec.Source]*held{keySource: {term: term{Kind: kindSecret, Start: began}}},
		},
		"token near its end":   {token: term{Start: now, End: now.Add(time.Hour), Renewable: true, Short: true}, want: true},
		"token that is lost":   {token: term{Start: now, End: now.Add(time.Hour), Renewable: true, Lost: true}, want: true},
		"token that is over":   {token: term{Start: began, End: now, Renewable: true}, want: true},
		"token that is dead":   {token: term{Start: now, End: now.Add(time.Hour), Renewable: true}, dead: true, want: true},
		"token that is due":    {token: term{Start: began, End: now.Add(time.Minute)}, want: true},
		"token that is not so": {token: term{Start: now, End: now.Add(time.Minute)}},
	} {
		row.token.Kind = kindToken
		h := &Holding{token: row.token, grants: row.grants, dead: row.dead}
		if got := h.wantsSuccessor(life, now); got != row.want {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}

// A lease ends with its token, whatever Vault says of its duration. What has no lease does not.
func TestGrantEndsWithItsToken(t *testing.T) {
	h := &Holding{token: term{Kind: kindToken, Start: began, End: hours(1)}, grants: map[spec.Source]*held{}}
	long := term{Kind: kindLease, Start: began, End: hours(5)}
	static := term{Kind: kindStatic, Start: began, End: hours(5)}
	if end := h.endOf(long); !end.Equal(hours(1)) {
		t.Errorf("lease: got %v, want the token's end", end)
	}
	if end := h.endOf(static); !end.Equal(hours(5)) {
		t.Errorf("static role: got %v, want its own end", end)
	}
	h.grants[userSource], h.grants[staticSource] = &held{term: long}, &held{term: static}
	if end := h.end(); !end.Equal(hours(1)) {
		t.Errorf("holding: got %v, want the first of its ends", end)
	}
	h.dead = true
	if end := h.endOf(long); !end.Equal(began) {
		t.Errorf("lease of a dead token: got %v, want that it is over", end)
	}
	if !h.isOver(long, hours(0).Add(1)) || h.isOver(static, hours(2)) {
		t.Error("over: want the lease of the dead token alone")
	}
}

func TestLostAnswerLeavesADoubt(t *testing.T) {
	for status, want := range map[int]bool{http.StatusBadGateway: true, http.StatusInternalServerError: false} {
		w := newWorld(t)
		h := w.holding(w.open("a"))
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
	bubble(t, func(w *world) {
		h := w.holding(w.open("a"))
		arrived, answer := w.hold("GET", userPath)
		ctx, cancel := context.WithCancel(w.t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		if _, err := h.Read(ctx, userSource); !errors.Is(err, context.Canceled) {
			w.t.Fatalf("got error %v, want context.Canceled", err)
		}
		released := make(chan error, 1)
		go func() { released <- h.release(w.t.Context()) }()
		synctest.Wait()
		w.wantCount("POST", revokePath, 0)
		answer()
		if err := <-released; err != nil {
			w.t.Errorf("release: got error %v", err)
		}
		if leases, tokens := w.vault.Leases(), w.vault.Tokens(); len(leases)+len(tokens) != 0 {
			w.t.Errorf("left in Vault: leases %q and %d tokens, want nothing", leases, len(tokens))
		}
	})
}

// A file may be one small field of a large answer, so the limit on files bounds no memory.
func TestHoldingIsBounded(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", 900<<10)
	for i := range 10 {
		w.vault.Write(fmt.Sprintf("kv/large%d", i), vaulttest.Data{"text": large})
	}
	source := func(i int) spec.Source {
		return spec.Source{Method: http.MethodGet, Path: fmt.Sprintf("kv/large%d", i)}
	}
	v := w.open("a", of(source(0)))
	h := w.holding(v)
	read := func(i int) error {
		_, err := h.Read(t.Context(), source(i))
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
	if h.inDoubt() {
		t.Error("the token is in doubt for a secret that was not kept, of which there is no lease")
	}
	// Nor is there room for new credentials. Vault has made them, so that this token is not the one to go on with.
	const frame = len(`{"text":""}`)
	w.vault.Write("kv/rest", vaulttest.Data{"text": strings.Repeat("x", maxSize-h.size-frame-1)})
	if _, err := h.Read(t.Context(), spec.Source{Method: http.MethodGet, Path: "kv/rest"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Read(t.Context(), userSource); client.KindOf(err) != client.Rejected || !h.inDoubt() {
		t.Errorf("got error %v, in doubt: %v; want Rejected and a doubt", err, h.inDoubt())
	}
	// What the class does not name any more makes room.
	v.Show(h, h.of(v.Mount().Class.Sources()...))
	if err := read(9); err != nil {
		t.Errorf("after the others were forgotten: %v", err)
	}
	if n := len(h.grants); n != 2 {
		t.Errorf("got %d grants, want 2", n)
	}
}

// Two objects may ask for one source, and an answer may come between what they are served.
func TestSourceOfWhichOldAndNewIsShown(t *testing.T) {
	w := newWorld(t)
	v := w.open("a")
	h := w.holding(v)
	w.read(h)
	old := h.of(userSource)
	v.Show(h, old)
	if _, err := h.fetch(t.Context(), userSource); err != nil {
		t.Fatal(err)
	}
	fresh := h.of(userSource)
	for name, made := range map[string][]client.Grant{"old, new": slices.Concat(old, fresh), "new, old": slices.Concat(fresh, old)} {
		v.Show(h, made)
		if behind := h.isBehind(); !behind || len(v.sources) != 1 {
			t.Errorf("%s: got behind %v and sources %v, want that a file is behind, and one source", name, behind, v.sources)
		}
	}
	if v.Show(h, slices.Concat(fresh, fresh)); h.isBehind() || len(h.overtaken) > 0 {
		t.Error("the files are made of the new one, and the old one is still thought to be shown")
	}
}

// All volumes of a node share the memory for large answers. Those of ordinary size are served whatever others hold.
func TestLargeAnswersOfANodeAreBounded(t *testing.T) {
	w := newWorld(t)
	const size = 1000 << 10
	write := func(path string, bytes int) spec.Source {
		w.vault.Write(path, vaulttest.Data{"text": strings.Repeat("x", bytes)})
		return spec.Source{Method: http.MethodGet, Path: path}
	}
	large, small, tiny := write("kv/large", size), write("kv/small", freelyHeld-1<<10), write("kv/tiny", smallAnswer-1<<10)
	mount := func(pod string, source spec.Source, changes ...func(*spec.Mount)) (*Holding, error) {
		v := w.open(pod, append(changes, of(source))...)
		defer v.Close()
		h := w.holding(v)
		_, err := h.Read(t.Context(), source)
		if err == nil {
			v.Show(h, h.of(source))
		}
		return h, err
	}
	const room = mostHeld / (size - freelyHeld)
	var holdings []*Holding
	for range room + 1 {
		h, err := mount(fmt.Sprint("large", len(holdings)), large)
		if errors.Is(err, errNodeFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		holdings = append(holdings, h)
	}
	if n := len(holdings); n < room-1 || n > room {
		t.Fatalf("%d volumes hold a large answer, want %d", n, room)
	}
	if _, err := mount("the rest", write("kv/rest", freelyHeld+mostHeld-w.keeper.held()-smallAnswer/4)); err != nil {
		t.Fatal(err)
	}
	if _, err := mount("small", small); err != nil {
		t.Errorf("an answer of ordinary size: %v", err)
	}
	if _, err := holdings[0].fetch(t.Context(), large); err != nil {
		t.Errorf("what is held, once more: %v", err)
	}
	if !unanswered(errNodeFull) {
		t.Error("what was read before is not used while what is read anew finds no room")
	}
	// What is not shown any more takes no room.
	for i := range 2 {
		if _, err := mount(fmt.Sprint("large", i), tiny); err != nil {
			t.Errorf("a small answer for a volume that holds a large one: %v", err)
		}
	}
	for i := range 2 {
		if _, err := mount(fmt.Sprint("another", i), large); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
	}
	if _, err := mount("one more", large); !errors.Is(err, errNodeFull) {
		t.Errorf("when there is none again: got error %v", err)
	}
	// Nor does what a token had that is to be given back when readers have had their time.
	w.otherRole(nil)
	if _, err := mount("large2", tiny, w.as("other")); err != nil {
		t.Error(err)
	}
	if _, err := mount("one more", large); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// What is shown is remembered whatever is due; what was never read is not.
func TestRemembered(t *testing.T) {
	bubble(t, func(w *world) {
		h := w.mounted("a")
		w.vault.Seal(true)
		time.Sleep(100 * time.Hour)
		grant, found := h.Remembered(userSource)
		if !found || string(grant.Data.Reveal()) != w.shows("a") {
			w.t.Errorf("got found %v, want what is shown", found)
		}
		if _, found := h.Remembered(keySource); found {
			w.t.Error("what was never read is remembered")
		}
		w.wantCount("GET", userPath, 1)
	})
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
	h := w.holding(w.open("a"))
	sound := h.session
	h.session = nil
	_, err := h.Read(t.Context(), userSource)
	if panicked := (*PanicError)(nil); !errors.As(err, &panicked) {
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

// A holding is quiet while nothing that it has is due, and nothing that its class names is missing in it: a new one never is.
func TestQuietHolding(t *testing.T) {
	bubble(t, func(w *world) {
		want := func(quiet bool, h *Holding, sources ...spec.Source) {
			w.t.Helper()
			if got := h.IsQuiet(sources); got != quiet {
				w.t.Errorf("with %v: got quiet %t, want %t", sources, got, quiet)
			}
		}
		w.otherRole(nil)
		h := w.mounted("a", of(userSource, keySource))
		want(true, h, userSource)
		want(true, h, userSource, keySource)
		want(false, h, userSource, staticSource)
		v := w.open("a", of(userSource, keySource), w.as("other"))
		want(false, w.holding(v), userSource, keySource)
		v.Close()
		time.Sleep(5 * time.Minute) // the key's refresh
		want(false, h, userSource)
	})
}
