package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
)

func TestAnswers(t *testing.T) {
	const html, js = "text/html", "application/json"
	for _, tt := range []struct {
		name       string
		status     int
		mime, body string
		kind       client.Kind
		inDoubt    bool
		text       string
	}{
		{
			"policy", 403, js, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, client.Denied, false,
			`read "x": permission denied (403)`,
		},
		{
			"token", 403, js, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, client.Expired, false,
			`read "x": token or lease is gone (403): permission denied; invalid token`,
		},
		{"lease", 400, js, `{"errors":["lease not found"]}`, client.Expired, false, "lease not found"},
		{"lease", 400, js, `{"errors":["invalid lease"]}`, client.Expired, false, "invalid lease"},
		{"arguments", 400, js, `{"errors":["no"]}`, client.Rejected, false, `read "x": refused (400): no`},
		{
			"nested list", 400, js, `{"errors":["1 error occurred:\n\t* error setting: 1 error occurred:\n\t* failed\n\n\n\n"]}`,
			client.Rejected, false, `(400): error setting: failed`,
		},
		{"missing", 404, js, `{"errors":[]}`, client.Missing, false, `read "x": nothing found (404)`},
		{
			"destroyed", 404, js, `{"request_id":"1","data":{"data":null,"metadata":{"destroyed":true,"version":3}}}`,
			client.Missing, false, "version 3 was destroyed",
		},
		{"operation", 405, js, `{"errors":["unsupported operation"]}`, client.Rejected, false, "(405): unsupported operation"},
		{"replica is behind", 412, js, `{"errors":["required index state not present"]}`, client.Unavailable, false, "(412)"},
		{"too large", 413, js, `{"errors":["request body too large"]}`, client.Rejected, false, "(413)"},
		{"quota", 429, js, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, client.Unavailable, false, "quota"},
		{"quota of a proxy", 429, html, `<h1>slow down</h1>`, client.Unavailable, false, "(429)"},
		{
			"failure", 500, js, `{"errors":["1 error occurred:\n\t* failed to connect\n\n"]}`, client.Unavailable, false,
			`read "x": vault is unavailable (500): failed to connect`,
		},
		{"sealed", 503, js, `{"errors":["Vault is sealed"]}`, client.Unavailable, false, "(503): Vault is sealed"},
		{"bad gateway", 502, js, `{"errors":["upstream"]}`, client.Unavailable, true, "(502): upstream"},
		{"gateway timeout", 504, js, `{"errors":["upstream"]}`, client.Unavailable, true, "(504): upstream"},
		{"proxy", 503, html, `<h1>no</h1>`, client.Unavailable, true, "the answer is not Vault's (text/html, 11 bytes)"},
		{"proxy with JSON", 403, js, `{"message":"no"}`, client.Unavailable, true, "the answer is not Vault's"},
		{"nonsense", 200, html, `<h1>hello</h1>`, client.Unavailable, true, "the answer is not Vault's (text/html, 14 bytes)"},
		{"cut off", 200, js, `{"request_id":"1","da`, client.Unavailable, true, "the answer is not Vault's"},
		{
			"no data", 200, js, `{"request_id":"1","data":null,"warnings":["why"]}`, client.Rejected, false,
			"Vault answered without data; why",
		},
		{"no object", 200, js, `{"request_id":"1","data":"x"}`, client.Rejected, false, "Vault answered without data"},
		{"nothing", 204, js, ``, client.Rejected, false, "(204): Vault answered without data"},
		{"teapot", 418, js, `{"errors":[]}`, client.Rejected, false, "(418)"},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.name), func(t *testing.T) {
			var seen []string
			s := serve(t, stub(answering(tt.status, tt.mime, tt.body)))
			pool := newPool(t, client.Config{Observe: func(op, outcome string, d time.Duration) {
				seen = append(seen, op+" "+outcome)
				if d <= 0 {
					t.Errorf("got duration %v, want more", d)
				}
			}})
			_, err := open(t, pool, vaultAt(s.URL)).Read(t.Context(), get("x"))
			wantError(t, err, tt.kind, tt.text, tt.inDoubt)
			if got, want := client.KindOf(fmt.Errorf("mount: %w", err)), tt.kind; got != want {
				t.Errorf("wrapped: got kind %v, want %v", got, want)
			}
			if got, want := strings.Join(seen, ", "), "login ok, read "+tt.kind.String(); got != want {
				t.Errorf("got observed %q, want %q", got, want)
			}
		})
	}
}

