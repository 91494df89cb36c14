package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"leasehold/test/cluster/image"
	"leasehold/test/integration/bed"
)

// readyLimit is for one thing to become ready, on a machine that is busy with others.
const readyLimit = 3 * time.Minute

// Node is what the supervisor supervises.
type Node struct {
	options    Options
	place      Place
	bed        *bed.Bed
	commands   map[string][]string // of Kubernetes and containerd, by name
	api        *apiClient
	kubeconfig string // of the administrator
	report     *reporter

	mu       sync.Mutex // guards processes
	running  map[string]*bed.Process
	postgres *bed.Postgres
	vault    *bed.Vault
}

// Run starts everything, reports to whoever owns the cluster, and then does what it is told at its control socket until
// ctx ends. What it started ends with process 1.
func Run(ctx context.Context, o Options, p Place, reports io.Writer) error {
	n := &Node{options: o, place: p, report: &reporter{to: reports}, running: make(map[string]*bed.Process)}
	err := n.start(ctx)
	if err != nil {
		return errors.Join(err, n.report.send(Report{Fault: err.Error()}))
	}
	return n.serveControl(ctx)
}

// start is the order of things. etcd, containerd, Vault and PostgreSQL need nobody; the controller-manager ends when it
// finds no API server.
func (n *Node) start(ctx context.Context) error {
	var err error
	if n.bed, err = bed.OpenIn(n.place.Scratch); err != nil {
		return err
	}
	n.bed.Host, n.bed.Ports = address, map[string]int{"vault": 8200, "postgres": 5432}
	if err := n.report.step("certificates and configuration", n.prepare); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return n.report.step("PostgreSQL", func() (err error) {
			n.postgres, err = n.bed.StartPostgres(ctx)
			return err
		})
	})
	group.Go(func() error {
		return n.report.step("Vault, unsealed", func() (err error) {
			n.vault, err = n.bed.StartVault(ctx, bed.VaultOptions{TLS: true, Audit: true})
			return err
		})
	})
	images := make(chan struct{})
	group.Go(func() error {
		defer close(images)
		return n.report.step("containerd and its images", func() error {
			if err := n.startAll("containerd"); err != nil {
				return err
			}
			if err := n.until(ctx, "containerd", dial("unix", containerd)); err != nil {
				return err
			}
			return n.load(ctx)
		})
	})
	group.Go(func() error {
		if err := n.report.step("etcd and kube-apiserver", func() error {
			if err := n.startAll("etcd", "kube-apiserver"); err != nil {
				return err
			}
			return n.until(ctx, "kube-apiserver", n.api.ready)
		}); err != nil {
			return err
		}
		// kubelet gives up on a container runtime that is not there yet.
		select {
		case <-images:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := n.report.step("kubelet, scheduler, controller-manager, kube-proxy: the node is Ready", func() error {
			if err := n.startAll("kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"); err != nil {
				return err
			}
			return errors.Join(
				n.until(ctx, "kubelet", n.api.nodeReady),
				n.until(ctx, "kube-controller-manager", n.api.defaultServiceAccount),
			)
		}); err != nil || !n.options.Driver {
			return err
		}
		return n.report.step("Secrets Store CSI driver, by its chart", func() error { return n.installDriver(ctx) })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	environment, err := n.environment()
	if err != nil {
		return err
	}
	return n.report.send(Report{Ready: environment})
}

// prepare makes certificates and writes configurations.
func (n *Node) prepare() error {
	dir := filepath.Join(n.bed.Dir, "kubernetes")
	identities, err := newIdentities(n.bed, dir)
	if err != nil {
		return err
	}
	if err := writeConfigurations(n.options, n.place, identities, dir); err != nil {
		return err
	}
	n.commands = components(n.options, n.place, identities, dir)
	n.kubeconfig = identities.kubeconfig("admin")
	n.api, err = newAPIClient(identities)
	return err
}

// startAll starts components that do not run.
func (n *Node) startAll(names ...string) error {
	for _, name := range names {
		n.mu.Lock()
		runs := n.running[name] != nil
		n.mu.Unlock()
		if runs {
			return fmt.Errorf("%s is running", name)
		}
		line := n.commands[name]
		cmd := exec.CommandContext(context.Background(), line[0], line[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+n.place.debian("usr/bin")+":"+n.place.debian("usr/sbin")+":"+os.Getenv("PATH"))
		process, err := n.bed.Start(name, cmd)
		if err != nil {
			return err
		}
		n.mu.Lock()
		n.running[name] = process
		n.mu.Unlock()
	}
	return nil
}

// until waits until a component that runs is ready.
func (n *Node) until(ctx context.Context, name string, ready func(context.Context) error) error {
	n.mu.Lock()
	process := n.running[name]
	n.mu.Unlock()
	return process.Within(ctx, readyLimit, ready)
}

// end ends a component, with a warning or without.
func (n *Node) end(name string, kill bool) error {
	n.mu.Lock()
	process := n.running[name]
	delete(n.running, name)
	n.mu.Unlock()
	switch {
	case process == nil:
		return fmt.Errorf("%s is not running", name)
	case kill:
		process.Kill()
		return nil
	default:
		// Some of them exit with 1 when they are told to end, some do not end in time and are killed: both will do.
		_ = process.Stop(syscall.SIGTERM)
		return nil
	}
}

// load gives containerd the images that were built.
func (n *Node) load(ctx context.Context) error {
	archives, err := filepath.Glob(filepath.Join(n.place.Build, "images", "*.tar"))
	if err != nil {
		return err
	}
	if len(archives) == 0 {
		return fmt.Errorf("no images in %q: run \"make build-images\"", filepath.Join(n.place.Build, "images"))
	}
	for _, archive := range archives {
		if err := n.command(ctx, n.place.debian("usr/bin/ctr"), "--address="+containerd, "--namespace=k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

// installDriver installs the driver as its users do, and waits until kubelet knows it.
func (n *Node) installDriver(ctx context.Context) error {
	values := []string{
		"linux.crds.enabled=false", // the chart's own folder of CRDs is enough, without a job that needs one more image
		"linux.kubeletRootDir=" + n.options.KubeletRoot,
		"syncSecret.enabled=true",
		"tokenRequests[0].audience=vault",
		fmt.Sprintf("enableSecretRotation=%t", n.options.Rotation),
		"rotationPollInterval=" + n.options.RotationInterval.String(),
	}
	line := []string{"upgrade", "--install", "csi-secrets-store", n.place.Chart(), "--namespace=kube-system"}
	for _, value := range values {
		line = append(line, "--set="+value)
	}
	if err := n.command(ctx, n.place.bin("helm"), line...); err != nil {
		return err
	}
	return n.until(ctx, "kubelet", n.api.driverRegistered)
}

// command runs a program to its end. Its error holds what it said.
func (n *Node) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+n.kubeconfig, "HOME="+n.bed.Dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", filepath.Base(name), args, err, out)
	}
	return nil
}

// environment is what a program in the cluster is told. It holds the keys to everything here.
func (n *Node) environment() (map[string]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(n.postgres.Address)
	if err != nil {
		return nil, err
	}
	version, err := image.AppVersion(n.place.appChart())
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"TMPDIR":             n.place.Temporary(),
		"KUBECONFIG":         n.kubeconfig,
		"KUBERNETES_API":     api(),
		"VAULT_ADDR":         n.vault.Address,
		"VAULT_TOKEN":        n.vault.RootToken,
		"VAULT_CACERT":       n.vault.Authority.CertFile,
		"CURL_CA_BUNDLE":     n.vault.Authority.CertFile,
		"PGHOST":             host,
		"PGPORT":             port,
		"PGUSER":             "postgres",
		"PGPASSWORD":         n.postgres.Password,
		"PGDATABASE":         "postgres",
		"E2E_APP_IMAGE":      image.App,
		"E2E_PROVIDER_IMAGE": image.Provider(version),
		"E2E_WEBHOOK_IMAGE":  image.Webhook(version),
		"E2E_DRIVER_CHART":   n.place.Chart(),
		"E2E_NODE":           self + " node",
		"E2E_VAULT_AUDIT":    n.vault.AuditFile,
		"E2E_KUBELET_ROOT":   n.options.KubeletRoot,
	}, nil
}

// dial is ready when somebody listens.
func dial(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
