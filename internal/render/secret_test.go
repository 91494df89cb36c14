package render

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/internal/spec"
)

// What a template writes as a source, and what it asks Vault for by that.
func TestSecretAsks(t *testing.T) {
	read := func(path string) *spec.Source { return &spec.Source{Method: "GET", Path: path, Lenient: true} }
	write := func(path, args string) *spec.Source {
		return &spec.Source{Method: "PUT", Path: path, Args: args}
	}
	list := func(path string) *spec.Source { return &spec.Source{Method: "LIST", Path: path, Lenient: true} }
	for _, tt := range []struct {
		call  string
		asks  *spec.Source // nil: nothing
		fails string
	}{
		{call: `secret "kv/app"`, asks: read("kv/app")},
		{call: `secret " /v1/kv//app/ "`, asks: read("kv/app")},
		{call: `secret "kv/app?version=3"`, asks: read("kv/app?version=3")},
		{call: `secret "kv/app?b=2&a=1"`, asks: read("kv/app?a=1&b=2")},
		{call: `secret "kv/a%20b%25"`, asks: read("kv/a b%")},
		{call: `secret`},
		{call: `secret ""`, fails: "secret: the path names no path"},
		{call: `secret "/"`, fails: "secret: the path names no path"},
		{call: `secret "kv/../sys/` + canary + `"`, fails: `secret: the path has a part "." or ".."`},
		{call: `secret "kv/%2e%2e/` + canary + `"`, fails: `secret: the path has a part "." or ".."`},
		{call: `secret "kv/` + canary + `\n"`, asks: read("kv/" + canary)},
		{call: `secret "kv\n/` + canary + `"`, fails: "secret: the path has a control character"},
		{call: `secret "kv/%0a` + canary + `"`, fails: "secret: the path has a control character"},
		{call: `secret "kv/%zz` + canary + `"`, fails: "secret: the path cannot be read"},
		{call: `secret "kv/%3fversion=1` + canary + `"`, fails: "secret: the path cannot be read"},
		{call: `secret "kv/a?%zz=` + canary + `"`, fails: "secret: the path has a ?query that cannot be read"},
		{call: `secret (indent 5000 "a")`, fails: "secret: the path is too long"},
		{call: `secret 1`, fails: "expected string"},

		{call: `secret "pki/issue/app" "common_name=a.b" "ttl = 1h "`, asks: write("pki/issue/app", `{"common_name":"a.b","ttl":"1h"}`)},
		{call: `secret "a/b" "z=1" "" "a=b=c" "z=2" "e="`, asks: write("a/b", `{"a":"b=c","e":"","z":"2"}`)},
		{call: `secret "a/b" ""`, asks: write("a/b", `{}`)},
		{call: `secret "a/b%20" "x=<>"`, asks: write("a/b%20", `{"x":"\u003c\u003e"}`)},
		{call: `"x=y" | secret "a/b"`, asks: write("a/b", `{"x":"y"}`)},
		{call: `secret "a/b" "` + canary + `"`, fails: "secret: what follows the path must be pairs"},
		{call: `secret "a/b" (print "x=" (indent 70000 "a"))`, asks: write("a/b", `{"x":"a"}`)},
		{call: `secret "a/b" (print "x=" (indent 70000 "a" | replaceAll " " "b"))`, fails: "secret: the arguments are too long"},

		{call: `secrets "kv/"`, asks: list("kv")},
		{call: `secrets "kv/metadata/a%20"`, asks: list("kv/metadata/a%20")},
		{call: `secrets ""`},
		{call: `secrets "/"`, fails: "secrets: the path names no path"},
		{call: `secrets "kv/..` + canary + `/.."`, fails: `secrets: the path has a part "." or ".."`},

		{call: `pkiCert "pki/issue/app" "common_name=a.b"`, asks: write("pki/issue/app", `{"common_name":"a.b"}`)},
		{call: `pkiCert "pki/issue/app"`, asks: write("pki/issue/app", `{}`)},
		{call: `pkiCert`},
		{call: `pkiCert ""`, fails: "pkiCert: the path names no path"},
		{call: `pkiCert "pki/issue/app" "` + canary + `"`, fails: "pkiCert: what follows the path must be pairs"},
	} {
		b := newBench(nil)
		_, err := b.execute("{{ "+tt.call+" }}", nil)
		switch {
		case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails) || strings.Contains(ownWords(err), canary)):
			t.Errorf("%.80s: got error %v, want one with %q and without the path", tt.call, err, tt.fails)
		case tt.fails != "" && b.asked != nil:
			t.Errorf("%.80s: asked for %v, want nothing", tt.call, b.asked)
		case tt.fails == "" && tt.asks == nil && (err != nil || b.asked != nil):
			t.Errorf("%.80s: got error %v, asked for %v; want nothing", tt.call, err, b.asked)
		case tt.asks != nil && !slices.Equal(b.asked, []spec.Source{*tt.asks}):
			t.Errorf("%.80s: asked for %v, want %v", tt.call, b.asked, *tt.asks)
		}
	}
}

