package spec

import (
	"encoding/json"
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
		"plain":          {"- {objectName: o, secretPath: kv/o}", Object{Source: Source{"GET", "kv/o", ""}}},
		"decorated":      {"- {objectName: o, secretPath: //v1/kv//o/}", Object{Source: Source{"GET", "kv/o", ""}}},
		"query":          {`- {objectName: o, secretPath: "kv/o?version=3&a=b c"}`, Object{Source: Source{"GET", "kv/o?a=b+c&version=3", ""}}},
		"empty query":    {`- {objectName: o, secretPath: "kv/o?"}`, Object{Source: Source{"GET", "kv/o", ""}}},
		"not escaped":    {`- {objectName: o, secretPath: "kv/a b%2f#c"}`, Object{Source: Source{"GET", "kv/a b%2f#c", ""}}},
		"method":         {"- {objectName: o, secretPath: kv/o, method: liSt}", Object{Source: Source{"LIST", "kv/o", ""}}},
		"post, no args":  {"- {objectName: o, secretPath: kv/o, method: POST}", Object{Source: Source{"POST", "kv/o", ""}}},
		"number as text": {"- {objectName: o, secretPath: kv/o, secretKey: 0123}", Object{Source: Source{"GET", "kv/o", ""}, Key: "0123"}},
		"nulls":          {"- {objectName: o, secretPath: kv/o, secretKey: ~, secretArgs: , method: , encoding: null}", Object{Source: Source{"GET", "kv/o", ""}}},
		"base64":         {"- {objectName: o, secretPath: kv/o, secretKey: k, encoding: BASE64}", Object{Source: Source{"GET", "kv/o", ""}, Key: "k", Encoding: Base64}},
		"hex":            {"- {objectName: o, secretPath: kv/o, secretKey: k, encoding: Hex}", Object{Source: Source{"GET", "kv/o", ""}, Key: "k", Encoding: Hex}},
		"merged":         {merged, Object{Source: Source{"GET", "kv/o", ""}, Key: "k"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.attributes["objects"] = row.yaml
			objects := mustParse(t, c).Class.Objects
			row.want.Name, row.want.Mode = "o", 0o644
			if row.want.Encoding == 0 {
				row.want.Encoding = UTF8
			}
			if got := objects[len(objects)-1]; got != row.want {
				t.Errorf("got  %+v\nwant %+v", got, row.want)
			}
		})
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
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
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
		all := append(slices.Clone(m.Class.Objects), Object{Name: l.TokenFile, Encoding: UTF8, Source: m.Class.Objects[0].Source})
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
		s := o.Source
		plain, _, _ := strings.Cut(s.Path, "?")
		if plain == "" || path.Clean("/"+plain) != "/"+plain || hasControl(plain) {
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

func FuzzObjects(f *testing.F) {
	f.Add(validObjects)
	f.Add("- &d {objectName: a, secretPath: kv/a?b=c, secretKey: k, encoding: hex}\n- <<: *d\n  objectName: o\n")
	f.Add("- {objectName: a/b, secretPath: /v1/x, method: POST, secretArgs: {a: 1e3, b: [0x1f, 2024-01-02, ~]}, filePermission: 0o400}")
	f.Add("- {objectName: o, secretPath: p, method: PUT, secretArgs: " + "{a: &a {a: *a}}}")
	f.Add("- objectName: o\n  " + explosion)
	f.Fuzz(func(t *testing.T, text string) {
		var faults, again findings
		objects := parseObjects(text, 0o644, &faults)
		objectsAgain := parseObjects(text, 0o644, &again)
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
	})
}
