package lease

import (
	"cmp"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// How long Vault takes for a request that it has the time for, as measured with PostgreSQL on a machine of two cores.
const (
	loginTakes  = 1400 * time.Microsecond
	userTakes   = 21 * time.Millisecond
	renewTakes  = 2300 * time.Microsecond
	revokeTakes = 1500 * time.Microsecond
	noneTakes   = 200 * time.Microsecond // to find that there is no Vault
)

// mostMounting is how many requests of a node's Mounts are in flight to one Vault at most: -vault-max-in-flight.
const mostMounting = 32

// fleet is many nodes in virtual time. Each volume has a token and a lease. When what is due, how it is spread, how much of
// it is on its way at once and how a Vault in trouble is left alone is the keeper's own code: term, traffic and the waits of
// schedule.go. What the fleet adds is a clock, a heap of events, and a Vault that answers after a fixed time, however many
// ask: so the figures are what the nodes would ask of a Vault that is never busy. One that is busy makes them wait, which
// only spreads them more.
type fleet struct {
	life    spec.Lifecycle
	ttl     time.Duration // of tokens and leases; nothing ends their being renewed
	start   time.Time     // of the simulation
	now     time.Time
	away    window // when Vault does not answer
	nodes   []fleetNode
	volumes []fleetVolume
	events  events
	seconds []int32 // :: seconds since the start -> requests that Vault has seen
}

// window is a time from, to.
type window struct{ from, to time.Time }

func (w window) has(t time.Time) bool { return !t.Before(w.from) && t.Before(w.to) }

type fleetNode struct {
	traffic  traffic
	queue    []fleetErrand // what may not go yet
	wakes    time.Time     // when the queue is looked at again; zero: with the next answer
	absent   window        // an instance of the provider has ended, and the next one does not work yet
	mounting []int32       // volumes that wait for their first Mount
	flying   int           // first Mounts that are at work
}

type fleetVolume struct {
	node         int32
	mounted      bool
	token, lease term
	busy         [4]bool   // by what: it waits or is on its way
	planned      time.Time // when it is looked at; zero: not before something happens
}

// what there is to do for a volume.
type what int8

const (
	renewToken what = iota
	renewLease
	replaceAll // a login and new credentials: the token or the lease has ended
	revokeOld
)

type fleetErrand struct {
	volume int32
	what   what
	step   int8 // of replaceAll: 0 is the login, 1 the credentials
	failed bool
	end    time.Time
}

// newFleet makes nodes whose volumes have been there for long: something of them is due at one time as much as at another.
func newFleet(nodes, each int, ttl time.Duration) *fleet {
	f := &fleet{
		life: spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67, RevokeGrace: 10 * time.Minute},
		ttl:  ttl, start: time.Unix(1_800_000_000, 0), nodes: make([]fleetNode, nodes), volumes: make([]fleetVolume, nodes*each),
	}
	f.now = f.start
	for i := range f.nodes {
		f.nodes[i].traffic.waiting = make(map[*Volume]struct{})
	}
	for i := range f.volumes {
		v := &f.volumes[i]
		v.node, v.mounted = int32(i/each), true
		v.token, v.lease = f.old(kindToken), f.old(kindLease)
		f.look(int32(i))
	}
	return f
}

// fresh is the term of what Vault has just granted.
func (f *fleet) fresh(k kind) term {
	return term{Kind: k, Start: f.now, End: f.now.Add(f.ttl), Full: f.ttl, Renewable: true, Early: mathrand.Float64()}
}

// old is the term of what was granted or prolonged at any moment since which it need not be prolonged again.
func (f *fleet) old(k kind) term {
	t := f.fresh(k)
	_, due := t.next(f.life)
	age := time.Duration(mathrand.Float64() * float64(due.Sub(t.Start)))
	t.Start, t.End = t.Start.Add(-age), t.End.Add(-age)
	return t
}

// event is something that happens at a time.
type event struct {
	at     time.Time
	happen happening
	index  int32 // of a volume or a node
	errand fleetErrand
	err    error
}

type happening int8

const (
	lookAtVolume happening = iota
	wakeNode
	landErrand
	landMount
	bootNode
	resumeNode
	giveBack // what was replaced
)

