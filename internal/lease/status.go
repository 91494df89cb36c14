package lease

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"leasehold/internal/spec"
)

// Status is what a volume holds and what the keeper is about to do with it, without secrets.
type Status struct {
	Namespace, Pod, UID string
	Target              string // the volume's path on the node
	Vault, Role         string // address, and the role that logs in
	Ended               bool   // the pod has ended: what is left is being given back
	Items               []Item
	Error               string    // the last one of renewing, replacing or giving back; "" when that has worked since
	ErrorAt             time.Time //
}

// Item is one token, or one thing that was granted to it.
type Item struct {
	Kind   string    // "token", "lease", "certificate", "static" or "secret"
	Source string    // the Vault path; of a token its accessor
	State  string    // one of the states below
	End    time.Time // when it ends if nothing is done; zero: nobody knows of an end
	Next   string    // "renew", "replace" or "revoke"; "" for nothing
	At     time.Time // when that is planned
}

// The states of an item.
const (
	StateHeld     = "held"
	StateDue      = "due"      // to be replaced, and it has not been yet
	StateOver     = "over"     // it does not work any more
	StateUnwanted = "unwanted" // to be given back
)

// Status returns what there is of each volume, sorted by pod and path.
func (k *Keeper) Status() []Status {
	now := time.Now()
	volumes := k.snapshot()
	all := make([]Status, 0, len(volumes))
	for _, v := range volumes {
		all = append(all, v.status(now))
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod), strings.Compare(a.UID, b.UID),
			strings.Compare(a.Target, b.Target))
	})
	return all
}

func (v *Volume) status(now time.Time) Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	pod, vault, life := v.mount.Pod, v.mount.Class.Vault, v.mount.Class.Lifecycle
	s := Status{
		Namespace: pod.Namespace, Pod: pod.Name, UID: pod.UID, Target: v.key.Target,
		Vault: vault.Address, Role: vault.Role, Ended: v.ended,
	}
	last := v.refilling.trouble
	for _, h := range []*Holding{v.shown, v.next} {
		if h != nil {
			s.Items = append(s.Items, h.items(life, now)...)
			last = last.or(h.trouble())
		}
	}
	var unwanted []Item
	for h, d := range v.unwanted {
		last = last.or(d.trouble)
		unwanted = append(unwanted, Item{
			Kind: string(kindToken), Source: h.session.Accessor(), State: StateUnwanted, End: h.tokenEnd(), Next: "revoke", At: d.at,
		})
	}
	slices.SortFunc(unwanted, func(a, b Item) int { return strings.Compare(a.Source, b.Source) })
	s.Items = append(s.Items, unwanted...)
	if last.err != nil {
		s.Error, s.ErrorAt = last.err.Error(), last.at
	}
	return s
}

// trouble is what something failed with when it was tried the last time; nil if it did not.
type trouble struct {
	err error
	at  time.Time
}

// or returns the newer one of two troubles.
func (t trouble) or(other trouble) trouble {
	if t.err == nil || other.err != nil && other.at.After(t.at) {
		return other
	}
	return t
}

// trouble is the newest one of renewing.
func (h *Holding) trouble() trouble {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.renewal.trouble
	for _, g := range h.grants {
		last = last.or(g.renewal.trouble)
	}
	return last
}

// items returns the token and then its grants, by path.
func (h *Holding) items(life spec.Lifecycle, now time.Time) []Item {
	h.mu.Lock()
	defer h.mu.Unlock()
	item := func(t term, source string, end time.Time) Item {
		action, at := t.next(life)
		i := Item{Kind: string(t.Kind), Source: source, State: StateHeld, End: end, Next: action.String(), At: at}
		switch {
		case h.dead && (t.Kind == kindToken || t.Kind == kindLease), !end.IsZero() && !now.Before(end):
			i.State = StateOver
		case t.isDue(life, now):
			i.State = StateDue
		}
		return i
	}
	items := []Item{item(h.token, h.session.Accessor(), h.token.End)}
	var grants []Item
	for source, g := range h.grants {
		i := item(g.term, source.Path, h.endOf(g.term))
		if end, overtaken := h.overtaken[source]; overtaken { // the files are still made of the one before
			i.State, i.End, i.Next, i.At = StateDue, end, Replace.String(), h.behind
			if !now.Before(end) {
				i.State = StateOver
			}
		}
		grants = append(grants, i)
	}
	slices.SortFunc(grants, func(a, b Item) int { return strings.Compare(a.Source, b.Source) })
	return append(items, grants...)
}
