package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// putKV1 writes a secret of KV version 1 that only this test knows and returns its path.
func putKV1(t testing.TB, data map[string]any) string {
	t.Helper()
	name := shared.unique("secret")
	must(t, "put", shared.vault.PutKV1(t.Context(), "kv1", name, data))
	return "kv1/" + name
}

// putKV2 writes a secret of KV version 2 that only this test knows and returns the path to read it.
func putKV2(t testing.TB, data map[string]any) string {
	t.Helper()
	name := shared.unique("secret")
	must(t, "put", shared.vault.PutKV2(t.Context(), "kv", name, data))
	return "kv/data/" + name
}

// show mounts a volume with the objects and returns its files.
func show(t testing.TB, objects string) map[string]string {
	t.Helper()
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(role(t, bed.Role{}), objects))
	mustMount(t, v)
	return files(t, v)
}

// wantFiles fails the test unless the volume has these files and no others.
func wantFiles(t testing.TB, got, want map[string]string) {
	t.Helper()
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("file %q: got one, want none", path)
		}
	}
	for path, text := range want {
		if shown, ok := got[path]; !ok || shown != text {
			t.Errorf("file %q: got %.200q (there: %t), want %.200q", path, shown, ok, text)
		}
	}
}

func TestKeyValue(t *testing.T) {
	t.Parallel()
	data := map[string]any{"word": "open <sesame> & go\n", "number": 1234567890, "list": []any{"a", 1, nil}}
	for name, path := range map[string]string{"version 1": putKV1(t, data), "version 2": putKV2(t, data)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := show(t, object("word", path, "word")+object("number", "/v1/"+path, "number")+object("list", path+"/", "list"))
			want := map[string]string{"word": "open <sesame> & go\n", "number": "1234567890", "list": `["a",1,null]`}
			wantFiles(t, got, want)
		})
	}
}

func TestKeyValueOldVersion(t *testing.T) {
	t.Parallel()
	path := putKV2(t, map[string]any{"word": "word of version one"})
	name := strings.TrimPrefix(path, "kv/data/")
	must(t, "put", shared.vault.PutKV2(t.Context(), "kv", name, map[string]any{"word": "word of version two"}))
	got := show(t, object("now", path, "word")+object("before", path+"?version=1", "word"))
	wantFiles(t, got, map[string]string{"now": "word of version two", "before": "word of version one"})
}

// whole is a whole answer of KV version 1: the peer's fields in the peer's order, but for what changes at every request.
func whole(data string) string {
	return `{"lease_id":"","lease_duration":2764800,"renewable":false,"data":` + data + `,"warnings":null}`
}

func TestWholeKeyValue(t *testing.T) {
	t.Parallel()
	path := putKV1(t, map[string]any{"word": "xyzzy", "number": 12345678901234567})
	got := show(t, object("all.json", path, ""))
	wantFiles(t, got, map[string]string{"all.json": whole(`{"number":12345678901234567,"word":"xyzzy"}`)})
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(name, credentials(name)))
	versions := mustMount(t, v)
	logIn(t, v)
	holds(t, name, 1, 1)
	if len(versions) != 2 || versions["username"] == "" || versions["password"] == "" {
		t.Errorf("object versions: got %q, want one for each of two files", versions)
	}
}

