package integration

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"leasehold/test/integration/bed"
)

// longestGap is how long the driver may wait for an answer while one instance takes over from another, beside what a Mount
// takes anyway: the driver tries to connect again after a second, then 1.6 s later, and this machine may be busy. An
// instance that has failed Mounts to give back may take longer than this to end.
const longestGap = 10 * time.Second

// startStandby starts a second instance in the place of p, and returns when it is ready: as a standby.
func startStandby(t testing.TB, p *bed.Provider, o bed.ProviderOptions) *bed.Provider {
	t.Helper()
	o.Dir = p.Dir
	before := socketFile(t, p)
	standby := startProvider(t, o)
	if got := counted(t, standby, "leasehold_standby"); got != 1 {
		t.Errorf("leasehold_standby of the second instance: got %d, want 1", got)
	}
	if !os.SameFile(before, socketFile(t, p)) {
		t.Error("the second instance put its socket in the place of the first one's, which still answers")
	}
	return standby
}

// socketFile is what tells the socket of one instance from that of another.
func socketFile(t testing.TB, p *bed.Provider) os.FileInfo {
	t.Helper()
	info, err := os.Stat(p.Socket())
	must(t, "socket", err)
	return info
}

// tookOver waits until an instance is no standby any more.
func tookOver(t testing.TB, p *bed.Provider) {
	t.Helper()
	eventually(t, "the standby takes over", func(context.Context) error {
		if counted(t, p, "leasehold_standby") != 0 {
			return errors.New("it still stands by")
		}
		return nil
	})
}

// terminated ends an instance as kubelet does, after recording its metrics. The channel gets its exit status.
func terminated(t testing.TB, p *bed.Provider) <-chan error {
	t.Helper()
	metrics(t, p)
	ended := make(chan error, 1)
	go func() { ended <- p.Terminate() }()
	return ended
}

// TestHandover ends the first of two instances while Mounts are at work in it. It answers them all, the second one answers
// those that come after, and no volume is ever at work in both.
func TestHandover(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	first := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	second := startStandby(t, first, bed.ProviderOptions{VaultAddress: trouble.Address})
	const volumes = 5
	mountSome := func(p *bed.Provider) (some []*bed.Volume, pending []<-chan error) {
		for range volumes {
			v := newVolume(t, p, class(name, credentials(name)))
			some = append(some, v)
			pending = append(pending, background(t.Context(), t, v))
		}
		return some, pending
	}
	gate := trouble.BlockAnswer("database/creds/" + name)
	defer gate.Open()
	earlier, atWork := mountSome(first)
	for range volumes {
		wait(t, "request", gate.Arrived())
	}

	ended := terminated(t, first)
	waits := func() {
		if counted(t, second, "leasehold_standby") != 1 {
			t.Fatal("the second instance took over while Mounts were at work in the first")
		}
	}
	eventually(t, "the first instance takes no more calls", func(ctx context.Context) error {
		waits()
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", first.Socket())
		if err != nil {
			return nil
		}
		return errors.Join(errors.New("it does"), c.Close())
	})
	nobody := time.Now()
	// By a connection that is new, to the same socket: a call that comes by an old one before the driver has heard that the
	// first instance ends is rightly answered by it.
	later, waiting := mountSome(second)
	for time.Since(nobody) < 300*time.Millisecond { // long enough for a standby that does not wait
		waits()
	}
	gate.Open()
	opened := time.Now()
	for _, done := range append(atWork, waiting...) {
		must(t, "mount", wait(t, "mount", done))
	}
	gap := time.Since(opened)
	t.Logf("from the last answer of the first instance to the last of the second: %s at most", gap.Round(time.Millisecond))
	if gap > longestGap {
		t.Errorf("the Mounts waited for the second instance for %s, want %s at most", gap, longestGap)
	}
	must(t, "exit status of the first instance", wait(t, "the first instance's end", ended))
	tookOver(t, second)

	for _, v := range append(earlier, later...) {
		logIn(t, v)
	}
	if got := counted(t, second, mountsOK); got != volumes {
		t.Errorf("Mounts that the second instance answered: got %d, want %d", got, volumes)
	}
	for _, v := range earlier { // polls, of volumes that the first instance filled
		before := files(t, v)
		mustMount(t, v)
		wantFiles(t, files(t, v), before)
	}
	wantRequests(t, trouble, name, 2*volumes, 2*volumes)
	holds(t, name, 2*volumes, 2*volumes)
}

