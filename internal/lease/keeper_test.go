package lease

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

// One instance ends, or is killed, and the next one goes on: no login, no read, the same versions.
func TestNextInstanceGoesOn(t *testing.T) {
	for name, killed := range map[string]bool{"after a quiet end": false, "after a kill": true} {
		t.Run(name, func(t *testing.T) {
			dir := inMemory(t)
			bubble(t, func(w *world) {
				w.restart(dir)
				stop := func() {}
				if !killed { // one that is killed does nothing any more, not even at its end
					stop = w.run()
				}
				pods := []string{"a", "b", "c"}
				versions := map[string][32]byte{}
				files := map[string]string{}
				for _, pod := range pods {
					w.mounted(pod, of(userSource, keySource))
					versions[pod], files[pod] = w.volume(pod).VersionKey(), w.shows(pod)
				}
				failed := w.open("failed") // its next try finds what it gained
				w.read(w.holding(failed))
				failed.Close()
				stop()

				w.restart(dir)
				w.run()
				time.Sleep(30 * time.Second)
				for _, pod := range pods {
					w.mounted(pod, of(userSource, keySource))
					if w.volume(pod).VersionKey() != versions[pod] {
						w.t.Errorf("%s: has another version key", pod)
					}
					if w.shows(pod) != files[pod] {
						w.t.Errorf("%s: shows something else", pod)
					}
				}
				w.mounted("failed")
				w.wantCount("POST", loginPath, 4)
				w.wantCount("GET", userPath, 4)
				w.wantCount("GET", keySource.Path, 3)
				w.wantOutcomes()
				time.Sleep(20 * time.Hour)
				w.wantLeft(4, 4)
				w.wantCount("GET", userPath, 4)
				w.ends("a")
				synctest.Wait()
				w.wantLeft(3, 3)
			})
		})
	}
}

// The pod ended while no provider was there. The next one waits for the list of pods, and then gives back.
func TestPodThatEndedMeanwhile(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a")
		w.mounted("b")
		w.pods.set("a", Unknown)
		w.pods.set("b", Unknown)
		w.restart(dir)
		w.run()
		time.Sleep(time.Minute)
		w.wantLeft(2, 2)
		w.pods.tell(func(p *pods) { p.gone["a"] = true })
		w.pods.set("a", Absent)
		w.pods.set("b", Alive)
		w.keeper.Wake()
		synctest.Wait()
		w.wantLeft(1, 1)
		if w.volume("b") == nil {
			w.t.Error("the other pod's volume is gone")
		}
	})
}

// Things came due while no provider was there.
func TestNextInstanceCatchesUp(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a", of(userSource, keySource))
		old := w.shows("a")
		w.restart(dir)
		time.Sleep(50 * time.Minute)
		w.run()
		time.Sleep(2 * time.Second)
		w.wantOutcomes("renewed token ok", "renewed lease ok", "replaced ok")
		w.wantCount("GET", userPath, 1)

		// And so long that all is over.
		w.restart(dir)
		time.Sleep(50 * time.Hour)
		w.run()
		time.Sleep(2 * time.Second)
		w.wantCount("POST", loginPath, 2)
		if w.shows("a") == old {
			w.t.Error("the volume shows what is over")
		}
	})
}

// moveTerms moves, in the journal, when a pod's token and database user began and end: the clock of a bubble cannot be set,
// but the times in a record can.
func (w *world) moveTerms(pod string, by time.Duration) {
	w.t.Helper()
	v := w.volume(pod)
	for _, x := range []*term{&v.shown.token, &v.shown.grants[userSource].term} {
		x.Start, x.End = x.Start.Add(by).Round(0), x.End.Add(by).Round(0)
	}
	if err := v.update(); err != nil {
		w.t.Fatal(err)
	}
}

// The node's clock was set back between two instances: what is held does not lapse for that.
func TestClockThatIsSetBack(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a")
		w.moveTerms("a", 24*time.Hour)
		w.restart(dir)
		w.run()
		time.Sleep(time.Second)
		w.wantOutcomes("renewed token ok", "renewed lease ok")
		time.Sleep(48 * time.Hour)
		w.wantLeft(1, 1)
		if n := len(w.vault.Users()); n == 0 {
			w.t.Error("the user is gone")
		}
	})
}

// The node's clock was set ahead between two instances: what is held looks over, and is replaced. What Vault still has of it
// is given back all the same.
func TestClockThatIsSetAhead(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.mounted("a")
		old := w.shows("a")
		w.moveTerms("a", -24*time.Hour)
		w.restart(dir)
		w.run()
		time.Sleep(2 * time.Second)
		if w.shows("a") == old {
			w.t.Error("the volume shows what looks over")
		}
		w.wantOutcomes("replaced ok")
		time.Sleep(11 * time.Minute) // longer than the grace
		w.wantOutcomes("released revoked")
		w.wantLeft(1, 1)
	})
}

