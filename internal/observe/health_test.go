package observe

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandler(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "figures") })
	yes := func(context.Context) (string, error) { return "ok", nil }
	other := func(context.Context) (string, error) { return "ok: standby", nil }
	no := func(context.Context) (string, error) { return "ok", errors.New("no socket") }
	for _, row := range []struct {
		name, method, path string
		ready              func(context.Context) (string, error)
		status             int
		body               string
	}{
		{"alive", "GET", "/livez", yes, 200, "ok\n"},
		{"alive, though not ready", "GET", "/livez", no, 200, "ok\n"},
		{"ready", "GET", "/readyz", yes, 200, "ok\n"},
		{"ready as something else", "GET", "/readyz", other, 200, "ok: standby\n"},
		{"not ready", "GET", "/readyz", no, 503, "not ready: no socket\n"},
		{"metrics", "GET", "/metrics", no, 200, "figures"},
		{"head", "HEAD", "/livez", yes, 200, "ok\n"},
		{"other method", "POST", "/livez", yes, 405, "Method Not Allowed\n"},
		{"other path", "GET", "/debug/pprof/", yes, 404, "404 page not found\n"},
		{"root", "GET", "/", yes, 404, "404 page not found\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			NewHandler(row.ready, metrics).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), row.method, row.path, nil))
			if got := w.Body.String(); w.Code != row.status || got != row.body {
				t.Errorf("got %d %q, want %d %q", w.Code, got, row.status, row.body)
			}
		})
	}
}

// kubelet gives up after a second by default, and then says nothing of why.
func TestReadinessAnswersInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		hanging := func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		w := httptest.NewRecorder()
		NewHandler(hanging, http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", w.Code)
		}
		if elapsed := time.Since(start); elapsed >= time.Second {
			t.Errorf("got an answer after %v, want one within a second", elapsed)
		}
	})
}
