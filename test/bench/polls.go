package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	secretsstore "sigs.k8s.io/secrets-store-csi-driver/pkg/secrets-store"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/test/integration/bed"
)

// polls is a node whose volumes are quiet, and an empty provider beside it.
type polls struct {
	volumes     []*volume
	ours, empty called
}

// called is a provider as the driver has it.
type called struct {
	client v1alpha1.CSIDriverProviderClient
	pid    int
}

// rest is how long the provider wants a volume to have been left alone before it believes the kernel that it is as it was.
// The driver's polls come more than a minute apart.
const rest = 1200 * time.Millisecond

// withPolls fills a node and has something done with it, during which Vault must not be asked anything.
func (w *world) withPolls(ctx context.Context, count int, do func(p *polls) error) error {
	s, err := w.stores(ctx)
	if err != nil {
		return err
	}
	proxy, err := w.bed.StartTrouble(s.vault.Address)
	if err != nil {
		return err
	}
	return w.withNode(ctx, bed.ProviderOptions{VaultAddress: proxy.Address}, func(n *node) error {
		volumes, err := n.fill(ctx, count, hourRole, withSecret())
		if err != nil {
			return err
		}
		p := &polls{volumes: volumes, ours: called{pid: n.provider.Pid()}}
		if p.ours.client, err = n.clients.Get(ctx, "vault"); err != nil {
			return err
		}
		answer, err := p.ours.client.Mount(ctx, volumes[0].request)
		if err != nil {
			return err
		}
		empty, stop, err := w.startEmpty(ctx, answer)
		if err != nil {
			return err
		}
		defer stop()
		p.empty = empty
		before := proxy.Total()
		if err := p.settle(ctx); err != nil {
			return err
		}
		if err := do(p); err != nil {
			return err
		}
		if asked := proxy.Total() - before; asked != 0 {
			return fmt.Errorf("%d requests reached Vault during the polls of quiet volumes, want none", asked)
		}
		return nil
	})
}

// settle waits until all volumes are quiet, and lets the provider find that out.
func (p *polls) settle(ctx context.Context) error {
	if err := pause(ctx, rest); err != nil {
		return err
	}
	return inParallel(ctx, atOnce, len(p.volumes), func(ctx context.Context, i int) error {
		_, err := p.poll(ctx, p.ours, i)
		return err
	})
}

// poll is how long the i-th poll took one of the two, in seconds.
func (p *polls) poll(ctx context.Context, of called, i int) (float64, error) {
	request := p.volumes[i%len(p.volumes)].request
	return timed(func() error {
		_, err := of.client.Mount(ctx, request)
		return err
	})
}

// work is how much of a processor each of the two has taken so far.
func (p *polls) work() (ours, empty time.Duration, err error) {
	ours, err1 := cpuOf(p.ours.pid)
	empty, err2 := cpuOf(p.empty.pid)
	return ours, empty, errors.Join(err1, err2)
}

// inTurns compares the two, one call at a time. Each round's figure is a median.
func (p *polls) inTurns(ctx context.Context, runs, each int) (rounds, error) {
	var all rounds
	for run := -1; run < runs; run++ { // the first round makes connections and warms caches
		var ours, theirs []float64
		for i := range each {
			our, err1 := p.poll(ctx, p.ours, i)
			their, err2 := p.poll(ctx, p.empty, i)
			if err := errors.Join(err1, err2); err != nil {
				return rounds{}, err
			}
			ours, theirs = append(ours, our), append(theirs, their)
		}
		if run >= 0 {
			all.ours, all.theirs = append(all.ours, median(ours)), append(all.theirs, median(theirs))
		}
	}
	return all, nil
}

