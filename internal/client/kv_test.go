package client_test

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

const lookups = "GET sys/internal/ui/mounts/"

// lenient is how a template asks.
func lenient(method, path string) spec.Source {
	return spec.Source{Method: method, Path: path, Lenient: true}
}

// reader is a session of the furnished Vault, and what it asks for.
type reader struct {
	*client.Session
	t     *testing.T
	vault *vaulttest.Server
	seen  int // requests
}

func newReader(t *testing.T) *reader {
	t.Helper()
	v, jwt := furnished(t)
	s, err := newPool(t, client.Config{}).Login(t.Context(), v.Vault("app"), jwt)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{s, t, v, len(v.Requests())}
}

// asks checks by which requests a source is read, with what outcome (0: a grant), and that the grant is of the source as it
// was asked for.
func (r *reader) asks(src spec.Source, want client.Kind, requests ...string) client.Grant {
	r.t.Helper()
	g, err := r.Read(r.t.Context(), src)
	if client.KindOf(err) != want || err == nil && g.Source != src {
		r.t.Errorf("%s %s: got error %v for source %+v, want kind %v", src.Method, src.Path, err, g.Source, want)
	}
	all := r.vault.Requests()
	if got := all[r.seen:]; !slices.Equal(got, requests) {
		r.t.Errorf("%s %s: asked %q, want %q", src.Method, src.Path, got, requests)
	}
	r.seen = len(all)
	return g
}

// A path that is right costs nothing, one that lacks data/ is looked up once, and then the mount is known.
func TestLenientSourceIsLookedUpOnce(t *testing.T) {
	r := newReader(t)
	r.vault.Write("secret/data/deep/inner", vaulttest.Data{"data": vaulttest.Data{"password": "x"}})
	r.asks(lenient("GET", "kv/app"), 0, "GET kv/app")
	r.asks(lenient("GET", "database/creds/app"), 0, "GET database/creds/app")
	r.asks(lenient("GET", "secret/data/app"), 0, "GET secret/data/app")
	r.asks(get("secret/app"), client.Missing, "GET secret/app")
	r.asks(lenient("GET", "kv/none"), client.Missing, "GET kv/none", lookups+"kv/none")

	r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/data/app")
	r.asks(lenient("GET", "secret/deep/inner?version=1"), 0, "GET secret/data/deep/inner")
	r.asks(lenient("LIST", "secret/deep"), 0, "GET secret/metadata/deep")
	r.asks(lenient("GET", "secret/data/app"), 0, "GET secret/data/app")
	r.asks(lenient("GET", "secret/metadata/app"), 0, "GET secret/metadata/app")
	r.asks(get("secret/app"), client.Missing, "GET secret/app")
	r.asks(lenient("GET", "secret/none"), client.Missing, "GET secret/data/none", lookups+"secret/none")
	r.asks(lenient("GET", "secret/app?version=7"), client.Missing, "GET secret/data/app", lookups+"secret/app")
}

