package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// canary is a secret value that no error may show.
const canary = "c4n4ry-v4lue"

func get(path string) spec.Source { return spec.Source{Method: "GET", Path: path} }

// vault answers reads with the data of a path.
type vault map[string]string

func (v vault) read(s spec.Source) (client.Grant, error) {
	data, ok := v[s.Path]
	if !ok {
		return client.Grant{}, &client.Error{Kind: client.Missing, Op: "read", Path: s.Path, Status: 404}
	}
	return grantOf(s, data), nil
}

func grantOf(s spec.Source, data string) client.Grant {
	return client.Grant{Source: s, Data: redact.NewBytes([]byte(data))}
}

// filesOf renders objects.
func filesOf(objects []spec.Object, read func(spec.Source) (client.Grant, error)) ([]File, error) {
	files, _, err := New().Files(Volume{Objects: objects, Read: read})
	return files, err
}

// one renders a single object with defaults filled in.
func one(o spec.Object, data string) ([]byte, error) {
	o.Name, o.Source = "o", get("p")
	if o.Encoding == 0 {
		o.Encoding = spec.UTF8
	}
	files, err := filesOf([]spec.Object{o}, vault{"p": data}.read)
	if err != nil {
		return nil, err
	}
	return files[0].Contents, nil
}

func TestValues(t *testing.T) {
	for name, row := range map[string]struct {
		data string
		spec.Object
		want string
	}{
		"text":                     {`{"a":"b\n\u00e4\u0000<&>"}`, spec.Object{Key: "a"}, "b\nä\x00<&>"},
		"empty text":               {`{"a":""}`, spec.Object{Key: "a"}, ""},
		"exponent":                 {`{"a":1e3}`, spec.Object{Key: "a"}, "1e3"},
		"large number":             {`{"a":12345678901234567890}`, spec.Object{Key: "a"}, "12345678901234567890"},
		"fraction":                 {`{"a":1.50}`, spec.Object{Key: "a"}, "1.50"},
		"truth value":              {`{"a":true}`, spec.Object{Key: "a"}, "true"},
		"null":                     {`{"a":null}`, spec.Object{Key: "a"}, "null"},
		"nested":                   {`{"a":{"z":[1e3,"<&>"],"b":null}}`, spec.Object{Key: "a"}, `{"b":null,"z":[1e3,"\u003c\u0026\u003e"]}`},
		"KV v2":                    {`{"data":{"a":"in"},"metadata":{"version":3},"a":"out"}`, spec.Object{Key: "a"}, "in"},
		"KV v1 with a key data":    {`{"data":"text","a":"out"}`, spec.Object{Key: "a"}, "out"},
		"the key data itself":      {`{"data":"text"}`, spec.Object{Key: "data"}, "text"},
		"deleted version of KV v2": {`{"data":null,"metadata":{}}`, spec.Object{Key: "data"}, "null"},
		"base64":                   {`{"a":"AP+A"}`, spec.Object{Key: "a", Encoding: spec.Base64}, "\x00\xff\x80"},
		"base64 of nothing":        {`{"a":""}`, spec.Object{Key: "a", Encoding: spec.Base64}, ""},
		"hex":                      {`{"a":"00fF80"}`, spec.Object{Key: "a", Encoding: spec.Hex}, "\x00\xff\x80"},
		"hex of a number":          {`{"a":1234}`, spec.Object{Key: "a", Encoding: spec.Hex}, "\x12\x34"},
		"static role's ttl, asked": {`{"ttl":55,"last_vault_rotation":"x"}`, spec.Object{Key: "ttl"}, "55"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one(row.Object, row.data)
			if err != nil || string(got) != row.want {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestWholeAnswer(t *testing.T) {
	object := []spec.Object{{Name: "o", Source: get("p"), Encoding: spec.UTF8}}
	for name, row := range map[string]struct {
		grant client.Grant
		data  string
		want  string
	}{
		"lease": {
			client.Grant{LeaseID: "database/creds/app/x", LeaseDuration: time.Hour, Renewable: true},
			`{"username":"u","password":"<p>"}`,
			`{"lease_id":"database/creds/app/x","lease_duration":3600,"renewable":true,` +
				`"data":{"password":"\u003cp\u003e","username":"u"},"warnings":null}`,
		},
		"warnings": {
			client.Grant{Warnings: []string{"w"}},
			`{"n":1e3}`,
			`{"lease_id":"","lease_duration":0,"renewable":false,"data":{"n":1e3},"warnings":["w"]}`,
		},
		"static role": {
			client.Grant{},
			`{"username":"u","ttl":55,"last_vault_rotation":"2030-01-02T03:04:05Z","rotation_period":60}`,
			`{"lease_id":"","lease_duration":0,"renewable":false,` +
				`"data":{"last_vault_rotation":"2030-01-02T03:04:05Z","rotation_period":60,"username":"u"},"warnings":null}`,
		},
		"a ttl that somebody wrote": {
			client.Grant{}, `{"ttl":55}`, `{"lease_id":"","lease_duration":0,"renewable":false,"data":{"ttl":55},"warnings":null}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := filesOf(object, func(s spec.Source) (client.Grant, error) {
				g := row.grant
				g.Source, g.Data = s, redact.NewBytes([]byte(row.data))
				return g, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(files[0].Contents); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestFaultyValues(t *testing.T) {
	manyKeys := map[string]string{}
	for i := range 20 {
		manyKeys[fmt.Sprintf("k%02d", i)] = canary
	}
	many, _ := json.Marshal(manyKeys)
	for name, row := range map[string]struct {
		data string
		spec.Object
		want string
	}{
		"no such key": {
			`{"user":"` + canary + `","pass":"` + canary + `"}`,
			spec.Object{Key: "password"},
			`object "o": read "p": no key "password": the keys there are "pass", "user"`,
		},
		"no such key in KV v2": {
			`{"data":{"in":"` + canary + `"},"out":"x"}`,
			spec.Object{Key: "out"},
			`object "o": read "p": no key "out": the keys there are "in"`,
		},
		"no keys": {`{}`, spec.Object{Key: "a"}, `object "o": read "p": no key "a": there are no keys`},
		"many keys": {
			string(many),
			spec.Object{Key: "a"},
			`object "o": read "p": no key "a": the keys there are "k00", "k01", "k02", "k03", "k04", "k05", "k06", "k07", ` +
				`"k08", "k09", "k10", "k11" and 8 more`,
		},
		"base64": {
			`{"a":"` + canary + `!"}`,
			spec.Object{Key: "a", Encoding: spec.Base64},
			`object "o": read "p": key "a" is not base64 (the standard alphabet, with padding): correct the value in Vault, or ` +
				`the object's encoding`,
		},
		"hex": {
			`{"a":"` + canary + `"}`,
			spec.Object{Key: "a", Encoding: spec.Hex},
			`object "o": read "p": key "a" is not hexadecimal: correct the value in Vault, or the object's encoding`,
		},
		"no data":      {`null`, spec.Object{}, `object "o": read "p": vault's answer has no data`},
		"nothing":      {``, spec.Object{}, `object "o": read "p": vault's answer has no data`},
		"no object":    {`["` + canary + `"]`, spec.Object{}, `object "o": read "p": the data of vault's answer is not a JSON object`},
		"broken":       {`{"a":` + canary, spec.Object{}, `object "o": read "p": the data of vault's answer is not a JSON object`},
		"and one more": {`{} ` + canary, spec.Object{}, `object "o": read "p": the data of vault's answer is not a JSON object`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one(row.Object, row.data)
			if err == nil || err.Error() != row.want {
				t.Errorf("got error %v\nwant      %s", err, row.want)
			}
			if got != nil || (err != nil && strings.Contains(err.Error(), canary)) {
				t.Errorf("got %q, %v; want no contents and no value in the error", got, err)
			}
		})
	}
}

func TestAllOrNothing(t *testing.T) {
	objects := []spec.Object{
		{Name: "good", Source: get("good"), Key: "a", Encoding: spec.UTF8},
		{Name: "denied-1", Source: get("denied"), Key: "a", Encoding: spec.UTF8},
		{Name: "no-key", Source: get("good"), Key: "b", Encoding: spec.UTF8},
		{Name: "denied-2", Source: get("denied"), Key: "b", Encoding: spec.UTF8},
		{Name: "missing", Source: get("missing"), Encoding: spec.UTF8},
	}
	denied := &client.Error{Kind: client.Denied, Op: "read", Path: "denied", Status: 403}
	files, err := filesOf(objects, func(s spec.Source) (client.Grant, error) {
		if s == get("denied") {
			return client.Grant{}, denied
		}
		return vault{"good": `{"a":"` + canary + `"}`}.read(s)
	})
	if files != nil {
		t.Errorf("got %v beside the error, want no files", files)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got error %v, want joined ones", err)
	}
	want := []struct {
		text   string
		source spec.Source
		kind   client.Kind
	}{
		{`objects "denied-1", "denied-2": ` + denied.Error(), get("denied"), client.Denied},
		{`object "no-key": read "good": no key "b": the keys there are "a"`, get("good"), 0},
		{`object "missing": `, get("missing"), client.Missing},
	}
	if got := joined.Unwrap(); len(got) != len(want) {
		t.Fatalf("got %d failures, want %d: %v", len(got), len(want), err)
	}
	for i, got := range joined.Unwrap() {
		var failure *Error
		if !errors.As(got, &failure) || failure.Source != want[i].source {
			t.Errorf("failure %d: got %v, want one of %v", i, got, want[i].source)
		}
		if kind := client.KindOf(got); kind != want[i].kind {
			t.Errorf("failure %d: got kind %v, want %v", i, kind, want[i].kind)
		}
		if !strings.HasPrefix(got.Error(), want[i].text) {
			t.Errorf("failure %d: got %v\nwant %s", i, got, want[i].text)
		}
	}
}

// TestReadsAreConcurrent lets every read wait until all sources are asked: one after another would be a deadlock, which
// synctest reports.
func TestReadsAreConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var objects []spec.Object
		const sources = 5
		for i := range 3 * sources {
			source := spec.Source{Method: "PUT", Path: "p", Args: fmt.Sprintf(`{"n":%d}`, i%sources)}
			objects = append(objects, spec.Object{
				Name: fmt.Sprintf("o%02d", i), Source: source, Key: "a", Encoding: spec.UTF8, Mode: 0o600,
			})
		}
		var mu sync.Mutex
		asked := map[spec.Source]int{}
		all := make(chan struct{})
		files, err := filesOf(objects, func(s spec.Source) (client.Grant, error) {
			mu.Lock()
			asked[s]++
			if len(asked) == sources {
				close(all)
			}
			mu.Unlock()
			<-all
			return grantOf(s, fmt.Sprintf(`{"a":%q}`, s.Args)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for s, n := range asked {
			if n != 1 {
				t.Errorf("%v was asked %d times, want once", s, n)
			}
		}
		for i, f := range files {
			if want := objects[i]; f.Path != want.Name || string(f.Contents) != want.Source.Args || f.Mode != 0o600 {
				t.Errorf("file %d is %q %o %q, want %q of %v", i, f.Path, f.Mode, f.Contents, want.Name, want.Source)
			}
		}
	})
}

// Where nobody has to wait, no goroutine is started, and all comes out the same: failures and panics, too.
func TestFilesInTurn(t *testing.T) {
	good := []spec.Object{
		{Name: "b", Source: get("p"), Key: "a", Encoding: spec.UTF8, Mode: 0o600},
		{Name: "a", Source: get("p"), Mode: 0o600},
		{Name: "c", Template: spec.Template{Text: `{{ with secret "q" }}{{ .Data.a }}{{ end }}`}, Mode: 0o600},
	}
	bad := append([]spec.Object{
		{Name: "none", Source: get("none"), Mode: 0o600},
		{Name: "panic", Source: get("panic"), Mode: 0o600},
	}, good...)
	for name, objects := range map[string][]spec.Object{"good": good, "bad": bad} {
		t.Run(name, func(t *testing.T) {
			asked := 0 // by nobody else, or the race detector tells
			volume := Volume{Objects: objects, Read: func(s spec.Source) (client.Grant, error) {
				asked++
				switch s.Path {
				case "none":
					return client.Grant{}, errors.New("nothing is there")
				case "panic":
					panic("of a test")
				}
				return grantOf(s, `{"a": "x"}`), nil
			}}
			volume.InTurn = true
			files, grants, err := New().Files(volume)
			if want := len(grants); err == nil && asked != want {
				t.Errorf("asked %d times for %d sources", asked, want)
			}
			var guard sync.Mutex
			read := volume.Read
			volume.InTurn, volume.Read = false, func(s spec.Source) (client.Grant, error) {
				guard.Lock()
				defer guard.Unlock()
				return read(s)
			}
			files2, grants2, err2 := New().Files(volume)
			if !reflect.DeepEqual(files, files2) || !reflect.DeepEqual(grants, grants2) || fmt.Sprint(err) != fmt.Sprint(err2) {
				t.Errorf("in turn: got %d files of %v, error %v; else %d of %v, error %v", len(files), grants, err, len(files2), grants2, err2)
			}
			if (err == nil) != (name == "good") {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestFilesAreSorted(t *testing.T) {
	var objects []spec.Object
	for _, name := range []string{"b", "a/z", "c", "a"} {
		objects = append(objects, spec.Object{Name: name, Source: get("p"), Key: "k", Encoding: spec.UTF8})
	}
	files, err := filesOf(objects, vault{"p": `{"k":"v"}`}.read)
	if got, want := fmt.Sprint(files), `[file "a" file "a/z" file "b" file "c"]`; err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if objects[0].Name != "b" {
		t.Error("the caller's objects were sorted too")
	}
}

func TestTotalIsBounded(t *testing.T) {
	answers := vault{}
	var objects []spec.Object
	for name, size := range map[string]int{"large": maxTotal - 10, "medium": 9, "small": 1} {
		answers[name] = `{"k":"` + strings.Repeat("x", size) + `"}`
		objects = append(objects, spec.Object{Name: name, Source: get(name), Key: "k", Encoding: spec.UTF8})
	}
	if files, err := filesOf(objects, answers.read); err != nil || len(files) != 3 {
		t.Errorf("1 MiB in all: got %v, %v; want three files", files, err)
	}
	answers["small"] = `{"k":"xx"}`
	files, err := filesOf(objects, answers.read)
	want := `objects "large", "medium", "small": the volume would have 1048577 bytes, more than 1048576; the largest files have ` +
		`1048566, 9, 2 bytes: `
	if files != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("one byte more: got %v, %v; want %s", files, err, want)
	}
	if failure := (*Error)(nil); !errors.As(err, &failure) {
		t.Errorf("got %T, want an *Error", err)
	}
}

func TestFileIsNotPrinted(t *testing.T) {
	f := File{Path: "a", Contents: []byte(canary)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if got := fmt.Sprintf(verb, f) + fmt.Sprintf(verb, []File{f}) + fmt.Sprintf(verb, &f); strings.Contains(got, canary) ||
			strings.Contains(got, fmt.Sprintf("%x", canary)) {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// FuzzRender puts the canary before every text of the data: no error may show it, and contents must be what Vault has.
func FuzzRender(f *testing.F) {
	f.Add(`{"a":"b","n":1e3}`, "n", uint8(1))
	f.Add(`{"data":{"a":"YQ=="},"metadata":{}}`, "a", uint8(2))
	f.Add(`{"ttl":1,"last_vault_rotation":"x"}`, "", uint8(1))
	f.Add(`{"a":["00",{"b":null}]}`, "b", uint8(3))
	f.Add(`{"a":`, "a", uint8(1))
	f.Fuzz(func(t *testing.T, text, key string, encoding uint8) {
		if strings.Contains(text+key, canary) {
			return
		}
		object := spec.Object{Key: key, Encoding: spec.Encoding(encoding)}
		var data map[string]any
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(&data) != nil {
			if got, err := one(object, text+canary); err == nil || strings.Contains(err.Error(), canary) {
				t.Errorf("got %q, %v; want an error without the data", got, err)
			}
			return
		}
		marked, err := json.Marshal(mark(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := one(object, string(marked))
		again, errAgain := one(object, string(marked))
		if !bytes.Equal(got, again) || (err == nil) != (errAgain == nil) {
			t.Errorf("rendered twice, got\n%q %v\n%q %v", got, err, again, errAgain)
		}
		if err != nil {
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a value: %v", err)
			}
			return
		}
		fields := data
		if inner, ok := data["data"].(map[string]any); ok && key != "" {
			fields = inner
		}
		switch value := fields[key].(type) {
		case string:
			if key != "" && object.Encoding <= spec.UTF8 && string(got) != canary+value {
				t.Errorf("key %q: got %q, want %q", key, got, canary+value)
			}
		default:
			if object.Encoding <= spec.UTF8 && !json.Valid(got) {
				t.Errorf("key %q: got %q, want JSON", key, got)
			}
		}
	})
}

// mark puts the canary before every text in a value.
func mark(value any) any {
	switch value := value.(type) {
	case string:
		return canary + value
	case map[string]any:
		marked := map[string]any{}
		for k, v := range value {
			marked[k] = mark(v)
		}
		if value == nil {
			return nil
		}
		return marked
	case []any:
		marked := []any{}
		for _, v := range value {
			marked = append(marked, mark(v))
		}
		return marked
	}
	return value
}

func BenchmarkFiles(b *testing.B) {
	creds, kv := get("database/creds/app"), get("secret/data/app")
	objects := []spec.Object{
		{Name: "db-user", Source: creds, Key: "username", Encoding: spec.UTF8},
		{Name: "db-password", Source: creds, Key: "password", Encoding: spec.UTF8},
		{Name: "app.json", Source: kv, Encoding: spec.UTF8},
	}
	read := vault{
		creds.Path: `{"username":"v-kubernetes-app-x","password":"A1b2C3d4E5f6G7h8I9j0"}`,
		kv.Path:    `{"data":{"a":"b","c":"d"},"metadata":{"version":3,"created_time":"2030-01-02T03:04:05Z"}}`,
	}.read
	b.ReportAllocs()
	for b.Loop() {
		if _, err := filesOf(objects, read); err != nil {
			b.Fatal(err)
		}
	}
}
