package render

import (
	"strings"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

func TestFormats(t *testing.T) {
	const (
		creds  = `{"username":"u","password":"p'<&>"}`
		kv     = `{"metadata":{"version":3,"deletion_time":""},"data":{"b":"x","A":null}}`
		mixed  = `{"c":{"z":[1e3,null,true],"a":"<"},"b":null,"a":"two\nlines","d":1.50,"e":[],"f":false,"B":""}`
		static = `{"username":"u","ttl":55,"last_vault_rotation":"t"}`
	)
	for name, row := range map[string]struct {
		format spec.Format
		data   string
		want   string
	}{
		"map":             {spec.FormatMap, creds, "password: p'<&>\nusername: u\n"},
		"map, mixed":      {spec.FormatMap, mixed, "B: \na: two\nlines\nb: <no value>\nc: map[a:< z:[1e3 <nil> true]]\nd: 1.50\ne: []\nf: false\n"},
		"map, KV v2":      {spec.FormatMap, kv, "data: map[A:<nil> b:x]\nmetadata: map[deletion_time: version:3]\n"},
		"map of nothing":  {spec.FormatMap, `{}`, ""},
		"map, static":     {spec.FormatMap, static, "last_vault_rotation: t\nttl: 55\nusername: u\n"},
		"data":            {spec.FormatData, creds, `{"password":"p'\u003c\u0026\u003e","username":"u"}` + "\n"},
		"data, KV v2":     {spec.FormatData, kv, `{"data":{"A":null,"b":"x"},"metadata":{"deletion_time":"","version":3}}` + "\n"},
		"data of nothing": {spec.FormatData, `{}`, "{}\n"},
		"data, static":    {spec.FormatData, static, `{"last_vault_rotation":"t","ttl":55,"username":"u"}` + "\n"},

		"env":              {spec.FormatEnv, creds, `password='p'\''<&>'` + "\nusername='u'\n"},
		"env, mixed":       {spec.FormatEnv, mixed, "B=''\na='two\nlines'\nb=''\nc='{\"a\":\"\\u003c\",\"z\":[1e3,null,true]}'\nd='1.50'\ne='[]'\nf='false'\n"},
		"env, KV v2":       {spec.FormatEnv, kv, "A=''\nb='x'\n"},
		"env of nothing":   {spec.FormatEnv, `{}`, ""},
		"env, static":      {spec.FormatEnv, static, "last_vault_rotation='t'\nusername='u'\n"},
		"env, hostile":     {spec.FormatEnv, `{"a":"$(id)` + "`id`" + `\\ \"!#~","_1":"'; id; '"}`, `_1=''\''; id; '\'''` + "\na='$(id)`id`\\ \"!#~'\n"},
		"env, its own":     {spec.FormatEnv, `{"data":"d","metadata":"m"}`, "data='d'\nmetadata='m'\n"},
		"env, NUL in more": {spec.FormatEnv, `{"a":["\u0000"]}`, "a='[\"\\u0000\"]'\n"},

		"properties":             {spec.FormatProperties, creds, "password=p'<&>\nusername=u\n"},
		"properties, mixed":      {spec.FormatProperties, mixed, "B=\na=two\\nlines\nb=\nc={\"a\"\\:\"\\\\u003c\",\"z\"\\:[1e3,null,true]}\nd=1.50\ne=[]\nf=false\n"},
		"properties, KV v2":      {spec.FormatProperties, kv, "A=\nb=x\n"},
		"properties of nothing":  {spec.FormatProperties, `{}`, ""},
		"properties, static":     {spec.FormatProperties, static, "last_vault_rotation=t\nusername=u\n"},
		"properties, keys":       {spec.FormatProperties, `{"":"a","a b":"c","#d":"e","!f":"g","h=i:j":"k","l\\":"m","é":"n"}`, "=a\n\\!f=g\n\\#d=e\na\\ b=c\nh\\=i\\:j=k\nl\\\\=m\n\\u00E9=n\n"},
		"properties, blanks":     {spec.FormatProperties, `{"a":"  b c ","d":"\t\r\f","e":"\u007f\u0000"}`, "a=\\  b c \nd=\\t\\r\\f\ne=\\u007F\\u0000\n"},
		"properties, characters": {spec.FormatProperties, `{"a":"\u00e9\u20ac\ud83d\ude00"}`, "a=\\u00E9\\u20AC\\uD83D\\uDE00\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one(spec.Object{Format: row.format}, row.data)
			if err != nil || string(got) != row.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, row.want)
			}
			if got == nil {
				t.Error("got no contents, want none to be written")
			}
		})
	}
}

// An object that says nothing has the format json, and so has one that an earlier version wrote down.
func TestDefaultFormat(t *testing.T) {
	const want = `{"lease_id":"","lease_duration":0,"renewable":false,"data":{"a":"b"},"warnings":null}`
	for _, format := range []spec.Format{0, spec.FormatJSON} {
		if got, err := one(spec.Object{Format: format}, `{"a":"b"}`); err != nil || string(got) != want {
			t.Errorf("format %d: got %s, %v; want %s", format, got, err, want)
		}
	}
}

func TestFaultyFormats(t *testing.T) {
	for name, row := range map[string]struct {
		format spec.Format
		data   string
		want   string
	}{
		"names": {
			spec.FormatEnv,
			`{"db-password":"` + canary + `","1a":"x","":"x","a.b":"x","ä":"x","a\n":"x","a=b":"x","good":"x"}`,
			`object "o": read "p": no shell has a variable of the name "", "1a", "a\n", "a.b", "a=b", "db-password", "ä": a name has ` +
				`letters, digits and _, and no digit first; rename the key in Vault, or name the variable in a template`,
		},
		"NUL": {
			spec.FormatEnv,
			`{"a":"b","k":"` + canary + `\u0000"}`,
			`object "o": read "p": key "k" has a NUL byte in it, which no variable of a shell can hold: name the key in the secretKey ` +
				`of an object of its own`,
		},
		"unknown": {99, `{"a":"` + canary + `"}`, `object "o": read "p": the unknown format 99`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one(spec.Object{Format: row.format}, row.data)
			if err == nil || err.Error() != row.want {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
			if got != nil || (err != nil && strings.Contains(err.Error(), canary)) {
				t.Errorf("got %q, %v; want no contents and no value in the error", got, err)
			}
		})
	}
}

// What can become longer than its answer is not built to its end.
func TestFormatsAreBounded(t *testing.T) {
	long := strings.Repeat("'", maxTotal/8)
	data := map[string]any{}
	for _, key := range strings.Split("abcdefghijklmnop", "") {
		data[key] = long
	}
	a, err := decode(client.Grant{Source: get("p"), Data: redact.NewBytes(mustJSON(t, data))})
	if err != nil {
		t.Fatal(err)
	}
	const want = `read "p": the file would have more than 1048576 bytes: take single fields with secretKey`
	for _, format := range []spec.Format{spec.FormatMap, spec.FormatEnv, spec.FormatProperties} {
		if got, err := a.whole(format); got != nil || err == nil || err.Error() != want {
			t.Errorf("format %d: got %d bytes, %v; want the error %s", format, len(got), err, want)
		}
	}
}
