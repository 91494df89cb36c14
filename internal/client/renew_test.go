package client_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"leasehold/internal/client"
)

// renewals are the two ways to renew, as the tests of answers call them.
var renewals = map[string]func(*testing.T, *client.Session) (client.Renewal, error){
	"renew-token": func(t *testing.T, s *client.Session) (client.Renewal, error) { return s.RenewSelf(t.Context()) },
	"renew-lease": func(t *testing.T, s *client.Session) (client.Renewal, error) {
		return s.Renew(t.Context(), "db/creds/app/1")
	},
}

func TestAnswersToRenewals(t *testing.T) {
	const away = `{"errors":["failed to renew entry: resp: (*logical.Response)(nil) err: failed to connect"]}`
	const past = `{"errors":["1 error occurred:\n\t* past the max TTL, cannot renew\n\n"]}`
	for _, tt := range []struct {
		op     string
		status int
		body   string
		kind   client.Kind // 0 for a renewal of a minute
	}{
		{"renew-token", 200, `{"request_id":"1","lease_duration":5,"auth":{"lease_duration":60,"renewable":true}}`, 0},
		{"renew-lease", 200, `{"request_id":"1","lease_id":"x","lease_duration":60,"renewable":true}`, 0},
		{"renew-token", 200, `{"request_id":"1","lease_id":"","lease_duration":60,"renewable":true}`, client.Unavailable},
		{"renew-lease", 200, `{"request_id":"1","lease_id":"","lease_duration":0,"data":null}`, client.Unavailable},
		{"renew-token", 204, ``, client.Unavailable},
		{"renew-lease", 204, ``, client.Unavailable},
		{"renew-lease", 400, away, client.Unavailable},
		{"renew-token", 400, away, client.Rejected}, // Vault never says so of a token: do not guess
		{"renew-token", 500, past, client.Expired},
		{"renew-lease", 400, past, client.Expired},
		{"renew-lease", 400, `{"errors":["lease expired"]}`, client.Expired},
		{"renew-lease", 400, `{"errors":["lease not found"]}`, client.Expired},
		{"renew-token", 400, `{"errors":["invalid lease ID"]}`, client.Expired},
		{"renew-lease", 400, `{"errors":["lease is not renewable"]}`, client.Rejected},
		{"renew-token", 403, `{"errors":["permission denied"]}`, client.Denied},
		{"renew-token", 503, `{"errors":["Vault is sealed"]}`, client.Unavailable},
	} {
		t.Run(fmt.Sprintf("%s %d %v", tt.op, tt.status, tt.kind), func(t *testing.T) {
			var seen string
			s := serve(t, stub(answering(tt.status, "application/json", tt.body)))
			pool := newPool(t, client.Config{Observe: func(op, _ string, _ time.Duration) { seen = op }})
			r, err := renewals[tt.op](t, open(t, pool, vaultAt(s.URL)))
			if want := (client.Renewal{Duration: time.Minute, Renewable: true}); tt.kind == 0 && (err != nil || r != want) {
				t.Errorf("got %+v, error %v, want %+v", r, err, want)
			}
			if client.KindOf(err) != tt.kind {
				t.Errorf("got error %v, want kind %v", err, tt.kind)
			}
			if seen != tt.op {
				t.Errorf("got observed %q, want %q", seen, tt.op)
			}
		})
	}
}

// What one instance writes down, the next one has: through JSON, as the journal does it.
func TestRecordIsTheSession(t *testing.T) {
	v, jwt := furnished(t)
	s, err := newPool(t, client.Config{}).Login(t.Context(), v.Vault("app"), jwt)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s.Record())
	if err != nil {
		t.Fatal(err)
	}
	var r client.Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	again := newPool(t, client.Config{}).Restore(s.Vault(), r)
	if again.Vault() != s.Vault() || again.Token() != s.Token() || again.Accessor() != s.Accessor() ||
		again.Renewable() != s.Renewable() || again.Revocable() != s.Revocable() ||
		!again.Start().Equal(s.Start()) || !again.End().Equal(s.End()) {
		t.Errorf("got another session from %s", []any{s.Accessor(), s.Start(), s.End()})
	}
	if _, err := again.Read(t.Context(), get("kv/app")); err != nil {
		t.Errorf("read with the restored session: got error %v", err)
	}
	if err := again.Revoke(t.Context()); err != nil || len(v.Tokens()) != 0 {
		t.Errorf("revoke with the restored session: got error %v, %d live tokens", err, len(v.Tokens()))
	}
}

// A token without an end has none after a restart either.
func TestRecordOfATokenThatNeverEnds(t *testing.T) {
	text, err := json.Marshal(client.Record{Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	var r client.Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	s := newPool(t, client.Config{}).Restore(vaultAt("http://127.0.0.1:1"), r)
	if !s.End().IsZero() {
		t.Errorf("got end %v, want none", s.End())
	}
}