// The loop is late, because the machine was asleep, say, or the clock went ahead: nothing is done twice, and nothing left
// out.
func TestPassThatIsLate(t *testing.T) {
	bubble(t, func(w *world) {
		w.mounted("a", of(userSource, keySource))
		w.pass()
		w.keeper.pass(context.Background(), time.Now().Add(1000*time.Hour))
		w.keeper.errands.Wait()
		w.run()
		time.Sleep(50 * time.Minute)
		w.wantLeft(1, 1)
		if got := w.take(); count(got, "renewed token ok") != 1 || count(got, "renewed lease ok") != 1 {
			w.t.Errorf("got %q, want both renewed when it is time", got)
		}
	})
}

// The end waits for what Vault is about to give, so that the journal has it.
func TestEndWaitsForLoginsAndReads(t *testing.T) {
	for _, path := range []string{"POST " + loginPath, "GET " + userPath} {
		t.Run(path, func(t *testing.T) {
			dir := inMemory(t)
			bubble(t, func(w *world) {
				w.restart(dir)
				stop := w.run()
				method, request, _ := strings.Cut(path, " ")
				arrived, release := w.hold(method, request)
				ctx, cancel := context.WithCancel(w.t.Context())
				go func() {
					<-arrived
					cancel()
				}()
				v := w.open("a")
				if h, err := v.Holding(ctx); err == nil {
					if _, err := h.Read(ctx, userSource); !errors.Is(err, context.Canceled) {
						w.t.Fatalf("got error %v, want context.Canceled", err)
					}
				}
				v.Close()
				go func() {
					time.Sleep(10 * time.Second)
					release()
				}()
				start := time.Now()
				stop()
				if took := time.Since(start); took != 10*time.Second {
					w.t.Errorf("the end took %v, want it to wait for Vault's answer, 10 s", took)
				}
				w.wantOutcomes()
				w.restart(dir)
				w.run()
				w.mounted("a")
				w.wantCount("POST", loginPath, 1)
				w.wantCount("GET", userPath, 1)
			})
		})
	}
}

// It does not wait for ever, and what comes later is given back by whoever asked for it: nobody else knows of it.
func TestLoginThatLandsAfterTheEnd(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.config.SettleTimeout = 5 * time.Second
		w.restart(dir)
		stop := w.run()
		v := w.open("a")
		release := w.leaveAtLogin(v)
		v.Close()
		start := time.Now()
		stop()
		if took := time.Since(start); took != 5*time.Second {
			w.t.Errorf("the end took %v, want 5 s", took)
		}
		if !strings.Contains(w.log.String(), "has not answered everything yet") {
			w.t.Error("the log does not say so")
		}
		release()
		synctest.Wait()
		w.wantCount("POST", revokePath, 1)
		if n := len(w.vault.Tokens()); n != 0 {
			w.t.Errorf("got %d tokens, want none", n)
		}
		if n := len(records(w.t, dir)); n != 0 {
			w.t.Errorf("got %d records written after the end, want none: another instance has the journal", n)
		}
	})
}

// Nothing is written, or removed, once another instance may have the journal.
func TestNothingIsWrittenAfterTheEnd(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		stop := w.run()
		w.mounted("a")
		stop()
		before := records(w.t, dir)
		old := w.keeper
		v := w.volume("a")
		if err := v.update(); !errors.Is(err, errOver) {
			w.t.Errorf("got error %v, want errOver", err)
		}
		v.end(time.Now())
		old.erase(v)
		after := records(w.t, dir)
		if len(after) != 1 || len(before) != 1 {
			w.t.Fatalf("got %d records, want the one of before", len(after))
		}
		for name, content := range before {
			if after[name] != content {
				w.t.Error("the record changed")
			}
		}
		if w.unwritten.Load() != 0 {
			w.t.Error("the end is counted as a failure")
		}
	})
}

// Errands do not hold up the end, nor does what they could not do get lost.
func TestEndCutsErrandsOff(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		stop := w.run()
		w.mounted("a")
		_, release := w.hold("POST", revokePath)
		w.ends("a")
		synctest.Wait()
		start := time.Now()
		stop()
		if took := time.Since(start); took != 0 {
			w.t.Errorf("the end took %v, want it at once", took)
		}
		release()
		w.wantOutcomes()
		w.restart(dir)
		w.run()
		synctest.Wait()
		w.wantLeft(0, 0)
	})
}

// Nothing is revoked at the end: pods outlive their provider.
func TestEndRevokesNothing(t *testing.T) {
	bubble(t, func(w *world) {
		stop := w.run()
		w.mounted("a")
		v := w.open("failed")
		w.holding(v)
		v.Close()
		stop()
		w.wantCount("POST", revokePath, 0)
		if n := len(w.vault.Tokens()); n != 2 {
			w.t.Errorf("got %d tokens, want 2", n)
		}
	})
}