func TestSecret(t *testing.T) {
	answers := map[string]string{
		"db/creds/app": `{"username": "u", "password": "p<"}`,
		"kv/data/app":  `{"data": {"port": 5432, "big": 12345678901234567890, "on": true, "none": null, "list": ["a"]}, "metadata": {"version": 3}}`,
		"kv/empty":     `{}`,
	}
	for _, tt := range []struct{ template, want string }{
		{`{{ with secret "db/creds/app" }}{{ .Data.username }}:{{ .Data.password }}@{{ .LeaseID }} {{ .LeaseDuration }} {{ .Renewable }}{{ end }}`, "u:p<@lease/1 90 true"},
		{`{{ with secret "kv/data/app" }}{{ .Data.data.port }} {{ .Data.data.big }} {{ .Data.data.none }} {{ .Data.data.list }} {{ .Data.metadata.version }}{{ end }}`, "5432 12345678901234567890 <no value> [a] 3"},
		{`{{ (secret "kv/data/app").Data }}`, "map[data:map[big:12345678901234567890 list:[a] none:<nil> on:true port:5432] metadata:map[version:3]]"},
		{`{{ secret "db/creds/app" }}`, "{ lease/1 90 true map[password:p< username:u] [] <nil> <nil>}"},
		{`{{ print (secret "db/creds/app") }}`, "&{ lease/1 90 true map[password:p< username:u] [] <nil> <nil>}"},
		{`{{ scratch.MapSet "m" "s" (secret "kv/empty") }}{{ scratch.Get "m" }}`, "map[s:&{ lease/1 90 true map[] [] <nil> <nil>}]"},
		{`{{ secret "db/creds/app" | toJSON }}`, `{"RequestID":"","LeaseID":"lease/1","LeaseDuration":90,"Renewable":true,"Data":{"password":"p\u003c","username":"u"},"Warnings":null,"Auth":null,"WrapInfo":null}`},
		{`{{ with secret "kv/empty" }}{{ .Data }} {{ len .Data }} {{ toJSON .Data }} {{ .Data.x }} {{ .Warnings }}{{ end }}`, "map[] 0 null <no value> []"},
		{`{{ with (secret "kv/empty").Auth }}auth{{ else }}none{{ end }} {{ with secret }}x{{ else }}none{{ end }} {{ secret }}`, "none none <no value>"},
		{`{{ printf "%T" (secret "kv/data/app").Data.data.port }}`, "json.Number"},
	} {
		got, err := newBench(answers).execute(tt.template, nil)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %q, error %v; want %q", tt.template, got, err, tt.want)
		}
	}
}

// No template can change what another one sees, or itself sees at the next call.
func TestSecretIsACopy(t *testing.T) {
	inner := map[string]any{"a": json.Number("1")}
	shared := answer{data: map[string]any{"m": inner}}
	shared.grant.Warnings = []string{"w"}
	first, err := secretOf(shared)
	if err != nil {
		t.Fatal(err)
	}
	second, err := secretOf(shared)
	if err != nil {
		t.Fatal(err)
	}
	inner["a"], shared.data["x"], shared.grant.Warnings[0] = 2, 3, "x"
	first.Data["y"], first.Warnings[0] = 4, "y"
	want := &vaultSecret{Data: map[string]any{"m": map[string]any{"a": json.Number("1")}}, Warnings: []string{"w"}}
	if !reflect.DeepEqual(second, want) {
		t.Errorf("got %+v, want what it was, %+v", second, want)
	}
}

