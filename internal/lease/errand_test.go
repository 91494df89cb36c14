package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
)

// While a Vault is in trouble, one errand at a time finds out whether it is back, however many wait.
func TestOneProbeWhileVaultIsInTrouble(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		const pods = 40
		for i := range pods {
			w.mounted(fmt.Sprint("pod", i))
		}
		time.Sleep(30 * time.Minute)
		w.take()
		w.network.cut(true)
		time.Sleep(12 * time.Minute) // all tokens and leases have come due meanwhile
		if n := len(w.take()); n < 60 || n > 300 {
			w.t.Errorf("got %d tries in 12 minutes, want one in 1 to 6 s", n)
		}
		w.network.cut(false)
		time.Sleep(7 * time.Minute)
		w.take()
		w.wantLeft(pods, pods)
		if n := len(w.vault.Users()); n != pods {
			w.t.Errorf("got %d users, want %d", n, pods)
		}
		w.wantCount("POST", loginPath, pods)
	})
}

// A Vault that is back is not drowned.
func TestErrandsInFlightAreBounded(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		const pods = 40
		for i := range pods {
			w.mounted(fmt.Sprint("pod", i))
		}
		synctest.Wait()
		var mu sync.Mutex
		flying, most := 0, 0
		w.vault.Intercept(func(http.ResponseWriter, *http.Request) bool {
			mu.Lock()
			flying++
			most = max(most, flying)
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			flying--
			mu.Unlock()
			return false
		})
		for i := range pods {
			w.pods.set(fmt.Sprint("pod", i), Ended)
		}
		start := time.Now()
		w.keeper.Wake()
		for len(w.vault.Tokens()) > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if most != mostFlying {
			w.t.Errorf("got %d requests at the same time, want %d", most, mostFlying)
		}
		if took := time.Since(start); took > 600*time.Millisecond {
			w.t.Errorf("it took %v, want five times 100 ms: whoever waits goes on at once", took)
		}
	})
}

// What one volume's errand waits for keeps neither other volumes nor the keeper's loop waiting.
func TestSlowErrandHoldsUpNobody(t *testing.T) {
	for what, row := range map[string]struct {
		hold func(w *world) (arrived <-chan struct{}, release func())
		life Life // of the pod meanwhile
	}{
		"Vault's answer to a token's renewal": {func(w *world) (<-chan struct{}, func()) { return w.hold("POST", renewTokenPath) }, Alive},
		"Vault's answer to a lease's renewal": {func(w *world) (<-chan struct{}, func()) { return w.hold("POST", renewLeasePath) }, Alive},
		"Vault's answer to a read":            {func(w *world) (<-chan struct{}, func()) { return w.hold("GET", keySource.Path) }, Alive},
		"Vault's answer to a revocation":      {func(w *world) (<-chan struct{}, func()) { return w.hold("POST", revokePath) }, Ended},
		"the volume's file system":            {(*world).holdFiles, Alive},
		"the API server's word on the pod":    {(*world).holdWord, Absent},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.run()
				w.mounted("slow", of(userSource, keySource))
				arrived, release := row.hold(w)
				w.pods.set("slow", row.life)
				w.keeper.Wake()
				select {
				case <-arrived:
				case <-time.After(time.Hour):
					w.t.Fatal("there was no such errand")
				}
				w.mounted("quick")
				w.keeper.Status()
				w.take()
				w.ends("quick")
				synctest.Wait()
				w.wantOutcomes("released revoked")
				if w.volume("slow") == nil {
					w.t.Error("the slow volume is forgotten")
				}
				release()
			})
		})
	}
}

func TestSoonestEndGoesFirst(t *testing.T) {
	bubble(t, func(w *world) {
		v := w.open("a")
		var order []string
		trip := func(name string, end time.Time) errand {
			return errand{volume: v, vault: "v", end: end, begin: func() { order = append(order, name) }, run: func(context.Context) error { return nil }}
		}
		now := time.Now()
		errands := []errand{
			trip("never", time.Time{}), trip("late", now.Add(time.Hour)), trip("soon", now.Add(time.Minute)),
			trip("never either", time.Time{}), trip("now", now),
		}
		w.keeper.dispatch(w.t.Context(), errands, now)
		w.keeper.errands.Wait()
		if got := strings.Join(order, ", "); got != "now, soon, late, never, never either" {
			w.t.Errorf("got %s", got)
		}
	})
}

