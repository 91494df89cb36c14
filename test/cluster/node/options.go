// Package node is what runs inside the namespaces of a cluster: the first process, which makes a machine out of them, and
// the supervisor, which starts Kubernetes, containerd, Vault and PostgreSQL there and tells how it goes.
//
// The order is: [Init] (process 1: mounts, network, reaping) starts [Run] (the supervisor) as its child. Whatever they do
// to the file system or the network is seen by nobody else, and is gone when process 1 ends.
package node

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// What the inside looks like. There is no route to anywhere else.
const (
	Name       = "node"
	address    = "10.244.0.1" // the node, the pods' gateway, and where Vault and PostgreSQL listen
	podNetwork = "10.244.0.0/24"
	services   = "10.96.0.0/16"
	apiService = "10.96.0.1"
	apiPort    = "6443"
	bridge     = "cni0"
	controlAt  = "/run/leasehold-cluster.sock"
	containerd = "/run/containerd/containerd.sock"
)

// Options say what a cluster is to be like.
type Options struct {
	KubeletRoot      string        `json:"kubeletRoot"`      // kubelet's --root-dir
	SyncFrequency    time.Duration `json:"syncFrequency"`    // kubelet's syncFrequency: volumes are republished every one to two of it
	RestartPeriod    time.Duration `json:"restartPeriod"`    // the longest pause before a container that failed is started again
	Driver           bool          `json:"driver"`           // install the Secrets Store CSI driver
	Rotation         bool          `json:"rotation"`         // the driver's enableSecretRotation
	RotationInterval time.Duration `json:"rotationInterval"` // the driver's rotationPollInterval
}

// Validate returns every fault of the options, or nil.
func (o Options) Validate() error {
	var faults []string
	if !filepath.IsAbs(o.KubeletRoot) || filepath.Clean(o.KubeletRoot) != o.KubeletRoot || strings.Count(o.KubeletRoot, "/") < 2 {
		faults = append(faults, fmt.Sprintf("-kubelet-root-dir is %q: give a clean absolute path such as /var/lib/kubelet", o.KubeletRoot))
	}
	if o.SyncFrequency < time.Second {
		faults = append(faults, fmt.Sprintf("-sync-frequency is %s: kubelet takes no less than a second", o.SyncFrequency))
	}
	if o.RestartPeriod < time.Second || o.RestartPeriod > 5*time.Minute {
		faults = append(faults, fmt.Sprintf("-restart-period is %s: kubelet takes 1s to 5m", o.RestartPeriod))
	}
	if o.RotationInterval <= 0 {
		faults = append(faults, fmt.Sprintf("-rotation-interval is %s: it must be positive", o.RotationInterval))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s", strings.Join(faults, "\n"))
	}
	return nil
}

// Place says where on the machine a cluster finds what was built and may put what it needs.
type Place struct {
	Build   string `json:"build"`   // bin, images, debian and charts lie here
	Scratch string `json:"scratch"` // the cluster's own directory; gone with it
	Cgroup  string `json:"cgroup"`  // the cgroup of its pods, "/name", in every hierarchy
}

func (p Place) bin(name string) string { return filepath.Join(p.Build, "bin", name) }

func (p Place) debian(path string) string { return filepath.Join(p.Build, "debian", path) }

// Temporary is for the temporary files of all that runs in the cluster.
func (p Place) Temporary() string { return filepath.Join(p.Scratch, "tmp") }

// Chart is the driver's own chart.
func (p Place) Chart() string { return filepath.Join(p.Build, "charts", "secrets-store-csi-driver") }

// appChart is the Chart.yaml of Leasehold's own chart.
func (p Place) appChart() string {
	return filepath.Join(filepath.Dir(p.Build), "charts", "leasehold", "Chart.yaml")
}
