package spec

import (
	"strings"
	"testing"
	"time"
)

func TestChooseToken(t *testing.T) {
	for name, row := range map[string]struct {
		attribute, secret string
		operator, class   string // audiences
		want              string // audience of the token, or
		fault             string
	}{
		"operator's audience": {attribute: tokensJSON("a", "vault", "z"), operator: "vault", want: "vault"},
		"class's audience":    {attribute: tokensJSON("a", "vault", "z"), operator: "vault", class: "z", want: "z"},
		"the only one":        {attribute: tokensJSON("cluster"), operator: "vault", want: "cluster"},
		"the only one, though the class wants another": {attribute: tokensJSON("cluster"), class: "x", want: "cluster"},
		"of the API server":                            {attribute: tokensJSON(""), operator: "vault", want: ""},
		"nobody says":                                  {attribute: tokensJSON("a"), want: "a"},
		"in the secrets":                               {secret: tokensJSON("vault"), operator: "vault", want: "vault"},
		"in both places, of two audiences":             {attribute: tokensJSON("vault"), secret: tokensJSON("s", "t"), class: "t", want: "t"},
		"an empty one does not count": {
			attribute: `{"vault":{"token":""},"b":{"token":"` + canary + `b"}}`, operator: "vault", want: "b",
		},
		"none": {
			operator: "vault",
			fault: `the driver sent no service account token: add "tokenRequests: [{audience: vault}]" to the spec of the ` +
				`CSIDriver object secrets-store.csi.k8s.io`,
		},
		"none of another audience": {class: "x", fault: `the driver sent no service account token: add "tokenRequests: [{audience: "x"}]" to`},
		"an empty object":          {attribute: "{}", operator: "vault", fault: "the driver sent no service account token: "},
		"several, none fits": {
			attribute: tokensJSON("b", "a"), operator: "vault",
			fault: `there is no service account token of audience "vault", only of "a", "b": set the parameter audience to one of ` +
				`these, or add "vault" to tokenRequests of the CSIDriver object`,
		},
		"several, nobody says": {
			attribute: tokensJSON("b", "a"),
			fault:     `there are service account tokens of several audiences, "a", "b": name one of them with the parameter audience`,
		},
		"many, none fits": {
			attribute: tokensJSON(strings.Split("a b c d e f g h i j", " ")...), operator: "vault",
			fault: `there is no service account token of audience "vault", only of "a", "b", "c", "d", "e", "f", "g", "h", and 2 more: `,
		},
		"broken JSON": {
			attribute: canary, operator: "vault",
			fault: "csi.storage.k8s.io/serviceAccount.tokens is not the JSON that kubelet writes: ",
		},
		"a text for a token": {attribute: `{"vault":"` + canary + `"}`, fault: "csi.storage.k8s.io/serviceAccount.tokens is not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.operator.Vault.Audience = row.operator
			c.attributes["audience"] = row.class
			c.attributes[tokensKey] = row.attribute
			c.secrets[tokensKey] = row.secret
			m, err := c.Parse()
			if row.fault != "" {
				if !strings.HasPrefix(errorText(err), row.fault) || strings.Contains(errorText(err), canary) {
					t.Errorf("got error  %v\nwant fault %s", err, row.fault)
				}
				return
			}
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if got := m.Class.Vault.Audience; got != row.want {
				t.Errorf("audience %q, want %q", got, row.want)
			}
			if got, want := m.Pod.Token.Reveal(), canary+row.want; got != want {
				t.Errorf("token %q, want %q", got, want)
			}
		})
	}
}

// On a cluster that moves the tokens from the attributes to the secrets both may carry one, and one of them is stale.
func TestChooseTheNewerToken(t *testing.T) {
	const early, late = "2030-01-02T03:04:05Z", "2030-01-02T05:04:05+01:00" // 04:04:05 in UTC
	token := func(name, expires string) string {
		return `{"vault":{"token":"` + canary + name + `","expirationTimestamp":"` + expires + `"}}`
	}
	for name, row := range map[string]struct {
		attribute, secret string
		want, expires     string
	}{
		"newer in the secrets":           {token("a", early), token("s", late), "s", "2030-01-02T04:04:05Z"},
		"newer in the attributes":        {token("a", late), token("s", early), "a", "2030-01-02T04:04:05Z"},
		"equally new":                    {token("a", early), token("s", early), "s", early},
		"nobody says":                    {token("a", ""), token("s", "soon"), "s", ""},
		"only the attributes say":        {token("a", early), token("s", ""), "a", early},
		"only the secrets say":           {token("a", "soon"), token("s", early), "s", early},
		"the newer one is empty":         {token("a", early), `{"vault":{"token":"","expirationTimestamp":"` + late + `"}}`, "a", early},
		"null for a time, as JSON of Go": {`{"vault":{"token":"` + canary + `a","expirationTimestamp":null}}`, "", "a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.attributes[tokensKey], c.secrets[tokensKey] = row.attribute, row.secret
			pod := mustParse(t, c).Pod
			if got, want := pod.Token.Reveal(), canary+row.want; got != want {
				t.Errorf("token %q, want %q", got, want)
			}
			expires := ""
			if !pod.TokenExpires.IsZero() {
				expires = pod.TokenExpires.Format(time.RFC3339)
			}
			if expires != row.expires {
				t.Errorf("expires %q, want %q", expires, row.expires)
			}
		})
	}
}
