package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// driver answers Probe as it is told.
type driver struct {
	csi.UnimplementedIdentityServer

	probe func(context.Context) (*csi.ProbeResponse, error)
}

func (d *driver) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return d.probe(ctx)
}

func TestHealthz(t *testing.T) {
	for name, row := range map[string]struct {
		probe  func(context.Context) (*csi.ProbeResponse, error) // nil: there is no driver
		status int
		body   string
	}{
		"ready": {
			func(context.Context) (*csi.ProbeResponse, error) {
				return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
			},
			http.StatusOK, "ok",
		},
		"no word": {
			func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil },
			http.StatusOK, "ok",
		},
		"not ready": {
			func(context.Context) (*csi.ProbeResponse, error) {
				return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
			},
			http.StatusInternalServerError, "the driver is not ready",
		},
		"unwell": {
			func(context.Context) (*csi.ProbeResponse, error) { return nil, errors.New("out of order") },
			http.StatusInternalServerError, "out of order",
		},
		"silent": {
			func(ctx context.Context) (*csi.ProbeResponse, error) { <-ctx.Done(); return nil, ctx.Err() },
			http.StatusInternalServerError, "DeadlineExceeded",
		},
		"absent": {
			nil,
			http.StatusInternalServerError, "no such file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "csi.sock")
			if row.probe != nil {
				listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				server := grpc.NewServer()
				csi.RegisterIdentityServer(server, &driver{probe: row.probe})
				go func() { _ = server.Serve(listener) }()
				t.Cleanup(server.Stop)
			}
			connection, err := dial(socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = connection.Close() })
			timeout := 10 * time.Second
			if name == "silent" {
				timeout = 50 * time.Millisecond
			}

			answer := httptest.NewRecorder()
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil)
			healthz(csi.NewIdentityClient(connection), timeout).ServeHTTP(answer, request)
			if answer.Code != row.status || !strings.Contains(answer.Body.String(), row.body) {
				t.Errorf("got %d %q, want %d with %q", answer.Code, answer.Body, row.status, row.body)
			}
		})
	}
}