func TestStaticRole(t *testing.T) {
	t.Parallel()
	const path = "database/static-creds/db-static"
	got := show(t, object("username", path, "username")+object("password", path, "password")+object("all", path, ""))
	if got["username"] != "static-app" {
		t.Errorf("username: got %q, want static-app", got["username"])
	}
	must(t, "log in", shared.postgres.Login(t.Context(), got["username"], got["password"]))
	var all struct{ Data map[string]any }
	must(t, "whole answer", json.Unmarshal([]byte(got["all"]), &all))
	if _, there := all.Data["ttl"]; there || all.Data["password"] != got["password"] {
		keys := slices.Sorted(maps.Keys(all.Data))
		t.Errorf("whole answer: got the keys %q, want the password and no ttl, which falls from second to second", keys)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	const source = `secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: app.example, ttl: 1h}`
	got := show(t, `
- {objectName: tls.crt, secretKey: certificate, `+source+`}
- {objectName: tls.key, secretKey: private_key, `+source+`}
- {objectName: other.crt, secretKey: certificate, `+strings.Replace(source, "app.example", "other.example", 1)+`}
`)
	name := keyPairName(t, got["tls.crt"], got["tls.key"])
	if name != "app.example" {
		t.Errorf("name in the certificate: got %q, want app.example", name)
	}
	if got["other.crt"] == got["tls.crt"] {
		t.Error("two objects that differ in an argument only: got one certificate, want two")
	}
}

func TestMixedObjects(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	one, two := putKV1(t, map[string]any{"word": "the one"}), putKV2(t, map[string]any{"word": "the two"})
	const issue = "secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: app.example}"
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := newVolume(t, p, class(name, credentials(name)+
		object("one", one, "word")+object("two", two, "word")+
		object("static", "database/static-creds/db-static", "username")+`
- {objectName: tls/tls.crt, secretKey: certificate, `+issue+`}
- {objectName: tls/tls.key, secretKey: private_key, `+issue+`}
`))
	mustMount(t, v)
	logIn(t, v)
	got := files(t, v)
	keyPairName(t, got["tls/tls.crt"], got["tls/tls.key"])
	for _, generated := range []string{"username", "password", "tls/tls.crt", "tls/tls.key"} {
		delete(got, generated)
	}
	wantFiles(t, got, map[string]string{"one": "the one", "two": "the two", "static": "static-app"})
	want := map[string]int{
		"POST auth/kubernetes/login": 1, "GET database/creds/" + name: 1, "GET " + one: 1, "GET " + two: 1,
		"GET database/static-creds/db-static": 1, "PUT pki/issue/web": 1,
	}
	if got := trouble.Requests(); !maps.Equal(got, want) {
		t.Errorf("requests: got %v, want %v", got, want)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	path := putKV1(t, map[string]any{"word": "xyzzy"})
	rows := []struct {
		written string
		want    fs.FileMode
	}{
		{"", 0o644}, // the driver's
		{"0400", 0o400},
		{"'0440'", 0o440},
		{"0o600", 0o600},
		{`"0o640"`, 0o640},
		{"256", 0o400},
		{"'292'", 0o444},
		{"0", 0},
		{"00", 0},
		{"0777", 0o777},
		{"511", 0o777},
	}
	var objects strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&objects, "- {objectName: file-%d, secretPath: %s, filePermission: %s}\n", i, path, row.written)
	}
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(role(t, bed.Role{}), objects.String()))
	mustMount(t, v)
	for i, row := range rows {
		got, err := v.Mode(fmt.Sprintf("file-%d", i))
		must(t, "mode", err)
		if got != row.want {
			t.Errorf("filePermission %s: got mode %#o on disk, want %#o", row.written, got, row.want)
		}
	}
}

func TestNestedNames(t *testing.T) {
	t.Parallel()
	path := putKV1(t, map[string]any{"word": "xyzzy"})
	long := strings.Repeat("n", 255)
	want := make(map[string]string)
	var objects strings.Builder
	for _, name := range []string{"a/b/c.txt", "a/b/d.txt", "a/e", "f", ".hidden", "g/.h/i..j", "k l/ü", long, "m/" + long} {
		objects.WriteString(object(name, path, "word"))
		want[name] = "xyzzy"
	}
	wantFiles(t, show(t, objects.String()), want)
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	path := putKV1(t, map[string]any{
		"plain": "naïve ☃", "base64": "AAH/gP4KZGF0YQ==", "hex": "0001FF80fe0a64617461", "neither": "#never-to-be-shown#",
	})
	got := show(t, object("none", path, "plain")+fmt.Sprintf(`
- {objectName: utf8, secretPath: %[1]s, secretKey: plain, encoding: utf-8}
- {objectName: base64, secretPath: %[1]s, secretKey: base64, encoding: base64}
- {objectName: hex, secretPath: %[1]s, secretKey: hex, encoding: hex}
`, path))
	binary := "\x00\x01\xff\x80\xfe\ndata"
	wantFiles(t, got, map[string]string{"none": "naïve ☃", "utf8": "naïve ☃", "base64": binary, "hex": binary})

	p := startProvider(t, bed.ProviderOptions{})
	v := newVolume(t, p, class(role(t, bed.Role{}), object("good", path, "plain")+fmt.Sprintf(`
- {objectName: bad64, secretPath: %[1]s, secretKey: neither, encoding: base64}
- {objectName: badhex, secretPath: %[1]s, secretKey: neither, encoding: hex}
`, path)))
	_, err := mount(t, v)
	wantStatus(t, err, codes.FailedPrecondition, `"bad64"`, "base64", `"badhex"`, "hexadecimal", path)
	if err != nil && strings.Contains(err.Error(), "never-to-be-shown") {
		t.Errorf("got error %q, want it not to show the value", err)
	}
	wantFiles(t, files(t, v), nil) // all or nothing
}

