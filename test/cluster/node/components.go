package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"leasehold/test/cluster/image"
	"leasehold/test/integration/bed"
)

const (
	etcdClients = "http://127.0.0.1:2379"
	etcdPeers   = "http://127.0.0.1:2380"
)

// components returns the command lines of what makes up Kubernetes, by name: the program and its arguments.
func components(o Options, p Place, i *identities, dir string) map[string][]string {
	kube := func(component string, flags ...string) []string {
		line := []string{p.bin("kubeone"), component}
		for _, some := range flags {
			line = append(line, strings.Fields(some)...)
		}
		return line
	}
	// reach is how a component logs in to the API server, and how others log in to the component.
	reach := func(client string) string {
		file := i.kubeconfig(client)
		return "--kubeconfig=" + file + " --authentication-kubeconfig=" + file + " --authorization-kubeconfig=" + file +
			" --bind-address=" + bed.Loopback + " --leader-elect=false"
	}
	ca := i.authority.CertFile
	return map[string][]string{
		"etcd": kube("etcd",
			"--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", // nothing here is to survive the machine
			"--listen-client-urls="+etcdClients, "--advertise-client-urls="+etcdClients,
			"--listen-peer-urls="+etcdPeers, "--initial-advertise-peer-urls="+etcdPeers, "--initial-cluster=default="+etcdPeers),
		"kube-apiserver": kube("kube-apiserver",
			"--etcd-servers="+etcdClients, "--bind-address=0.0.0.0 --secure-port="+apiPort, "--advertise-address="+address,
			"--service-cluster-ip-range="+services, "--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true --endpoint-reconciler-type=master-count",
			"--client-ca-file="+ca, i.flags("apiserver", "tls-cert-file", "tls-private-key-file"),
			i.flags("apiserver-kubelet", "kubelet-client-certificate", "kubelet-client-key"), "--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file="+i.verifyingKey(), "--service-account-signing-key-file="+i.signingKey(),
			"--requestheader-client-ca-file="+ca, "--requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra-",
			i.flags("front-proxy", "proxy-client-cert-file", "proxy-client-key-file")),
		"kube-controller-manager": kube("kube-controller-manager", reach("controller-manager"),
			"--use-service-account-credentials=true --root-ca-file="+ca, "--service-account-private-key-file="+i.signingKey(),
			"--kube-api-qps=500 --kube-api-burst=1000"), // its default would be the tests' bottleneck
		"kube-scheduler": kube("kube-scheduler", reach("scheduler")),
		"kube-proxy": kube("kube-proxy", "--kubeconfig="+i.kubeconfig("proxy"), "--hostname-override="+Name,
			"--proxy-mode=iptables --cluster-cidr="+podNetwork,
			// 0: leave the machine's settings alone.
			"--conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0"),
		"kubelet": kube("kubelet", "--config="+filepath.Join(dir, "kubelet.yaml"), "--kubeconfig="+i.kubeconfig("node"),
			"--hostname-override="+Name, "--node-ip="+address, "--root-dir="+o.KubeletRoot),
		"containerd": {p.debian("usr/bin/containerd"), "--config", filepath.Join(dir, "containerd.toml")},
	}
}

// writeConfigurations writes the files that the command lines name, and the pods' network.
func writeConfigurations(o Options, p Place, i *identities, dir string) error {
	files := map[string]string{
		filepath.Join(dir, "kubelet.yaml"): fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: %q
failCgroupV1: false
containerRuntimeEndpoint: unix://%s
failSwapOn: false
resolvConf: ""
# The machine's disk is not ours to watch.
evictionHard: {memory.available: 50Mi, nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
volumeStatsAggPeriod: -1s
syncFrequency: %s
crashLoopBackOff: {maxContainerRestartPeriod: %s}
featureGates: {KubeletCrashLoopBackOffMax: true}
`, i.authority.CertFile, p.Cgroup, containerd, o.SyncFrequency, o.RestartPeriod),
		filepath.Join(dir, "containerd.toml"): fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = %q
      SystemdCgroup = false
`, containerd, image.Pause, p.debian("usr/sbin/runc")),
		"/etc/cni/net.d/10-leasehold.conflist": fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "leasehold", "plugins": [
  {"type": "bridge", "bridge": %q, "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "dataDir": "/run/cni-ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, bridge, podNetwork),
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// api is the API server's address, as pods and Vault reach it.
func api() string { return "https://" + net.JoinHostPort(address, apiPort) }