// A mount is known to whoever comes by the same pool to the same Vault, and to nobody else.
func TestKnownMountIsOfOneVault(t *testing.T) {
	one, other := newReader(t), newReader(t)
	pool := newPool(t, client.Config{})
	for _, r := range []*reader{one, other} {
		for range 2 {
			s, err := pool.Login(t.Context(), r.vault.Vault("app"), r.vault.Signer.Token(vaulttest.Claims{}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Read(t.Context(), lenient("GET", "secret/app")); err != nil {
				t.Error(err)
			}
		}
		if n := r.vault.Count("GET", "sys/internal/ui/mounts/secret/app"); n != 1 {
			t.Errorf("got %d look-ups at one Vault, want 1", n)
		}
	}
}

// The engine itself answers at some paths, and what these give does not depend on whether the mount is known.
func TestPathsOfTheEngineAreAskedAsTheyAre(t *testing.T) {
	r := newReader(t)
	before := r.asks(lenient("GET", "secret/config"), 0, "GET secret/config")
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
	after := r.asks(lenient("GET", "secret/config"), 0, "GET secret/config")
	if string(before.Data.Reveal()) != string(after.Data.Reveal()) {
		t.Error("the configuration is another once the mount is known")
	}
	r.asks(lenient("GET", "secret/delete/app"), client.Missing,
		"GET secret/delete/app", lookups+"secret/delete/app", "GET secret/data/delete/app")
}

// Another engine takes the place of one that is known.
func TestKnownMountIsForgotten(t *testing.T) {
	r := newReader(t)
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
	r.vault.Write("sys/mounts/secret", vaulttest.Data{"type": "kv", "options": vaulttest.Data{"version": "1"}})
	r.vault.Write("secret/app", vaulttest.Data{"password": "x"})
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/data/app", lookups+"secret/app", "GET secret/app")
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/app")
}

// A look-up without an answer says nothing, so that the first failure stands, and so does what was known.
func TestLookUpThatFails(t *testing.T) {
	for _, status := range []int{400, 403, 404, 429, 500, 502, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			r := newReader(t)
			fail := func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasPrefix(q.URL.Path, "/v1/sys/internal/") {
					return false
				}
				answering(status, "application/json", `{"errors":["trouble with the look-up"]}`)(w, q)
				return true
			}
			r.vault.Intercept(fail)
			r.asks(lenient("GET", "secret/app"), client.Missing, "GET secret/app", lookups+"secret/app")
			r.vault.Intercept(nil)
			r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
			r.vault.Intercept(fail)
			forgets := status == 403 || status == 404
			if forgets {
				r.asks(lenient("GET", "secret/none"), client.Missing, "GET secret/data/none", lookups+"secret/none", "GET secret/none")
				r.asks(lenient("GET", "secret/app"), client.Missing, "GET secret/app", lookups+"secret/app")
				return
			}
			r.asks(lenient("GET", "secret/none"), client.Missing, "GET secret/data/none", lookups+"secret/none")
			r.asks(lenient("GET", "secret/app"), 0, "GET secret/data/app")
		})
	}
}

// Only after a "no" is anything asked again: after any other failure, something may have been made.
func TestLenientSourceIsAskedOnceAfterOtherFailures(t *testing.T) {
	for _, tt := range []struct {
		status int
		text   string
	}{
		{200, ""},
		{204, ""},
		{400, "no"},
		{403, "permission denied; invalid token"},
		{405, "no"},
		{412, "no"},
		{429, "no"},
		{500, "no"},
		{502, "no"},
		{503, "no"},
		{504, "no"},
	} {
		var asked atomic.Int32
		s := serve(t, stub(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			answering(tt.status, "application/json", `{"errors":["`+tt.text+`"]}`)(w, r)
		}))
		session := open(t, newPool(t, client.Config{}), vaultAt(s.URL))
		if _, err := session.Read(t.Context(), lenient("GET", "secret/app")); err == nil {
			t.Errorf("%d: got no error", tt.status)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d %s: got %d requests, want one", tt.status, tt.text, n)
		}
	}
}

// Writes go as they are given, and once.
func TestLenientWriteIsSentOnce(t *testing.T) {
	for _, method := range []string{"PUT", "POST"} {
		r := newReader(t)
		r.vault.Write("sys/policies/acl/app", vaulttest.Data{"policy": `
			path "secret/*" { capabilities = ["create", "read", "update"] }
			path "pki/*"    { capabilities = ["update"] }`})
		r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
		write := lenient(method, "secret/app")
		write.Args = `{"password":"x"}`
		r.asks(write, client.Missing, method+" secret/app")
		write.Path = "kv/app"
		r.asks(write, client.Denied, method+" kv/app")
		issue := lenient(method, "pki/issue/app")
		issue.Args = `{"common_name":"a.example.com"}`
		r.asks(issue, 0, method+" pki/issue/app")
	}
}

