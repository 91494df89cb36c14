package provider

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"leasehold/internal/client/vaulttest"
)

// Whatever happens to a Mount, neither its log, at the level debug, nor its error has a secret in it.
func TestNothingSecretIsLoggedOrReported(t *testing.T) {
	const objects = userAndPassword + `
- objectName: whole
  secretPath: kv/app
- objectName: certificate
  secretPath: pki/issue/app
  method: PUT
  secretArgs: {common_name: a.example.com, otp: argument-of-the-class}
`
	echo := func(status int) func(*bench) {
		return func(b *bench) {
			b.vault.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/login") {
					return false
				}
				w.WriteHeader(status)
				_ = json.NewEncoder(w).Encode(vaulttest.Data{"errors": []string{"no: " + r.Header.Get("X-Vault-Token")}})
				return true
			})
		}
	}
	for name, row := range map[string]struct {
		trouble func(*bench)
		objects string
		fails   bool
	}{
		"mounted":                    {objects: objects},
		"a missing key":              {objects: objects + "- {objectName: x, secretPath: kv/app, secretKey: none}", fails: true},
		"a value that is no base64":  {objects: objects + "- {objectName: x, secretPath: kv/app, secretKey: password, encoding: base64}", fails: true},
		"a template that makes it":   {objects: objects + templated("x", connection)},
		"a template that is none":    {objects: objects + templated("x", `{{ with secret "kv/app" }}{{ .Data.password`), fails: true},
		"a value that has no fields": {objects: objects + ofPassword(".x.y"), fails: true},
		"a value that is no JSON":    {objects: objects + ofPassword(" | parseJSON"), fails: true},
		"a value that is no number":  {objects: objects + ofPassword(" | parseInt"), fails: true},
		"a text that is no base64":   {objects: objects + ofPassword(" | base64Decode"), fails: true},
		"a value that is no list":    {objects: objects + templated("x", `{{ with secret "kv/app" }}{{ range .Data.password }}{{ . }}{{ end }}{{ end }}`), fails: true},
		"a value that is no index":   {objects: objects + templated("x", `{{ with secret "kv/app" }}{{ index (split "," "a,b") .Data.password }}{{ end }}`), fails: true},
		"a value that is no name":    {objects: objects + ofPassword(" | env"), fails: true},
		"a template that may not":    {objects: objects + templated("x", `{{ with secret "kv/app" }}{{ secret "sys/mounts" }}{{ end }}`), fails: true},
		"a fault":                    {objects: objects + "- {objectName: ../x, secretPath: kv/app}", fails: true},
		"Vault repeats the token":    {objects: objects, trouble: echo(400), fails: true},
		"Vault fails with the token": {objects: objects, trouble: echo(500), fails: true},
		"a proxy repeats the token":  {objects: objects, trouble: echo(502), fails: true},
		"sealed":                     {objects: objects, trouble: func(b *bench) { b.vault.Seal(true) }, fails: true},
		"down":                       {objects: objects, trouble: func(b *bench) { b.vault.Close() }, fails: true},
		"the volume is full":         {objects: objects, trouble: func(b *bench) { mountTmpfs(b.t, b.target("uid-app-0", "secrets"), "size=8k") }, fails: true},
		"no role for it":             {objects: objects, trouble: func(b *bench) { b.vault.Write("sys/auth/kubernetes", vaulttest.Data{"type": "jwt"}) }, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if row.trouble != nil {
				row.trouble(b)
			}
			p := b.pod("app-0")
			token := b.vault.Signer.Token(vaulttest.Claims{ServiceAccount: p.serviceAccount, Pod: p.name, UID: p.uid}).Reveal()
			p.parameters = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": fmt.Sprintf(`{"vault":{"token":%q}}`, token)}
			response, err := p.mount(t.Context(), row.objects)
			if (err != nil) != row.fails {
				t.Fatalf("got error %v, want one: %v", err, row.fails)
			}
			secrets := append(b.vault.Tokens(), token, token[strings.LastIndex(token, ".")+1:], "kv-v1-password", "argument-of-the-class")
			for _, f := range response.GetFiles() {
				secrets = append(secrets, string(f.GetContents()))
			}
			<-b.end() // the last records are written by now
			text := b.logs.String() + fmt.Sprint(err)
			if !strings.Contains(text, "level=DEBUG msg=call") {
				t.Fatalf("got no log of the call at the level debug:\n%s", text)
			}
			for _, secret := range secrets {
				if at := finds(text, secret); at != "" {
					t.Errorf("got a secret in log or error, %s", at)
				}
			}
		})
	}
}

// ofPassword is a template that does something with a password.
func ofPassword(what string) string {
	return templated("x", `{{ with secret "kv/app" }}{{ .Data.password`+what+` }}{{ end }}`)
}

// finds tells in which form a text has a secret in it, or "".
func finds(text, secret string) string {
	quoted := fmt.Sprintf("%q", secret)
	for form, needle := range map[string]string{
		"as it is":  secret,
		"quoted":    quoted[1 : len(quoted)-1],
		"in base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"in hex":    hex.EncodeToString([]byte(secret)),
	} {
		if strings.Contains(text, needle) {
			return form
		}
	}
	return ""
}

// A test that looks for a secret must find one that is there.
func TestFinds(t *testing.T) {
	const secret = "a\"b-secret"
	for _, text := range []string{
		secret, fmt.Sprintf("%q", secret), hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if finds("x"+text+"x", secret) == "" {
			t.Errorf("%q was not recognised", text)
		}
	}
	if form := finds("nothing of it", secret); form != "" {
		t.Errorf("found %s where it is not", form)
	}
}