// TestHandoverUnderLoad updates the provider again and again while pods start all the time.
func TestHandoverUnderLoad(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	driver, err := shared.driver(p)
	must(t, "driver", err)
	var (
		workers sync.WaitGroup
		mu      sync.Mutex // guards what follows
		mounted int
		longest time.Duration
	)
	ctx, cancel := context.WithCancel(t.Context())
	starting, calm := context.WithCancel(ctx)
	defer workers.Wait()
	defer cancel()
	for range 4 {
		workers.Go(func() {
			for starting.Err() == nil {
				v := driver.NewVolume(newPod(), "creds", class(name, credentials(name)))
				start := time.Now()
				_, err := mountWithin(ctx, t, v)
				took := time.Since(start)
				if err != nil {
					t.Errorf("a Mount failed: %v", err)
				}
				mu.Lock()
				mounted++
				longest = max(longest, took)
				mu.Unlock()
			}
		})
	}
	const enough = 10
	for range 3 {
		waitCounted(t, p, mountsOK, enough)
		next := startStandby(t, p, bed.ProviderOptions{VaultAddress: trouble.Address})
		must(t, "exit status", wait(t, "the old instance's end", terminated(t, p)))
		p = next
	}
	waitCounted(t, p, mountsOK, enough)
	calm()
	workers.Wait()

	t.Logf("%d Mounts, three handovers, the longest Mount took %s", mounted, longest.Round(time.Millisecond))
	if longest > longestGap {
		t.Errorf("the longest Mount took %s, want %s at most", longest, longestGap)
	}
	wantRequests(t, trouble, name, mounted, mounted)
}

// TestHandoverOfKilled kills the first of two instances while Mounts are at work in it. What they had got so far is lost
// with it; the driver calls again by itself.
func TestHandoverOfKilled(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	first := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	second := startStandby(t, first, bed.ProviderOptions{VaultAddress: trouble.Address})
	gate := trouble.Block("database/creds/" + name)
	defer gate.Open()
	const volumes = 5
	var pending []<-chan error
	var atWork []*bed.Volume
	for range volumes {
		v := newVolume(t, first, class(name, credentials(name)))
		atWork = append(atWork, v)
		pending = append(pending, background(t.Context(), t, v))
	}
	for range volumes {
		wait(t, "request", gate.Arrived())
	}
	kill(t, first)
	tookOver(t, second)
	gate.Open()
	for _, done := range pending {
		must(t, "mount", wait(t, "mount", done))
	}
	for _, v := range atWork {
		logIn(t, v)
	}
	if got := counted(t, second, mountsOK); got != volumes {
		t.Errorf("Mounts that the second instance answered: got %d, want %d", got, volumes)
	}
}

// TestHandoverOfWhatAFailedMountGained has the first instance keep it, and the second one give it back.
func TestHandoverOfWhatAFailedMountGained(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	first := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{patient}})
	second := startStandby(t, first, bed.ProviderOptions{VaultAddress: trouble.Address})
	_, err := mount(t, newVolume(t, first, class(name, credentials(name)+object("word", "kv1/nothing-here", "word"))))
	wantError(t, err, "kv1/nothing-here")
	holds(t, name, 1, 1)

	// Vault is slow to take it back, which keeps nobody from mounting.
	gate := trouble.Block("auth/token/revoke-self")
	defer gate.Open()
	must(t, "exit status of the first instance", wait(t, "the first instance's end", terminated(t, first)))
	tookOver(t, second)
	wait(t, "request to revoke", gate.Arrived())
	v := newVolume(t, first, class(name, credentials(name)))
	mustMount(t, v)
	logIn(t, v)
	holds(t, name, 2, 2)
	gate.Open()
	holds(t, name, 1, 1)
	logIn(t, v)
}

// TestStandbyIsToldToEnd ends the second instance: the first has not noticed anything.
func TestStandbyIsToldToEnd(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	first := startProvider(t, bed.ProviderOptions{})
	second := startStandby(t, first, bed.ProviderOptions{})
	third := startStandby(t, first, bed.ProviderOptions{})
	must(t, "exit status of a standby", wait(t, "the standby's end", terminated(t, second)))
	v := newVolume(t, first, class(name, credentials(name)))
	mustMount(t, v)
	logIn(t, v)
	if got := counted(t, first, "leasehold_standby"); got != 0 {
		t.Errorf("leasehold_standby of the first instance: got %d, want 0", got)
	}
	stop(t, first)
	tookOver(t, third)
	fresh := newVolume(t, first, class(name, credentials(name)))
	mustMount(t, fresh)
	logIn(t, fresh)
	holds(t, name, 2, 2)
}
