package lease

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

const (
	volumesOfNode = 50
	settled       = time.Minute      // of simulation before anything is counted or happens
	outage        = time.Minute      // of Vault
	handover      = 2 * time.Second  // in which no instance of the provider on a node does anything by itself
	boots         = 2 * time.Minute  // in which all nodes of a cluster come back
	upgraded      = 30 * time.Minute // in which all nodes get a new provider, one after the other
)

// part is a stretch of a simulation that is told of.
type part struct {
	name     string
	from, to time.Duration
}

// scenario is something that happens to a fleet.
type scenario struct {
	name  string
	begin func(f *fleet)
	parts func(ttl time.Duration) []part
}

// interval is how long it takes at most until something is renewed once more.
func interval(ttl time.Duration) time.Duration {
	return time.Duration(0.67 * float64(ttl)).Round(time.Second)
}

var scenarios = []scenario{
	{"steady", func(*fleet) {}, func(ttl time.Duration) []part {
		return []part{{"steady", settled, settled + min(interval(ttl), 2*time.Hour)}}
	}},
	{"vault-restart", func(f *fleet) {
		f.away = window{f.start.Add(settled), f.start.Add(settled + outage)}
	}, func(time.Duration) []part {
		back := settled + outage
		return []part{{"first minute", back, back + time.Minute}, {"second minute", back + time.Minute, back + 2*time.Minute}}
	}},
	{"rolling-upgrade", func(f *fleet) {
		for i := range f.nodes {
			f.upgrade(i, f.start.Add(settled+upgraded*time.Duration(i)/time.Duration(len(f.nodes))), handover)
		}
	}, func(time.Duration) []part {
		return []part{{"upgrade", settled, settled + upgraded}}
	}},
	{"all-providers-at-once", func(f *fleet) {
		for i := range f.nodes {
			f.upgrade(i, f.start.Add(settled), 10*handover)
		}
	}, func(time.Duration) []part {
		return []part{{"first minute back", settled + 10*handover, settled + 10*handover + time.Minute}}
	}},
	{"cluster-restart", func(f *fleet) {
		for i := range f.nodes {
			f.boot(i, f.start.Add(settled+boots*time.Duration(i)/time.Duration(len(f.nodes))))
		}
	}, func(ttl time.Duration) []part {
		parts := []part{{"first mounts", settled, settled + boots + time.Second}}
		// A wave: the first renewals of what was made at a start come in this time, and so on.
		for wave := range 3 {
			n := time.Duration(wave + 1)
			first := settled + n*time.Duration(float64(interval(ttl))*(1-spread))
			parts = append(parts, part{fmt.Sprintf("renewal %d", n), first.Truncate(time.Second), settled + boots + n*interval(ttl) + time.Second})
		}
		return parts
	}},
}

// TestSimulation tells what many nodes ask of Vault. With SIMULATE=all it prints the figures of fleets of 10 to 10,000 nodes,
// as "make simulate" does; else it looks at the smallest alone. Whatever the size, it holds the figures to what the policy
// promises.
func TestSimulation(t *testing.T) {
	sizes := []int{10}
	all := os.Getenv("SIMULATE") == "all"
	if all {
		sizes = []int{10, 1000, 10000}
	}
	for _, ttl := range []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour} {
		for _, nodes := range sizes {
			each := 2 * float64(nodes*volumesOfNode) / (0.67 * (1 - spread/2) * ttl.Seconds()) // requests a second, if evenly spread
			for _, s := range scenarios {
				f := newFleet(nodes, volumesOfNode, ttl)
				s.begin(f)
				parts := s.parts(ttl)
				f.run(f.start.Add(parts[len(parts)-1].to))
				for _, p := range parts {
					l := f.between(p.from, p.to)
					if all {
						fmt.Printf("simulate nodes %d volumes %d lease %s %s (%s): mean %s/s peak %s/s requests %d, evenly spread %s/s\n",
							nodes, volumesOfNode, short(ttl), s.name, p.name, figure(l.mean), figure(l.peak), l.requests, figure(each))
					}
					judge(t, fmt.Sprintf("%d nodes, leases of %v, %s (%s)", nodes, ttl, s.name, p.name), s.name, p, l, each, nodes)
				}
			}
		}
	}
}

