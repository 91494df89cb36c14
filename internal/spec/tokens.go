package spec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"leasehold/internal/redact"
)

// tokensKey is where the driver puts the pod's service account tokens: an attribute, or, if the CSIDriver object says
// serviceAccountTokenInSecrets, a secret.
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens" //nolint:gosec // the name of an attribute

// serviceAccountToken is one of a pod's tokens.
type serviceAccountToken struct {
	token   redact.String
	expires time.Time // zero if nobody says
}

// chooseToken picks the service account token of an audience, or else the only token there is. It returns the audience
// that the token really has. Whether the token is still good is for Vault to say.
func chooseToken(attributes, secrets map[string]string, wanted string, f *findings) (string, serviceAccountToken) {
	tokens := make(map[string]serviceAccountToken) // audience -> token
	for _, text := range []string{attributes[tokensKey], secrets[tokensKey]} {
		if !addTokens(tokens, text) {
			// No cause is shown: it may quote a token.
			f.add("%s is not the JSON that kubelet writes: set tokenRequests in the CSIDriver object and leave this key alone",
				tokensKey)
			return "", serviceAccountToken{}
		}
	}

	audiences := slices.Sorted(maps.Keys(tokens))
	if _, ok := tokens[wanted]; !ok && len(audiences) == 1 {
		wanted = audiences[0]
	}
	if t, ok := tokens[wanted]; ok {
		return wanted, t
	}
	switch {
	case len(audiences) == 0:
		example := "vault"
		if wanted != "" && wanted != example {
			example = quote(wanted)
		}
		f.add("the driver sent no service account token: add \"tokenRequests: [{audience: %s}]\" to the spec of the CSIDriver "+
			"object secrets-store.csi.k8s.io", example)
	case wanted == "":
		f.add("there are service account tokens of several audiences, %s: name one of them with the parameter audience",
			listQuoted(audiences))
	default:
		f.add("there is no service account token of audience %s, only of %s: set the parameter audience to one of these, or "+
			"add %[1]s to tokenRequests of the CSIDriver object", quote(wanted), listQuoted(audiences))
	}
	return "", serviceAccountToken{}
}

// addTokens adds what kubelet wrote, {"<audience>": {"token": "...", "expirationTimestamp": "..."}}. It is false when
// that is no such text. Of two tokens of one audience, the one that lives longer stays: it is the newer one, for kubelet
// asks for all of them to live equally long. When neither says, the later text wins.
func addTokens(tokens map[string]serviceAccountToken, text string) bool {
	if text == "" {
		return true
	}
	var written map[string]struct {
		Token   string `json:"token"`
		Expires string `json:"expirationTimestamp"`
	}
	if err := json.Unmarshal([]byte(text), &written); err != nil {
		return false
	}
	for audience, w := range written {
		if w.Token == "" {
			continue
		}
		fresh := serviceAccountToken{token: redact.New(w.Token)}
		if expires, err := time.Parse(time.RFC3339, w.Expires); err == nil {
			fresh.expires = expires.UTC()
		}
		if old, ok := tokens[audience]; !ok || !fresh.expires.Before(old.expires) {
			tokens[audience] = fresh
		}
	}
	return true
}

// listQuoted quotes the first few of some names.
func listQuoted(names []string) string {
	const most = 8
	var quoted []string
	for _, name := range names[:min(len(names), most)] {
		quoted = append(quoted, quote(name))
	}
	if len(names) > most {
		quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(quoted, ", ")
}