// What is not there has no names in it. What may not be listed is another matter.
func TestLenientListOfNothingIsEmpty(t *testing.T) {
	r := newReader(t)
	for _, path := range []string{"kv/none", "secret/none", "secret/metadata/none"} {
		g, err := r.Read(t.Context(), lenient("LIST", path))
		if got := string(g.Data.Reveal()); err != nil || got != `{"keys":[]}` || g.Obtained.Before(r.Start()) || g.LeaseID != "" {
			t.Errorf("%s: got %s at %v, error %v, want no keys now", path, got, g.Obtained, err)
		}
		if _, err := r.Read(t.Context(), spec.Source{Method: "LIST", Path: path}); client.KindOf(err) != client.Missing {
			t.Errorf("%s, as objects ask: got error %v, want Missing", path, err)
		}
	}
	if _, err := r.Read(t.Context(), lenient("LIST", "database/roles")); client.KindOf(err) != client.Denied {
		t.Errorf("what may not be listed: got error %v, want Denied", err)
	}
}

// A path with ".." in it is refused, by whatever way it comes, and not made into another one.
func TestLenientPathLeadsNowhereElse(t *testing.T) {
	r := newReader(t)
	r.asks(lenient("GET", "secret/../kv/app"), client.Rejected)
	r.asks(lenient("GET", "secret/app"), 0, "GET secret/app", lookups+"secret/app", "GET secret/data/app")
	r.asks(lenient("GET", "secret/x/../../kv/app"), client.Rejected)
	r.asks(lenient("LIST", "secret/../kv"), client.Rejected)
}

// What a look-up says decides only about paths that are behind the mount that it names.
func TestLookUpIsNotBelievedEverything(t *testing.T) {
	for _, tt := range []struct {
		namespace, data string
		want            string // the path that is asked for then
	}{
		{"", `{"path":"kv/","type":"kv","options":{"version":"2"}}`, "kv/data/app"},
		{"", `{"path":"kv","type":"kv","options":{"version":"2"}}`, "kv/data/app"},
		{"", `{"path":"kv/","type":"kv","options":{"version":"1"}}`, ""},
		{"", `{"path":"kv/","type":"kv","options":null}`, ""},
		{"", `{"path":"kv/","type":"database","options":{"version":"2"}}`, ""},
		{"", `{"path":"","type":"kv","options":{"version":"2"}}`, ""},
		{"", `{"path":"/","type":"kv","options":{"version":"2"}}`, ""},
		{"", `{"path":"other/","type":"kv","options":{"version":"2"}}`, ""},
		{"", `{"path":"k","type":"kv","options":{"version":"2"}}`, ""},
		{"", `{"path":["kv/"],"type":"kv","options":{"version":"2"}}`, ""},
		{"", `null`, ""},
		{"team", `{"path":"kv/","type":"kv","options":{"version":"2"}}`, "kv/data/app"},
		{"team", `{"path":"team/kv/","type":"kv","options":{"version":"2"}}`, "kv/data/app"},
		{"/team/a/", `{"path":"team/a/kv/","type":"kv","options":{"version":"2"}}`, "kv/data/app"},
		{"team", `{"path":"teams/kv/","type":"kv","options":{"version":"2"}}`, ""},
	} {
		paths := make(chan string, 9)
		s := serve(t, stub(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/") {
				_, _ = io.WriteString(w, `{"request_id":"1","data":`+tt.data+`}`)
				return
			}
			paths <- strings.TrimPrefix(r.URL.Path, "/v1/")
			answering(404, "application/json", `{"errors":[]}`)(w, r)
		}))
		v := vaultAt(s.URL)
		v.Namespace = tt.namespace
		_, err := open(t, newPool(t, client.Config{}), v).Read(t.Context(), lenient("GET", "kv/app"))
		close(paths)
		var asked []string
		for path := range paths {
			asked = append(asked, path)
		}
		want := []string{"kv/app"}
		if tt.want != "" {
			want = append(want, tt.want)
		}
		if client.KindOf(err) != client.Missing || !slices.Equal(asked, want) {
			t.Errorf("%s in namespace %q: asked %q, error %v; want %q and Missing", tt.data, tt.namespace, asked, err, want)
		}
	}
}
