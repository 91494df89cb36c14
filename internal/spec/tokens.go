package spec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"leasehold/internal/redact"
)

// tokensKey is where the driver puts the pod's service account tokens: an attribute, or, if the CSIDriver object says
// serviceAccountTokenInSecrets, a secret.
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens" //nolint:gosec // the name of an attribute

// chooseToken picks the service account token of an audience, or else the only token there is. It returns the audience
// that the token really has. Whether the token is still good is for Vault to say.
func chooseToken(attributes, secrets map[string]string, wanted string, f *findings) (string, redact.String) {
	text := secrets[tokensKey]
	if text == "" {
		text = attributes[tokensKey]
	}
	// As kubelet writes it: {"<audience>": {"token": "...", "expirationTimestamp": "..."}}.
	var tokens map[string]struct {
		Token string `json:"token"`
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &tokens); err != nil {
			// The error is not shown: it may quote a token.
			f.add("%s is not the JSON that kubelet writes: set tokenRequests in the CSIDriver object and leave this key alone",
				tokensKey)
			return "", redact.String{}
		}
	}
	for audience, t := range tokens {
		if t.Token == "" {
			delete(tokens, audience)
		}
	}

	audiences := slices.Sorted(maps.Keys(tokens))
	if _, ok := tokens[wanted]; !ok && len(audiences) == 1 {
		wanted = audiences[0]
	}
	if t, ok := tokens[wanted]; ok {
		return wanted, redact.New(t.Token)
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
	return "", redact.String{}
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
