// Command bench measures Leasehold with the real parts of the test bed: a real Vault, a real PostgreSQL, the provider's and
// the webhook's own processes, calls by the Secrets Store CSI driver's own code, and a real API server where that matters.
// Each figure is a line,
//
//	bench <name> <value> <unit> target <op><value> <ok|short>
//
// and lines with a # below it tell how much was measured, and the absolute times behind a ratio.
//
// A ratio is between two things that are measured in one run, in turns, so that a slow machine slows both. It is the median
// of at least five rounds. What is compared with is as good as we could make it: the bare client keeps its connections,
// decodes no more than it needs, and sends the same two requests.
//
//	bench                                    everything, some six minutes
//	bench -name 'mount_again_ratio,rss_*'    some of it
//	bench -list                              what there is
//	bench -short-ok                          exit with 0 though a figure is short: for exploration
//
// It ends with 1 if a figure is short of its target, or could not be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"

	"leasehold/test/integration/bed"
)

func main() {
	if status, again := bed.Isolate(); again {
		os.Exit(status)
	}
	names := flag.String("name", "", "comma-separated `names` of the figures to measure, * for any text; none: all")
	list := flag.Bool("list", false, "list the figures and their targets, and end")
	shortOK := flag.Bool("short-ok", false, "exit with 0 though a figure is short of its target")
	empty := flag.String("empty", "", "be the empty provider in this `directory`; for bench itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case *empty != "":
		fatal(serveEmpty(ctx, *empty))
	case *list:
		for _, m := range measurements {
			for _, t := range m.targets {
				fmt.Printf("%-28s target %s %s\n", t.name, t.bound(), t.unit)
			}
		}
	default:
		chosen, err := choose(measurements, *names)
		fatal(err)
		short, err := measure(ctx, chosen)
		fatal(err)
		if short && !*shortOK {
			os.Exit(1)
		}
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measurement is something that is measured in one go, and the figures that it gives.
type measurement struct {
	targets []target
	run     func(context.Context, *world) ([]reading, error) // a reading for each target, in their order
}

// measurements is all that there is, the quickest first and what needs an API server last: that would disturb the others.
var measurements = []measurement{
	{[]target{{"render_template_us", "us", atMost, 100}}, renderTemplate},
	{[]target{{"mount_first_ratio", "x", atMost, 1.10}}, mountFirst},
	{[]target{{"mount_storm_ratio", "x", atMost, 1.10}}, mountStorm},
	{[]target{{"mount_again_ratio", "x", atMost, 1.5}}, mountAgain},
	{[]target{{"mount_again_rate_ratio", "x", atLeast, 0.5}}, mountAgainRate},
	{[]target{{"mount_again_growth", "x", atMost, 10}}, mountAgainGrowth},
	{[]target{{"rss_250_mib", "MiB", atMost, 48}, {"anon_250_mib", "MiB", atMost, 16}}, residentMemory},
	{[]target{{"heap_per_volume_kib", "KiB", atMost, 16}, {"heap_growth", "x", atMost, 10}}, liveHeap},
	{[]target{{"restart_250_ms", "ms", atMost, 1000}}, restart},
	{[]target{{"restart_growth", "x", atMost, 10}}, restartGrowth},
	{[]target{{"idle_cpu_250", "s/min", atMost, 0.5}}, idle},
	{[]target{{"vault_requests_per_pod_hour", "requests/h", atMost, 3.2}}, vaultRequests},
	{[]target{{"publish_p99_ms", "ms", atMost, 20}}, publish},
	{[]target{{"release_p99_ms", "ms", atMost, 1000}}, release},
	{[]target{{"admit_p99_us", "us", atMost, 3000}, {"admit_per_second", "1/s", atLeast, 500}}, admit},
}

// choose returns the measurements that give a figure of one of the names. A name that nothing has is an error.
func choose(all []measurement, names string) ([]measurement, error) {
	if strings.TrimSpace(names) == "" {
		return all, nil
	}
	wanted := make(map[int]bool)
	var faults []error
	for _, pattern := range strings.Split(names, ",") {
		pattern = strings.TrimSpace(pattern)
		found := false
		for i, m := range all {
			if slices.ContainsFunc(m.targets, func(t target) bool { ok, _ := path.Match(pattern, t.name); return ok }) {
				wanted[i], found = true, true
			}
		}
		if !found {
			faults = append(faults, fmt.Errorf("no figure is named %q: -list tells the names", pattern))
		}
	}
	var chosen []measurement
	for i, m := range all {
		if wanted[i] {
			chosen = append(chosen, m)
		}
	}
	return chosen, errors.Join(faults...)
}

// measure measures and prints. One that fails is told of, and the others go on.
func measure(ctx context.Context, chosen []measurement) (short bool, err error) {
	w, err := newWorld()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, m := range chosen {
		readings, failure := m.run(ctx, w)
		if failure != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", m.targets[0].name, failure))
			if ctx.Err() != nil {
				return short, err
			}
			continue
		}
		for i, t := range m.targets {
			short = short || !t.holds(readings[i].value)
			fmt.Print(t.report(readings[i]))
		}
	}
	return short, err
}
