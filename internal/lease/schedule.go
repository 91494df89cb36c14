package lease

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// Action is what is to be done next about a token or a grant.
type Action int

// The actions.
const (
	Keep    Action = iota // nothing, ever
	Renew                 // ask Vault to prolong it
	Replace               // get another one: Vault will not prolong this one, or it has none to prolong
)

// String returns the action as a word for people, "" for Keep.
func (a Action) String() string {
	switch a {
	case Renew:
		return "renew"
	case Replace:
		return "replace"
	case Keep:
	}
	return ""
}

// kind says what keeps a grant alive.
type kind string

const (
	kindToken       kind = "token"
	kindLease       kind = "lease"
	kindCertificate kind = "certificate" // issued without a lease: ends at its notAfter
	kindStatic      kind = "static"      // a static database role: its password changes at the end
	kindSecret      kind = "secret"      // KV and the like: no end, but it may have changed
)

// term is the present stretch of a token's or a grant's life, as the node's clock sees it.
type term struct {
	Kind      kind
	Start     time.Time     // when Vault granted it, or prolonged it the last time
	End       time.Time     // from here on it does not work any more; zero: nobody knows of an end
	Full      time.Duration // how long Vault granted it for at first
	Renewable bool
	Short     bool    // the last renewal came back shorter: End is final
	Lost      bool    // Vault does not know it any more, or refuses to prolong it
	Early     float64 // 0 to 1: spreads what would otherwise be due at the same moment

	// Of a static role only.
	Rotated   string        `json:",omitempty"` // when its password was changed last, in Vault's words
	Scheduled bool          `json:",omitempty"` // it changes at the times of a schedule, not after a period
	Overdue   time.Time     `json:",omitzero"`  // since when Vault has not changed it though its time had come; zero: it is not
	Look      time.Duration `json:",omitempty"` // how long after Start it is read again, though its time comes later; 0: it is not
}

func (t term) isOver(now time.Time) bool { return !t.End.IsZero() && !now.Before(t.End) }

// spread is by how much of its plan something may be due earlier, so that a thousand nodes do not move together.
const spread = 0.1

// next is the whole policy: what to do about a token or a grant, and when.
//
//   - What Vault can prolong is renewed at a fraction of its life (renewAt). Once a renewal has come back shorter than
//     what was granted, max_ttl is near and Vault will not go beyond: it is replaced at once, while there is time to try
//     more than once.
//   - What Vault cannot prolong is replaced at that fraction. So is a certificate that was issued without a lease.
//   - A static database role's password changes at the end of its ttl: it is read again just then, and, if Vault has not
//     come to changing it, soon after that. With a schedule the ttl is only that of the next time, though Vault may not have
//     come to the last one: it is read again after the refresh interval as well.
//   - A secret without an end is read again after the refresh interval, or never if that is 0.
//   - What is lost is replaced at once.
//
// That a grant ends with its token, whatever Vault says of its duration, is its holding's concern.
func (t term) next(l spec.Lifecycle) (Action, time.Time) {
	if t.Lost {
		return Replace, t.Start
	}
	part := func(whole time.Duration, fraction float64) time.Time {
		return t.Start.Add(time.Duration(float64(whole) * fraction * (1 - spread*t.Early)))
	}
	switch {
	case t.Kind == kindSecret && l.Refresh == 0:
		return Keep, time.Time{}
	case t.Kind == kindSecret:
		return Replace, part(l.Refresh, 1)
	case t.End.IsZero():
		return Keep, time.Time{}
	case t.Kind == kindStatic:
		at := t.End
		if t.Look > 0 {
			at = sooner(at, t.Start.Add(t.Look))
		}
		if t.Scheduled && l.Refresh > 0 {
			at = sooner(at, part(l.Refresh, 1))
		}
		return Replace, at
	case t.Short:
		return Replace, t.Start
	case t.Renewable:
		return Renew, part(t.End.Sub(t.Start), l.RenewAt)
	}
	return Replace, part(t.End.Sub(t.Start), l.RenewAt)
}

// isDue tells whether it is time to replace it: also when it is over because renewals failed.
func (t term) isDue(l spec.Lifecycle, now time.Time) bool {
	action, at := t.next(l)
	return action == Replace && !now.Before(at) || t.isOver(now)
}

// renewed is the term after Vault has prolonged it.
func (t term) renewed(r client.Renewal, now time.Time) term {
	t.Start, t.Renewable = now, r.Renewable
	if t.Kind == kindToken && r.Duration == 0 { // it lives for ever
		t.End = time.Time{}
		return t
	}
	t.End = now.Add(r.Duration)
	// Vault counts whole seconds, so a stretch of the same length may look a second shorter.
	t.Short = r.Duration < t.Full-time.Second || r.Duration <= 0
	t.Early = mathrand.Float64() //nolint:gosec // a spread is no secret
	return t
}