// A volume that is forgotten takes its record along before the next one of its name can write its own.
func TestForgetAgainstOpen(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		w.run()
		for range 200 {
			w.mounted("a")
			w.ends("a")
			v := w.open("a") // at the same time as it is being given back and forgotten
			w.pods.set("a", Alive)
			if h, err := v.Holding(w.t.Context()); err != nil {
				w.t.Fatal(err)
			} else {
				w.read(h)
				v.Show(h, h.of(v.Mount().Class.Sources()...))
			}
			v.Close()
			if n := len(records(w.t, dir)); n != 1 {
				w.t.Fatalf("got %d records of a volume that is mounted, want 1", n)
			}
			w.ends("a")
			synctest.Wait()
			w.pods.set("a", Alive)
		}
		w.wantLeft(0, 0)
		if n := len(records(w.t, dir)); n != 0 {
			w.t.Errorf("got %d records left, want none", n)
		}
	})
}

// All at once, for the race detector: Mounts, polls, ends, outages, status.
func TestEverythingAtOnce(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.users("10s", "20s")
		w.tokens(vaulttest.Data{"token_ttl": "20s", "token_max_ttl": "1m"})
		quick := func(m *spec.Mount) {
			m.Class.Lifecycle.Refresh, m.Class.Lifecycle.RevokeGrace = 3*time.Second, 5*time.Second
		}
		w.restart(dir)
		w.run()
		var all sync.WaitGroup
		pods := []string{"a", "b", "c", "d", "e", "f"}
		for i, pod := range pods {
			all.Go(func() {
				for n := range 20 {
					_, _ = w.mount(pod, of(userSource, keySource), quick) // while Vault is away it fails
					time.Sleep(time.Duration(1+(n*7+i*3)%11) * time.Second)
					if (n+i)%5 == 4 {
						w.ends(pod)
						time.Sleep(time.Second)
						w.pods.set(pod, Alive)
					}
				}
			})
		}
		all.Go(func() {
			for n := range 100 {
				w.network.cut(n%10 == 0)
				w.keeper.Status()
				w.keeper.Held()
				w.keeper.Wake()
				time.Sleep(time.Second)
			}
			w.network.cut(false)
		})
		all.Wait()
		for _, pod := range pods {
			w.mounted(pod, of(userSource, keySource), quick)
		}
		time.Sleep(time.Minute)
		w.wantLeft(len(pods), len(pods))
		for _, pod := range pods {
			w.ends(pod)
		}
		time.Sleep(time.Minute)
		w.wantLeft(0, 0)
		if n := len(records(w.t, dir)) + len(w.keeper.volumes) + len(w.keeper.agenda); n != 0 {
			w.t.Errorf("got %d entries left, want none", n)
		}
	})
}

// The next volume of the same name writes a record of the same name: the old one's must be gone before anybody can have
// the next one.
func TestForgetErasesFirst(t *testing.T) {
	dir := inMemory(t)
	w := newWorld(t)
	w.restart(dir)
	v := w.open("a")
	v.Close()
	// Removing it fails, which is told while the volume is being forgotten.
	if err := os.MkdirAll(filepath.Join(w.recordOf(dir, "a"), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	told := false
	w.keeper.config.JournalFailed = func() { told = w.volume("a") == v }
	w.pass()
	if !told {
		t.Error("the volume was given up before its record was")
	}
	if w.volume("a") != nil {
		t.Error("the volume is still there")
	}
}

// Whoever has the volume of a pod that has ended may let it go without a word.
func TestFinishComesBack(t *testing.T) {
	w := newWorld(t)
	w.mounted("a")
	v := w.volume("a")
	now := time.Now()
	<-v.turn
	if again := v.finish(now); !again.After(now) || v.ended {
		t.Errorf("again at %v, ended %v; want it tried again", again, v.ended)
	}
	v.turn <- struct{}{}
	if again := v.finish(now); !again.IsZero() || !v.ended {
		t.Errorf("again at %v, ended %v; want it ended", again, v.ended)
	}
}

// A quiet poll is no work for the keeper's loop; one that changes anything is.
func TestPollThatChangesSomethingIsLookedAt(t *testing.T) {
	w := newWorld(t)
	w.writes.Store(false)
	w.mounted("a")
	planned := func() bool {
		w.keeper.mu.Lock()
		defer w.keeper.mu.Unlock()
		_, found := w.keeper.agenda[w.keeper.volumes[keyOf(w.order("a"))]]
		clear(w.keeper.agenda)
		return found
	}
	planned()
	w.mounted("a")
	if planned() {
		t.Error("a quiet poll is looked at")
	}
	w.writes.Store(true)
	w.mounted("a")
	if !planned() {
		t.Error("that the provider writes the files now is not looked at")
	}
	w.mounted("a", func(m *spec.Mount) { m.Class.Lifecycle.RenewAt = 0.3 })
	if !planned() {
		t.Error("another lifecycle is not looked at")
	}
}