// run goes on until a time.
func (f *fleet) run(until time.Time) {
	for f.events.len() > 0 && f.events.first().at.Before(until) {
		e := f.events.pop()
		f.now = e.at
		switch e.happen {
		case lookAtVolume:
			if v := &f.volumes[e.index]; v.planned.Equal(e.at) {
				v.planned = time.Time{}
				f.look(e.index)
			}
		case wakeNode:
			if n := &f.nodes[e.index]; n.wakes.Equal(e.at) {
				n.wakes = time.Time{}
				f.dispatch(n)
			}
		case landErrand:
			f.land(e)
		case landMount:
			f.landMount(e)
		case bootNode:
			f.mount(&f.nodes[e.index])
		case resumeNode:
			f.resume(e.index)
		case giveBack:
			n := &f.nodes[f.volumes[e.index].node]
			f.queue(n, fleetErrand{volume: e.index, what: revokeOld, end: e.at})
			f.dispatch(n)
		}
	}
	f.now = until
}

// look does what consider does for a volume of whose pod nothing is new.
func (f *fleet) look(index int32) {
	v := &f.volumes[index]
	n := &f.nodes[v.node]
	if !v.mounted || n.absent.has(f.now) {
		return // it is looked at when it is mounted, or when the next instance works
	}
	var again time.Time
	renew := func(w what, t term) {
		action, at := t.next(f.life)
		switch {
		case action != Renew || v.busy[w] || t.isOver(f.now):
		case at.After(f.now):
			again = sooner(again, at)
		default:
			f.queue(n, fleetErrand{volume: index, what: w, end: t.End})
		}
	}
	renew(renewToken, v.token)
	renew(renewLease, v.lease)
	if end := sooner(v.token.End, v.lease.End); !v.busy[replaceAll] {
		if end.After(f.now) {
			again = sooner(again, end)
		} else {
			f.queue(n, fleetErrand{volume: index, what: replaceAll, end: end})
		}
	}
	if !again.IsZero() && (v.planned.IsZero() || again.Before(v.planned)) {
		v.planned = again
		f.events.push(event{at: again, happen: lookAtVolume, index: index})
	}
	f.dispatch(n)
}

func (f *fleet) queue(n *fleetNode, e fleetErrand) {
	f.volumes[e.volume].busy[e.what] = true
	n.queue = append(n.queue, e)
}

// dispatch does what dispatch does for one Vault.
func (f *fleet) dispatch(n *fleetNode) {
	if len(n.queue) == 0 || n.absent.has(f.now) {
		return
	}
	slices.SortStableFunc(n.queue, func(a, b fleetErrand) int {
		if a.failed != b.failed {
			if a.failed {
				return 1
			}
			return -1
		}
		return a.end.Compare(b.end)
	})
	for len(n.queue) > 0 && n.traffic.admit(nil, f.now) {
		e := n.queue[0]
		n.queue = n.queue[1:]
		f.ask(e)
	}
	if len(n.queue) > 0 && n.traffic.calm.After(f.now) && (n.wakes.IsZero() || n.traffic.calm.Before(n.wakes)) {
		n.wakes = n.traffic.calm
		f.events.push(event{at: n.wakes, happen: wakeNode, index: f.volumes[n.queue[0].volume].node})
	}
}

// ask sends an errand's next request.
func (f *fleet) ask(e fleetErrand) {
	takes := renewTakes
	switch {
	case e.what == replaceAll && e.step == 0:
		takes = loginTakes
	case e.what == replaceAll:
		takes = userTakes
	case e.what == revokeOld:
		takes = revokeTakes
	}
	err := f.request(&takes)
	f.events.push(event{at: f.now.Add(takes), happen: landErrand, errand: e, err: err})
}

// request is a request to Vault. It is not counted while there is none.
func (f *fleet) request(takes *time.Duration) error {
	if f.away.has(f.now) {
		*takes = noneTakes
		return &client.Error{Kind: client.Unavailable, Status: http.StatusServiceUnavailable}
	}
	second := int(f.now.Sub(f.start) / time.Second)
	for len(f.seconds) <= second {
		f.seconds = append(f.seconds, 0)
	}
	f.seconds[second]++
	return nil
}

// land is the answer to an errand's request.
func (f *fleet) land(e event) {
	errand := e.errand
	v := &f.volumes[errand.volume]
	n := &f.nodes[v.node]
	if e.err == nil && errand.what == replaceAll && errand.step == 0 {
		errand.step = 1
		f.ask(errand)
		return
	}
	n.traffic.landed(e.err, f.now)
	n.traffic.flying--
	if e.err != nil {
		errand.failed, errand.step = true, 0
		n.queue = append(n.queue, errand)
		f.dispatch(n)
		return
	}
	v.busy[errand.what] = false
	prolonged := client.Renewal{Duration: f.ttl, Renewable: true}
	switch errand.what {
	case renewToken:
		v.token = v.token.renewed(prolonged, f.now)
	case renewLease:
		v.lease = v.lease.renewed(prolonged, f.now)
	case replaceAll:
		v.token, v.lease = f.fresh(kindToken), f.fresh(kindLease)
		f.events.push(event{at: f.now.Add(f.life.RevokeGrace), happen: giveBack, index: errand.volume})
	case revokeOld:
		f.dispatch(n)
		return
	}
	f.look(errand.volume)
	f.dispatch(n)
}

