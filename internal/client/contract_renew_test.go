package client_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

// full checks a renewal for the whole of ten minutes.
func full(t *testing.T, r client.Renewal, err error) {
	t.Helper()
	if err != nil || r.Duration != 10*time.Minute || !r.Renewable {
		t.Errorf("got renewal for %v, renewable %t, error %v, want 10m and to be renewed again", r.Duration, r.Renewable, err)
	}
}

// short renews until a renewal grants less than ten minutes: Vault counts in whole seconds.
func short(t *testing.T, renew func() (client.Renewal, error)) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := renew()
		switch {
		case err != nil:
			t.Fatalf("got error %v, want a renewal", err)
		case r.Duration > 10*time.Minute, r.Duration < 9*time.Minute, !r.Renewable:
			t.Fatalf("got renewal for %v, renewable %t, want what is left of 10m", r.Duration, r.Renewable)
		case r.Duration < 10*time.Minute:
			return
		case time.Now().After(deadline):
			t.Fatal("got the full 10m all the time, want the rest of the max TTL")
		}
	}
}

func contractRenewToken(t *testing.T, w world) {
	t.Run("full", func(t *testing.T) {
		w.role(t, "full", vaulttest.Data{"token_ttl": "10m", "token_max_ttl": "1h"})
		s := w.session(t, "full")
		end := s.End()
		for range 2 {
			r, err := s.RenewSelf(t.Context())
			full(t, r, err)
		}
		if s.End() != end {
			t.Error("a renewal has changed the session")
		}
	})
	t.Run("periodic", func(t *testing.T) {
		w.role(t, "periodic", vaulttest.Data{"token_ttl": "1m", "token_period": "10m"})
		s := w.session(t, "periodic")
		if got := s.End().Sub(s.Start()); got != 10*time.Minute {
			t.Errorf("got a token for %v, want its period of 10m", got)
		}
		r, err := s.RenewSelf(t.Context())
		full(t, r, err)
	})
	t.Run("max TTL near", func(t *testing.T) {
		w.role(t, "near", vaulttest.Data{"token_ttl": "10m", "token_max_ttl": "10m"})
		s := w.session(t, "near")
		short(t, func() (client.Renewal, error) { return s.RenewSelf(t.Context()) })
	})
	t.Run("explicit max TTL near", func(t *testing.T) {
		w.role(t, "explicit", vaulttest.Data{"token_period": "20m", "token_explicit_max_ttl": "10m"})
		s := w.session(t, "explicit")
		short(t, func() (client.Renewal, error) { return s.RenewSelf(t.Context()) })
	})
	t.Run("role's TTL shortened", func(t *testing.T) {
		w.role(t, "shortened", vaulttest.Data{})
		s := w.session(t, "shortened")
		w.role(t, "shortened", vaulttest.Data{"token_ttl": "10m"})
		r, err := s.RenewSelf(t.Context())
		full(t, r, err)
	})
	t.Run("past the max TTL", func(t *testing.T) {
		w.role(t, "past", vaulttest.Data{})
		s := w.session(t, "past")
		w.role(t, "past", vaulttest.Data{"token_ttl": "1s", "token_max_ttl": "1s"})
		time.Sleep(time.Until(s.Start().Add(2 * time.Second)))
		_, err := s.RenewSelf(t.Context())
		wantError(t, err, client.Expired, "(500): past the max TTL, cannot renew", false)
	})
	t.Run("role deleted", func(t *testing.T) {
		w.role(t, "deleted", vaulttest.Data{})
		s := w.session(t, "deleted")
		w.delete(t, "auth/"+w.id+"jwt/role/deleted")
		_, err := s.RenewSelf(t.Context())
		wantError(t, err, client.Unavailable, "role deleted does not exist during renewal", false)
	})
	t.Run("revoked", func(t *testing.T) {
		s := w.session(t, "app")
		if err := s.Revoke(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := s.RenewSelf(t.Context())
		wantError(t, err, client.Expired, "(403): permission denied; invalid token", false)
	})
	t.Run("batch", func(t *testing.T) {
		s := w.session(t, "batch")
		if s.Renewable() {
			t.Error("got a batch token that says it can be renewed")
		}
		_, err := s.RenewSelf(t.Context())
		wantError(t, err, client.Rejected, "(400): batch tokens cannot be renewed", false)
	})
	t.Run("not renewable", func(t *testing.T) {
		status, said := w.admin(t, http.MethodPost, "auth/token/create", vaulttest.Data{
			"ttl": "10m", "renewable": false, "policies": []string{w.id + "app"},
		})
		var made struct {
			Auth struct {
				Token string `json:"client_token"`
			} `json:"auth"`
		}
		if err := json.Unmarshal(said, &made); err != nil || status != http.StatusOK {
			t.Fatalf("create a token: got status %d, error %v", status, err)
		}
		s := w.pool.Restore(spec.Vault{Address: w.address}, client.Record{Token: made.Auth.Token})
		_, err := s.RenewSelf(t.Context())
		wantError(t, err, client.Rejected, "(400): lease is not renewable", false)
	})
	t.Run("restored", func(t *testing.T) {
		w.role(t, "restored", vaulttest.Data{"token_ttl": "10m"})
		s := w.session(t, "restored")
		r, err := w.pool.Restore(s.Vault(), s.Record()).RenewSelf(t.Context())
		full(t, r, err)
	})
}

func contractRenewLease(t *testing.T, w world) {
	// user makes a database user under a role of its own.
	user := func(t *testing.T, role, ttl, limit string) (*client.Session, string) {
		t.Helper()
		w.userRole(t, role, ttl, limit)
		s := w.session(t, "app")
		g, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "db/creds/" + role})
		if err != nil {
			t.Fatal(err)
		}
		return s, g.LeaseID
	}
	t.Run("full", func(t *testing.T) {
		s, id := user(t, "full", "10m", "1h")
		for range 2 {
			r, err := s.Renew(t.Context(), id)
			full(t, r, err)
		}
	})
	t.Run("max TTL near", func(t *testing.T) {
		s, id := user(t, "near", "10m", "10m")
		short(t, func() (client.Renewal, error) { return s.Renew(t.Context(), id) })
	})
	t.Run("role's TTL shortened", func(t *testing.T) {
		s, id := user(t, "shortened", "30m", "1h")
		w.userRole(t, "shortened", "10m", "1h")
		r, err := s.Renew(t.Context(), id)
		full(t, r, err)
	})
	t.Run("past the max TTL", func(t *testing.T) {
		s, id := user(t, "past", "10m", "1h")
		obtained := time.Now()
		w.userRole(t, "past", "1s", "1s")
		time.Sleep(time.Until(obtained.Add(2 * time.Second)))
		_, err := s.Renew(t.Context(), id)
		wantError(t, err, client.Expired, "past the max TTL, cannot renew", false)
	})
	t.Run("role deleted", func(t *testing.T) {
		s, id := user(t, "deleted", "10m", "1h")
		w.delete(t, w.id+"db/roles/deleted")
		_, err := s.Renew(t.Context(), id)
		wantError(t, err, client.Unavailable, `(400): failed to renew entry: resp: (*logical.Response)(nil) err: `+
			`error during renew: could not find role with name "deleted"`, false)
		w.userRole(t, "deleted", "10m", "1h") // Vault needs it to drop the user
	})
	t.Run("revoked", func(t *testing.T) {
		s, id := user(t, "revoked", "10m", "1h")
		status, said := w.admin(t, http.MethodPut, "sys/leases/revoke", vaulttest.Data{"lease_id": id, "sync": true})
		if status != http.StatusNoContent {
			t.Fatalf("revoke the lease: got status %d: %s", status, said)
		}
		_, err := s.Renew(t.Context(), id)
		wantError(t, err, client.Expired, "(400): lease not found", false)
	})
	t.Run("token revoked", func(t *testing.T) {
		s, id := user(t, "orphaned", "10m", "1h")
		if err := s.Revoke(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := s.Renew(t.Context(), id)
		wantError(t, err, client.Expired, "(403): permission denied; invalid token", false)
	})
	t.Run("not renewable", func(t *testing.T) {
		s := w.session(t, "app")
		args := `{"common_name":"a.example.com"}`
		g, err := s.Read(t.Context(), spec.Source{Method: "PUT", Path: w.id + "pki/issue/leased", Args: args})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Renew(t.Context(), g.LeaseID)
		wantError(t, err, client.Rejected, "(400): lease is not renewable", false)
	})
	t.Run("of a batch token", func(t *testing.T) {
		w.role(t, "shortbatch", vaulttest.Data{"token_type": "batch", "token_ttl": "9m50s"})
		w.userRole(t, "batch", "10m", "1h")
		s := w.session(t, "shortbatch")
		g, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: w.id + "db/creds/batch"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Renew(t.Context(), g.LeaseID)
		if err != nil || r.Duration > 9*time.Minute+50*time.Second || r.Duration < 9*time.Minute || !r.Renewable {
			t.Errorf("got renewal for %v, renewable %t, error %v, want what is left of the token", r.Duration, r.Renewable, err)
		}
	})
	t.Run("never made", func(t *testing.T) {
		_, err := w.session(t, "app").Renew(t.Context(), w.id+"db/creds/app/"+strings.Repeat("x", 24))
		wantError(t, err, client.Expired, "(400): lease not found", false)
	})
}

// delete deletes as Vault's administrator, or ends the test.
func (w world) delete(t *testing.T, path string) {
	t.Helper()
	if status, said := w.admin(t, http.MethodDelete, path, nil); status >= 300 {
		t.Fatalf("delete %q: got status %d: %s", path, status, said)
	}
}
