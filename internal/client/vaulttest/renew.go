package vaulttest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// systemMax is how long Vault lets anything live by default, unless it is periodic.
const systemMax = 768 * time.Hour

// limits are how long a token or a lease may live: of a role, zero where it does not say.
type limits struct {
	ttl, max            time.Duration
	period, explicitMax time.Duration // tokens only
}

// grant returns how long something that was issued then may live from now on, with Vault's warnings. Like Vault it counts
// in whole seconds.
func (l limits) grant(issued time.Time, explicitMax time.Duration) (time.Duration, []string, error) {
	now, issued := time.Now().Truncate(time.Second), issued.Truncate(time.Second)
	atMost := systemMax
	for _, d := range []time.Duration{l.max, explicitMax} {
		if d > 0 {
			atMost = min(atMost, d)
		}
	}
	var warnings []string
	ttl, left := l.ttl, atMost-now.Sub(issued)
	switch {
	case l.period > 0:
		if ttl = l.period; ttl > atMost {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; "+
				"period value is capped accordingly", human(ttl), human(atMost)))
			ttl = atMost
		}
		left = ttl
		if explicitMax > 0 {
			left = explicitMax - now.Sub(issued)
		}
	case ttl == 0:
		ttl = systemMax
	}
	if left <= 0 {
		return 0, nil, errors.New("past the max TTL, cannot renew")
	}
	if ttl > left {
		warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; "+
			"TTL value is capped accordingly", human(ttl), human(left)))
		ttl = left
	}
	return ttl, warnings, nil
}

// human prints a duration as Vault does.
func human(d time.Duration) string {
	text := strings.TrimSuffix(d.String(), "m0s")
	if text != d.String() {
		text += "m"
	}
	return strings.Replace(text, "h0m", "h", 1)
}

// renewToken answers auth/token/renew-self.
func (s *Server) renewToken(c call) reply {
	t := c.token
	switch {
	case t.kind == "batch":
		return fail(http.StatusBadRequest, "batch tokens cannot be renewed")
	case !t.renewable:
		return fail(http.StatusBadRequest, "lease is not renewable")
	}
	now, err := t.limits()
	if err != nil {
		return failList(http.StatusInternalServerError, "failed to renew entry: "+err.Error())
	}
	ttl, warnings, err := now.grant(t.issued, t.explicitMax)
	if err != nil {
		return failList(http.StatusInternalServerError, err.Error())
	}
	t.end = time.Now().Add(ttl)
	return full(http.StatusOK, nil, nil, warnings, t.auth(c.tokenID, ttl))
}

// renewLease answers sys/leases/renew. Vault lets a token renew any lease of which it knows the ID.
func (s *Server) renewLease(c call) reply {
	l := s.leases[str(c.args["lease_id"])]
	switch {
	case str(c.args["lease_id"]) == "":
		return fail(http.StatusBadRequest, "lease_id must be specified")
	case l == nil:
		return fail(http.StatusBadRequest, "lease not found")
	case !l.renewable:
		return fail(http.StatusBadRequest, "lease is not renewable")
	}
	now, err := l.limits()
	ttl, warnings := time.Duration(0), []string(nil)
	if err == nil {
		ttl, warnings, err = now.grant(l.issued, 0)
	}
	if err != nil {
		return fail(http.StatusBadRequest, "failed to renew entry: resp: (*logical.Response)(nil) err: "+err.Error())
	}
	l.life, l.end = ttl, time.Now().Add(ttl)
	if t := s.tokens[l.token]; t != nil && t.kind == "batch" && l.end.After(t.end) {
		l.life, l.end = time.Until(t.end), t.end
	}
	return full(http.StatusOK, nil, l, warnings, nil)
}
