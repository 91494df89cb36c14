package vaulttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// call is one request, its token looked up.
type call struct {
	operation string // read, list, update or delete
	path      string // without v1/
	query     map[string][]string
	args      Data
	tokenID   string
	token     *token
}

// handle answers a request in the order of Vault's core: seal, token, policy, mount, engine.
func (s *Server) handle(r *http.Request, body []byte) reply {
	c := call{path: strings.TrimPrefix(r.URL.Path, "/v1/"), query: r.URL.Query()}
	switch {
	case r.Method == "LIST", r.Method == http.MethodGet && r.URL.Query().Get("list") == "true":
		c.operation = "list"
		c.path = strings.TrimSuffix(c.path, "/") + "/" // as Vault does, before it asks the policy
	case r.Method == http.MethodGet:
		c.operation = "read"
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		c.operation = "update"
	case r.Method == http.MethodDelete:
		c.operation = "delete"
	default:
		return fail(http.StatusMethodNotAllowed)
	}
	if s.sealed {
		return fail(http.StatusServiceUnavailable, "Vault is sealed")
	}
	var wrong *reply
	if c.operation == "update" {
		if c.args, wrong = arguments(body); wrong != nil {
			return *wrong
		}
	}
	if path, ok := strings.CutSuffix(c.path, "/login"); ok && c.operation == "update" {
		if a := s.auths[strings.TrimPrefix(path, "auth/")]; a != nil {
			return s.login(a, c.args)
		}
	}
	c.tokenID = r.Header.Get("X-Vault-Token")
	if c.tokenID == "" {
		return fail(http.StatusForbidden, "permission denied")
	}
	if c.token = s.tokens[c.tokenID]; c.token == nil {
		return invalidToken()
	}
	if c.token.limited {
		if c.token.uses--; c.token.uses <= 0 {
			defer s.revoke(c.tokenID) // after its last use
		}
	}
	if path, ok := strings.CutPrefix(c.path, "sys/internal/ui/mounts/"); ok && c.operation == "read" {
		return s.mountOf(c.token, path) // which asks the policies itself
	}
	if !s.may(c.token, c.operation, c.path) {
		return denied()
	}
	switch {
	case strings.HasPrefix(c.path, "auth/token/"):
		return s.tokenStore(c)
	case strings.HasPrefix(c.path, "auth/"):
		rest := strings.TrimPrefix(c.path, "auth/")
		for path, a := range s.auths {
			if name, ok := strings.CutPrefix(rest, path+"/"); ok && (c.operation == "update" || c.operation == "delete") {
				return a.admin(c.operation, name, c.args)
			}
		}
	case strings.HasPrefix(c.path, "sys/"):
		return s.system(c)
	}
	for path, m := range s.mounts {
		if name, ok := strings.CutPrefix(c.path, path+"/"); ok {
			return m.answer(s, m, c, name)
		}
	}
	return fail(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", c.path))
}

// mountOf tells which mount a path is behind, to a token that may do anything there.
func (s *Server) mountOf(t *token, path string) reply {
	path += "/"
	for name, m := range s.mounts {
		if strings.HasPrefix(path, name+"/") && s.mayBelow(t, name+"/") {
			return secret(Data{"path": name + "/", "type": m.kind, "options": m.options, "description": "", "local": false}, nil)
		}
	}
	return fail(http.StatusForbidden, fmt.Sprintf(
		"preflight capability check returned 403, please ensure client's policies grant access to path %q", path))
}

// system answers below sys/.
func (s *Server) system(c call) reply {
	name := func(prefix string) (string, bool) { return strings.CutPrefix(c.path, prefix) }
	if c.path == capabilitiesSelf {
		found := Data{}
		for _, path := range strs(c.args["paths"]) {
			found[path] = s.capabilities(c.token, path)
		}
		return secret(found, nil)
	}
	if c.path == "sys/leases/lookup" {
		l := s.leases[str(c.args["lease_id"])]
		if l == nil {
			return fail(http.StatusBadRequest, "invalid lease")
		}
		return secret(Data{"id": l.id, "ttl": int(time.Until(l.end).Seconds()), "renewable": l.renewable}, nil)
	}
	if c.path == "sys/leases/renew" {
		return s.renewLease(c)
	}
	if c.path == "sys/leases/revoke" {
		delete(s.leases, str(c.args["lease_id"]))
		return done()
	}
	if path, ok := name("sys/mounts/"); ok {
		m := newMount(c.args)
		if m == nil {
			return fail(http.StatusBadRequest, fmt.Sprintf("plugin not found in the catalog: %s", str(c.args["type"])))
		}
		s.mounts[path] = m
		return done()
	}
	if path, ok := name("sys/auth/"); ok {
		s.auths[path] = &auth{kind: str(c.args["type"]), roles: map[string]role{}}
		return done()
	}
	if policy, ok := name("sys/policies/acl/"); ok {
		s.policies[policy] = parsePolicy(str(c.args["policy"]))
		return done()
	}
	if c.path == "sys/seal" {
		s.sealed = true
		return done()
	}
	return failList(http.StatusNotFound, "unsupported path")
}

const capabilitiesSelf = "sys/capabilities-self"

// str, strs, num and duration read an argument as forgivingly as Vault does.
func str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

func strs(v any) []string {
	switch v := v.(type) {
	case string:
		return strings.Split(v, ",")
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, str(e))
		}
		return out
	}
	return nil
}

func num(v any) int {
	n, _ := strconv.Atoi(str(v))
	return n
}

func duration(v any, otherwise time.Duration) time.Duration {
	text := str(v)
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d
	}
	return otherwise
}
