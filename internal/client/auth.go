package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// needed are the paths that a token must be able to update so that Leasehold can keep its promises: renew the token and
// its leases, and revoke it. Vault's default policy allows them all.
var needed = []string{"auth/token/renew-self", "auth/token/revoke-self", "sys/leases/renew"}

const capabilitiesSelf = "sys/capabilities-self"

// policy is what to give a role whose tokens lack the default policy, on one line as errors are.
var policy = func() string {
	var lines []string
	for _, p := range append(slices.Clone(needed), capabilitiesSelf) {
		lines = append(lines, fmt.Sprintf("path %q { capabilities = [\"update\"] }", p))
	}
	return strings.Join(lines, " ")
}()

// grantedAuth is the "auth" of a login's answer.
type grantedAuth struct {
	Token         string   `json:"client_token"`
	Accessor      string   `json:"accessor"`
	Type          string   `json:"token_type"`
	LeaseDuration int64    `json:"lease_duration"` // seconds; 0 = the token does not end by itself
	Renewable     bool     `json:"renewable"`
	NumUses       int      `json:"num_uses"`
	Policies      []string `json:"policies"` // the token's and the identity's
	Identity      []string `json:"identity_policies"`
}

// Login logs in with a pod's service account token (POST auth/<path>/login, which the Kubernetes and the JWT method
// share) and checks that the Vault token it gets is one that Leasehold can keep and give back. A token that is not is
// revoked again and Rejected. If Vault does not take it back just then, the session comes beside the error, to be revoked
// later.
func (p *Pool) Login(ctx context.Context, v spec.Vault, jwt redact.String) (*Session, error) {
	path := "auth/" + strings.Trim(v.AuthPath, "/") + "/login"
	body, err := json.Marshal(map[string]string{"role": v.Role, "jwt": jwt.Reveal()})
	if err != nil {
		return nil, &Error{Kind: Rejected, Op: opLogin, Path: path, Err: errors.New("role and token are not text")}
	}
	s := &Session{conn: conn{pool: p, vault: v}}
	var auth grantedAuth
	q := question{op: opLogin, method: http.MethodPost, path: path, body: body, jwt: jwt}
	err = s.conn.ask(ctx, q, func(a answer) *Error {
		var said struct {
			Auth *grantedAuth `json:"auth"`
		}
		if json.Unmarshal(a.body, &said) != nil {
			return &Error{Kind: Unavailable, Status: a.status, InDoubt: true, Err: nonsense(a)}
		}
		if said.Auth == nil || said.Auth.Token == "" {
			reason := "Vault answered without a token; is this the path of an auth method, and one without MFA?"
			return &Error{Kind: Rejected, Status: a.status, InDoubt: true, Reasons: []string{reason}}
		}
		auth = *said.Auth
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.token, s.accessor = redact.New(auth.Token), auth.Accessor
	s.batch, s.renewable = auth.Type == "batch", auth.Renewable
	s.start = time.Now()
	if auth.LeaseDuration > 0 {
		s.end = s.start.Add(time.Duration(auth.LeaseDuration) * time.Second)
	}
	if err := s.check(ctx, auth); err != nil {
		return s.discard(ctx, path, err)
	}
	return s, nil
}

// refusal is a reason not to accept a token.
type refusal string

func (r refusal) Error() string { return string(r) }

// check returns a refusal when the token is not fit to be kept, or the error of asking.
func (s *Session) check(ctx context.Context, auth grantedAuth) error {
	if auth.NumUses > 0 {
		return refusal(fmt.Sprintf("the token has a use limit (token_num_uses = %d), which renewals would use up: "+
			"set it to 0 in the role", auth.NumUses))
	}
	has := func(policy string) bool {
		return slices.Contains(auth.Policies, policy) || slices.Contains(auth.Identity, policy)
	}
	if has("default") || has("root") {
		return nil
	}
	paths := needed
	if s.batch {
		paths = []string{"sys/leases/renew"} // it can be neither renewed nor revoked anyway
	}
	may, err := s.capabilities(ctx, paths)
	if err != nil && KindOf(err) != Denied {
		return err
	}
	for _, p := range paths {
		if !slices.ContainsFunc(may[p], func(c string) bool { return c == "update" || c == "root" || c == "sudo" }) {
			return refusal(`the token lacks the policy "default", and no other lets it renew and revoke itself: ` +
				"give the role this policy: " + policy)
		}
	}
	return nil
}

// capabilities asks what the token may do at some paths.
func (s *Session) capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	body, err := json.Marshal(map[string][]string{"paths": paths})
	if err != nil {
		return nil, err
	}
	var said struct {
		Data map[string][]string `json:"data"`
	}
	q := question{op: opCapabilities, method: http.MethodPost, path: capabilitiesSelf, body: body, token: s.token}
	err = s.conn.ask(ctx, q, func(a answer) *Error {
		if json.Unmarshal(a.body, &said) != nil {
			return &Error{Kind: Unavailable, Status: a.status, Err: nonsense(a)}
		}
		return nil
	})
	return said.Data, err
}

// discard revokes a token that is not to be kept, also when the caller has given up meanwhile, and returns the login's
// outcome.
func (s *Session) discard(ctx context.Context, path string, cause error) (*Session, error) {
	e, ok := errors.AsType[*Error](cause)
	if !ok {
		e = &Error{Kind: Rejected, Op: opLogin, Path: path, Status: http.StatusOK, Reasons: []string{cause.Error()}}
	}
	if s.batch {
		return nil, e // it ends by itself
	}
	err := s.Revoke(context.WithoutCancel(ctx))
	if err == nil {
		return nil, e
	}
	e.InDoubt = true // a token lives that nobody needs
	if KindOf(err) == Unavailable {
		return s, e
	}
	e.Reasons = append(e.Reasons, "nor could the token be revoked: it lives until its own end")
	return nil, e
}
