package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Session is one Vault token, gained by one login. It never changes, not by a renewal either, and is safe for concurrent
// use.
type Session struct {
	conn       conn
	token      redact.String
	accessor   string
	batch      bool
	renewable  bool
	start, end time.Time
}

// Vault returns what the session was opened for.
func (s *Session) Vault() spec.Vault { return s.conn.vault }

// Start returns when the login was answered.
func (s *Session) Start() time.Time { return s.start }

// End returns when the token ends by itself if nobody renews it; the zero time means never.
func (s *Session) End() time.Time { return s.end }

// Renewable tells whether the login's answer said that the token can be renewed. Batch tokens cannot.
func (s *Session) Renewable() bool { return s.renewable && !s.batch }

// Token returns the Vault token itself.
func (s *Session) Token() redact.String { return s.token }

// Revocable tells whether the token can be revoked. Batch tokens cannot, nor what was obtained by them: they live
// until End.
func (s *Session) Revocable() bool { return !s.batch }

// Accessor returns the name of the token for logs and for Vault's administrators; "" for a batch token.
func (s *Session) Accessor() string { return s.accessor }

// Grant is what Vault answered for a source.
type Grant struct {
	Source        spec.Source
	Data          redact.Bytes  // the answer's "data", a JSON object, as Vault sent it
	LeaseID       string        // "" without a lease
	LeaseDuration time.Duration // as Vault says; a lease ends with its token all the same
	Renewable     bool
	Warnings      []string
	Obtained      time.Time
}

// Read asks Vault for a source, once. It may make a database user: when the error is in doubt, so is that. Where Vault has
// nothing for a lenient source, or not for this identity, it may be asked once more, by another path.
func (s *Session) Read(ctx context.Context, src spec.Source) (Grant, error) {
	if src.Lenient && (src.Method == http.MethodGet || src.Method == "LIST") {
		return s.readLeniently(ctx, src)
	}
	return s.read(ctx, src, src.Path)
}

// read asks for a source by a path.
func (s *Session) read(ctx context.Context, src spec.Source, path string) (Grant, error) {
	q := question{op: opRead, method: src.Method, path: path, token: s.token}
	if src.Args != "" {
		q.body = []byte(src.Args)
	}
	grant := Grant{Source: src}
	err := s.conn.ask(ctx, q, func(a answer) *Error {
		var said struct {
			LeaseID       string          `json:"lease_id"`
			LeaseDuration int64           `json:"lease_duration"` // seconds
			Renewable     bool            `json:"renewable"`
			Data          json.RawMessage `json:"data"`
			Warnings      []string        `json:"warnings"`
		}
		// An answer without a body is as good as one without data, but one that is not JSON is not Vault's.
		if len(a.body) > 0 && json.Unmarshal(a.body, &said) != nil {
			return &Error{Kind: Unavailable, Status: a.status, InDoubt: true, Err: nonsense(a)}
		}
		if !bytes.HasPrefix(said.Data, []byte("{")) {
			reasons := append([]string{"Vault answered without data"}, said.Warnings...)
			return &Error{Kind: Rejected, Status: a.status, Reasons: reasons}
		}
		grant.Data = redact.NewBytes(said.Data)
		grant.LeaseID = said.LeaseID
		grant.LeaseDuration = time.Duration(said.LeaseDuration) * time.Second
		grant.Renewable = said.Renewable
		grant.Warnings = said.Warnings
		grant.Obtained = time.Now()
		return nil
	})
	if err != nil {
		return Grant{}, err
	}
	return grant, nil
}

// Revoke revokes the token and with it every lease that was obtained by it (POST auth/token/revoke-self). A token that
// is gone already is as good as revoked. Vault answers at once and ends the leases a moment later.
func (s *Session) Revoke(ctx context.Context) error {
	q := question{op: opRevoke, method: http.MethodPost, path: "auth/token/revoke-self", token: s.token}
	if s.batch {
		return &Error{
			Kind: Rejected, Op: q.op, Path: q.path,
			Reasons: []string{"batch tokens cannot be revoked: this one and its leases live to their own end"},
		}
	}
	err := s.conn.ask(ctx, q, func(answer) *Error { return nil })
	if KindOf(err) == Expired {
		return nil
	}
	return err
}
