// Command livenessprobe tells the kubelet over HTTP whether a CSI driver is well. Beside the driver's container it
// stands in for the program of the same name of kubernetes-csi, which is not to be had as a Go module, and knows the
// flags that the driver's chart passes.
//
// GET /healthz asks the driver's Identity service (Probe) and answers 200 if the driver is ready, else 500 and why not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	socket := flag.String("csi-address", "/csi/csi.sock", "the driver's socket")
	timeout := flag.Duration("probe-timeout", time.Second, "how long the driver may take to answer")
	address := flag.String("http-endpoint", ":9808", "where to listen")
	flag.Int("v", 0, "accepted for the chart's sake")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *socket, *timeout, *address); err != nil {
		fmt.Fprintln(os.Stderr, "livenessprobe:", err)
		os.Exit(1)
	}
}

// run serves at the address until ctx ends.
func run(ctx context.Context, socket string, timeout time.Duration, address string) error {
	connection, err := dial(socket)
	if err != nil {
		return fmt.Errorf("driver %q: %w", socket, err)
	}
	defer func() { _ = connection.Close() }()

	mux := http.NewServeMux()
	mux.Handle("GET /healthz", healthz(csi.NewIdentityClient(connection), timeout))
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %q: %w", address, err)
	}
	return nil
}

// dial returns a connection that connects when it is first used.
//
// A driver that was away for long is well again as soon as it is back. Left to itself gRPC would pause up to two
// minutes between two tries, in which the kubelet would take the driver for dead.
func dial(socket string) (*grpc.ClientConn, error) {
	soon := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}
	return grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: time.Second}))
}

// healthz answers one probe of the kubelet by one of the driver.
func healthz(driver csi.IdentityClient, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		answer, err := driver.Probe(ctx, &csi.ProbeRequest{})
		switch {
		case err != nil:
			http.Error(w, "probe: "+err.Error(), http.StatusInternalServerError)
		case answer.GetReady() != nil && !answer.GetReady().GetValue(): // no word means ready
			http.Error(w, "probe: the driver is not ready", http.StatusInternalServerError)
		default:
			_, _ = fmt.Fprintln(w, "ok")
		}
	})
}