// One database that is away makes a 500 of each read, and is no reason to keep others waiting.
func TestTroubleOfOneDatabaseHoldsUpNobody(t *testing.T) {
	bubble(t, func(w *world) {
		w.vault.Write("database/roles/sick", vaulttest.Data{"default_ttl": "10m", "max_ttl": "10m"})
		sick := userSource
		sick.Path = "database/creds/sick"
		w.run()
		for i := range 10 {
			w.mounted(fmt.Sprint("sick", i), of(sick))
		}
		w.mounted("well", of(keySource))
		w.answer("GET", sick.Path, http.StatusInternalServerError, "")
		time.Sleep(9 * time.Minute)
		if n := count(w.take(), "replaced ok"); n != 1 {
			w.t.Errorf("got %d replacements, want the one of what is well", n)
		}
		w.keeper.mu.Lock()
		defer w.keeper.mu.Unlock()
		for vault, t := range w.keeper.traffic {
			if t.tries > 0 {
				w.t.Errorf("%s is taken to be in trouble", vault)
			}
		}
	})
}

func TestInTrouble(t *testing.T) {
	for _, row := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("x"), false},
		{context.DeadlineExceeded, false},
		{&client.Error{Kind: client.Unavailable}, true},               // no answer at all
		{&client.Error{Kind: client.Unavailable, Status: 429}, false}, // a quota of this path or role
		{&client.Error{Kind: client.Unavailable, Status: 502}, true},
		{&client.Error{Kind: client.Unavailable, Status: 503}, true},
		{&client.Error{Kind: client.Unavailable, Status: 504}, true},
		{&client.Error{Kind: client.Unavailable, Status: 500}, false},
		{&client.Error{Kind: client.Unavailable, Status: 400}, false},
		{&client.Error{Kind: client.Denied, Status: 403}, false},
		{&client.Error{Kind: client.Rejected}, false}, // a TLS file that is not there
		{fmt.Errorf("object: %w", &client.Error{Kind: client.Unavailable, Status: 503}), true},
	} {
		if got := inTrouble(row.err); got != row.want {
			t.Errorf("%v: got %v, want %v", row.err, got, row.want)
		}
	}
}

// What an errand finds, and how long the Vault is left alone then.
func TestTrafficCalmsDown(t *testing.T) {
	trouble := error(&client.Error{Kind: client.Unavailable, Status: 503})
	slow := error(&client.Error{Kind: client.Unavailable, Status: 503, RetryAfter: time.Minute})
	v := &Volume{}
	now := began
	x := &traffic{waiting: map[*Volume]struct{}{}}
	land := func(err error) bool {
		x.flying--
		return x.landed(err, now)
	}
	for range mostFlying {
		if !x.admit(v, now) {
			t.Fatal("not admitted, though nothing is wrong")
		}
	}
	if x.admit(v, now) {
		t.Fatal("admitted one too many")
	}
	for range mostFlying { // they all find the same, which counts once
		land(trouble)
	}
	if x.tries != 1 || x.flying != 0 {
		t.Errorf("got %d tries, %d flying; want 1, 0", x.tries, x.flying)
	}
	for tries := 1; tries < 10; tries++ {
		wait := x.calm.Sub(now)
		if base := min(time.Second<<(tries-1), longestCalm); wait < base*4/5 || wait > base*6/5 {
			t.Errorf("after %d tries: calm for %v, want %v give or take a fifth", tries, wait, base)
		}
		if x.admit(v, x.calm.Add(-1)) {
			t.Error("admitted too early")
		}
		now = x.calm
		if !x.admit(v, now) || x.admit(v, now) {
			t.Error("want exactly one admitted")
		}
		land(trouble)
	}
	now = x.calm
	x.admit(v, now)
	for _, nothing := range []error{errNotAsked, context.DeadlineExceeded} {
		tries := x.tries
		if land(nothing) || x.tries != tries || x.calm != now {
			t.Errorf("%v: was taken for news of Vault", nothing)
		}
		x.admit(v, now)
	}
	if land(slow); x.calm.Sub(now) != longestHeed {
		t.Errorf("calm for %v, want as much of the minute that Vault asked for as leases can bear", x.calm.Sub(now))
	}
	now = x.calm
	x.admit(v, now)
	denied := error(&client.Error{Kind: client.Denied, Status: 403})
	if !land(denied) || x.tries != 0 || !x.admit(v, now) {
		t.Error("an answer is an answer: want Vault back")
	}
	if land(nil) {
		t.Error("back, though it was not in trouble")
	}
}

