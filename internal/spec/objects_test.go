package spec

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsePermission(t *testing.T) {
	const none = fs.FileMode(0o7777)
	for _, row := range []struct {
		yaml string
		want fs.FileMode
		err  string
	}{
		{"0644", 0o644, ""},
		{"0o644", 0o644, ""},
		{`"0644"`, 0o644, ""},
		{`'0o600'`, 0o600, ""},
		{"420", 0o644, ""},
		{`"420"`, 0o644, ""},
		{"256", 0o400, ""},
		{"0", 0, ""},
		{"0000", 0, ""},
		{"0777", 0o777, ""},
		{"511", 0o777, ""},
		{"", 0o640, ""}, // the driver's
		{"~", 0o640, ""},
		{"644", none, `"644" is the decimal number; write 0644`},
		{"777", none, `"777" is the decimal number; write 0777`},
		{"512", none, `"512" is the decimal number; write 0512`},
		{"800", none, `"800" is more than 511`},
		{"1000", none, `"1000" is more than 511`},
		{"01777", none, `"01777" is more than 0777`},
		{"99999999999999999999", none, `"99999999999999999999" is more than 511`},
		{"0x1a4", none, `"0x1a4" is not a file mode`},
		{"0888", none, `"0888" is not a file mode`},
		{"-1", none, `"-1" is not a file mode`},
		{"rw-r--r--", none, `"rw-r--r--" is not a file mode`},
		{`"0644 "`, none, `"0644 " is not a file mode`},
		{"4e2", none, `"4e2" is not a file mode`},
	} {
		c := validCall()
		c.request.Permission = "416"
		c.object("filePermission: " + row.yaml)
		m, err := c.Parse()
		switch {
		case row.err != "":
			if want := `objects[0] "o", line 3: filePermission ` + row.err; !strings.HasPrefix(errorText(err), want) {
				t.Errorf("%s: got error %v, want %s", row.yaml, err, want)
			}
		case err != nil:
			t.Errorf("%s: %v", row.yaml, err)
		case m.Class.Objects[0].Mode != row.want:
			t.Errorf("%s: got %#o, want %#o", row.yaml, m.Class.Objects[0].Mode, row.want)
		}
	}
}

func TestParseSource(t *testing.T) {
	const merged = "- &d {objectName: a, secretPath: kv/a, secretKey: k}\n- <<: *d\n  objectName: o\n  secretPath: kv/o"
	for name, row := range map[string]struct {
		yaml string // of the last object
		want Object
	}{
		"plain":          {"- {objectName: o, secretPath: kv/o}", Object{Source: Source{"GET", "kv/o", "", false}}},
		"decorated":      {"- {objectName: o, secretPath: //v1/kv//o/}", Object{Source: Source{"GET", "kv/o", "", false}}},
		"query":          {`- {objectName: o, secretPath: "kv/o?version=3&a=b c"}`, Object{Source: Source{"GET", "kv/o?a=b+c&version=3", "", false}}},
		"empty query":    {`- {objectName: o, secretPath: "kv/o?"}`, Object{Source: Source{"GET", "kv/o", "", false}}},
		"not escaped":    {`- {objectName: o, secretPath: "kv/a b%2f#c"}`, Object{Source: Source{"GET", "kv/a b%2f#c", "", false}}},
		"method":         {"- {objectName: o, secretPath: kv/o, method: liSt}", Object{Source: Source{"LIST", "kv/o", "", false}}},
		"post, no args":  {"- {objectName: o, secretPath: kv/o, method: POST}", Object{Source: Source{"POST", "kv/o", "", false}}},
		"number as text": {"- {objectName: o, secretPath: kv/o, secretKey: 0123}", Object{Source: Source{"GET", "kv/o", "", false}, Key: "0123"}},
		"nulls":          {"- {objectName: o, secretPath: kv/o, secretKey: ~, secretArgs: , method: , encoding: null}", Object{Source: Source{"GET", "kv/o", "", false}}},
		"base64":         {"- {objectName: o, secretPath: kv/o, secretKey: k, encoding: BASE64}", Object{Source: Source{"GET", "kv/o", "", false}, Key: "k", Encoding: Base64}},
		"hex":            {"- {objectName: o, secretPath: kv/o, secretKey: k, encoding: Hex}", Object{Source: Source{"GET", "kv/o", "", false}, Key: "k", Encoding: Hex}},
		"format":         {"- {objectName: o, secretPath: kv/o, format: ENV}", Object{Source: Source{"GET", "kv/o", "", false}, Format: FormatEnv}},
		"default format": {"- {objectName: o, secretPath: kv/o, format: json}", Object{Source: Source{"GET", "kv/o", "", false}, Format: FormatJSON}},
		"empty format":   {"- {objectName: o, secretPath: kv/o, secretKey: k, format: ''}", Object{Source: Source{"GET", "kv/o", "", false}, Key: "k"}},
		"empty template": {"- {objectName: o, secretPath: kv/o, secretKey: k, template: '', leftDelimiter: ''}", Object{Source: Source{"GET", "kv/o", "", false}, Key: "k"}},
		"merged":         {merged, Object{Source: Source{"GET", "kv/o", "", false}, Key: "k"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.attributes["objects"] = row.yaml
			objects := mustParse(t, c).Class.Objects
			row.want.Name, row.want.Mode = "o", 0o644
			if row.want.Encoding == 0 {
				row.want.Encoding = UTF8
			}
			if row.want.Key == "" && row.want.Template.Text == "" && row.want.Format == 0 {
				row.want.Format = FormatJSON
			}
			if got := objects[len(objects)-1]; got != row.want {
				t.Errorf("got  %+v\nwant %+v", got, row.want)
			}
		})
	}
}

