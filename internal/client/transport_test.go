package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// A GET of database/creds makes a user, and Go's transport would repeat it when the reused connection dies.
func TestReadIsSentOnceOnADeadConnection(t *testing.T) {
	for _, src := range []spec.Source{
		get("database/creds/app"),
		{Method: "LIST", Path: "kv"},
		{Method: "PUT", Path: "pki/issue/app", Args: `{"common_name":"a"}`},
	} {
		t.Run(src.Method, func(t *testing.T) {
			var reads atomic.Int32
			s := serve(t, stub(func(w http.ResponseWriter, _ *http.Request) {
				reads.Add(1)
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.Close()
			}))
			// The login's connection is kept and used again by the read.
			_, err := open(t, newPool(t, client.Config{}), vaultAt(s.URL)).Read(t.Context(), src)
			wantError(t, err, client.Unavailable, "EOF", true)
			if got := reads.Load(); got != 1 {
				t.Errorf("got the request %d times, want once", got)
			}
		})
	}
}

func TestReadSendsWhatTheSourceSays(t *testing.T) {
	for _, tt := range []struct {
		name string
		src  spec.Source
		want string // method, URL, body
	}{
		{"path", get("kv/app"), "GET /v1/kv/app "},
		{"query", get("kv/data/app?version=2"), "GET /v1/kv/data/app?version=2 "},
		{"odd characters", get("kv/a b%2f#c"), "GET /v1/kv/a%20b%252f%23c "},
		{"doubled slash", get("kv//app/"), "GET /v1/kv/app "},
		{"list", spec.Source{Method: "LIST", Path: "kv"}, "GET /v1/kv?list=true "},
		{"arguments", spec.Source{Method: "PUT", Path: "pki/issue/x", Args: `{"a":1}`}, `PUT /v1/pki/issue/x {"a":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			var header http.Header
			s := serve(t, stub(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got, header = r.Method+" "+r.URL.RequestURI()+" "+string(body), r.Header
				_, _ = io.WriteString(w, stubData)
			}))
			v := vaultAt(s.URL)
			v.Namespace = "team"
			if _, err := open(t, newPool(t, client.Config{UserAgent: "leasehold"}), v).Read(t.Context(), tt.src); err != nil {
				t.Fatalf("got error %v", err)
			}
			if got != tt.want {
				t.Errorf("got request %q, want %q", got, tt.want)
			}
			for name, want := range map[string]string{
				"X-Vault-Token": stubToken, "X-Vault-Namespace": "team", "X-Vault-Request": "true", "User-Agent": "leasehold",
			} {
				if header.Get(name) != want {
					t.Errorf("got another header %s than wanted", name)
				}
			}
		})
	}
}

func TestReadRefusesToLeaveTheAPI(t *testing.T) {
	s := serve(t, stub(func(http.ResponseWriter, *http.Request) { t.Error("got a request, want none") }))
	session := open(t, newPool(t, client.Config{}), vaultAt(s.URL+"/prefix"))
	for _, path := range []string{"../admin", "kv/../../admin", ".."} {
		_, err := session.Read(t.Context(), get(path))
		wantError(t, err, client.Rejected, `must not contain ".."`, false)
	}
}

// Whoever waits for a turn leaves when its context ends, and has sent nothing; a turn lasts until the answer's body is
// read to its end.
func TestRequestsInFlightAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flush bool // the headers are answered, the body is not
	}{
		{"before the headers", false},
		{"before the body", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			arrived, release := make(chan struct{}, 10), make(chan struct{})
			var now, most atomic.Int32
			slow := stub(func(w http.ResponseWriter, r *http.Request) {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				if tt.flush {
					_ = http.NewResponseController(w).Flush()
				}
				arrived <- struct{}{}
				<-release
				_, _ = io.WriteString(w, stubData)
			})
			s, other := serve(t, slow), serve(t, stub(answering(200, "application/json", stubData)))
			pool := newPool(t, client.Config{MaxInFlight: 2})
			session := open(t, pool, vaultAt(s.URL))
			var wg sync.WaitGroup
			read := func() {
				if _, err := session.Read(context.WithoutCancel(t.Context()), get("x")); err != nil {
					t.Errorf("got error %v", err)
				}
			}
			wg.Go(read)
			wg.Go(read)
			<-arrived
			<-arrived

			// If there were a turn, this request would arrive and be in doubt.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := session.Read(ctx, get("x"))
			wantError(t, err, client.Unavailable, "waited behind 2 requests in flight", false)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want it to be context.DeadlineExceeded", err)
			}
			// Another Vault has turns of its own.
			if _, err := open(t, pool, vaultAt(other.URL)).Read(t.Context(), get("x")); err != nil {
				t.Errorf("another Vault: got error %v", err)
			}

			for range 6 {
				wg.Go(read)
			}
			close(release)
			wg.Wait()
			if got := most.Load(); got != 2 {
				t.Errorf("got %d requests in flight, want 2", got)
			}
		})
	}
}

func TestContextThatHasEndedSendsNothing(t *testing.T) {
	s := serve(t, stub(func(http.ResponseWriter, *http.Request) { t.Error("got a request, want none") }))
	session := open(t, newPool(t, client.Config{}), vaultAt(s.URL))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // a free turn must not win by chance
		_, err := session.Read(ctx, get("x"))
		wantError(t, err, client.Unavailable, "context canceled", false)
	}
}

func TestNoAnswerInTimeIsInDoubt(t *testing.T) {
	s := serve(t, stub(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	session := open(t, newPool(t, client.Config{Timeout: 100 * time.Millisecond}), vaultAt(s.URL))
	_, err := session.Read(t.Context(), get("x"))
	wantError(t, err, client.Unavailable, "no answer within 100ms", true)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want it to be context.DeadlineExceeded", err)
	}
}

func TestNoConnectionIsNotInDoubt(t *testing.T) {
	s := serve(t, stub(nil))
	s.Close()
	_, err := newPool(t, client.Config{}).Login(t.Context(), vaultAt(s.URL), redact.New(stubJWT))
	wantError(t, err, client.Unavailable, "connection refused", false)
	for _, address := range []string{"", "vault.example:8200", "ftp://vault", "http://"} {
		_, err := newPool(t, client.Config{}).Login(t.Context(), vaultAt(address), redact.New(stubJWT))
		wantError(t, err, client.Rejected, "is not the address of a Vault", false)
	}
}

func TestAnswerSize(t *testing.T) {
	const limit = 4096
	answer := func(size int) string {
		head, tail := `{"request_id":"1","data":{"x":"`, `"}}`
		return head + strings.Repeat("a", size-len(head)-len(tail)) + tail
	}
	for size, fits := range map[int]bool{limit: true, limit + 1: false, 10 * limit: false} {
		s := serve(t, stub(answering(200, "application/json", answer(size))))
		_, err := open(t, newPool(t, client.Config{MaxAnswer: limit}), vaultAt(s.URL)).Read(t.Context(), get("x"))
		if fits && err != nil {
			t.Errorf("%d bytes: got error %v", size, err)
		}
		if !fits {
			wantError(t, err, client.Rejected, "larger than the limit of 4096 bytes", true)
		}
	}
}

// A standby that cannot forward a request redirects it to the active node.
func TestRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 307} {
		var got []string
		active := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = append(got, r.Method+" "+r.URL.Path+" "+string(body))
			if strings.HasSuffix(r.URL.Path, "/login") {
				_, _ = io.WriteString(w, stubLogin)
			} else if r.Header.Get("X-Vault-Token") == stubToken {
				_, _ = io.WriteString(w, stubData)
			}
		}))
		standby := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", active.URL+r.URL.RequestURI())
			w.WriteHeader(status)
		}))
		var asked []string
		pool := newPool(t, client.Config{Allowed: func(address string) error {
			asked = append(asked, address)
			return nil
		}})
		src := spec.Source{Method: "PUT", Path: "pki/issue/app", Args: `{"a":1}`}
		if _, err := open(t, pool, vaultAt(standby.URL)).Read(t.Context(), src); err != nil {
			t.Fatalf("%d: got error %v", status, err)
		}
		login := `POST /v1/auth/kubernetes/login {"jwt":"` + stubJWT + `","role":"app"}`
		if len(got) != 2 || got[0] != login || got[1] != `PUT /v1/pki/issue/app {"a":1}` {
			t.Errorf("%d: got other requests than a login and the PUT with their bodies", status)
		}
		if len(asked) != 2 || asked[0] != active.URL {
			t.Errorf("%d: got the policy asked for %q, want %q, twice", status, asked, active.URL)
		}
	}
}

func TestRedirectRefused(t *testing.T) {
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/again" {
			t.Errorf("got a request for %q, want none", r.URL.Path)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	allow := func(string) error { return nil }
	for _, tt := range []struct {
		name, location string
		allowed        func(string) error
		want           string
	}{
		{"policy", target.URL, func(string) error { return errors.New("add it to --vault-addresses") }, "add it to --vault-addr"},
		{"no policy", target.URL, nil, "none is allowed"},
		{"second", target.URL + "/again", allow, "a second redirect is not followed"},
		{"no location", "", allow, "without a sensible location"},
		{"other scheme", "file:///etc/passwd", allow, "no address of a Vault"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, stub(func(w http.ResponseWriter, _ *http.Request) {
				if tt.location != "" {
					w.Header().Set("Location", tt.location)
				}
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			_, err := open(t, newPool(t, client.Config{Allowed: tt.allowed}), vaultAt(s.URL)).Read(t.Context(), get("x"))
			wantError(t, err, client.Rejected, tt.want, false)
		})
	}
}

// VAULT_* is the environment of Vault's own library. It may hold an operator's leftovers, and none of it may reach a
// pod's session: well-formed values are overruled, and the others, on which the library fails, are cleared.
func TestEnvironmentHasNoEffect(t *testing.T) {
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_AGENT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "hostile",
		"VAULT_NAMESPACE": "hostile", "VAULT_HEADERS": `{"X-Hostile":"hostile"}`, "VAULT_CLIENT_TIMEOUT": "1ns",
		"VAULT_MAX_RETRIES": "9", "VAULT_RATE_LIMIT": "1:1", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_HTTP_PROXY": "http://127.0.0.1:1", "VAULT_TLS_SERVER_NAME": "hostile", "VAULT_WRAP_TTL": "60s",
	} {
		t.Setenv(name, value)
	}
	t.Run("well-formed", noHostileHeader)
	for name, value := range map[string]string{
		"VAULT_CACERT": "/nowhere", "VAULT_CAPATH": "/nowhere", "VAULT_SKIP_VERIFY": "hostile",
		"VAULT_MAX_RETRIES": "hostile", "VAULT_RATE_LIMIT": "hostile", "VAULT_HEADERS": "hostile",
	} {
		t.Setenv(name, value)
	}
	client.ClearEnvironment()
	t.Run("malformed", noHostileHeader)
}

// noHostileHeader makes requests and looks at their headers.
func noHostileHeader(t *testing.T) {
	v, jwt := furnished(t)
	v.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		for name, values := range r.Header {
			if strings.Contains(name+strings.Join(values, " "), "ostile") || name == "X-Vault-Namespace" || name == "X-Vault-Wrap-Ttl" {
				t.Errorf("%s: got header %s from the environment", r.URL.Path, name)
			}
		}
		return false
	})
	s, err := newPool(t, client.Config{}).Login(t.Context(), v.Vault("app"), jwt)
	if err != nil {
		t.Fatalf("login: got error %v", err)
	}
	if _, err := s.Read(t.Context(), get("kv/app")); err != nil {
		t.Errorf("read: got error %v", err)
	}
}
