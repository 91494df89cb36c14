package observe

import (
	"context"
	"io"
	"net/http"
	"time"
)

// readyTimeout bounds one readiness check; kubelet's own default is a second.
const readyTimeout = 900 * time.Millisecond

// NewHandler serves /livez (the process answers), /readyz (ready has no objection; it says as what, such as "ok") and
// /metrics.
func NewHandler(ready func(context.Context) (string, error), metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		as, err := ready(ctx)
		if err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, as+"\n")
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}
