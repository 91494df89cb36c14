// Package provider is the Secrets Store CSI driver's side of Leasehold: it answers the driver's gRPC calls.
//
// The driver calls Mount when a pod starts and, with rotation on, at every poll; nothing tells a provider that a pod
// is gone. What comes in is parsed by package spec, what it needs from Vault is held by package lease, and package
// render makes the files. This package joins them, and turns failures into what kubelet and a person need to see.
package provider

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// apiVersion is the version of the driver's provider API that this package serves.
const apiVersion = "v1alpha1"

// Config is what a Server is made of. All of it but the Publisher is required.
type Config struct {
	Keeper       *lease.Keeper
	Publisher    *Publisher // writes into volumes; nil: the driver does, when it polls
	Operator     spec.Operator
	MountTimeout time.Duration // how long a Mount waits for Vault; kubelet waits two minutes
	StopTimeout  time.Duration // how long Serve waits at its end for the calls at work
	Version      string        // of Leasehold
	Log          *slog.Logger
	Mounted      func(code string, d time.Duration) // called for each finished Mount
}

// Server answers the driver.
type Server struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	config   Config
	renderer *render.Renderer
	calls    calls
}

// NewServer returns a server; Serve starts it. It checks the templates of classes as the operator's own policy.
func NewServer(c Config) *Server {
	s := &Server{config: c, renderer: render.New()}
	s.config.Operator.CheckTemplate = s.renderer.Check
	return s
}

// cutAfter is how long after StopTimeout the connection is cut, if a call still has not ended.
const cutAfter = 2 * time.Second

// standingBy is how many goroutines wait for calls, with a stack that has grown to what a call needs. (To let a new one's
// grow was a sixteenth of the work of a poll.) Calls beyond these have one of their own each.
const standingBy = 4

// Serve answers calls that come in at l until ctx ends, and then until those at work are done, within StopTimeout. Those
// that take longer are told to end, and answer for themselves: a call whose connection is cut ends with Unavailable,
// which kubelet takes as maybe mounted.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	work, endWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endWork(nil)
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(s.intercept, endingWith(work)), grpc.NumStreamWorkers(standingBy))
	v1alpha1.RegisterCSIDriverProviderServer(server, s)

	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the driver: %w", err)
	case <-ctx.Done():
	}
	// What ended calls were waiting for goes on, and is given back by the keeper.
	end := time.AfterFunc(s.config.StopTimeout, func() { endWork(errEnding) })
	defer end.Stop()
	cut := time.AfterFunc(s.config.StopTimeout+cutAfter, server.Stop)
	defer cut.Stop()
	server.GracefulStop()
	return nil
}

// endingError is why a call ends with the provider.
type endingError struct{}

var errEnding endingError

func (endingError) Error() string {
	return "the provider is ending; kubelet's next try finds its successor"
}

// Is makes it a kind of context.Canceled.
func (endingError) Is(target error) bool { return target == context.Canceled }

// endingWith ends the context of every call with work.
func endingWith(work context.Context) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(work, func() { cancel(context.Cause(work)) })()
		return handler(ctx, request)
	}
}

// Version tells the driver who answers.
func (s *Server) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: apiVersion, RuntimeName: "leasehold", RuntimeVersion: s.config.Version}, nil
}

// Probe makes a Version call over the socket, as the driver would.
func Probe(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = v1alpha1.NewCSIDriverProviderClient(conn).Version(ctx, &v1alpha1.VersionRequest{Version: apiVersion})
	return err
}

// intercept notes each call's method, duration and code; never the request or the answer, which carry secrets. A call
// that panics fails alone: the provider has other pods to serve.
func (s *Server) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	start := time.Now()
	defer func() {
		if cause := recover(); cause != nil {
			// The value of a panic may be anything, so only its type is told. The stack shows no values.
			s.config.Log.Error("call panicked", observe.KeyMethod, info.FullMethod, "cause", fmt.Sprintf("%T", cause), "stack", string(debug.Stack()))
			response, err = nil, status.Error(codes.Internal, "internal error: see the provider's log")
		}
		elapsed, code := time.Since(start), status.Code(err)
		if info.FullMethod == v1alpha1.CSIDriverProvider_Mount_FullMethodName {
			s.config.Mounted(code.String(), elapsed)
		}
		s.config.Log.Debug("call", observe.KeyMethod, info.FullMethod, observe.KeyCode, code.String(), observe.KeyDuration, elapsed)
	}()
	return handler(ctx, request)
}