// judge holds a load to what the policy promises.
func judge(t *testing.T, name, scenario string, p part, l load, each float64, nodes int) {
	t.Helper()
	expected := each * (p.to - p.from).Seconds()
	noise := 5 * math.Sqrt(expected+1) // of a count that is spread at random
	switch {
	case scenario == "steady" || scenario == "rolling-upgrade":
		if math.Abs(float64(l.requests)-expected) > noise+0.02*expected {
			t.Errorf("%s: got %d requests, want some %.0f", name, l.requests, expected)
		}
		if most := each + 6*math.Sqrt(each+1) + 3; l.peak > most {
			t.Errorf("%s: got %.0f requests in a second, want no more than %.0f", name, l.peak, most)
		}
	case p.name == "first mounts":
		if want := 2 * nodes * volumesOfNode; l.requests < want || float64(l.requests) > 1.01*float64(want)+noise+expected {
			t.Errorf("%s: got %d requests, want a login and a read for each volume, %d", name, l.requests, want)
		}
	case strings.HasPrefix(p.name, "first minute"):
		// What was held up comes in, once.
		if l.requests == 0 && expected > noise {
			t.Errorf("%s: got no request", name)
		}
		if most := expected*(1+outage.Minutes()) + 2*noise; float64(l.requests) > 1.1*most+10 {
			t.Errorf("%s: got %d requests, want no more than what has come due, %.0f", name, l.requests, most)
		}
	}
}

// The fleet is a model. Here the keeper itself, in virtual time and with the fake Vault, does the same.
func TestSimulationIsHonest(t *testing.T) {
	const (
		volumes, ttl = 60, time.Hour
		length       = 12 * time.Hour
		outage       = 15 * time.Minute // in which much comes due, and nothing ends
	)
	var steady, after int // of the keeper: renewals of tokens in that time, and requests in the minute after an outage
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "0"})
		w.vault.Write("database/roles/app", vaulttest.Data{"default_ttl": "1h", "max_ttl": "8760h"})
		w.run()
		for i := range volumes { // one after the other, so that they are spread
			w.mounted(fmt.Sprint("pod", i), of(spec.Source{Method: userSource.Method, Path: userPath}))
			time.Sleep(interval(ttl) / volumes)
		}
		w.take()
		time.Sleep(length)
		steady = count(w.take(), "renewed token ok")
		w.network.cut(true)
		time.Sleep(outage)
		w.network.cut(false)
		w.take()
		time.Sleep(time.Minute)
		for _, outcome := range w.take() {
			if strings.HasSuffix(outcome, " ok") {
				after++
			}
		}
	})
	f := newFleet(1, volumes, ttl)
	f.away = window{f.start.Add(length), f.start.Add(length + outage)}
	f.run(f.start.Add(length + outage + time.Minute))
	model := f.between(0, length).requests / 2 // half of them are those of tokens
	if math.Abs(float64(steady-model)) > 0.03*float64(model) {
		t.Errorf("renewals of tokens in %v: the keeper made %d, the model %d", length, steady, model)
	}
	caughtUp := f.between(length+outage, length+outage+time.Minute).requests
	t.Logf("in %v: the keeper renewed %d tokens, the model %d; in the minute after an outage %d and %d requests", length, steady, model, after, caughtUp)
	if math.Abs(float64(after-caughtUp)) > 5*math.Sqrt(float64(caughtUp)) {
		t.Errorf("requests in the minute after an outage: the keeper made %d, the model %d", after, caughtUp)
	}
}

// short writes whole hours or minutes.
func short(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// figure writes requests a second with as many digits as mean something.
func figure(x float64) string {
	switch {
	case x >= 10:
		return fmt.Sprintf("%.0f", x)
	case x >= 1:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.3f", x)
}