// mountAgain compares a poll with a call that does nothing.
func mountAgain(ctx context.Context, w *world) ([]reading, error) {
	const volumes, runs, each = 250, 9, 500
	var all rounds
	var ours, empty time.Duration
	err := w.withPolls(ctx, volumes, func(p *polls) error {
		oursBefore, emptyBefore, err := p.work()
		if err != nil {
			return err
		}
		if all, err = p.inTurns(ctx, runs, each); err != nil {
			return err
		}
		ours, empty, err = p.work()
		ours, empty = (ours-oursBefore)/((runs+1)*each), (empty-emptyBefore)/((runs+1)*each)
		return err
	})
	if err != nil {
		return nil, err
	}
	ratio, spread := all.ratio()
	return []reading{{ratio, []string{
		note("a poll %.0f us, an empty call %.0f us: p50 of %d rounds of %d in turns, %d volumes held; ratios of the rounds %s; 0 requests to Vault",
			1e6*median(all.ours), 1e6*median(all.theirs), runs, each, volumes, span(spread)),
		note("of a processor, a poll takes the provider %.0f us, and an empty call the empty one %.0f us",
			float64(ours.Nanoseconds())/1e3, float64(empty.Nanoseconds())/1e3),
	}}}, nil
}

// mountAgainRate compares how many polls and how many calls that do nothing are answered in a second, eight at once.
func mountAgainRate(ctx context.Context, w *world) ([]reading, error) {
	const volumes, runs, callers, length = 250, 7, 8, 700 * time.Millisecond
	rate := func(p *polls, of called) (float64, error) {
		var mu sync.Mutex
		done, failure := 0, error(nil)
		var calling sync.WaitGroup
		began := time.Now()
		for caller := range callers {
			calling.Go(func() {
				i := 0
				var err error
				for ; err == nil && time.Since(began) < length; i++ {
					_, err = p.poll(ctx, of, caller+i*callers)
				}
				mu.Lock()
				defer mu.Unlock()
				done, failure = done+i, errors.Join(failure, err)
			})
		}
		calling.Wait()
		return float64(done) / time.Since(began).Seconds(), failure
	}
	var all rounds
	err := w.withPolls(ctx, volumes, func(p *polls) error {
		for run := -1; run < runs; run++ {
			ours, err1 := rate(p, p.ours)
			theirs, err2 := rate(p, p.empty)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if run >= 0 {
				all.ours, all.theirs = append(all.ours, ours), append(all.theirs, theirs)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ratio, spread := all.ratio()
	return []reading{{ratio, []string{
		note("%.0f polls/s, %.0f empty calls/s: medians of %d rounds of %v in turns, %d at once, %d volumes held; ratios of the rounds %s; "+
			"0 requests to Vault", median(all.ours), median(all.theirs), runs, length, callers, volumes, span(spread)),
	}}}, nil
}

// mountAgainGrowth compares a poll among a thousand volumes with one among a hundred, each beside empty calls, since the
// machine is not as quick at both times.
func mountAgainGrowth(ctx context.Context, w *world) ([]reading, error) {
	const few, many, runs = 100, 1000, 5
	ratios := make(map[int]float64)
	var notes []string
	for _, volumes := range []int{few, many} {
		err := w.withPolls(ctx, volumes, func(p *polls) error {
			all, err := p.inTurns(ctx, runs, many)
			if err != nil {
				return err
			}
			ratio, _ := all.ratio()
			ratios[volumes] = ratio
			notes = append(notes, note("%d volumes held: a poll %.0f us, %.3f times an empty call; p50 of %d rounds of %d", volumes, 1e6*median(all.ours), ratio, runs, many))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return []reading{{ratios[many] / ratios[few], notes}}, nil
}

// startEmpty starts the empty provider, a process of its own, which answers each call with the same answer.
func (w *world) startEmpty(ctx context.Context, answer *v1alpha1.MountResponse) (_ called, stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return called{}, nil, err
	}
	name := w.unique("empty")
	dir := filepath.Join(w.bed.Dir, name)
	text, err := proto.Marshal(answer)
	if err := errors.Join(err, os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, answerFile), text, 0o600)); err != nil {
		return called{}, nil, err
	}
	process, err := w.bed.Start(name, exec.CommandContext(context.WithoutCancel(ctx), program, "-empty="+dir))
	if err != nil {
		return called{}, nil, err
	}
	clients := secretsstore.NewPluginClientBuilder([]string{dir})
	stop = func() {
		clients.Cleanup()
		process.Kill()
	}
	c := called{pid: process.Pid()}
	err = process.Until(ctx, func(ctx context.Context) (err error) {
		c.client, err = clients.Get(ctx, "vault")
		return err
	})
	if err != nil {
		stop()
		return called{}, nil, err
	}
	return c, stop, nil
}
