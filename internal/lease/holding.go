package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Holding is one Vault token and all that was granted to it. The leases are children of the token, so that whoever
// revokes the token gives everything back.
type Holding struct {
	session *client.Session
	volume  *Volume

	requests sync.WaitGroup // requests on their way under this token

	mu      sync.Mutex // guards what follows; never held across a call to Vault
	token   term
	renewal renewal // of the token
	grants  map[spec.Source]*held
	flights map[spec.Source]*flight[client.Grant]
	size    int       // bytes of all grants
	behind  time.Time // a grant has come then whose old one the files are still made of; zero: none
	// overtaken has, for each such source, when the old grant ends.
	overtaken map[spec.Source]time.Time
	doubted   bool // Vault has, or may have, granted a lease that is not in grants
	dead      bool // Vault does not know the token any more
}

// held is a grant with its term.
type held struct {
	client.Grant
	term
	renewal renewal
}

// renewal is where the renewing of a token or a lease stands.
type renewal struct {
	busy    bool      // on its way
	after   time.Time // the last try failed: not before
	trouble trouble   // of the last try
}

func newHolding(v *Volume, s *client.Session) *Holding {
	return &Holding{
		session: s, volume: v, token: tokenTerm(s),
		grants:    make(map[spec.Source]*held),
		flights:   make(map[spec.Source]*flight[client.Grant]),
		overtaken: make(map[spec.Source]time.Time),
	}
}

// Vault is where the token is from, and who logged in with what.
func (h *Holding) Vault() spec.Vault { return h.session.Vault() }

// Since returns when the login was answered.
func (h *Holding) Since() time.Time { return h.session.Start() }

// Token returns the Vault token, for a pod that is to have it.
func (h *Holding) Token() redact.String { return h.session.Token() }

// Read returns the grant of a source. A grant that is not due costs no request; concurrent Reads of one source share
// one. The request does not end with ctx: a late answer lands in the holding, where the next Read finds it.
//
// While Vault does not answer, a grant that is due but not over is returned as it is.
func (h *Holding) Read(ctx context.Context, source spec.Source) (client.Grant, error) {
	life := h.volume.lifecycle()
	now := time.Now()
	h.mu.Lock()
	var old held
	g, found := h.grants[source]
	if found {
		if old = *g; !old.isDue(life, now) {
			h.mu.Unlock()
			return old.Grant, nil
		}
	}
	f, flying := h.flights[source]
	if !flying {
		name := fmt.Sprintf("read %q", source.Path)
		f = depart(&h.requests, name, func() (client.Grant, error) { return h.fetch(context.WithoutCancel(ctx), source) })
		h.flights[source] = f
	}
	h.mu.Unlock()
	h.volume.asked()

	fresh, err := f.wait(ctx)
	if err != nil && found && !h.isOver(old.term, time.Now()) && unanswered(err) {
		h.volume.excuse(err)
		return old.Grant, nil
	}
	return fresh, err
}

// Remembered returns the grant of a source as it was read last, whatever is due.
func (h *Holding) Remembered(source spec.Source) (client.Grant, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, found := h.grants[source]
	if !found {
		return client.Grant{}, false
	}
	return g.Grant, true
}

// fetch asks Vault, keeps the answer and writes it down.
func (h *Holding) fetch(ctx context.Context, source spec.Source) (client.Grant, error) {
	returned := false
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.flights, source)
		h.doubted = h.doubted || !returned // a panic took the answer along, and maybe a lease with it
	}()
	grant, err := h.session.Read(ctx, source)
	var fresh *held
	if err == nil {
		fresh = &held{Grant: grant, term: grantTerm(grant).following(h.before(source))}
	}
	returned = true

	if err == nil {
		err = h.admit(source, fresh)
	}
	h.mu.Lock()
	h.doubted = h.doubted || err != nil && grant.LeaseID != "" // which there was no room for
	if failure := (*client.Error)(nil); errors.As(err, &failure) {
		h.doubted = h.doubted || failure.InDoubt
		h.dead = h.dead || failure.Kind == client.Expired
	}
	h.mu.Unlock()
	if err == nil {
		h.volume.arrived(h)
		err = h.volume.update()
	}
	h.volume.keeper.touch(h.volume)
	return grant, err
}

// before is the term of what the source has granted to this token, or else to the one of the same Vault and role that the
// volume shows; the zero term if nothing.
func (h *Holding) before(source spec.Source) term {
	if t := h.termOf(source); t.Kind != "" {
		return t
	}
	v := h.volume
	v.mu.Lock()
	shown := v.shown
	v.mu.Unlock()
	if shown == nil || shown.session.Vault() != h.session.Vault() {
		return term{}
	}
	return shown.termOf(source)
}

// termOf is the term of what the source has granted to this token; the zero term if nothing.
func (h *Holding) termOf(source spec.Source) term {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, found := h.grants[source]; found {
		return g.term
	}
	return term{}
}

