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
	"leasehold/internal/spec"
)

// Holding is one Vault token and all that was granted to it. The leases are children of the token, so that whoever
// revokes the token gives everything back.
type Holding struct {
	session *client.Session
	life    span
	stale   func() // counts an answer from an old grant

	requests sync.WaitGroup // requests on their way under this token

	mu      sync.Mutex // guards what follows; never held across a call to Vault
	grants  map[spec.Source]held
	flights map[spec.Source]*flight[client.Grant]
	size    int  // bytes of all grants
	doubted bool // Vault may have granted a lease whose answer was lost
	dead    bool // Vault does not know the token any more
}

// held is a grant with its span, which costs a parse to find out.
type held struct {
	client.Grant
	span
}

func newHolding(s *client.Session, stale func()) *Holding {
	return &Holding{
		session: s,
		life:    twoThirds(s.Start(), s.End()),
		stale:   stale,
		grants:  make(map[spec.Source]held),
		flights: make(map[spec.Source]*flight[client.Grant]),
	}
}

// Read returns the grant of a source. A grant that is not due costs no request; concurrent Reads of one source share
// one. The request does not end with ctx: a late answer lands in the holding, where the next Read finds it.
//
// While Vault does not answer, a grant that is due but not over is returned as it is.
func (h *Holding) Read(ctx context.Context, source spec.Source) (client.Grant, error) {
	now := time.Now()
	h.mu.Lock()
	old, found := h.grants[source]
	if found && !old.isDue(now) {
		h.mu.Unlock()
		return old.Grant, nil
	}
	f, flying := h.flights[source]
	if !flying {
		name := fmt.Sprintf("read %q", source.Path)
		f = depart(&h.requests, name, func() (client.Grant, error) { return h.fetch(context.WithoutCancel(ctx), source) })
		h.flights[source] = f
	}
	h.mu.Unlock()

	fresh, err := f.wait(ctx)
	if err != nil && found && !old.isOver(time.Now()) && unanswered(err) {
		h.stale()
		return old.Grant, nil
	}
	return fresh, err
}

// maxSize is how many bytes the grants of one volume may have. Its files may have 1 MiB, but a file may be one small
// field of a large answer, and the memory is one of the node's for all of its volumes.
const maxSize = 8 << 20

// fetch asks Vault and keeps the answer.
func (h *Holding) fetch(ctx context.Context, source spec.Source) (client.Grant, error) {
	returned := false
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.flights, source)
		h.doubted = h.doubted || !returned // a panic took the answer along, and maybe a lease with it
	}()
	grant, err := h.session.Read(ctx, source)
	var fresh held
	if err == nil {
		fresh = held{grant, grantSpan(grant)}
	}
	returned = true

	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		err = h.keep(source, fresh)
	}
	if failure := (*client.Error)(nil); errors.As(err, &failure) {
		h.doubted = h.doubted || failure.InDoubt
		h.dead = h.dead || failure.Kind == client.Expired
	}
	return grant, err
}

// keep puts a grant in the place of the source's old one, if there is room; h.mu is held.
func (h *Holding) keep(source spec.Source, fresh held) error {
	size := h.size - len(h.grants[source].Data.Reveal()) + len(fresh.Data.Reveal())
	if size > maxSize {
		return &client.Error{
			Kind: client.Rejected, Op: "read", Path: source.Path,
			Reasons: []string{fmt.Sprintf("the answers for this volume have more than %d bytes together: "+
				"read smaller secrets, or split the class in two", maxSize)},
		}
	}
	h.size = size
	h.grants[source] = fresh
	return nil
}

// retain forgets the grants of all other sources. Their leases end with the token.
func (h *Holding) retain(sources []spec.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.grants, func(source spec.Source, g held) bool {
		gone := !slices.Contains(sources, source)
		if gone {
			h.size -= len(g.Data.Reveal())
		}
		return gone
	})
}

// inDoubt tells whether the token may have leases that the holding knows nothing of.
func (h *Holding) inDoubt() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.doubted
}

// serves tells whether the holding's token is for this Vault and identity, and still works.
func (h *Holding) serves(vault spec.Vault, now time.Time) bool {
	if h == nil || h.session.Vault() != vault || h.life.isOver(now) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.dead
}

// release gives the token back, and with it all of its leases. It waits for the requests on their way first: a lease
// that is granted while its token is being revoked might outlive it.
func (h *Holding) release(ctx context.Context) error {
	h.requests.Wait()
	return h.session.Revoke(ctx)
}

// unanswered tells whether err means that Vault had no answer to give yet, as opposed to an answer that we do not like.
func unanswered(err error) bool {
	return client.KindOf(err) == client.Unavailable || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
