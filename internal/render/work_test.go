package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// templates are objects of one template each, in which N is the number of the object.
func templates(count int, text string) []spec.Object {
	objects := make([]spec.Object, count)
	for i := range objects {
		objects[i] = spec.Object{
			Name: fmt.Sprintf("o%03d", i), Template: spec.Template{Text: strings.ReplaceAll(text, "N", fmt.Sprint(i))}, Mode: 0o644,
		}
	}
	return objects
}

// TestTooManyBytesEndTheWork: what would not be shown is not made either.
func TestTooManyBytesEndTheWork(t *testing.T) {
	objects := templates(200, `{{ range 600 }}{{ printf "%1024s" "N" }}{{ end }}`)
	objects = append(objects, spec.Object{Name: "missing", Source: get("missing"), Encoding: spec.UTF8})
	files, err := filesOf(objects, vault{}.read)
	if files != nil || err == nil {
		t.Fatalf("got %d files and error %v, want an error", len(files), err)
	}
	for _, want := range []string{
		"the volume would have 1228800 bytes even without 198 of its files, more than 1048576; the largest files have 614400, 614400 bytes",
		`object "missing": `,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s in it", err, want)
		}
	}
}

// TestWaitingTemplatesOfAVolumeAreFew lets all templates of a volume wait for Vault: each that has begun has built something.
func TestWaitingTemplatesOfAVolumeAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		read := func(s spec.Source) (client.Grant, error) {
			asked.Add(1)
			time.Sleep(time.Minute)
			return vault{s.Path: `{}`}.read(s)
		}
		done := make(chan error)
		go func() {
			_, err := filesOf(templates(3*mostBegun, `{{ secret "N" }}`), read)
			done <- err
		}()
		for round := range 3 {
			synctest.Wait()
			if n := asked.Load(); n != int64(mostBegun*(round+1)) {
				t.Errorf("after %d minutes %d templates have asked, want %d more at a time", round, n, mostBegun)
			}
			time.Sleep(time.Minute)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestVolumesTakeTurns has many templates of one volume before the one of another, and somebody behind them who keeps the slot:
// before that one comes, each volume has had its turn.
func TestVolumesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		for range cap(r.pool.slots) {
			r.pool.enter()
		}
		var mu sync.Mutex
		var read []string
		answers := func(s spec.Source) (client.Grant, error) {
			mu.Lock()
			defer mu.Unlock()
			read = append(read, s.Path)
			return vault{s.Path: `{}`}.read(s)
		}
		var group sync.WaitGroup
		for _, volume := range [][]spec.Object{templates(mostBegun, `{{ $x := secret "many" "n=N" }}`), templates(1, `{{ $x := secret "one" }}`)} {
			group.Go(func() {
				if _, _, err := r.Files(Volume{Objects: volume, Read: answers}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		group.Go(r.pool.enter)
		synctest.Wait()
		r.pool.leave() // for the first of them
		synctest.Wait()
		mu.Lock()
		if slices.Sort(read); !slices.Equal(read, []string{"many", "one"}) {
			t.Errorf("before it was %q, want one of each volume", read)
		}
		mu.Unlock()
		r.pool.leave()
		group.Wait()
	})
}

// TestLongExecutionsPause: whoever comes while a template computes waits no longer than a turn takes, and what that one
// waits in turn is no time that it computes.
func TestLongExecutionsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := prepared(t, `{{ range 3 }}{{ end }}`)
		for range cap(r.pool.slots) - 1 {
			r.pool.enter()
		}
		served := false
		go func() {
			r.pool.enter()
			defer r.pool.leave()
			served = true
			time.Sleep(time.Hour)
		}()
		synctest.Wait()
		r.deadline, r.rest = time.Now().Add(mostTime), time.Now().Add(-time.Nanosecond)
		if _, err := m.once(r); err != nil {
			t.Error(err)
		}
		if !served {
			t.Error("the other one did not get the slot")
		}
		if r.rest.Before(time.Now()) {
			t.Error("it would pause again at once")
		}
	})
}

// TestTimeOfAVolumeIsBounded: templates count what they compute, and not what they wait, and too much of it is the end.
func TestTimeOfAVolumeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := func(s spec.Source) (client.Grant, error) {
			time.Sleep(time.Hour)
			return grantOf(s, `{}`), nil
		}
		w := New().newWork(Volume{Read: read})
		object := templates(1, `{{ $x := secret "a" }}`)[0]
		if _, err := w.file(object); err != nil || w.spent != 0 {
			t.Errorf("one that waits: got error %v, and that it computed for %v; want 0s", err, w.spent)
		}
		w.spent = mostSpent
		if _, err := w.file(object); err != nil {
			t.Errorf("within the bound: got error %v", err)
		}
		w.spent++
		if _, err := w.file(object); !errors.Is(err, faultSpent) {
			t.Errorf("beyond it: got error %v, want %q", err, string(faultSpent))
		}
	})
	spent := time.Duration(0)
	if _, err := New().execute(spec.Template{Text: `{{ range 10000 }}{{ end }}`}, execution{spent: &spent}); err != nil || spent <= 0 {
		t.Errorf("one that computes: got error %v, and that it computed for %v; want some time", err, spent)
	}
	if !strings.Contains(string(faultSpent), fmt.Sprintf(" %d seconds", mostSpent/time.Second)) {
		t.Errorf("%q tells another time than %v", string(faultSpent), mostSpent)
	}
}

// TestOthersInTheWayAreNoFaultOfATemplate: a template that fails because others build much is to be tried again.
func TestOthersInTheWayAreNoFaultOfATemplate(t *testing.T) {
	r := New()
	volume := Volume{Objects: templates(1, `{{ range 2 }}{{ $x := sprig_repeat 1000000 "x" }}{{ end }}`)}
	if !r.pool.borrow(mostTogether) {
		t.Fatal("there is nothing to borrow")
	}
	_, _, err := r.Files(volume)
	failure, ok := errors.AsType[*Error](err)
	if want := `object "o000": template line 1, column 23: sprig_repeat: ` + string(faultTogether); !ok || failure.Unfit || failure.Error() != want {
		t.Errorf("got %v (%+v)\nwant %s, and that it fits", err, failure, want)
	}
	r.pool.giveBack(mostTogether)
	if _, _, err := r.Files(volume); err != nil {
		t.Errorf("when the others are done: got error %v", err)
	}
	for _, known := range []fault{faultTime, faultSpent} { // a node that is busy with other things is slow
		if !passes(fmt.Errorf("template: %w", known)) {
			t.Errorf("%q: is taken for a fault of the template", string(known))
		}
	}
	_, _, err = r.Files(Volume{Objects: templates(1, `{{ range 50 }}{{ $x := sprig_repeat 1000000 "x" }}{{ end }}`)})
	if failure, ok := errors.AsType[*Error](err); !ok || !failure.Unfit {
		t.Errorf("one that builds too much by itself: got %v, want one that does not fit", err)
	}
}
