package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver says its name.
type driver struct {
	csi.UnimplementedIdentityServer
}

func (driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "csi.example.org"}, nil
}

// start runs a registrar, and afterwards its driver. Where the kubelet looks for its socket there is one of the past.
func start(
	t *testing.T, ctx context.Context,
) (kubelet registration.RegistrationClient, socket string, done <-chan error) {
	t.Helper()
	directory := t.TempDir()
	s := sockets{driver: filepath.Join(directory, "csi.sock"), endpoint: "/node/csi.sock", plugins: directory}
	socket = filepath.Join(directory, "csi.example.org-reg.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, s) }()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", s.driver)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, driver{})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	connection, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return registration.NewRegistrationClient(connection), socket, ended
}

func TestRegistrar(t *testing.T) {
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ctx, stop := context.WithCancel(deadline)
	defer stop()
	kubelet, socket, done := start(t, ctx)

	info, err := kubelet.GetInfo(deadline, &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if info.GetType() != registration.CSIPlugin || info.GetName() != "csi.example.org" ||
		info.GetEndpoint() != "/node/csi.sock" || strings.Join(info.GetSupportedVersions(), " ") != "1.0.0" {
		t.Errorf("got %v, want the CSI plugin csi.example.org at /node/csi.sock, version 1.0.0", info)
	}
	status := &registration.RegistrationStatus{PluginRegistered: true}
	if _, err := kubelet.NotifyRegistrationStatus(deadline, status); err != nil {
		t.Error(err)
	}

	stop()
	if err := <-done; err != nil {
		t.Errorf("told to end it failed: %v", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there, error %v", err)
	}
}

func TestRegistrarIsRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	kubelet, _, done := start(t, ctx)
	status := &registration.RegistrationStatus{Error: "no room"}
	if _, err := kubelet.NotifyRegistrationStatus(ctx, status, grpc.WaitForReady(true)); err != nil {
		t.Errorf("the kubelet got no answer: %v", err)
	}
	err := <-done
	if want := `the kubelet refused the driver "csi.example.org": no room`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}
