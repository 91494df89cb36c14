// Command registrar makes a CSI driver known to the kubelet. Beside the driver's container it stands in for the
// node-driver-registrar of kubernetes-csi, which is not to be had as a Go module, and knows the flags that the driver's
// chart passes.
//
// It asks the driver for its name and serves the kubelet's registration service at <name>-reg.sock in the kubelet's
// directory of plugins. The kubelet finds the socket, asks for name and endpoint, and says whether it took them; if it
// did not, the registrar ends with an error, so that the next one tries again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	var s sockets
	flag.StringVar(&s.driver, "csi-address", "/csi/csi.sock", "the driver's socket, as this process sees it")
	flag.StringVar(&s.endpoint, "kubelet-registration-path", "", "the driver's socket, as the kubelet sees it")
	flag.StringVar(&s.plugins, "plugin-registration-path", "/registration", "the kubelet's directory of plugins")
	flag.Int("v", 0, "accepted for the chart's sake")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "registrar:", err)
		os.Exit(1)
	}
}

// sockets tells where driver and kubelet meet.
type sockets struct {
	driver   string // the driver's socket, as this process sees it
	endpoint string // the same, as the kubelet sees it
	plugins  string // the directory in which the kubelet looks for sockets, as this process sees it
}

// run registers the driver and stays until ctx ends, or the kubelet refuses.
func run(ctx context.Context, s sockets) error {
	if s.endpoint == "" {
		return errors.New("--kubelet-registration-path is missing")
	}
	fmt.Printf("registrar: asking the driver at %s for its name\n", s.driver)
	name, err := driverName(ctx, s.driver)
	if ctx.Err() != nil {
		return nil // told to end before the driver was there
	}
	if err != nil {
		return fmt.Errorf("driver %q: %w", s.driver, err)
	}

	// Whoever had the socket before us is gone: there is one registrar for a driver on a node.
	path := filepath.Join(s.plugins, name+"-reg.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// When it is closed it removes the socket, by which the kubelet notices that the driver is gone.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return err
	}

	service := &registrar{name: name, endpoint: s.endpoint, refused: make(chan error, 1)}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("registrar: serving %s for the driver %s\n", path, name)

	select {
	case <-ctx.Done():
		server.Stop()
		return nil
	case err := <-service.refused:
		server.GracefulStop() // the kubelet gets its answer
		return fmt.Errorf("the kubelet refused the driver %q: %w", name, err)
	case err := <-served:
		return fmt.Errorf("serve %q: %w", path, err)
	}
}

// driverName asks the driver for its name, and waits for the driver as long as ctx lasts.
func driverName(ctx context.Context, socket string) (string, error) {
	// The driver's container starts together with ours: its socket is a moment away, and a pod waits for it.
	soon := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}
	connection, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: time.Second}))
	if err != nil {
		return "", err
	}
	defer func() { _ = connection.Close() }()
	info, err := csi.NewIdentityClient(connection).
		GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return "", err
	}
	return info.GetName(), nil
}

// registrar is the kubelet's registration service for one driver.
type registrar struct {
	registration.UnimplementedRegistrationServer

	name     string     // of the driver
	endpoint string     // its socket, as the kubelet sees it
	refused  chan error // why the kubelet did not take it; holds one
}

// GetInfo tells the kubelet what to register.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              r.name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"}, // of CSI
	}, nil
}

// NotifyRegistrationStatus hears what came of it.
func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		fmt.Printf("registrar: the kubelet has registered the driver %s\n", r.name)
		return &registration.RegistrationStatusResponse{}, nil
	}
	select {
	case r.refused <- errors.New(status.GetError()):
	default: // the first refusal is enough
	}
	return &registration.RegistrationStatusResponse{}, nil
}
