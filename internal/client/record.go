package client

import (
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Record is a session as a journal keeps it, beside what it was opened for. It holds the Vault token in the clear: it is
// for a file as secret as the token, and must not be printed.
type Record struct {
	Token     string    `json:"token"`
	Accessor  string    `json:"accessor,omitempty"`
	Batch     bool      `json:"batch,omitempty"`
	Renewable bool      `json:"renewable,omitempty"`
	Start     time.Time `json:"start,omitzero"`
	End       time.Time `json:"end,omitzero"` // zero: never
}

// Record returns the session for the journal.
func (s *Session) Record() Record {
	return Record{
		Token: s.token.Reveal(), Accessor: s.accessor, Batch: s.batch, Renewable: s.renewable,
		Start: s.start, End: s.end,
	}
}

// Restore returns the session of a record, opened for v, as another instance of this program had it. It asks nobody
// whether the token still lives.
func (p *Pool) Restore(v spec.Vault, r Record) *Session {
	return &Session{
		conn: conn{pool: p, vault: v}, token: redact.New(r.Token), accessor: r.Accessor,
		batch: r.Batch, renewable: r.Renewable, start: r.Start, end: r.End,
	}
}
