package spec

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParameters(t *testing.T) {
	creds := Source{Method: "GET", Path: "database/creds/app"}
	class := Class{
		Vault: Vault{
			Address: "https://vault.example:8200", Namespace: "team", AuthPath: "kubernetes", Role: "app", Audience: "vault",
			TLS: TLS{CACert: File{Root: "/tls", Path: "ca.pem"}, ClientCert: File{Path: "/operator/c.pem"}, CA: certPEM},
		},
		Objects: []Object{
			{Name: "db/user", Source: creds, Key: "username", Encoding: UTF8, Mode: 0o644},
			{Name: "db.json", Source: creds, Format: FormatJSON, Encoding: UTF8, Mode: 0},
			{Name: ".env", Source: Source{Method: "GET", Path: "kv/data/app?version=3"}, Format: FormatEnv, Mode: 0o400},
			{
				Name:   "tls.p12",
				Source: Source{Method: "PUT", Path: "pki/issue/app", Args: `{"a":[],"common_name":"app.example","n":[1,true,null,{"x":"yes"}],"o":{}}`},
				Key:    "true", Encoding: Base64, Mode: 0o777,
			},
			{Name: "url", Template: Template{Text: "a\n\n  {{ b }}\n"}, Format: FormatJSON, Mode: 0o644},
			{Name: "ini", Source: creds, Template: Template{Text: " x: [[ y ]]", Left: "[[", Right: "]]", ErrorOnMissingKey: true}, Mode: 0o644},
			{Name: "tab", Template: Template{Text: "a\tb\n"}, Mode: 0o644},
		},
		Lifecycle: Lifecycle{Refresh: 0, RenewAt: 0.5, RevokeGrace: time.Hour, Frozen: true, TokenFile: "token"},
	}
	want := map[string]string{
		"roleName": "app", "vaultAddress": "https://vault.example:8200", "vaultNamespace": "team", "vaultAuthMountPath": "kubernetes",
		"audience": "vault", "vaultCACertPath": "ca.pem",
		"refresh": "off", "renewAt": "0.5", "revokeGrace": "1h0m0s", "rotation": "off", "deliverToken": "token",
		"objects": `- objectName: db/user
  secretPath: database/creds/app
  secretKey: username
  filePermission: 0644
- objectName: db.json
  secretPath: database/creds/app
  filePermission: 0000
- objectName: ".env"
  secretPath: "kv/data/app?version=3"
  format: env
  filePermission: 0400
- objectName: tls.p12
  secretPath: pki/issue/app
  method: PUT
  secretArgs:
    a: []
    common_name: app.example
    n:
      - 1
      - true
      - null
      -
        x: yes
    o: {}
  secretKey: "true"
  encoding: base64
  filePermission: 0777
- objectName: url
  template: |
    a

      {{ b }}
  filePermission: 0644
- objectName: ini
  secretPath: database/creds/app
  template: |2-
     x: [[ y ]]
  leftDelimiter: "[["
  rightDelimiter: "]]"
  errorOnMissingKey: true
  filePermission: 0644
- objectName: tab
  template: "a\tb\n"
  filePermission: 0644
`,
	}
	for range 5 { // the order must not depend on a map's
		if got := class.Parameters(); !maps.Equal(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

// What a class leaves to the operator stays with the operator.
func TestParametersOfAPlainClass(t *testing.T) {
	class := Class{Vault: Vault{Role: "app"}, Objects: []Object{{Name: "a", Template: Template{Text: "b"}, Mode: 0o644}}}
	want := map[string]string{"roleName": "app", "objects": "- objectName: a\n  template: |-\n    b\n  filePermission: 0644\n"}
	if got := class.Parameters(); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	class.Lifecycle = DefaultLifecycle()
	if got := class.Parameters(); !maps.Equal(got, want) {
		t.Errorf("with the default lifecycle, got %q, want %q", got, want)
	}
}

// checkParameters parses the parameters of a class in a call like another one: they must mean the same class.
func checkParameters(t *testing.T, c *call, class Class) {
	t.Helper()
	parameters := class.Parameters()
	if text := parameters["objects"]; len(text) > maxObjectsText || countLines(text) > maxLines || strings.Count(text, "{")+
		strings.Count(text, "[") > maxBrackets {
		return // it cannot be said
	}
	again := &call{operator: c.operator, attributes: parameters, secrets: c.secrets, request: c.request}
	again.request.Attributes = ""
	for name, value := range validCall().attributes {
		if strings.HasPrefix(name, "csi.storage.k8s.io/") {
			again.attributes[name] = value
		}
	}
	m, err := again.Parse()
	if err != nil {
		t.Fatalf("%v, of\n%s", err, parameters)
	}
	if class.Lifecycle == (Lifecycle{}) {
		class.Lifecycle = defaultLifecycle
	}
	if !reflect.DeepEqual(m.Class, class) {
		t.Errorf("got  %+v\nwant %+v\nby %q", m.Class, class, parameters)
	}
	if len(m.Ignored) > 0 {
		t.Errorf("%q mean nothing", m.Ignored)
	}
}

func TestParametersMeanTheirClass(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		c := validCall()
		c.operator.SkipVerify = true
		checkParameters(t, c, randomClass(r))
		if t.Failed() {
			return
		}
	}
}

// words are what a writer of YAML may get wrong.
var words = []string{
	"a", "username", "v1", "v1/v1", "auth", "no", "True", "null", "~", "-", "- a", "?", "a: b", "a #b", "#", "0644", "1e3", ".5", "0x1f", "2024-01-02",
	"<<", "=", "*a", "&a", "!a", "!!str a", "|", ">", "@", "`", "%", "{", "}", "[", "]", "{{ .a }}", ",", `"`, `'`, `\`, `a\nb`, "ä", "\u00a0", "🙂",
	"a b", "---", "...", "--- a", "key?x=1", "${a}", strings.Repeat("k", 2000),
}

// lines are what may be in a template or in an argument, too.
var lines = []string{
	"", " ", "  ", "\t", "a ", " a", "\ta", "\r", "a\r", "\u0085", "\u2028", "\u2029", "\ufeff", "\x00", "\x7f", "\u0081", "\ufffd", "\U0010ffff",
	"- - - - - - - - - - - - - - - - - - - a", "# a", "  {{- range .b }}", "\u3000", "\u200b",
}

func randomClass(r *rand.Rand) Class {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	sometimes := func(text string) string { return pick("", text) }
	text := func() string {
		var b strings.Builder
		for range r.IntN(6) {
			b.WriteString(pick(pick(words...), pick(lines...), "\n", "\n"))
		}
		return b.String()
	}
	c := Class{
		Vault: Vault{
			Address: "https://vault.example:8200", AuthPath: pick("kubernetes", "jwt/eu", "auth", "auth/auth/x", " a", "a ", "auth/ "),
			Namespace: pick("", "team/a", " a", "a ", "  "), Role: pick("app", "true", "a: b"), Audience: "vault",
		},
		Lifecycle: defaultLifecycle,
	}
	file := func(name string) File { return File{Root: "/tls", Path: pick(name, "a/"+name, " "+name+" ", " ", "#")} }
	switch r.IntN(3) {
	case 0:
		c.Vault.TLS.CACert = File{Path: "/operator/ca.pem"} // the operator's
	case 1:
		c.Vault.TLS.CACert = file("ca")
	case 2:
		c.Vault.TLS.CADirectory = file("cas")
	}
	if r.IntN(2) == 0 {
		c.Vault.TLS.ClientCert, c.Vault.TLS.ClientKey = file("c"), file("k")
	}
	c.Vault.TLS.SkipVerify, c.Vault.TLS.ServerName = r.IntN(2) == 0, sometimes("v.example")
	if r.IntN(2) == 0 {
		c.Lifecycle = Lifecycle{
			Refresh: time.Duration(r.IntN(2)) * (time.Second + time.Duration(r.Int64N(int64(1e18)))), RenewAt: 0.3 + r.Float64()*0.6,
			RevokeGrace: time.Duration(r.Int64N(int64(1e18))), Frozen: r.IntN(2) == 0, TokenFile: sometimes("token"),
		}
	}
	for i := range 1 + r.IntN(4) {
		name := fmt.Sprint(i) + strings.ReplaceAll(pick(words...), "/", "")
		o := Object{Name: name[:min(len(name), 200)], Encoding: UTF8, Mode: fs.FileMode(r.IntN(0o1000))}
		if r.IntN(4) > 0 {
			o.Source = Source{Method: pick("GET", "GET", "LIST"), Path: pick("kv/a b", "v1", "v1/a", "v1/v1", "kv/a?b=c+d&version=3", "v1?a=", "a{}#")}
		}
		if r.IntN(3) == 0 {
			o.Source = Source{Method: pick("PUT", "POST"), Path: "p", Args: randomArgs(r, text)}
		}
		switch r.IntN(3) {
		case 0:
			o.Key, o.Encoding = pick(words...), Encoding(1+r.IntN(3))
		case 1:
			o.Format = Format(1 + r.IntN(5))
		}
		if o.Source == (Source{}) || (o.Key == "" && o.Format == 0) {
			o = Object{Name: o.Name, Source: o.Source, Encoding: UTF8, Mode: o.Mode}
			o.Template = Template{Text: text() + "x" + text(), ErrorOnMissingKey: r.IntN(2) == 0}
			if r.IntN(2) == 0 {
				o.Template.Left, o.Template.Right = pick("{{", "[", "<%", "-", "'"), pick("]", "%>", "#", `"`)
			}
		}
		c.Objects = append(c.Objects, o)
	}
	return c
}

