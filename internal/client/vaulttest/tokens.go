package vaulttest

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// token is what a login gave out.
type token struct {
	kind     string // "service" or "batch"
	accessor string
	policies []string
	uses     int       // left, when limited
	limited  bool      //
	issued   time.Time //
	end      time.Time // zero: never

	renewable   bool
	limits      func() (limits, error) // as they are now
	explicitMax time.Duration          // as it was when the token was made
}

// lease is what a token obtained, and ends with it.
type lease struct {
	id        string
	token     string
	user      string // database user, or ""
	life      time.Duration
	renewable bool
	issued    time.Time
	end       time.Time
	limits    func() (limits, error) // as they are now; nil: not renewable
}

// rule is one path of a policy.
type rule struct {
	path         string
	capabilities []string
}

const defaultPolicy = `
	path "auth/token/lookup-self" { capabilities = ["read"] }
	path "auth/token/renew-self"  { capabilities = ["update"] }
	path "auth/token/revoke-self" { capabilities = ["update"] }
	path "sys/capabilities-self"  { capabilities = ["update"] }
	path "sys/leases/renew"       { capabilities = ["update"] }
	path "sys/renew"              { capabilities = ["update"] }
	path "sys/leases/lookup"      { capabilities = ["update"] }
	path "cubbyhole/*"            { capabilities = ["create", "read", "update", "delete", "list"] }`

var (
	pathBlock = regexp.MustCompile(`path\s+"([^"]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}`)
	quoted    = regexp.MustCompile(`"([^"]+)"`)
)

// parsePolicy reads the plain form of Vault's policy language.
func parsePolicy(text string) []rule {
	var rules []rule
	for _, block := range pathBlock.FindAllStringSubmatch(text, -1) {
		r := rule{path: block[1]}
		for _, c := range quoted.FindAllStringSubmatch(block[2], -1) {
			r.capabilities = append(r.capabilities, c[1])
		}
		rules = append(rules, r)
	}
	return rules
}

// capabilities returns what a token may do at a path: the rules with the longest matching path decide.
func (s *Server) capabilities(t *token, path string) []string {
	if slices.Contains(t.policies, "root") {
		return []string{"root"}
	}
	best, found := -1, []string{}
	for _, name := range t.policies {
		for _, r := range s.policies[name] {
			prefix, glob := strings.CutSuffix(r.path, "*")
			if r.path != path && !(glob && strings.HasPrefix(path, prefix)) {
				continue
			}
			switch rank := len(prefix); {
			case rank > best:
				best, found = rank, slices.Clone(r.capabilities)
			case rank == best:
				found = append(found, r.capabilities...)
			}
		}
	}
	slices.Sort(found)
	if found = slices.Compact(found); slices.Contains(found, "deny") || len(found) == 0 {
		return []string{"deny"}
	}
	return found
}

// may tells whether a token may do an operation.
func (s *Server) may(t *token, operation, path string) bool {
	have := s.capabilities(t, path)
	if operation == "update" && slices.Contains(have, "create") {
		return true
	}
	return slices.Contains(have, "root") || slices.Contains(have, operation)
}

// mayBelow tells whether a token may do anything at a path that ends with a slash, or below it.
func (s *Server) mayBelow(t *token, path string) bool {
	if !slices.Contains(s.capabilities(t, path), "deny") {
		return true
	}
	for _, name := range t.policies {
		for _, r := range s.policies[name] {
			if strings.HasPrefix(r.path, path) && !slices.Contains(r.capabilities, "deny") {
				return true
			}
		}
	}
	return false
}

// expire ends what is over.
func (s *Server) expire() {
	now := time.Now()
	for id, t := range s.tokens {
		if !t.end.IsZero() && now.After(t.end) {
			s.revoke(id)
		}
	}
	for id, l := range s.leases {
		if now.After(l.end) {
			delete(s.leases, id)
		}
	}
}

// revoke ends a token and every lease under it.
func (s *Server) revoke(id string) {
	delete(s.tokens, id)
	for leaseID, l := range s.leases {
		if l.token == id {
			delete(s.leases, leaseID)
		}
	}
}

// lend makes a lease under a token. It can be renewed if there are limits to ask.
func (s *Server) lend(c call, life time.Duration, limits func() (limits, error)) *lease {
	now := time.Now()
	l := &lease{
		id: c.path + "/" + random(12), token: c.tokenID, life: life, renewable: limits != nil,
		issued: now, end: now.Add(life), limits: limits,
	}
	if c.token.kind == "batch" {
		l.life = min(l.life, time.Until(c.token.end))
		l.end = now.Add(l.life)
	}
	s.leases[l.id] = l
	return l
}

// issue hands out a new token with the life that its limits allow.
func (s *Server) issue(t *token, l limits) reply {
	ttl, warnings, err := l.grant(t.issued, t.explicitMax)
	if err != nil {
		return failList(http.StatusInternalServerError, err.Error())
	}
	id := "hvs.CAES" + random(40)
	if t.kind == "batch" {
		id = "hvb.AAAA" + random(60)
	} else {
		t.accessor = random(12)
	}
	t.end = t.issued.Add(ttl)
	s.tokens[id] = t
	return full(http.StatusOK, nil, nil, warnings, t.auth(id, ttl))
}

// auth is what an answer says of a token.
func (t *token) auth(id string, ttl time.Duration) Data {
	return Data{
		"client_token": id, "accessor": t.accessor, "policies": t.policies, "token_policies": t.policies,
		"metadata": Data{}, "lease_duration": int(ttl.Seconds()), "renewable": t.renewable,
		"entity_id": random(16), "token_type": t.kind, "orphan": true, "mfa_requirement": nil, "num_uses": t.uses,
	}
}

// tokenStore answers below auth/token/.
func (s *Server) tokenStore(c call) reply {
	switch c.path {
	case "auth/token/create":
		own := limits{ttl: duration(c.args["ttl"], 0), period: duration(c.args["period"], 0)}
		t := &token{
			kind: "service", policies: append(strs(c.args["policies"]), "default"), renewable: true, issued: time.Now(),
			limits: func() (limits, error) { return own, nil }, explicitMax: duration(c.args["explicit_max_ttl"], 0),
		}
		if may, ok := c.args["renewable"].(bool); ok {
			t.renewable = may
		}
		return s.issue(t, own)
	case "auth/token/renew-self":
		return s.renewToken(c)
	case "auth/token/revoke-self":
		if c.token.kind == "batch" {
			return fail(http.StatusBadRequest, "batch tokens cannot be revoked")
		}
		s.revoke(c.tokenID)
		return done()
	case "auth/token/lookup-self":
		return secret(Data{"accessor": c.token.accessor, "policies": c.token.policies, "type": c.token.kind}, nil)
	}
	return unsupported()
}

// random returns n random bytes as text.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