func TestKindOfOtherErrors(t *testing.T) {
	for _, err := range []error{nil, io.EOF} {
		if got := client.KindOf(err); got != 0 {
			t.Errorf("got kind %v of %v, want 0", got, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status   int
		header   string
		min, max time.Duration
	}{
		{429, "7", 7 * time.Second, 7 * time.Second},
		{503, "7", 7 * time.Second, 7 * time.Second},
		{429, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Minute, time.Hour},
		{429, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0, 0},
		{429, "-7", 0, 0},
		{429, "soon", 0, 0},
		{429, "", 0, 0},
		{500, "7", 0, 0},
	} {
		s := serve(t, stub(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", tt.header)
			answering(tt.status, "application/json", `{"errors":["later"]}`)(w, nil)
		}))
		_, err := open(t, newPool(t, client.Config{}), vaultAt(s.URL)).Read(t.Context(), get("x"))
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.RetryAfter < tt.min || e.RetryAfter > tt.max {
			t.Errorf("%d with Retry-After %q: got %v, want %v to %v", tt.status, tt.header, err, tt.min, tt.max)
		}
	}
}

// Whoever echoes what we sent, it does not get into an error.
func TestErrorsHoldNoCredential(t *testing.T) {
	echo := stubJWT + " " + stubToken + " " + stubJWT[:len(stubJWT)-10] + " " + stubToken[10:] +
		" hvs.CAESIofSomebodyElse eyJhbGciOiJSUzI1NiJ9.eyJzb21lYm9keSI6ImVsc2UifQ.x"
	long := strings.Repeat("x", 500) + " " + echo // cutting comes after cleaning
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"reason":       answering(400, "application/json", `{"errors":["`+echo+`"]}`),
		"long reason":  answering(400, "application/json", `{"errors":["`+long+`"]}`),
		"warning":      answering(404, "application/json", `{"request_id":"1","warnings":["`+echo+`"]}`),
		"deleted":      answering(404, "application/json", `{"request_id":"1","data":{"metadata":{"deletion_time":"`+echo+`"}}}`),
		"HTML":         answering(502, "text/html", "<pre>"+echo+"</pre>"),
		"success":      answering(200, "text/html", echo),
		"content type": answering(502, "text/"+echo, echo),
		"status line":  raw(echo + "\r\n\r\n"),
		"header":       raw("HTTP/1.1 200 OK\r\n" + echo + "\r\n\r\n"),
		"location":     raw("HTTP/1.1 307 T\r\nLocation: http://" + stubToken + "/\r\nContent-Length: 0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s, pool := serve(t, stub(h)), newPool(t, client.Config{})
			_, err := open(t, pool, vaultAt(s.URL)).Read(t.Context(), get("x"))
			wantClean(t, err)
			h := h
			if name == "reason" { // the signature alone, which nothing but our knowing it gives away
				h = answering(400, "application/json", `{"errors":["`+stubJWT[50:]+`"]}`)
			}
			_, err = pool.Login(t.Context(), vaultAt(serve(t, h).URL), redact.New(stubJWT))
			wantClean(t, err)
		})
	}
}

func wantClean(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		t.Fatalf("got %T, want a *client.Error", err)
	}
	texts := []string{e.Error(), fmt.Sprintf("%+v %#v", *e, *e)}
	for cause := error(e); cause != nil; cause = errors.Unwrap(cause) {
		texts = append(texts, fmt.Sprintf("%v %+v %#v", cause, cause, cause))
	}
	for _, text := range texts {
		for _, secret := range []string{stubToken, "ThatMustNotBe", "canary", "SomebodyElse", "eyJ", "hvs."} {
			if strings.Contains(text, secret) {
				t.Errorf("got an error with %q in it (%d bytes)", secret, len(text))
			}
		}
		if len(text) > 4096 {
			t.Errorf("got an error of %d bytes, want a bounded one", len(text))
		}
	}
}
