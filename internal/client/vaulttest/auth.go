package vaulttest

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// auth is an auth method of type jwt or kubernetes.
type auth struct {
	kind  string
	keys  []any // public keys
	roles map[string]role
}

// role is who may log in, and what a token gets.
type role struct {
	subject             string   // jwt: the claim "sub", or "" for any
	audiences           []string // none: jwt wants no audience, kubernetes does not ask
	accounts, spaces    []string // kubernetes: names of service accounts and namespaces, "*" for any
	kind                string
	policies            []string
	uses                int
	limits              limits
	withoutDefaultGrant bool
}

// admin configures an auth method.
func (a *auth) admin(operation, name string, args Data) reply {
	if operation == "delete" {
		delete(a.roles, strings.TrimPrefix(name, "role/"))
		return done()
	}
	if name == "config" {
		for _, text := range append(strs(args["jwt_validation_pubkeys"]), strs(args["pem_keys"])...) {
			block, _ := pem.Decode([]byte(text))
			if block == nil {
				return fail(http.StatusBadRequest, "error parsing public key: no PEM block")
			}
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return fail(http.StatusBadRequest, "error parsing public key: "+err.Error())
			}
			a.keys = append(a.keys, key)
		}
		return done()
	}
	name, isRole := strings.CutPrefix(name, "role/")
	if !isRole {
		return unsupported()
	}
	r := role{
		subject: str(args["bound_subject"]), audiences: strs(args["bound_audiences"]), kind: str(args["token_type"]),
		accounts: strs(args["bound_service_account_names"]), spaces: strs(args["bound_service_account_namespaces"]),
		policies: strs(args["token_policies"]), uses: num(args["token_num_uses"]),
		limits: limits{
			ttl: duration(args["token_ttl"], 0), max: duration(args["token_max_ttl"], 0),
			period: duration(args["token_period"], 0), explicitMax: duration(args["token_explicit_max_ttl"], 0),
		},
	}
	if r.limits.max > 0 && r.limits.ttl > r.limits.max {
		return fail(http.StatusBadRequest, "'token_ttl' cannot be greater than 'token_max_ttl'")
	}
	if audience := str(args["audience"]); audience != "" {
		r.audiences = []string{audience}
	}
	r.withoutDefaultGrant, _ = args["token_no_default_policy"].(bool)
	if r.kind != "batch" {
		r.kind = "service"
	}
	a.roles[name] = r
	return done()
}

// login answers POST auth/<path>/login.
func (s *Server) login(a *auth, args Data) reply {
	name, text := str(args["role"]), str(args["jwt"])
	if name == "" {
		return fail(http.StatusBadRequest, "missing role")
	}
	r, ok := a.roles[name]
	if a.kind == "kubernetes" {
		if !ok {
			return fail(http.StatusBadRequest, `invalid role name "`+name+`"`)
		}
		if text == "" {
			return fail(http.StatusBadRequest, "missing jwt")
		}
		if refused := a.kubernetes(r, text); refused != "" {
			return fail(http.StatusForbidden, refused)
		}
		return s.welcome(a, name, r)
	}
	if !ok {
		return fail(http.StatusBadRequest, `role "`+name+`" could not be found`)
	}
	if text == "" {
		return fail(http.StatusBadRequest, "missing token")
	}
	if refused := a.jwt(r, text); refused != "" {
		return fail(http.StatusBadRequest, refused)
	}
	return s.welcome(a, name, r)
}

// welcome makes a token for who has logged in.
func (s *Server) welcome(a *auth, name string, r role) reply {
	t := &token{
		kind: r.kind, uses: r.uses, limited: r.uses > 0, policies: slices.Clone(r.policies),
		renewable: r.kind != "batch", issued: time.Now(), explicitMax: r.limits.explicitMax,
	}
	if !r.withoutDefaultGrant {
		t.policies = append(t.policies, "default")
	}
	slices.Sort(t.policies)
	// A role is asked anew at every renewal.
	t.limits = func() (limits, error) {
		now, ok := a.roles[name]
		if !ok {
			return limits{}, fmt.Errorf("role %s does not exist during renewal", name)
		}
		return now.limits, nil
	}
	return s.issue(t, r.limits)
}

// jwt is the check of the JWT method; it returns Vault's reason to refuse.
func (a *auth) jwt(r role, text string) string {
	claims, err := a.verify(text)
	switch {
	case err != nil:
		return "error validating token: error verifying token signature: " + err.Error()
	case r.subject != "" && r.subject != claims.Subject:
		return "error validating token: invalid subject (sub) claim"
	case time.Now().After(claims.Expiry.Time().Add(time.Minute)):
		return "error validating token: invalid expiration time (exp) claim: token is expired"
	case len(r.audiences) == 0 && len(claims.Audience) > 0:
		return "audience claim found in JWT but no audiences bound to the role"
	case !intersects(r.audiences, claims.Audience):
		return "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience"
	}
	return ""
}

// kubernetes is the check of the Kubernetes method, without the TokenReview.
func (a *auth) kubernetes(r role, text string) string {
	claims, err := a.verify(text)
	within := func(names []string, name string) bool {
		return slices.Contains(names, "*") || slices.Contains(names, name)
	}
	switch {
	case err != nil:
		return "permission denied"
	case time.Now().After(claims.Expiry.Time().Add(time.Minute)):
		return "invalid expiration time (exp) claim: token is expired"
	case len(r.audiences) > 0 && !intersects(r.audiences, claims.Audience):
		return "invalid audience (aud) claim: audience claim does not match any expected audience"
	case !within(r.accounts, claims.Kubernetes.ServiceAccount.Name):
		return "service account name not authorized"
	case !within(r.spaces, claims.Kubernetes.Namespace):
		return "namespace not authorized"
	}
	return ""
}

// verify checks the signature and returns the claims.
func (a *auth) verify(text string) (serviceAccountClaims, error) {
	var claims serviceAccountClaims
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return claims, err
	}
	for _, key := range a.keys {
		if parsed.Claims(key, &claims) == nil {
			return claims, nil
		}
	}
	return claims, errors.New("no known key successfully validated the token signature")
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
