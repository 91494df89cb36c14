package lease

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What is known of a pod, and what becomes of what it has.
func TestLifeOfAPod(t *testing.T) {
	for name, row := range map[string]struct {
		look     Life
		gone     bool  // so says the API server
		err      error // of the API server
		confirms int
		released bool
	}{
		"alive":                                {look: Alive, gone: true},
		"nobody has told yet":                  {look: Unknown, gone: true},
		"ended":                                {look: Ended, released: true},
		"absent, and gone":                     {look: Absent, gone: true, confirms: 1, released: true},
		"absent, but alive":                    {look: Absent, confirms: 1},
		"absent, and the API server is away":   {look: Absent, gone: true, err: errors.New("connection refused"), confirms: 1},
		"ended, though the API server is away": {look: Ended, err: errors.New("connection refused"), released: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.run()
				w.mounted("a")
				synctest.Wait()
				w.pods.tell(func(p *pods) { p.err, p.gone["a"] = row.err, row.gone })
				w.pods.set("a", row.look)
				w.keeper.Wake()
				synctest.Wait()
				if released := len(w.vault.Tokens()) == 0; released != row.released {
					w.t.Errorf("given back: got %v, want %v", released, row.released)
				}
				if w.pods.confirms != row.confirms {
					w.t.Errorf("the API server was asked %d times, want %d", w.pods.confirms, row.confirms)
				}
			})
		})
	}
}

// The API server is away for an hour while a pod ends; everything else goes on.
func TestAPIServerThatIsAway(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		w.mounted("a")
		w.mounted("b")
		w.pods.tell(func(p *pods) { p.err, p.gone["a"] = errors.New("connection refused"), true })
		w.pods.set("a", Absent)
		w.keeper.Wake()
		time.Sleep(time.Hour)
		w.wantLeft(2, 2)
		asked := 0
		w.pods.tell(func(p *pods) { asked, p.err = p.confirms, nil })
		if asked < 290 || asked > 460 {
			w.t.Errorf("the API server was asked %d times in an hour, want every 10 s or so", asked)
		}
		if !strings.Contains(w.log.String(), "cannot confirm that the pod is gone") {
			w.t.Error("the log does not say so")
		}
		w.mounted("c")
		time.Sleep(12 * time.Second)
		w.wantLeft(2, 2)
		if users := strings.Join(w.vault.Users(), " "); len(w.vault.Users()) != 2 {
			w.t.Errorf("got users %s, want those of b and c", users)
		}
	})
}

// A pod that the watch does not know yet is alive all the same, and found absent again some day.
func TestPodThatIsNew(t *testing.T) {
	bubble(t, func(w *world) {
		w.pods.set("a", Absent)
		w.run()
		w.mounted("a")
		time.Sleep(time.Second)
		w.pods.set("a", Alive)
		w.keeper.Wake()
		time.Sleep(time.Hour)
		w.wantLeft(1, 1)
		if n := w.pods.confirms; n != 1 {
			w.t.Errorf("the API server was asked %d times, want once", n)
		}
		w.pods.tell(func(p *pods) { p.gone["a"] = true })
		w.pods.set("a", Absent)
		w.keeper.Wake()
		synctest.Wait()
		w.wantLeft(0, 0)
	})
}

// What the API server said of a pod before its last Mount does not count.
func TestMountAfterAPodWasFoundGone(t *testing.T) {
	bubble(t, func(w *world) {
		w.mounted("a")
		v := w.volume("a")
		v.attended.gone = true
		w.pods.set("a", Absent)
		w.mounted("a")
		w.run() // only now: the Mount is what came first
		time.Sleep(time.Minute)
		w.wantLeft(1, 1)
	})
}

// There is nobody to tell.
func TestEventWithoutPods(t *testing.T) {
	w := newWorld(t)
	w.config.Pods = nil
	NewKeeper(w.config).event(w.order("a").Pod, reasonCredentialsEnd, "x")
}
