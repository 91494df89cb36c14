package bed_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"leasehold/test/integration/bed"
)

const secret = "hunter2-<correct>-\"horse\"/ÿþý"

func TestLeaksFindsEveryForm(t *testing.T) {
	quoted, err := json.Marshal("a " + secret + " b")
	check(t, "marshal", err)
	var unescaped bytes.Buffer
	encoder := json.NewEncoder(&unescaped)
	encoder.SetEscapeHTML(false)
	check(t, "encode", encoder.Encode(secret))
	type row struct{ name, text, form string }
	rows := []row{
		{"plain", "password=" + secret, "plain"},
		{"JSON", string(quoted), "JSON"},
		{"JSON without HTML", unescaped.String(), "JSON"},
	}
	for before := range 5 {
		for after := range 4 {
			whole := strings.Repeat("x", before) + secret + strings.Repeat("y", after)
			name := fmt.Sprintf("base64 %d %d", before, after)
			rows = append(rows,
				row{name, base64.StdEncoding.EncodeToString([]byte(whole)), "base64"},
				row{name + " url", base64.RawURLEncoding.EncodeToString([]byte(whole)), "base64"},
			)
		}
	}
	for _, row := range rows {
		text := "first line\nsecond " + row.text + " end\nlast"
		leaks := bed.Leaks([]string{"another secret", secret}, map[string][]byte{"log": []byte(text)})
		if len(leaks) != 1 {
			t.Errorf("%s: got %d leaks, want 1", row.name, len(leaks))
			continue
		}
		got := leaks[0]
		if got.Text != "log" || got.Line != 2 || got.Form != row.form {
			t.Errorf("%s: got %q line %d form %q, want log, line 2, %s", row.name, got.Text, got.Line, got.Form, row.form)
		}
		if printed := got.String(); strings.Contains(printed, "hunter2") || !strings.Contains(printed, "[SECRET]") {
			t.Errorf("%s: got %q, want the secret masked", row.name, printed)
		}
	}
}

func TestLeaksFindsTheSignatureOfAToken(t *testing.T) {
	signer, err := bed.NewSigner(bed.ES256)
	check(t, "signer", err)
	token, err := signer.Token(bed.Pod{Namespace: "n", ServiceAccount: "s"}, "vault", 1)
	check(t, "token", err)
	if got := signer.Issued(); !slices.Equal(got, []string{token}) {
		t.Errorf("issued: got %d tokens, want the one", len(got))
	}
	end := token[strings.LastIndexByte(token, '.')+1:]
	leaks := bed.Leaks(signer.Issued(), map[string][]byte{"log": []byte("eyJ...." + end)})
	if len(leaks) != 1 || leaks[0].Form != "JWT signature" {
		t.Errorf("got %v, want one JWT signature", leaks)
	}
}

func TestLeaksFindsNothing(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "short": "hunter2", "other": strings.Repeat("nothing to see here ", 100), "almost": secret[:len(secret)-1],
	} {
		if leaks := bed.Leaks([]string{secret, "short"}, map[string][]byte{name: []byte(text)}); len(leaks) > 0 {
			t.Errorf("%s: got %v, want nothing", name, leaks)
		}
	}
}

func TestSecretsOfAHalfWrittenFile(t *testing.T) {
	lines := `{"type":"request","auth":{"client_token":"hvs.token-one"},"request":{"path":"auth/x/login","data":{"jwt":"jwt-of-a-pod","role":"role-name-1"}}}
{"type":"response","request":{"mount_class":"secret","mount_type":"kv","data":{}},"response":{"data":{"a":["list-item-1",{"b":"deep-value"}],"username":"user-name-1","c":"short"}}}
{"type":"response","request":{"mount_class":"secret","mount_type":"system"},"response":{"data":{"policy":"path something"}}}
{"type":"response","response":{"auth":{"client_token":"hvs.never`
	path := filepath.Join(t.TempDir(), "audit.log")
	check(t, "write", os.WriteFile(path, []byte(lines), 0o600))
	got, err := bed.Secrets(path)
	check(t, "secrets", err)
	if want := []string{"deep-value", "hvs.token-one", "jwt-of-a-pod", "list-item-1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	check(t, "write", os.WriteFile(path, []byte(`{"auth": 1}`), 0o600))
	if _, err := bed.Secrets(path); err == nil {
		t.Error("no audit file: got no error")
	}
}

// BenchmarkLeaks is the size of a whole test run.
func BenchmarkLeaks(b *testing.B) {
	random := func(n int) string {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte('a' + rand.IntN(26))
		}
		return string(text)
	}
	var secrets []string
	for range 5000 {
		secrets = append(secrets, "hvs.CAES"+random(80), "eyJhbGciOiJ."+random(500)+"."+random(86))
	}
	line := `{"time":"2026-01-01T00:00:00Z","level":"DEBUG","msg":"vault request","op":"read","path":"database/creds/db-app"}` + "\n"
	text := []byte(strings.Repeat(line, 8<<20/len(line)))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if leaks := bed.Leaks(secrets, map[string][]byte{"log": text}); len(leaks) > 0 {
			b.Fatal(leaks)
		}
	}
}