// TestWholeAnswersAreStable has a provider forget all and ask again: only what the secret is may be in the bytes.
func TestWholeAnswersAreStable(t *testing.T) {
	t.Parallel()
	const static = "database/static-creds/db-static"
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{})
	data := map[string]any{"b": 1, "a": "x", "c": map[string]any{"z": 1, "y": 2}}
	v := newVolume(t, p, class(name, object("one.json", putKV1(t, data), "")+object("two.json", putKV2(t, data), "")+
		object("static.json", static, "")))
	remaining := func(ctx context.Context) (string, error) {
		answer, err := shared.vault.Client.Logical().ReadWithContext(ctx, static)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(answer.Data["ttl"]), nil
	}
	before, err := remaining(t.Context())
	must(t, "static role", err)
	versions := mustMount(t, v)
	first := files(t, v)
	for range 5 {
		if again := mustMount(t, v); !maps.Equal(again, versions) {
			t.Fatalf("object versions at a poll: got %v, want the same as before, %v", again, versions)
		}
	}
	wantFiles(t, files(t, v), first)

	eventually(t, "the static role's ttl falls", func(ctx context.Context) error {
		now, err := remaining(ctx)
		if err == nil && now == before {
			err = errors.New("not yet")
		}
		return err
	})
	stop(t, p)
	startProvider(t, bed.ProviderOptions{Dir: p.Dir})
	mustMount(t, v)
	wantFiles(t, files(t, v), first)
}

func TestHundredObjects(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	data, want := make(map[string]any), make(map[string]string)
	for i := range 100 {
		data[fmt.Sprintf("key-%d", i)] = fmt.Sprintf("value-%d", i)
	}
	path := putKV1(t, data)
	var oneSource, manySources strings.Builder
	for i := range 100 {
		file, key := fmt.Sprintf("file-%d", i), fmt.Sprintf("key-%d", i)
		oneSource.WriteString(object(file, path, key))
		manySources.WriteString(object(file, fmt.Sprintf("%s?n=%d", path, i), key)) // the same, asked for in another way
		want[file] = fmt.Sprintf("value-%d", i)
	}
	for _, row := range []struct {
		name, objects string
		reads         int
	}{{"one source", oneSource.String(), 1}, {"many sources", manySources.String(), 100}} {
		trouble.Reset()
		v := newVolume(t, p, class(role(t, bed.Role{}), row.objects))
		versions := mustMount(t, v)
		wantFiles(t, files(t, v), want)
		if len(versions) != 100 {
			t.Errorf("%s: got %d object versions, want 100", row.name, len(versions))
		}
		if got := trouble.Count("GET", path); got != row.reads || trouble.Total() != row.reads+1 {
			t.Errorf("%s: got the requests %v, want %d reads and one login", row.name, trouble.Requests(), row.reads)
		}
	}
}

// TestLargeAnswer has Vault answer with 3 MiB. More than 1 MiB is too much for a volume, but not for one answer.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	const size = 768 << 10 // Vault takes no text of more than 1 MiB
	large := strings.Repeat("a", size)
	data := map[string]any{"small": "xyzzy", "a": large, "b": large, "c": large, "d": large}
	path := putKV1(t, data)
	p, name := startProvider(t, bed.ProviderOptions{}), role(t, bed.Role{})
	v := newVolume(t, p, class(name, object("small", path, "small")+object("a", path, "a")))
	mustMount(t, v)
	wantFiles(t, files(t, v), map[string]string{"small": "xyzzy", "a": large})

	all := newVolume(t, p, class(name, object("small", path, "small")+object("all.json", path, "")))
	_, err := mount(t, all)
	length := 4*size + len(whole(`{"a":"","b":"","c":"","d":"","small":"xyzzy"}`))
	// Whether the small one was made before the large one, or is left out, is chance.
	wantStatus(t, err, codes.FailedPrecondition, `"all.json"`, "secretKey", "more than 1048576", fmt.Sprintf("largest files have %d", length))
	wantFiles(t, files(t, all), nil)
	holds(t, name, 1, 0) // the first volume's; the failed one was given up
}

// TestDriverWritesWhole looks at the directory itself: one swap, and nothing beside it.
func TestDriverWritesWhole(t *testing.T) {
	t.Parallel()
	path := putKV1(t, map[string]any{"word": "xyzzy"})
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(role(t, bed.Role{}), object("a/b", path, "word")))
	mustMount(t, v)
	entries, err := os.ReadDir(v.Path)
	must(t, "list the volume", err)
	data, err := os.Readlink(filepath.Join(v.Path, "..data"))
	must(t, "..data", err)
	for _, e := range entries {
		if e.Name() != "..data" && e.Name() != data && e.Name() != "a" {
			t.Errorf("the volume's directory: got %q, want no such entry", e.Name())
		}
	}
	text, err := os.ReadFile(filepath.Join(v.Path, "a", "b"))
	if must(t, "read", err); !bytes.Equal(text, []byte("xyzzy")) {
		t.Errorf("file: got %q, want xyzzy", text)
	}
}