func randomArgs(r *rand.Rand, text func() string) string {
	var value func(depth int) any
	value = func(depth int) any {
		switch kind := r.IntN(9); {
		case kind == 0 && depth < 4:
			list := []any{}
			for range r.IntN(4) {
				list = append(list, value(depth+1))
			}
			return list
		case kind <= 2 && depth < 4:
			m := map[string]any{}
			for range r.IntN(4) {
				m[text()] = value(depth + 1)
			}
			return m
		case kind == 3:
			return []any{nil, true, false}[r.IntN(3)]
		case kind == 4:
			return json.Number([]string{"0", "-0", "-7", "1.5", "1e+21", "1e-7", "18446744073709551616", strings.Repeat("9", 400)}[r.IntN(8)])
		}
		return text()
	}
	written, err := json.Marshal(map[string]any{text(): value(0), text(): value(0)})
	if err != nil {
		panic(err)
	}
	return string(written)
}

// FuzzParameters writes texts where they may stand in a class, and reads them.
func FuzzParameters(f *testing.F) {
	for i, line := range lines {
		f.Add(line+"\n"+words[i], words[i], line, uint16(i))
		f.Add("a\n"+line, words[len(words)-1-i], words[i]+line, uint16(0o644))
	}
	f.Fuzz(func(t *testing.T, template, key, arg string, mode uint16) {
		template, key, arg = strings.ToValidUTF8(template, "?"), strings.ToValidUTF8(key, "?"), strings.ToValidUTF8(arg, "?")
		if template == "" || len(template) >= maxTemplate || key == "" || len(key) > maxText || len(arg) > maxTemplate/8 {
			return
		}
		class := mustParse(t, validCall()).Class
		args, err := json.Marshal(map[string]any{arg: []any{arg, map[string]any{key: arg}}})
		if err != nil {
			t.Fatal(err)
		}
		class.Objects = []Object{
			{Name: "a", Template: Template{Text: template}, Encoding: UTF8, Mode: fs.FileMode(mode & 0o777)},
			{Name: "b", Source: Source{Method: "PUT", Path: "p", Args: string(args)}, Key: key, Encoding: UTF8},
			{Name: "c", Template: Template{Text: template + "\n"}, Encoding: UTF8},
		}
		checkParameters(t, validCall(), class)
	})
}
