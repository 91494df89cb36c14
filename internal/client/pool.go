// Package client speaks to Vault.
//
// A [Pool] holds the connections. [Pool.Login] turns a pod's service account token into a [Session], which is one
// Vault token; [Session.Read] asks for one source and [Session.Revoke] gives the token back, and with it everything
// that was obtained by it. Every error is an [*Error], whose [Kind] says what to do next.
//
// Two rules shape the package. A request may make a database user, so nothing is ever sent twice without anybody's
// knowing: there are no retries here, and [Error.InDoubt] tells when Vault may have done what it was asked. And
// addresses, paths and files are chosen by tenants, within the operator's limits, so the environment variables VAULT_*,
// which Vault's own library obeys, have no say in a request.
package client

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what an operator decides about the traffic to Vault.
type Config struct {
	Timeout       time.Duration // of one request, with the wait for its turn
	MaxInFlight   int           // requests in flight per Vault address; more wait for their turn
	MaxTransports int           // connection pools kept; beyond it the least recently used idle ones are closed
	MaxAnswer     int64         // bytes of one answer
	UserAgent     string

	// Dial makes the connections to Vaults. Nil: over TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Allowed is the policy for redirects: it is asked for the target's scheme://host. Nil allows none.
	Allowed func(address string) error

	// Observe hears of every finished request: its operation, "ok" or the kind of its error, and how long it took.
	// It may be nil.
	Observe func(op, outcome string, d time.Duration)
}

// Pool holds the connections to all Vaults, one transport for each address and TLS material. It is safe for
// concurrent use.
type Pool struct {
	config Config

	mu         sync.Mutex   // guards the list, and the users of its members
	transports []*transport // least recently used first

	versioned versionedMounts
}

// NewPool checks the configuration and returns an empty pool.
func NewPool(c Config) (*Pool, error) {
	switch {
	case c.Timeout <= 0:
		return nil, errors.New("the timeout of a Vault request must be positive")
	case c.MaxInFlight <= 0:
		return nil, errors.New("the number of Vault requests in flight must be positive")
	case c.MaxTransports <= 0:
		return nil, errors.New("the number of transports to Vault must be positive")
	case c.MaxAnswer <= 0:
		return nil, errors.New("the size limit of Vault's answers must be positive")
	}
	return &Pool{config: c}, nil
}

// ClearEnvironment unsets the environment variables VAULT_* of this process. Vault's library reads them whenever it is
// given a connection to make, and fails on those it does not understand; an operator's settings are to be read once,
// by the program, before it calls this.
func ClearEnvironment() {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name) // it fails on an impossible name only
		}
	}
}

// Close closes the idle connections. Requests under way finish.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.transports {
		t.base.CloseIdleConnections()
	}
}

// take returns the transport to an address with this TLS material, and keeps it until give. A session takes one for
// each request rather than for its life: so there are no more transports than the limit, or requests at work, however
// many volumes bring TLS material of their own.
func (p *Pool) take(address string, m material) (*transport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := transportKey{address, m.digest}
	i := slices.IndexFunc(p.transports, func(t *transport) bool { return t.key == key })
	var t *transport
	if i >= 0 {
		t = p.transports[i]
		p.transports = slices.Delete(p.transports, i, i+1)
	} else {
		var err error
		if t, err = newTransport(key, m, p.turns(address), p.config); err != nil {
			return nil, err
		}
	}
	p.transports = append(p.transports, t)
	t.users++
	p.trim()
	return t, nil
}

// give returns a transport that take gave out.
func (p *Pool) give(t *transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.users--
	p.trim()
}

// turns returns the turns of an address, which all of its transports share. With its last transport an address has no
// request in flight either, so that new turns start from zero rightly.
func (p *Pool) turns(address string) chan struct{} {
	for _, t := range p.transports {
		if t.key.address == address {
			return t.turns
		}
	}
	return make(chan struct{}, p.config.MaxInFlight)
}

// trim closes the least recently used idle transports that are too many.
func (p *Pool) trim() {
	excess := len(p.transports) - p.config.MaxTransports
	p.transports = slices.DeleteFunc(p.transports, func(t *transport) bool {
		if excess <= 0 || t.users > 0 {
			return false
		}
		excess--
		t.base.CloseIdleConnections()
		return true
	})
}