func TestSecretsThatAreNotThere(t *testing.T) {
	for _, call := range []string{`secret "kv/x"`, `secret "kv/x" "a=b"`, `secrets "kv/x"`, `pkiCert "kv/x"`} {
		_, err := newBench(nil).execute("{{ "+call+" }}", nil)
		if unread := (*unreadError)(nil); !errors.As(err, &unread) || unread.source.Path != "kv/x" {
			t.Errorf("%s: got error %v, want that of the source", call, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	for _, tt := range []struct{ data, want, fails string }{
		{data: `{"keys": ["b", "a/", "a"]}`, want: `[a a/ b] ["a","a/","b"]`},
		{data: `{"keys": []}`, want: `[] null`},
		{data: `{}`, want: `[] null`},
		{data: `{"keys": null}`, fails: "secrets: vault's answer is not a list of names"},
		{data: `{"keys": "` + canary + `"}`, fails: "secrets: vault's answer is not a list of names"},
		{data: `{"keys": ["a", 1]}`, fails: "secrets: vault's answer is not a list of names"},
	} {
		b := newBench(map[string]string{"kv": tt.data})
		got, err := b.execute(`{{ secrets "kv" }} {{ secrets "kv" | toJSON }}`, nil)
		switch {
		case tt.fails == "" && (err != nil || got != tt.want):
			t.Errorf("%s: got %q, error %v; want %q", tt.data, got, err, tt.want)
		case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails) || strings.Contains(err.Error(), canary)):
			t.Errorf("%s: got %q, error %v; want an error with %q", tt.data, got, err, tt.fails)
		}
	}
	b := newBench(map[string]string{"kv": `{"keys": ["b", "a"]}`, "kv/a": `{"v": "1"}`, "kv/b": `{"v": "2"}`})
	got, err := b.execute(`{{ range secrets "kv" }}{{ . }}={{ with secret (printf "kv/%s" .) }}{{ .Data.v }}{{ end }} {{ end }}`, nil)
	if err != nil || got != "a=1 b=2 " {
		t.Errorf("secrets of a list: got %q, error %v", got, err)
	}
	if got, err := b.execute(`{{ range secrets "" }}x{{ else }}none{{ end }}`, nil); err != nil || got != "none" {
		t.Errorf("secrets of no path: got %q, error %v; want none", got, err)
	}
}

// pkiChain is a chain of certificates as Vault's PKI engine answers with it: texts without a newline at their end.
type pkiChain struct{ leaf, key, issuer, root string }

func newPKIChain(t *testing.T) pkiChain {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	parent := (*x509.Certificate)(nil)
	sign := func(name string, isAuthority bool) string {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
			IsCA: isAuthority, BasicConstraintsValid: true,
		}
		signer := parent
		if signer == nil {
			signer = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		parent = c
		return text("CERTIFICATE", der)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	root, issuer := sign("root", true), sign("issuer", true)
	return pkiChain{root: root, issuer: issuer, leaf: sign("app", false), key: text("EC PRIVATE KEY", der)}
}

func TestPKICert(t *testing.T) {
	c := newPKIChain(t)
	for name, tt := range map[string]struct {
		data map[string]any
		want string // of the template below
	}{
		"as PEM": {
			map[string]any{
				"certificate": c.leaf, "issuing_ca": c.issuer, "ca_chain": []string{c.issuer, c.root}, "private_key": c.key,
				"serial_number": "11:22", "expiration": 1700000000, "private_key_type": "ec",
			},
			c.leaf + "\n|" + c.key + "\n|" + c.issuer + "\n|" + c.issuer + "\n;" + c.root + "\n;",
		},
		"as a bundle": {
			map[string]any{
				"certificate": c.key + "\n" + c.leaf + "\n" + c.issuer, "issuing_ca": c.issuer, "private_key": c.key,
				"ca_chain": []any{c.issuer, 1, c.root}, "other_chain": []string{c.root},
			},
			c.leaf + "\n|" + c.key + "\n|" + c.issuer + "\n|" + c.issuer + "\n;" + c.root + "\n;",
		},
		"without authorities": {map[string]any{"certificate": c.leaf}, c.leaf + "\n|||"},
	} {
		data, err := json.Marshal(tt.data)
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(map[string]string{"pki/issue/app": string(data)})
		for range 10 { // the fields come in another order each time
			got, err := b.execute(`{{ with pkiCert "pki/issue/app" "common_name=app" }}{{ .Cert }}|{{ .Data.Key }}|{{ .CA }}|{{ range .Data.CAChain }}{{ . }};{{ end }}{{ end }}`, nil)
			if err != nil || got != tt.want {
				t.Fatalf("%s: got %q, error %v; want %q", name, got, err, tt.want)
			}
		}
	}
	for name, data := range map[string]string{
		"no certificate":       `{"private_key": "` + strings.ReplaceAll(c.key, "\n", `\n`) + canary + `"}`,
		"only authorities":     `{"certificate": "` + strings.ReplaceAll(c.root, "\n", `\n`) + `"}`,
		"another kind":         `{"certificate": "` + canary + `"}`,
		"a broken certificate": `{"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n` + canary + `"}`,
		"nothing":              `{}`,
	} {
		_, err := newBench(map[string]string{"pki/issue/app": data}).execute(`{{ pkiCert "pki/issue/app" }}`, nil)
		if err == nil || !strings.Contains(err.Error(), "pkiCert: ") || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got error %v, want one of pkiCert without a value", name, err)
		}
	}
}

// FuzzSecretAsks looks for a path that makes an error show it, or that is no path of a source.
func FuzzSecretAsks(f *testing.F) {
	for _, seed := range []string{"kv/app?version=1", "/v1/a//b/", "kv/%2e%2e/x", "a?b?c=%zz", "%3f", "\x00", "v1/v1/x"} {
		f.Add(seed, "k=v")
	}
	f.Fuzz(func(t *testing.T, path, pair string) {
		for _, arguments := range [][]string{{path}, {path, pair}} {
			b := newBench(nil)
			_, err := b.secret(arguments...)
			if _, isFault := errors.AsType[fault](err); isFault {
				continue
			}
			if len(b.asked) != 1 {
				t.Fatalf("%q: got error %v, asked for %v", arguments, err, b.asked)
			}
			name, _, _ := strings.Cut(b.asked[0].Path, "?")
			if name == "" || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("%q: asked for the path %q", arguments, name)
			}
		}
	})
}
