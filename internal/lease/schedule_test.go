package lease

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

func TestGrantSpan(t *testing.T) {
	const never = -1
	obtained := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	certificate := selfSigned(t, obtained.Add(30*time.Hour))
	for name, row := range map[string]struct {
		grant    client.Grant
		due, end time.Duration // after obtained
	}{
		"lease":                 {client.Grant{LeaseID: "database/creds/a/1", LeaseDuration: time.Hour}, 40 * time.Minute, time.Hour},
		"lease of seconds":      {client.Grant{LeaseID: "database/creds/a/1", LeaseDuration: 3 * time.Second}, 2 * time.Second, 3 * time.Second},
		"key-value":             {grantOf(t, map[string]any{"username": "x"}), refresh, never},
		"certificate":           {issued(grantOf(t, map[string]any{"certificate": certificate})), 20 * time.Hour, 30 * time.Hour},
		"certificate that lies": {grantOf(t, map[string]any{"certificate": certificate}), refresh, never},
		"leased certificate":    {leased(grantOf(t, map[string]any{"certificate": certificate}), 3*time.Hour), 2 * time.Hour, 3 * time.Hour},
		"text of a certificate": {issued(grantOf(t, map[string]any{"certificate": "none"})), refresh, never},
		"static role":           {grantOf(t, map[string]any{"ttl": 60, "last_vault_rotation": "2026-03-01T11:00:00Z"}), 61 * time.Second, 61 * time.Second},
		"key-value with a ttl":  {grantOf(t, map[string]any{"ttl": 60}), refresh, never},
		"odd types":             {grantOf(t, map[string]any{"certificate": 1, "ttl": []int{1}}), refresh, never},
		"not an object":         {client.Grant{Data: redact.NewBytes([]byte(`[]`))}, refresh, never},
		"no data":               {client.Grant{}, refresh, never},
	} {
		t.Run(name, func(t *testing.T) {
			row.grant.Obtained = obtained
			got := grantSpan(row.grant)
			if want := obtained.Add(row.due); !got.due.Equal(want) {
				t.Errorf("due %v, want %v", got.due, want)
			}
			want := time.Time{}
			if row.end != never {
				want = obtained.Add(row.end)
			}
			if !got.end.Equal(want) {
				t.Errorf("end %v, want %v", got.end, want)
			}
		})
	}
}

func TestSpanEdges(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := twoThirds(start, start.Add(3*time.Second))
	for _, row := range []struct {
		at        time.Duration
		due, over bool
	}{
		{0, false, false},
		{2*time.Second - 1, false, false},
		{2 * time.Second, true, false},
		{3*time.Second - 1, true, false},
		{3 * time.Second, true, true},
	} {
		now := start.Add(row.at)
		if due, over := s.isDue(now), s.isOver(now); due != row.due || over != row.over {
			t.Errorf("after %v: due %v over %v, want %v %v", row.at, due, over, row.due, row.over)
		}
	}
	if s := twoThirds(start, time.Time{}); s.isDue(start.AddDate(100, 0, 0)) || s.isOver(start.AddDate(100, 0, 0)) {
		t.Error("a token without an end is due or over, want neither")
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for tries := 1; tries < 100; tries++ {
		base := min(time.Second<<min(tries-1, 10), time.Minute)
		if got := backoff(tries); got < base*4/5 || got > base*6/5 {
			t.Errorf("after %d tries: %v, want %v give or take a fifth", tries, got, base)
		}
	}
}

func grantOf(t *testing.T, data map[string]any) client.Grant {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return client.Grant{Data: redact.NewBytes(text)}
}

func issued(g client.Grant) client.Grant {
	g.Source = spec.Source{Method: http.MethodPut, Path: "pki/issue/a"}
	return g
}

func leased(g client.Grant, d time.Duration) client.Grant {
	g.LeaseID, g.LeaseDuration = "pki/issue/a/1", d
	return g
}

func selfSigned(t *testing.T, end time.Time) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