// restored is the term as another instance has written it down, from here on by the clock that nobody can set. If it begins
// only later, the node's clock has been set back since, and nobody knows how much of it is left: it is taken to be due.
func (t term) restored(l spec.Lifecycle, now time.Time) term {
	if t.Kind == kindCertificate { // it goes by the clock itself
		return t
	}
	if !t.Start.After(now) {
		t.Start = now.Add(t.Start.Sub(now))
		if !t.End.IsZero() {
			t.End = now.Add(t.End.Sub(now))
		}
		return t
	}
	whole := t.End.Sub(t.Start)
	t.Start = now
	if !t.End.IsZero() {
		t.Start = now.Add(-time.Duration(float64(whole) * l.RenewAt))
		t.End = t.Start.Add(whole)
	}
	return t
}

// tokenTerm is the term of a fresh token.
func tokenTerm(s *client.Session) term {
	t := term{Kind: kindToken, Start: s.Start(), End: s.End(), Renewable: s.Renewable(), Early: mathrand.Float64()} //nolint:gosec // a spread is no secret
	if !t.End.IsZero() {
		t.Full = t.End.Sub(t.Start)
	}
	return t
}

// grantTerm is the term of a fresh grant. It costs a parse to find out.
func grantTerm(g client.Grant) term {
	t := term{Kind: kindSecret, Start: g.Obtained, Early: mathrand.Float64()} //nolint:gosec // a spread is no secret
	if g.LeaseID != "" {
		t.Kind, t.Full, t.End, t.Renewable = kindLease, g.LeaseDuration, g.Obtained.Add(g.LeaseDuration), g.Renewable
		return t
	}
	var data struct {
		Certificate string      `json:"certificate"`
		Rotated     string      `json:"last_vault_rotation"`
		Schedule    string      `json:"rotation_schedule"`
		TTL         json.Number `json:"ttl"`
	}
	// Vault's answer may hold anything under these names. A type that does not fit only means that it is neither a
	// certificate nor a static role.
	if err := json.Unmarshal(g.Data.Reveal(), &data); err != nil {
		return t
	}
	if end := notAfter(data.Certificate); !end.IsZero() && issues(g.Source) {
		// One that was merely read (GET) is like any other secret.
		t.Kind, t.End, t.Full = kindCertificate, end, end.Sub(g.Obtained)
	} else if seconds, err := data.TTL.Int64(); err == nil && data.Rotated != "" {
		// Vault counts whole seconds, so the password changes up to a second after the ttl that it told.
		t.Full = time.Duration(seconds)*time.Second + time.Second
		t.Kind, t.End = kindStatic, g.Obtained.Add(t.Full)
		t.Rotated, t.Scheduled = data.Rotated, data.Schedule != ""
	}
	return t
}

const (
	// rotationTick is longer than Vault takes to come to what its time has come for: it looks every five seconds.
	rotationTick = 10 * time.Second

	// longestLook is how long a static role's password whose time has come, and which Vault does not change, as with the
	// database away, waits for the next look. At first that is a second, for as a rule Vault comes to it soon.
	longestLook = 30 * time.Second
)

// following is a static role's fresh term, given that of what the source had granted before; the zero term for nothing.
func (t term) following(old term) term {
	if t.Kind != kindStatic {
		return t
	}
	late := !old.Overdue.IsZero() || old.isOver(t.Start) // its time has come
	if t.Scheduled {
		late = late || t.End.After(old.End.Add(rotationTick)) // the ttl is that of the next time already
	} else {
		late = late && t.Full <= time.Second // else the period was made longer
	}
	switch {
	case old.Rotated == "": // nobody knows of a change before
		if t.Scheduled { // its time may have come a moment ago
			t.Look = rotationTick
		}
	case t.Rotated == old.Rotated && late:
		if t.Overdue = old.Overdue; t.Overdue.IsZero() {
			t.Overdue = old.End
		}
		t.Look = jittered(min(max(t.Start.Sub(t.Overdue)/5, time.Second), longestLook))
		if look := t.Start.Add(t.Look); t.End.Before(look) { // until then nobody says that it has changed
			t.End = look
		}
	}
	return t
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

// pause is how long to wait after something failed that ends at a time: a tenth of what is left, but at least a second,
// and not much longer than a minute if there is no end. It is spread so that many volumes do not come back together.
func pause(end, now time.Time) time.Duration {
	wait := time.Minute
	if !end.IsZero() {
		wait = min(max(end.Sub(now)/10, time.Second), 10*time.Minute)
	}
	return jittered(wait)
}

// backoff is how long to wait after so many failed tries: 1 s, 2 s, 4 s ... up to most.
func backoff(tries int, most time.Duration) time.Duration {
	wait := most
	if tries < 12 {
		wait = min(time.Second<<(tries-1), most)
	}
	return jittered(wait)
}

// jittered spreads a wait by a fifth either way.
func jittered(wait time.Duration) time.Duration {
	return wait*4/5 + mathrand.N(wait*2/5+1) //nolint:gosec // a spread is no secret
}

// sooner returns the earlier of two moments; zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