// Nothing of an address stays when all is done: addresses come from tenants.
func TestTrafficIsForgotten(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		time.Sleep(42 * time.Minute)
		w.network.cut(true)
		w.ends("a")
		time.Sleep(time.Minute)
		w.network.cut(false)
		time.Sleep(10 * time.Second)
		w.wantLeft(0, 0)
		w.keeper.mu.Lock()
		defer w.keeper.mu.Unlock()
		if n := len(w.keeper.traffic) + len(w.keeper.agenda) + len(w.keeper.volumes); n != 0 {
			w.t.Errorf("got %d entries left, want none", n)
		}
	})
}

// What fails for one volume holds up no other, whatever it looks like: a proxy that gives up on one database's requests, a
// quota of one path, a maintenance page for an hour.
func TestTroubleOfOnePathHoldsUpNobody(t *testing.T) {
	for _, row := range []struct {
		status int
		header string
	}{{500, ""}, {429, ""}, {502, ""}, {503, ""}, {504, ""}, {429, "Retry-After: 3600"}, {503, "Retry-After: 3600"}} {
		t.Run(fmt.Sprintf("%d %s", row.status, row.header), func(t *testing.T) {
			bubble(t, func(w *world) {
				w.vault.Write("database/roles/sick", vaulttest.Data{"default_ttl": "10m", "max_ttl": "10m"})
				sick := userSource
				sick.Path = "database/creds/sick"
				w.users("10m", "24h")
				w.run()
				w.mounted("sick", of(sick))
				w.mounted("well")
				w.mounted("ends")
				w.answer("GET", sick.Path, row.status, row.header)
				user := w.shows("well")
				time.Sleep(8 * time.Minute)
				w.pods.set("ends", Ended)
				w.keeper.Wake()
				time.Sleep(longestHeed + 10*time.Second)
				if n := len(w.vault.Tokens()); n != 2 {
					w.t.Errorf("after a pod's end: got %d tokens, want 2", n)
				}
				time.Sleep(time.Hour)
				alive := slices.ContainsFunc(w.vault.Users(), func(u string) bool { return strings.Contains(user, u) })
				if !alive || w.shows("well") != user {
					w.t.Error("the other volume's user has gone, though Vault would have renewed it")
				}
			})
		})
	}
}

// A database that does not answer holds its requests for long, and those of nobody else.
func TestSlowErrandsHoldUpNobody(t *testing.T) {
	bubble(t, func(w *world) {
		w.mounted("a")
		ran, over := 0, make(chan struct{})
		slow := errand{volume: w.volume("a"), vault: "x", begin: func() {}, run: func(context.Context) error {
			ran++
			<-over
			return nil
		}}
		quick := slow
		quick.run = func(context.Context) error {
			ran++
			return nil
		}
		dispatch := func(e errand, times, want int) {
			for range times {
				w.keeper.dispatch(t.Context(), []errand{e}, time.Now())
				synctest.Wait()
			}
			if ran != want {
				t.Errorf("got %d errands on their way, want %d", ran, want)
			}
		}
		dispatch(slow, mostFlying, mostFlying)
		dispatch(quick, 1, mostFlying)
		time.Sleep(15 * time.Second) // a fraction of what Vault itself gives a request
		dispatch(quick, 2, mostFlying+2)
		close(over)
		w.keeper.errands.Wait()
		if n := len(w.keeper.traffic); n != 0 {
			t.Errorf("got traffic of %d Vaults, want none", n)
		}
	})
}
