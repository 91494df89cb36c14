package integration

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leasehold/test/integration/bed"
)

// templated is an object whose file a template makes. It reads what it asks for by itself.
func templated(name, text string) string {
	return fmt.Sprintf("- {objectName: %q, template: %q}\n", name, text)
}

// formatted is an object whose file shows the whole answer in a format.
func formatted(name, path, format string) string {
	return fmt.Sprintf("- {objectName: %q, secretPath: %q, format: %s}\n", name, path, format)
}

// connectionOf is a template of a connection string for a database user of a role.
func connectionOf(role string) string {
	return `{{ with secret "database/creds/` + role + `" }}postgres://{{ .Data.username }}:{{ .Data.password }}@` +
		shared.postgres.Address + `/postgres?sslmode=disable{{ end }}`
}

// connects logs in to PostgreSQL with a connection string, and returns user and password.
func connects(t testing.TB, text string) (user, password string) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil || u.Host != shared.postgres.Address {
		t.Fatalf("connection string: got one of %d bytes (%t), want one for %s", len(text), err == nil, shared.postgres.Address)
	}
	user = u.User.Username()
	password, _ = u.User.Password()
	must(t, "log in with the connection string", shared.postgres.Login(t.Context(), user, password))
	return user, password
}

// sourced has a shell read a file of settings, and returns what it has for a name then.
func sourced(t testing.TB, file, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", `. "$1"; eval "printf %s \"\$$2\""`, "sh", file, name)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	must(t, "a shell sources "+filepath.Base(file), err)
	return string(out)
}

// property returns a property of a text in which nothing is escaped.
func property(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, name); found {
			return strings.TrimSpace(strings.TrimLeft(rest, " =:"))
		}
	}
	return "no property " + name
}

// TestTemplatesOfAnApplication mounts what applications read: a connection string, JSON, settings of a shell, Java
// properties and certificates. All of it is of one database user, and of as few requests as there are sources.
func TestTemplatesOfAnApplication(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	const odd = `it's "odd": $HOME \ ` + "`id`" + ` #`
	settings := putKV2(t, map[string]any{"WORD": odd, "NUMBER": 42})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := newVolume(t, p, class(name, credentials(name)+
		templated("url", connectionOf(name))+
		templated("app.json", `{{ with secret "database/creds/`+name+`" }}{"user":{{ .Data.username | toJSON }},"password":{{ .Data.password | toJSON }}}{{ end }}`)+
		formatted(".env", settings, "env")+
		formatted("app.properties", "database/creds/"+name, "properties")+
		templated("bundle.pem", `{{ with secret "pki/issue/web" "common_name=app.example" "ttl=1h" }}{{ .Data.certificate }}
{{ .Data.issuing_ca }}
{{ .Data.private_key }}
{{ end }}`)+
		templated("other.pem", `{{ with pkiCert "pki/issue/web" "common_name=other.example" }}{{ .Cert }}{{ .CA }}{{ .Key }}{{ end }}`)))
	versions := mustMount(t, v)
	logIn(t, v)
	got := files(t, v)

	user, password := connects(t, got["url"])
	if user != got["username"] || password != got["password"] {
		t.Error("the connection string is of another user than the files username and password")
	}
	var decoded struct{ User, Password string }
	must(t, "app.json", json.Unmarshal([]byte(got["app.json"]), &decoded))
	if decoded.User != user || decoded.Password != password {
		t.Error("app.json is of another user")
	}
	if property(got["app.properties"], "username") != user || property(got["app.properties"], "password") != password {
		t.Error("app.properties is of another user")
	}
	env := filepath.Join(v.Path, ".env")
	if word, number := sourced(t, env, "WORD"), sourced(t, env, "NUMBER"); word != odd || number != "42" {
		t.Errorf(".env: a shell reads WORD=%q NUMBER=%q, want %q and 42", word, number, odd)
	}
	for file, want := range map[string]string{"bundle.pem": "app.example", "other.pem": "other.example"} {
		if got := keyPairName(t, got[file], got[file]); got != want {
			t.Errorf("%s: got a certificate of %q, want of %q", file, got, want)
		}
		if n := blocks(got[file]); n != 3 {
			t.Errorf("%s: got %d PEM blocks, want a certificate, its authority and its key", file, n)
		}
	}

	requests := trouble.Requests()
	want := map[string]int{
		"POST " + loginPath: 1, "GET database/creds/" + name: 1, "GET " + settings: 1, "PUT pki/issue/web": 2,
	}
	if !maps.Equal(requests, want) {
		t.Errorf("requests: got %v, want %v", requests, want)
	}
	for range 20 {
		polled(t, v, versions, got)
	}
	if now := trouble.Requests(); !maps.Equal(now, requests) {
		t.Errorf("requests after polls: got %v, want those of the first mount, %v", now, requests)
	}
	holds(t, name, 1, 1)
}

