package lease

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// refresh is how often a secret that has neither a lease nor an end, such as one of KV, is read again.
const refresh = 5 * time.Minute

// span is the life of a grant or a token as the node's clock sees it.
type span struct {
	due time.Time // from here on it should be replaced; zero: never
	end time.Time // from here on it does not work any more; zero: nobody knows of an end
}

func (s span) isDue(now time.Time) bool  { return !s.due.IsZero() && !now.Before(s.due) }
func (s span) isOver(now time.Time) bool { return !s.end.IsZero() && !now.Before(s.end) }

// twoThirds is the span of something that lives from start to end: it is due when a third of its life is left, so that
// there is time to try more than once.
func twoThirds(start, end time.Time) span {
	if end.IsZero() {
		return span{}
	}
	return span{due: start.Add(end.Sub(start) * 2 / 3), end: end}
}

// grantSpan is the whole policy for grants:
//   - a lease is due at two thirds of its duration;
//   - a certificate that was issued without a lease is due at two thirds of the way to its notAfter: re-issuing it
//     earlier would fill Vault's storage with certificates. One that was merely read (GET) is like anything else;
//   - a static database role changes its password at the end of its ttl, so it is due, and over, just then;
//   - anything else (KV) is due after the refresh interval and never over.
//
// That a grant ends with its token, whatever Vault says of its duration, is its holding's concern.
func grantSpan(g client.Grant) span {
	if g.LeaseID != "" {
		return twoThirds(g.Obtained, g.Obtained.Add(g.LeaseDuration))
	}
	var data struct {
		Certificate string      `json:"certificate"`
		Rotated     string      `json:"last_vault_rotation"`
		TTL         json.Number `json:"ttl"`
	}
	// Vault's answer may hold anything under these names. A type that does not fit only means that it is neither a
	// certificate nor a static role.
	if err := json.Unmarshal(g.Data.Reveal(), &data); err == nil {
		if end := notAfter(data.Certificate); !end.IsZero() && issues(g.Source) {
			return twoThirds(g.Obtained, end)
		}
		if seconds, err := data.TTL.Int64(); err == nil && data.Rotated != "" {
			// Vault counts whole seconds, so the password changes up to a second after the ttl that it told.
			rotation := g.Obtained.Add(time.Duration(seconds)*time.Second + time.Second)
			return span{due: rotation, end: rotation}
		}
	}
	return span{due: g.Obtained.Add(refresh)}
}

// issues tells whether asking again makes something new.
func issues(s spec.Source) bool { return s.Method == http.MethodPut || s.Method == http.MethodPost }

// notAfter returns the end of the first certificate in a PEM text, or zero if there is none.
func notAfter(text string) time.Time {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return time.Time{}
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return certificate.NotAfter
}