// mount begins a node's first Mounts as far as they may be at work at once.
func (f *fleet) mount(n *fleetNode) {
	for n.flying < mostMounting && len(n.mounting) > 0 {
		n.flying++
		volume := n.mounting[0]
		n.mounting = n.mounting[1:]
		takes := loginTakes
		err := f.request(&takes)
		f.events.push(event{at: f.now.Add(takes), happen: landMount, errand: fleetErrand{volume: volume, what: replaceAll}, err: err})
	}
}

// landMount is the answer to a first Mount's request.
func (f *fleet) landMount(e event) {
	v := &f.volumes[e.errand.volume]
	if e.errand.step == 0 {
		takes := userTakes
		e.errand.step = 1
		e.err = f.request(&takes)
		e.at = f.now.Add(takes)
		f.events.push(e)
		return
	}
	n := &f.nodes[v.node]
	n.flying--
	v.mounted, v.token, v.lease = true, f.fresh(kindToken), f.fresh(kindLease)
	f.look(e.errand.volume)
	f.mount(n)
}

// boot has a node start anew at a time: its journal is gone with its memory, and all its pods start again.
func (f *fleet) boot(node int, at time.Time) {
	n := &f.nodes[node]
	each := len(f.volumes) / len(f.nodes)
	n.queue = nil
	for i := node * each; i < (node+1)*each; i++ {
		f.volumes[i] = fleetVolume{node: int32(node)}
		n.mounting = append(n.mounting, int32(i))
	}
	f.events.push(event{at: at, happen: bootNode, index: int32(node)})
}

// upgrade has another instance of a node's provider take over: nothing is done in between, and the journal has all.
func (f *fleet) upgrade(node int, at time.Time, takes time.Duration) {
	f.nodes[node].absent = window{at, at.Add(takes)}
	f.events.push(event{at: at.Add(takes), happen: resumeNode, index: int32(node)})
}

// resume takes over what the journal has.
func (f *fleet) resume(node int32) {
	each := int32(len(f.volumes) / len(f.nodes))
	f.nodes[node].queue = nil
	for i := node * each; i < (node+1)*each; i++ {
		v := &f.volumes[i]
		v.token, v.lease = v.token.restored(f.life, f.now), v.lease.restored(f.life, f.now)
		for _, w := range []what{renewToken, renewLease, replaceAll} {
			v.busy[w] = false
		}
		f.look(i)
	}
}

// load is what Vault has seen in a time: requests a second, and all of them.
type load struct {
	mean, peak float64
	requests   int
}

// between is the load from one time to another, both in whole seconds.
func (f *fleet) between(from, to time.Duration) load {
	var l load
	first, last := int(from/time.Second), int(to/time.Second)
	for i := first; i < min(last, len(f.seconds)); i++ {
		l.requests += int(f.seconds[i])
		l.peak = max(l.peak, float64(f.seconds[i]))
	}
	l.mean = float64(l.requests) / float64(last-first)
	return l
}

// events is a heap of events, the soonest first. Millions of them are alive at once, so it is one of values.
type events struct{ heap []event }

func (e *events) len() int      { return len(e.heap) }
func (e *events) first() *event { return &e.heap[0] }

func (e *events) push(next event) {
	e.heap = append(e.heap, next)
	for i := len(e.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if e.compare(parent, i) <= 0 {
			return
		}
		e.heap[parent], e.heap[i] = e.heap[i], e.heap[parent]
		i = parent
	}
}

func (e *events) pop() event {
	first, last := e.heap[0], len(e.heap)-1
	e.heap[0] = e.heap[last]
	e.heap[last] = event{}
	e.heap = e.heap[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if e.compare(child, least) < 0 {
				least = child
			}
		}
		if least == i {
			return first
		}
		e.heap[i], e.heap[least] = e.heap[least], e.heap[i]
		i = least
	}
}

func (e *events) compare(i, j int) int {
	return cmp.Compare(e.heap[i].at.UnixNano(), e.heap[j].at.UnixNano())
}