// blocks counts the PEM blocks of a text.
func blocks(text string) int {
	n := 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return n
		}
	}
}

// TestPathsOfTheAnswers has templates ask for whatever a list has in it: it is read once, and followed when the list changes.
func TestPathsOfTheAnswers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for version, row := range map[string]struct {
		mount, template string
		put             func(ctx context.Context, mount, name string, data map[string]any) error
		requests        func(folder string) []string // but for the login
	}{
		"version 1": {
			"kv1", `{{ range secrets "kv1/FOLDER" }}{{ . }}={{ with secret (printf "kv1/FOLDER/%s" .) }}{{ .Data.word }}{{ end }};{{ end }}`,
			shared.vault.PutKV1,
			func(f string) []string {
				return []string{"GET kv1/" + f, "GET kv1/" + f + "/one", "GET kv1/" + f + "/two"}
			},
		},
		"version 2": { // which has the list under metadata/ and the secrets under data/
			"kv", `{{ range secrets "kv/FOLDER" }}{{ . }}={{ with secret (printf "kv/FOLDER/%s" .) }}{{ .Data.data.word }}{{ end }};{{ end }}`,
			shared.vault.PutKV2,
			func(f string) []string {
				return []string{
					"GET kv/" + f, "GET sys/internal/ui/mounts/kv/" + f, "GET kv/metadata/" + f, "GET kv/data/" + f + "/one", "GET kv/data/" + f + "/two",
				}
			},
		},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			folder := shared.unique("folder")
			policy := shared.unique("lists")
			must(t, "policy", shared.vault.Policy(ctx, policy, fmt.Sprintf(`
				path "kv1/%[1]s/*"         { capabilities = ["read", "list"] }
				path "kv/data/%[1]s/*"     { capabilities = ["read"] }
				path "kv/metadata/%[1]s/*" { capabilities = ["list"] }`, folder)))
			name := role(t, bed.Role{Policies: []string{policy}})
			put := func(key, word string) {
				t.Helper()
				must(t, "put", row.put(ctx, row.mount, folder+"/"+key, map[string]any{"word": word}))
			}
			put("one", "canary-of-a-template-4f1c")
			put("two", "canary-of-another-81ab")
			trouble := startTrouble(t)
			p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
			text := strings.ReplaceAll(row.template, "FOLDER", folder)
			parameters := class(name, templated("all", text))
			v := newVolume(t, p, parameters)
			versions := mustMount(t, v)
			first := map[string]string{"all": "one=canary-of-a-template-4f1c;two=canary-of-another-81ab;"}
			wantFiles(t, files(t, v), first)
			want := map[string]int{"POST " + loginPath: 1}
			for _, request := range row.requests(folder) {
				want[request] = 1
			}
			polled(t, v, versions, first)
			if got := trouble.Requests(); !maps.Equal(got, want) {
				t.Errorf("requests: got %v, want %v", got, want)
			}

			parameters["refresh"] = "1s"
			put("one", "the first, changed")
			put("three", "the third")
			eventually(t, "the file follows", func(context.Context) error {
				mustMount(t, v)
				if got := files(t, v)["all"]; got != "one=the first, changed;three=the third;two=canary-of-another-81ab;" {
					return errors.New("it shows something else")
				}
				return nil
			})
		})
	}
}

