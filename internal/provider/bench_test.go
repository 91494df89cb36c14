package provider

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/lease"
	"leasehold/internal/spec"
)

// BenchmarkPoll is a Mount of a volume that is mounted and quiet: all of it but gRPC. Where the provider writes, it looks at
// what the kernel knows of every file in the volume.
func BenchmarkPoll(b *testing.B) {
	for name, publishes := range map[string]bool{"driver-writes": false, "provider-writes": true} {
		b.Run(name, func(b *testing.B) {
			n := newNode(b, publishes)
			request := n.request("app-0")
			n.mount(request)
			for publishes && !n.isQuiet(request) {
				n.mount(request)
			}
			b.ReportAllocs()
			for b.Loop() {
				n.mount(request)
			}
		})
	}
}

// BenchmarkFirstMount is a Mount of a volume that is new, with the journal's writes and the volume's, and with the work of
// the fake Vault, which is about half of it.
func BenchmarkFirstMount(b *testing.B) {
	n := newNode(b, true)
	state := filepath.Join(b.TempDir(), "state")
	n.tmpfs(state)
	if err := n.server.config.Keeper.Resume(filepath.Join(state, "journal"), false); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		request := n.request(fmt.Sprint("app-", i))
		b.StartTimer()
		n.mount(request)
	}
}

// node is a server whose volumes are tmpfs, if it may write to them.
type node struct {
	b      *testing.B
	vault  *vaulttest.Server
	server *Server
	pods   string
}

func newNode(b *testing.B, publishes bool) *node {
	b.Helper()
	if publishes && os.Getenv(privateMounts) == "" {
		b.Skip("NOT RUN: mounting a volume needs root (CAP_SYS_ADMIN), and that is missing")
	}
	vault := vaulttest.New(b)
	pool, err := client.NewPool(client.Config{Timeout: patience, MaxInFlight: 32, MaxTransports: 8, MaxAnswer: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	log := slog.New(slog.DiscardHandler)
	n := &node{b: b, vault: vault, pods: filepath.Join(b.TempDir(), "pods")}
	config := Config{
		Keeper: lease.NewKeeper(lease.Config{
			Pool: pool, AbandonAfter: time.Minute, SettleTimeout: patience, Publishes: publishes, Log: log,
			Stale: func() {}, FromMemory: func() {}, Unrevocable: func() {}, JournalFailed: func() {},
			Released: func(string) {}, Renewed: func(_, _ string) {}, Replaced: func(string) {},
		}),
		Operator: spec.Operator{Vault: vault.Vault("")}, MountTimeout: patience, StopTimeout: patience, Version: "bench", Log: log,
		Mounted: func(string, time.Duration) {},
	}
	if publishes {
		config.Publisher = NewPublisher(n.pods)
	}
	n.server = NewServer(config)
	return n
}

// isQuiet tells whether a volume has been as it is for long enough to be known to be so. It takes a second.
func (n *node) isQuiet(request *v1alpha1.MountRequest) bool {
	_, known := n.server.config.Publisher.sound.find(request.GetTargetPath())
	return known
}

// tmpfs mounts one until the benchmark ends.
func (n *node) tmpfs(path string) {
	n.b.Helper()
	if err := os.MkdirAll(path, 0o750); err != nil {
		n.b.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
		n.b.Fatal(err)
	}
	n.b.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
}

// mount is a Mount.
func (n *node) mount(request *v1alpha1.MountRequest) {
	if _, err := n.server.Mount(n.b.Context(), request); err != nil {
		n.b.Fatal(err)
	}
}

// request is the call that the driver makes for the volume of a pod, again and again.
func (n *node) request(pod string) *v1alpha1.MountRequest {
	n.b.Helper()
	target := filepath.Join(n.pods, "uid-"+pod, "volumes/kubernetes.io~csi/secrets/mount")
	if n.server.config.Publisher != nil {
		n.tmpfs(target)
	}
	token := n.vault.Signer.Token(vaulttest.Claims{ServiceAccount: "app", Pod: pod, UID: "uid-" + pod})
	tokens, err := json.Marshal(map[string]any{"vault": map[string]string{"token": token.Reveal(), "expirationTimestamp": "2100-01-01T00:00:00Z"}})
	if err != nil {
		n.b.Fatal(err)
	}
	attributes, err := json.Marshal(map[string]string{
		"roleName": "app", "objects": userAndPassword,
		"csi.storage.k8s.io/pod.namespace":         "shop",
		"csi.storage.k8s.io/pod.name":              pod,
		"csi.storage.k8s.io/pod.uid":               "uid-" + pod,
		"csi.storage.k8s.io/serviceAccount.name":   "app",
		"csi.storage.k8s.io/serviceAccount.tokens": string(tokens),
	})
	if err != nil {
		n.b.Fatal(err)
	}
	return &v1alpha1.MountRequest{Attributes: string(attributes), Permission: "420", TargetPath: target}
}