// TestParseTemplate gives each row the keys of an object beside its name.
func TestParseTemplate(t *testing.T) {
	for name, row := range map[string]struct {
		yaml   string
		source Source
		want   Template
	}{
		"alone":                 {"template: '{{ x }}'", Source{}, Template{Text: "{{ x }}"}},
		"with a dot":            {"template: t\n  secretPath: kv/o", Source{"GET", "kv/o", "", false}, Template{Text: "t"}},
		"with arguments":        {"template: t\n  secretPath: p\n  method: PUT\n  secretArgs: {a: 1}", Source{"PUT", "p", `{"a":1}`, false}, Template{Text: "t"}},
		"number":                {"template: 5", Source{}, Template{Text: "5"}},
		"block":                 {"template: |\n    a\n      b\n", Source{}, Template{Text: "a\n  b\n"}},
		"block without its end": {"template: |-\n    a\n    b\n", Source{}, Template{Text: "a\nb"}},
		"delimiters":            {"template: t\n  leftDelimiter: '[['\n  rightDelimiter: ']]'", Source{}, Template{Text: "t", Left: "[[", Right: "]]"}},
		"left alone":            {"template: t\n  leftDelimiter: <<", Source{}, Template{Text: "t", Left: "<<", Right: "}}"}},
		"right alone":           {"template: t\n  rightDelimiter: '>>'", Source{}, Template{Text: "t", Left: "{{", Right: ">>"}},
		"the usual delimiters":  {"template: t\n  leftDelimiter: '{{'\n  rightDelimiter: '}}'", Source{}, Template{Text: "t"}},
		"left as usual":         {"template: t\n  leftDelimiter: '{{'", Source{}, Template{Text: "t"}},
		"exchanged":             {"template: t\n  leftDelimiter: '}}'\n  rightDelimiter: '{{'", Source{}, Template{Text: "t", Left: "}}", Right: "{{"}},
		"as long as may be":     {"template: t\n  leftDelimiter: '<<<<<<<<<<<<<<<<'", Source{}, Template{Text: "t", Left: "<<<<<<<<<<<<<<<<", Right: "}}"}},
		"missing key":           {"template: t\n  errorOnMissingKey: true", Source{}, Template{Text: "t", ErrorOnMissingKey: true}},
		"missing key, in Go":    {"template: t\n  errorOnMissingKey: 'T'", Source{}, Template{Text: "t", ErrorOnMissingKey: true}},
		"missing key, in YAML":  {"template: t\n  errorOnMissingKey: False", Source{}, Template{Text: "t"}},
		"missing key, empty":    {"template: t\n  errorOnMissingKey: ''", Source{}, Template{Text: "t"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.attributes["objects"] = "- objectName: o\n  " + row.yaml
			got := mustParse(t, c).Class.Objects[0]
			want := Object{Name: "o", Source: row.source, Template: row.want, Encoding: UTF8, Mode: 0o644}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Every template is shown to the operator's check, once the object is right otherwise, and all that it has to say comes at
// once.
func TestTemplatesAreChecked(t *testing.T) {
	c := validCall()
	c.attributes["objects"] = `
- {objectName: a, template: bad}
- {objectName: b, template: good}
- objectName: c
  template: &t |
    bad
  leftDelimiter: <
- {objectName: d, template: *t, filePermission: 644}
- objectName: e
  template:
    *t`
	var shown []Template
	c.operator.CheckTemplate = func(t Template) error {
		shown = append(shown, t)
		if strings.HasPrefix(t.Text, "bad") {
			return errors.New("template line 1: mend it")
		}
		return nil
	}
	_, err := c.Parse()
	want := Faults{
		`objects[0] "a", line 2: template line 1: mend it`,
		`objects[2] "c", line 5: template line 1: mend it`,
		`objects[3] "d", line 8: filePermission "644" is the decimal number; write 0644`,
		`objects[4] "e", line 10: template line 1: mend it`,
	}
	if faults := Faults(nil); !errors.As(err, &faults) || !slices.Equal(faults, want) {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	if want := []Template{{Text: "bad"}, {Text: "good"}, {Text: "bad\n", Left: "<", Right: "}}"}, {Text: "bad\n"}}; !slices.Equal(shown, want) {
		t.Errorf("shown %+v, want %+v", shown, want)
	}
}

func TestParseArgs(t *testing.T) {
	for yaml, want := range map[string]string{
		"{}":                                           `{}`,
		"{b: 1, a: 2}":                                 `{"a":2,"b":1}`,
		"{a: {d: [1, x], c: ~}}":                       `{"a":{"c":null,"d":[1,"x"]}}`,
		"{a: true, b: False, c: yes}":                  `{"a":true,"b":false,"c":"yes"}`,
		"{a: 12345678901234567890123}":                 `{"a":12345678901234567890123}`,
		"{a: 9007199254740993}":                        `{"a":9007199254740993}`,
		"{a: 0644, b: 0o644, c: 0x1A}":                 `{"a":420,"b":420,"c":26}`,
		"{a: 1_000, b: +5, c: -7, d: 089}":             `{"a":1000,"b":5,"c":-7,"d":89}`,
		"{a: 1.50, b: 1e3, c: .5}":                     `{"a":1.5,"b":1000,"c":0.5}`,
		"{a: 2024-01-02, b: 2024-01-02T03:04:05.000Z}": `{"a":"2024-01-02","b":"2024-01-02T03:04:05.000Z"}`,
		`{a: "1", b: '', c: 24h, d: "<"}`:              `{"a":"1","b":"","c":"24h","d":"\u003c"}`,
		"{1: a, true: b}":                              `{"1":"a","true":"b"}`,
		"{a: &x {k: v}, b: *x, c: {<<: *x, l: w}}":     `{"a":{"k":"v"},"b":{"k":"v"},"c":{"k":"v","l":"w"}}`,
		"{a: &x {k: v}, c: {k: w, <<: [*x]}}":          `{"a":{"k":"v"},"c":{"k":"w"}}`,
		"{a: !!str 5, b: !!float 5, c: !!int \"6\"}":   `{"a":"5","b":5,"c":6}`,
	} {
		c := validCall()
		c.object("method: PUT", "secretArgs: "+yaml)
		if got := mustParse(t, c).Class.Objects[0].Source.Args; got != want {
			t.Errorf("%s: got %s, want %s", yaml, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"secretPath", "secretKey", "method"}
	for word, want := range map[string]string{
		"secretkey": "secretKey", "secretPaths": "secretPath", "secertPath": "secretPath", "metod": "method",
		"methods": "method", "secret": "", "m": "", "": "", "objectName": "", strings.Repeat("secretKey", 99): "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestQuoteIsBounded(t *testing.T) {
	for text, want := range map[string]string{
		"a\n\x1b\"":                      `"a\n\x1b\""`,
		strings.Repeat("a", 81):          `"` + strings.Repeat("a", 80) + `"...`,
		strings.Repeat("a", 79) + "ä___": `"` + strings.Repeat("a", 79) + `"...`,
	} {
		if got := quote(text); got != want {
			t.Errorf("quote(%q) = %s, want %s", text, got, want)
		}
	}
}

// checkInvariants checks what the documentation of the types promises.
func checkInvariants(t *testing.T, m Mount) {
	t.Helper()
	v := m.Class.Vault
	if a, err := parseAddress(v.Address); err != nil || a.text != v.Address {
		t.Errorf("address %q is not canonical: %v", v.Address, err)
	}
	if v.Role == "" || v.AuthPath == "" || path.Clean("/"+v.AuthPath) != "/"+v.AuthPath {
		t.Errorf("role %q or auth path %q is not valid", v.Role, v.AuthPath)
	}
	for _, f := range []File{v.TLS.CACert, v.TLS.CADirectory, v.TLS.ClientCert, v.TLS.ClientKey} {
		if f.Root != "" && (f.Path == "." || !fs.ValidPath(f.Path)) {
			t.Errorf("a tenant's file %+v is not below its root", f)
		}
	}
	if (v.TLS.ClientCert == File{}) != (v.TLS.ClientKey == File{}) || (v.TLS.Cert == "") != v.TLS.Key.IsZero() {
		t.Error("a client certificate without its key, or the other way")
	}
	if p := m.Pod; p.Namespace == "" || p.Name == "" || p.ServiceAccount == "" || p.Token.IsZero() || !uidPattern.MatchString(p.UID) {
		t.Errorf("pod %+v is not complete", p)
	}
	if !path.IsAbs(m.Volume) || path.Clean(m.Volume) != m.Volume {
		t.Errorf("volume %q is not an absolute clean path", m.Volume)
	}
	checkObjects(t, m.Class.Objects)
	l := m.Class.Lifecycle
	if !(l.RenewAt >= 0.3 && l.RenewAt <= 0.9) || l.RevokeGrace < 0 || (l.Refresh != 0 && l.Refresh < time.Second) {
		t.Errorf("lifecycle %+v is out of bounds", l)
	}
	if l.TokenFile != "" { // one more file, by the rules of all files
		all := append(slices.Clone(m.Class.Objects), Object{Name: l.TokenFile, Template: Template{Text: "token"}, Encoding: UTF8})
		checkObjects(t, all[max(0, len(all)-maxObjects):])
	}
}

func checkObjects(t *testing.T, objects []Object) {
	t.Helper()
	if len(objects) == 0 || len(objects) > maxObjects {
		t.Errorf("%d objects", len(objects))
	}
	names := map[string]bool{}
	for _, o := range objects {
		if o.Name == "." || !fs.ValidPath(o.Name) || len(o.Name) > 4096 || hasControl(o.Name) || names[o.Name] {
			t.Errorf("name %q is not a new, relative, clean path", o.Name)
		}
		names[o.Name] = true
		for part := range strings.SplitSeq(o.Name, "/") {
			if strings.HasPrefix(part, "..") || len(part) > 255 {
				t.Errorf("name %q has the part %q", o.Name, part)
			}
		}
		if o.Mode > 0o777 {
			t.Errorf("mode %o", o.Mode)
		}
		if o.Encoding < UTF8 || o.Encoding > Hex || (o.Encoding != UTF8 && o.Key == "") {
			t.Errorf("encoding %d with key %q", o.Encoding, o.Key)
		}
		whole := o.Key == "" && o.Template.Text == ""
		if o.Format < 0 || o.Format > FormatProperties || whole != (o.Format != 0) || (o.Key != "" && o.Template.Text != "") {
			t.Errorf("format %d with key %q and template %q", o.Format, o.Key, o.Template.Text)
		}
		checkTemplate(t, o.Template)
		s := o.Source
		if s == (Source{}) && o.Template.Text != "" {
			continue
		}
		plain, _, _ := strings.Cut(s.Path, "?")
		if plain == "" || path.Clean("/"+plain) != "/"+plain || hasControl(plain) || s.Lenient {
			t.Errorf("path %q is not clean", s.Path)
		}
		var args map[string]any
		switch s.Method {
		case "PUT", "POST":
			if s.Args == "" {
				break
			}
			decoder := json.NewDecoder(strings.NewReader(s.Args))
			decoder.UseNumber()
			if err := decoder.Decode(&args); err != nil {
				t.Errorf("args %q: %v", s.Args, err)
			} else if canonical, err := json.Marshal(args); err != nil || string(canonical) != s.Args {
				t.Errorf("args %q are not canonical JSON, that is %q", s.Args, canonical)
			}
		case "GET", "LIST":
			if s.Args != "" {
				t.Errorf("method %s has args %q", s.Method, s.Args)
			}
		default:
			t.Errorf("method %q", s.Method)
		}
	}
	for name := range names {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				t.Errorf("name %q is a directory of %q", dir, name)
			}
		}
	}
}

func checkTemplate(t *testing.T, template Template) {
	t.Helper()
	left, right := template.Left, template.Right
	switch {
	case template.Text == "" && template != Template{}:
		t.Errorf("no template has %+v", template)
	case len(template.Text) > 64<<10 || len(left) > 16 || len(right) > 16:
		t.Errorf("a template of %d bytes, delimiters of %d and %d", len(template.Text), len(left), len(right))
	case (left == "") != (right == "") || (left == right && left != "") || (left == "{{" && right == "}}") ||
		strings.ContainsAny(left+right, " \t\r\n\x00\u00a0\u0085"):
		t.Errorf("delimiters %q and %q", left, right)
	}
}

func FuzzObjects(f *testing.F) {
	f.Add(validObjects)
	f.Add("- &d {objectName: a, secretPath: kv/a?b=c, secretKey: k, encoding: hex}\n- <<: *d\n  objectName: o\n")
	f.Add("- {objectName: a/b, secretPath: /v1/x, method: POST, secretArgs: {a: 1e3, b: [0x1f, 2024-01-02, ~]}, filePermission: 0o400}")
	f.Add("- {objectName: o, secretPath: p, method: PUT, secretArgs: " + "{a: &a {a: *a}}}")
	f.Add("- objectName: o\n  " + explosion)
	f.Add("- {objectName: o, template: x, leftDelimiter: '[', errorOnMissingKey: true}\n- {objectName: p, secretPath: v1/v1, format: env}")
	f.Add("- objectName: o\n  secretPath: p\n  template: |+2\n      {{ x }}\n\n\n  rightDelimiter: '>'\n")
	f.Fuzz(func(t *testing.T, text string) {
		var faults, again findings
		objects := parseObjects(text, 0o644, nil, &faults)
		objectsAgain := parseObjects(text, 0o644, nil, &again)
		if !reflect.DeepEqual(objects, objectsAgain) || !reflect.DeepEqual(faults, again) {
			t.Errorf("parsed twice, got\n%+v %v\n%+v %v", objects, faults.err(), objectsAgain, again.err())
		}
		if err := faults.err(); err != nil {
			if hasControl(err.Error()) {
				t.Errorf("a fault has control characters: %q", err)
			}
			return
		}
		checkObjects(t, objects)
		checkParameters(t, validCall(), Class{Vault: mustParse(t, validCall()).Class.Vault, Objects: objects})
	})
}