// TestShortPathsOfVersion2 asks for secrets as version 1 of the engine has them. Two templates that say the same in two
// ways read two sources, for the paths differ.
func TestShortPathsOfVersion2(t *testing.T) {
	t.Parallel()
	path := putKV2(t, map[string]any{"word": "word of version one"})
	short := strings.Replace(path, "/data/", "/", 1)
	must(t, "put", shared.vault.PutKV2(t.Context(), "kv", strings.TrimPrefix(short, "kv/"), map[string]any{"word": "word of version two"}))
	trouble := startTrouble(t)
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	word := func(path string) string { return `{{ with secret "` + path + `" }}{{ .Data.data.word }}{{ end }}` }
	v := newVolume(t, p, class(role(t, bed.Role{}), templated("short", word(short))))
	mustMount(t, v)
	wantFiles(t, files(t, v), map[string]string{"short": "word of version two"})
	want := map[string]int{
		"POST " + loginPath: 1, "GET " + short: 1, "GET sys/internal/ui/mounts/" + short: 1, "GET " + path: 1,
	}
	if got := trouble.Requests(); !maps.Equal(got, want) {
		t.Errorf("requests: got %v, want %v", got, want)
	}

	// The mount is known now, to other volumes, too.
	trouble.Reset()
	other := newVolume(t, p, class(role(t, bed.Role{}), templated("before", word(short+"?version=1"))+templated("now", word(short))+
		templated("whole", word(path))+object("key", path, "word")))
	mustMount(t, other)
	wantFiles(t, files(t, other), map[string]string{
		"before": "word of version one", "now": "word of version two", "whole": "word of version two", "key": "word of version two",
	})
	// The two versions and the short path; the template with the whole path shares the object's.
	want = map[string]int{"POST " + loginPath: 1, "GET " + path: 3}
	if got := trouble.Requests(); !maps.Equal(got, want) {
		t.Errorf("requests: got %v, want %v", got, want)
	}

	fails(t, newVolume(t, p, class(role(t, bed.Role{}), templated("none", word(short+"none")))), codes.NotFound,
		`"none"`, `"`+path+`none"`, "check the path in the template")
	fails(t, newVolume(t, p, class(role(t, bed.Role{}), templated("deny", word("cubbyhole/../sys/mounts")))), codes.FailedPrecondition, `"deny"`)
	fails(t, newVolume(t, p, class(role(t, bed.Role{}), templated("deny", word("database/config/postgres")))), codes.PermissionDenied,
		`"deny"`, `"database/config/postgres"`, `must allow "read" on that path`)
}

// TestTemplateIsEdited changes a template under a running pod: new bytes, of the same database user, without a request.
func TestTemplateIsEdited(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := newVolume(t, p, class(name, templated("url", connectionOf(name))+templated("same", "the same")))
	versions := mustMount(t, v)
	before, requests := files(t, v), trouble.Requests()
	connects(t, before["url"])

	v.Parameters = class(name, templated("url", connectionOf(name)+"&application_name=shop")+templated("same", "the same"))
	edited := mustMount(t, v)
	wantFiles(t, files(t, v), map[string]string{"url": before["url"] + "&application_name=shop", "same": "the same"})
	if edited["url"] == versions["url"] || edited["same"] != versions["same"] {
		t.Error("object versions: want another one of the file that changed, and of no other")
	}
	connects(t, files(t, v)["url"])

	// One that is no template, and one that fails, leave what there is.
	for code, text := range map[codes.Code]string{
		codes.InvalidArgument:    connectionOf(name) + "{{ nosuchfunction }}",
		codes.FailedPrecondition: connectionOf(name) + `{{ range loop 2000 }}{{ printf "%1024s" "x" }}{{ end }}`,
	} {
		v.Parameters = class(name, templated("url", text)+templated("same", "the same"))
		fails(t, v, code, `"url"`)
	}
	v.Parameters = class(name, templated("url", connectionOf(name))+templated("same", "the same"))
	polled(t, v, versions, before)
	if got := trouble.Requests(); !maps.Equal(got, requests) {
		t.Errorf("requests: got %v, want those of the first mount, %v", got, requests)
	}
	holds(t, name, 1, 1)
}

