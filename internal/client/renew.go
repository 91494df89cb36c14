package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Renewal is what Vault granted on a renewal.
type Renewal struct {
	// Duration is how long the token or the lease lives from now on. It is shorter than before where a max TTL is
	// near, and Vault grants no more than the rest of that. 0 means for ever.
	Duration  time.Duration
	Renewable bool // whether it may be renewed once more
}

// RenewSelf renews the token for as long as its role says now (POST auth/token/renew-self). The session's End stays what
// the login's answer made it. A token that is gone, or that has reached its max TTL, is Expired; one that cannot be
// renewed is Rejected.
func (s *Session) RenewSelf(ctx context.Context) (Renewal, error) {
	q := question{op: opRenewToken, method: http.MethodPost, path: "auth/token/renew-self", token: s.token}
	return s.renew(ctx, q, func(said renewed) *granted { return said.Auth })
}

// Renew renews a lease for as long as its role says now (POST sys/leases/renew). Vault does not bound it by the token's
// end, though it ends with the token. A lease or a token that is gone, or a lease that has reached its max TTL, is Expired;
// one that cannot be renewed is Rejected.
func (s *Session) Renew(ctx context.Context, leaseID string) (Renewal, error) {
	q := question{op: opRenewLease, method: http.MethodPost, path: "sys/leases/renew", token: s.token}
	body, err := json.Marshal(map[string]string{"lease_id": leaseID})
	if err != nil {
		return Renewal{}, &Error{Kind: Rejected, Op: q.op, Path: q.path, Err: err}
	}
	q.body = body
	return s.renew(ctx, q, func(said renewed) *granted {
		if said.LeaseID == "" {
			return nil
		}
		return &said.granted
	})
}

// granted is the part of an answer that says how long something lives.
type granted struct {
	LeaseDuration int64 `json:"lease_duration"` // seconds
	Renewable     bool  `json:"renewable"`
}

// renewed is the answer to a renewal: of a lease beside its ID, of a token in its "auth".
type renewed struct {
	granted
	LeaseID string   `json:"lease_id"`
	Auth    *granted `json:"auth"`
}

// renew sends a renewal and takes from the answer what was granted. An answer without it is no answer: nobody knows what
// Vault did, but asking again does no harm.
func (s *Session) renew(ctx context.Context, q question, find func(renewed) *granted) (Renewal, error) {
	var renewal Renewal
	err := s.conn.ask(ctx, q, func(a answer) *Error {
		var said renewed
		if json.Unmarshal(a.body, &said) != nil {
			return &Error{Kind: Unavailable, Status: a.status, InDoubt: true, Err: nonsense(a)}
		}
		g := find(said)
		if g == nil {
			reasons := []string{"Vault answered without saying how long it renewed"}
			return &Error{Kind: Unavailable, Status: a.status, InDoubt: true, Reasons: reasons}
		}
		renewal = Renewal{Duration: time.Duration(g.LeaseDuration) * time.Second, Renewable: g.Renewable}
		return nil
	})
	return renewal, err
}
