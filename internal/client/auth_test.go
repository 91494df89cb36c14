package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
)

// bare gives the fake a role whose tokens lack the default policy, but may revoke themselves.
func bare(v *vaulttest.Server) {
	v.Write("sys/policies/acl/revoke", vaulttest.Data{"policy": `
		path "auth/token/revoke-self" { capabilities = ["update"] }`})
	v.Write("auth/kubernetes/role/bare", vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vaulttest.Audience},
		"token_policies": []string{"revoke"}, "token_no_default_policy": true,
	})
}

// A token that is not handed out must not live on, whatever the reason.
func TestTokenThatIsNotKeptIsRevoked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc // to what the login asks about the token; nil: Vault's own
		gaveUp bool             // the caller, meanwhile
		kind   client.Kind
		text   string
	}{
		{
			name: "refused", kind: client.Rejected,
			text: `login "auth/kubernetes/login": refused (200): the token lacks the policy "default"`,
		},
		{
			name: "asking failed", answer: answering(500, "application/json", `{"errors":["internal error"]}`),
			kind: client.Unavailable, text: `capabilities "sys/capabilities-self": vault is unavailable (500): internal error`,
		},
		{
			name: "nonsense", answer: answering(200, "text/html", `<h1>hello</h1>`),
			kind: client.Unavailable, text: "the answer is not Vault's",
		},
		{name: "the caller gave up", gaveUp: true, kind: client.Unavailable, text: "context canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, jwt := furnished(t)
			bare(v)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			v.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/sys/capabilities-self" || (tt.answer == nil && !tt.gaveUp) {
					return false
				}
				if tt.gaveUp {
					_, _ = io.ReadAll(r.Body) // only then does the server notice that the client is gone
					cancel()
					<-r.Context().Done()
				} else {
					tt.answer(w, r)
				}
				return true
			})
			_, err := newPool(t, client.Config{}).Login(ctx, v.Vault("bare"), jwt)
			if client.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v error %q, want %v with %q", client.KindOf(err), err, tt.kind, tt.text)
			}
			if got := len(v.Tokens()); got != 0 {
				t.Errorf("got %d live tokens, want none", got)
			}
		})
	}
}

func TestLoginWithoutAToken(t *testing.T) {
	for body, want := range map[string]client.Kind{
		`{"request_id":"1","auth":null}`:                   client.Rejected,
		`{"request_id":"1","auth":{"mfa_requirement":{}}}`: client.Rejected,
		``:                client.Unavailable,
		`<h1>login</h1>`:  client.Unavailable,
		`{"auth":"string`: client.Unavailable,
	} {
		s := serve(t, answering(200, "application/json", body))
		_, err := newPool(t, client.Config{}).Login(t.Context(), vaultAt(s.URL), redact.New(stubJWT))
		wantError(t, err, want, "login", true)
	}
}

func TestTokenThatNeverEnds(t *testing.T) {
	s := serve(t, answering(200, "application/json", strings.Replace(stubLogin, `"lease_duration":60`, `"lease_duration":0`, 1)))
	if got := open(t, newPool(t, client.Config{}), vaultAt(s.URL)).End(); !got.IsZero() {
		t.Errorf("got end %v, want none", got)
	}
}

func BenchmarkLoginAndRead(b *testing.B) {
	v, jwt := furnished(b)
	pool := newPool(b, client.Config{})
	b.ReportAllocs()
	for b.Loop() {
		s, err := pool.Login(b.Context(), v.Vault("app"), jwt)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Read(b.Context(), get("database/creds/app")); err != nil {
			b.Fatal(err)
		}
	}
}