// TestTemplateAsksForLess takes a database user out of a template. Nobody renews it any more.
func TestTemplateAsksForLess(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	trouble := startTrouble(t)
	name, more := role(t, bed.Role{}), shared.unique("r")
	for _, database := range []string{name, more} {
		must(t, "database role", shared.vault.AddDatabaseRole(ctx, "database", database, bed.DatabaseRole{TTL: 8 * time.Second, MaxTTL: time.Hour}))
	}
	must(t, "policy", shared.vault.Policy(ctx, name, bed.MayRead("database/creds/"+name, "database/creds/"+more)))
	c := startCluster(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := c.start(t, class(name, templated("url", connectionOf(name))+templated("more", connectionOf(more))))
	mustMount(t, v)
	before := files(t, v)
	connects(t, before["more"])
	v.Parameters = class(name, templated("url", connectionOf(name)))
	mustMount(t, v)
	wantFiles(t, files(t, v), map[string]string{"url": before["url"]})
	eventually(t, "the user that is not asked for any more ends", func(ctx context.Context) error {
		leases, err := shared.vault.Leases(ctx, "database/creds/"+more)
		if err == nil && len(leases) > 0 {
			err = errors.New("its lease lives")
		}
		return err
	})
	waitCounted(t, c.Provider, `leasehold_renewals_total{outcome="ok",what="lease"}`, 2)
	connects(t, before["url"])
	wantFiles(t, files(t, v), map[string]string{"url": before["url"]})
	wantRequests(t, trouble, name, 1, 1)
	wantCount(t, trouble, "GET", "database/creds/"+more, 1)
}

// TestTemplatesAfterARestart has the next provider go on with what templates asked for: the same bytes, and no request.
func TestTemplatesAfterARestart(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	short := strings.Replace(putKV2(t, map[string]any{"word": "open sesame"}), "/data/", "/", 1)
	o := bed.ProviderOptions{VaultAddress: trouble.Address, StateDir: tmpfs(t, "size=4m")}
	first := startProvider(t, o)
	v := newVolume(t, first, class(name, templated("url", connectionOf(name))+
		templated("at", `{{ with secret "`+short+`" }}{{ .Data.data.word }} {{ timestamp }}{{ end }}`)+
		templated("tls.pem", `{{ with pkiCert "pki/issue/web" "common_name=app.example" }}{{ .Cert }}{{ .Key }}{{ end }}`)))
	versions := mustMount(t, v)
	before, requests := files(t, v), trouble.Requests()
	kill(t, first)
	o.Dir = first.Dir
	startProvider(t, o)
	polled(t, v, versions, before)
	if got := trouble.Requests(); !maps.Equal(got, requests) {
		t.Errorf("requests: got %v, want those of the first mount, %v", got, requests)
	}
	connects(t, before["url"])
	holds(t, name, 1, 1)
}

// TestHostileTemplates has one pod try to take the provider away from the others.
func TestHostileTemplates(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	path := putKV1(t, map[string]any{"word": "xyzzy"})
	p := startProvider(t, bed.ProviderOptions{})
	good := newVolume(t, p, class(name, credentials(name)))
	versions := mustMount(t, good)
	before := files(t, good)
	for what, text := range map[string]string{
		"endless loop": `{{ range loop 9223372036854775807 }}{{ end }}`,
		"nested loops": strings.Repeat("{{ range loop 100000 }}", 3) + "x" + strings.Repeat("{{ end }}", 3),
	} {
		t.Run(what, func(t *testing.T) {
			_, err := mount(t, newVolume(t, p, class(name, templated("bad", text))))
			// By its steps or, where others keep the machine busy, by the clock, which may be another one at the next try.
			steps, clock := status.Code(err) == codes.FailedPrecondition, status.Code(err) == codes.Internal && strings.Contains(err.Error(), "5 seconds")
			if !steps && !clock {
				t.Errorf("got %v, want that it has too many steps or takes too long", err)
			}
			polled(t, good, versions, before)
		})
	}
	for what, row := range map[string]struct {
		text string
		code codes.Code
	}{
		"doubling text":    {`{{ $x := "0123456789" }}{{ range loop 60 }}{{ $x = printf "%s%s" $x $x }}{{ end }}{{ $x }}`, codes.FailedPrecondition},
		"wide numbers":     {`{{ range loop 100 }}{{ printf "%999999d" 1 }}{{ end }}`, codes.FailedPrecondition},
		"too much output":  {`{{ range loop 200000 }}0123456789{{ end }}`, codes.FailedPrecondition},
		"recursion":        {`{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`, codes.InvalidArgument},
		"too many sources": {`{{ range loop 200 }}{{ with secret (printf "` + path + `?n=%d" .) }}{{ end }}{{ end }}`, codes.FailedPrecondition},
		"a file":           {`{{ file "/proc/self/environ" }}`, codes.InvalidArgument},
		"a program":        {`{{ plugin "id" }}`, codes.InvalidArgument},
		"not closed":       {`{{ with secret "` + path + `"`, codes.InvalidArgument},
	} {
		t.Run(what, func(t *testing.T) {
			began := time.Now()
			fails(t, newVolume(t, p, class(name, templated("bad", row.text))), row.code, `"bad"`)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			polled(t, good, versions, before)
		})
	}
	select {
	case <-p.Ended():
		t.Error("the provider has ended")
	default:
	}
	mustMount(t, newVolume(t, p, class(name, credentials(name))))
}
