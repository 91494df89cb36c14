// Command crash kills the provider again and again, at random moments, while pods come and go, and then asks Vault and
// PostgreSQL what is left. There is no cluster: the provider is its own process, Vault and PostgreSQL are real, the API
// server is a fake, and the driver's own code makes the calls and writes the files. It prints one line,
//
//	crash kills=<n> volumes=<n> leaked=<n> unclaimed=<n> reissued=<n> seed=<n>
//
// and ends with 1 if something is not as it must be, each of which it names:
//
//   - leaked: a database lease or a token that belongs to no live volume, or that nobody knows of and that no kill excuses:
//     none struck the request for it in flight, or another request of the same volume has that kill for its excuse.
//   - unclaimed: leases and tokens that nobody knows of because a kill struck their request in flight: at most one for
//     each kill and volume. It ends with its pod.
//   - reissued: logins and reads for a volume that had what it needed, and had it long enough: because of a kill.
//
// No volume may be stuck, the files of each are whole at any time and work until their end and in the end, and it may not take
// longer than longestRun.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"leasehold/test/integration/bed"
)

func main() {
	if status, again := bed.Isolate(); again {
		os.Exit(status)
	}
	kills := flag.Int("kills", usualKills, "how often the provider is killed")
	seed := flag.Uint64("seed", 0, "seed of everything that is random; 0 takes one at random")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *kills, *seed)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

const (
	usualKills = 200
	longestRun = 5 * time.Minute // for so many
)

// run plays it all and prints the verdict.
func run(ctx context.Context, kills int, seed uint64) (err error) {
	began := time.Now()
	s, err := open(ctx, seed)
	if err != nil {
		return err
	}
	defer func() {
		if closing := s.close(); err == nil {
			err = closing
		}
	}()
	s.populate(ctx)
	if err := s.killAll(ctx, kills); err != nil {
		return err
	}
	v, err := s.judge(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "crash: %d requests to Vault, %d of them struck; %d answers had to be known at a kill; "+
		"%d logins with files worked; kills between the steps of a write: %d into a volume, %d into the journal; "+
		"too late for kills: %d logins, %d renewals\n",
		v.requests, v.struck, v.owed, v.checks, v.steps[volumes], v.steps[journal], v.late, v.lapsed)
	fmt.Printf("crash kills=%d volumes=%d leaked=%d unclaimed=%d reissued=%d seed=%d\n",
		kills, v.volumes, len(v.leaked), v.unclaimed, len(v.reissued), seed)
	s.explain()
	return errors.Join(v.error(kills), inTime(kills, time.Since(began)))
}

// inTime fails if a run of the usual length, or a shorter one, has taken too long.
func inTime(kills int, took time.Duration) error {
	if kills > usualKills || took <= longestRun {
		return nil
	}
	return fmt.Errorf("the run took %v, and with up to %d kills it may take %v: find out what has become slow",
		took.Round(time.Second), usualKills, longestRun)
}