// keep puts a grant in the place of the source's old one, if there is room; h.mu is held.
func (h *Holding) keep(source spec.Source, fresh *held) error {
	size := h.sizeWith(source, fresh)
	old, found := h.grants[source]
	if size > maxSize {
		return &client.Error{
			Kind: client.Rejected, Op: "read", Path: source.Path,
			Reasons: []string{fmt.Sprintf("the answers for this volume have more than %d bytes together: "+
				"read smaller secrets, or split the class in two", maxSize)},
		}
	}
	h.size = size
	h.grants[source] = fresh
	if found && h.behind.IsZero() {
		h.behind = fresh.Start
	}
	if _, known := h.overtaken[source]; found && !known {
		if end := h.endOf(old.term); !end.IsZero() {
			h.overtaken[source] = end
		}
	}
	return nil
}

// retain forgets the grants of all other sources: the files are made of these now. The leases of the others end with the
// token. It tells whether the files are made of something newer than before.
func (h *Holding) retain(made []client.Grant) (newer bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	newer = !h.behind.IsZero()
	maps.DeleteFunc(h.grants, func(source spec.Source, g *held) bool {
		used, late := false, false
		for _, m := range made {
			if m.Source == source {
				// An answer that came after its source had been served from the old grant is not in the files yet.
				used, late = true, late || !m.Obtained.Equal(g.Obtained)
			}
		}
		if late {
			newer = false
		} else {
			delete(h.overtaken, source)
		}
		if !used {
			h.size -= len(g.Data.Reveal())
		}
		return !used
	})
	if newer {
		h.behind = time.Time{}
	}
	return newer
}

// forget drops all grants: large ones take the room of others.
func (h *Holding) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.grants)
	clear(h.overtaken)
	h.size = 0
}

// isBehind tells whether a grant has come whose old one the files are still made of.
func (h *Holding) isBehind() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.behind.IsZero()
}

// inDoubt tells whether the token may have leases that the holding knows nothing of.
func (h *Holding) inDoubt() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.doubted
}

// serves tells whether the holding's token is for this Vault and identity, and still works.
func (h *Holding) serves(vault spec.Vault, now time.Time) bool {
	if h == nil || h.session.Vault() != vault {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.dead && !h.token.isOver(now)
}

// isDue tells whether the token or a grant of the sources is to be replaced, is missing, or has come but is not shown yet.
func (h *Holding) isDue(life spec.Lifecycle, sources []spec.Source, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || h.token.isDue(life, now) || !h.behind.IsZero() {
		return true
	}
	return slices.ContainsFunc(sources, func(s spec.Source) bool {
		g, found := h.grants[s]
		return !found || g.isDue(life, now)
	})
}

// IsQuiet tells whether nothing of what the holding has is due, and none of the named sources is missing in it: who reads them
// waits for nobody.
func (h *Holding) IsQuiet(named []spec.Source) bool {
	h.mu.Lock()
	sources := slices.AppendSeq(slices.Clone(named), maps.Keys(h.grants))
	h.mu.Unlock()
	return !h.isDue(h.volume.lifecycle(), sources, time.Now())
}

// wantsSuccessor tells whether a new token is better than this one: it is to be replaced itself, or a grant is, and the
// token would end before the first renewal of the new one.
func (h *Holding) wantsSuccessor(life spec.Lifecycle, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || h.token.isDue(life, now) {
		return true
	}
	if action, _ := h.token.next(life); action == Renew || h.token.End.IsZero() {
		return false
	}
	left := h.token.End.Sub(now)
	for _, g := range h.grants {
		if g.Kind == kindLease && g.isDue(life, now) && left < time.Duration(float64(g.Full)*life.RenewAt) {
			return true
		}
	}
	return false
}

// isOver tells whether a grant does not work any more: a lease ends with its token.
func (h *Holding) isOver(t term, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.endOf(t).Before(now) && !h.endOf(t).IsZero()
}

// endOf is when a grant ends, zero for never; h.mu is held. What has no lease does not end with the token.
func (h *Holding) endOf(t term) time.Time {
	if t.Kind != kindLease {
		return t.End
	}
	if h.dead {
		return t.Start
	}
	return sooner(t.End, h.token.End)
}

// end is when the first of what the files are made of ends: the token or a grant; zero for never.
func (h *Holding) end() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	var end time.Time
	for source, g := range h.grants {
		end = sooner(end, sooner(h.overtaken[source], h.endOf(g.term)))
	}
	return end
}

// tokenEnd is when the token ends by itself, zero for never.
func (h *Holding) tokenEnd() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token.End
}

// release gives the token back, and with it all of its leases. It waits for the requests on their way first: a lease
// that is granted while its token is being revoked might outlive it.
func (h *Holding) release(ctx context.Context) error {
	h.requests.Wait()
	return h.session.Revoke(ctx)
}

// unanswered tells whether err means that Vault had no answer to give yet, as opposed to an answer that we do not like.
func unanswered(err error) bool {
	return client.KindOf(err) == client.Unavailable || errors.Is(err, errNodeFull) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
