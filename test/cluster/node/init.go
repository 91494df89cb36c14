package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Init is process 1 of fresh mount, network, pid, ipc and uts namespaces: it makes a machine out of them, starts the
// command as its child and reaps what is left to it. It returns the command's exit status. Extra files are passed on.
func Init(o Options, p Place, command []string, files ...*os.File) (int, error) {
	for _, prepare := range []func() error{
		func() error { return layOut(o, p) },
		guardSysctls,
		network,
	} {
		if err := prepare(); err != nil {
			return 0, err
		}
	}
	attributes := &os.ProcAttr{Env: os.Environ(), Files: append([]*os.File{nil, os.Stdout, os.Stderr}, files...)}
	child, err := os.StartProcess(command[0], command, attributes)
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		_ = file.Close() // the child has its own
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for children: %w", err)
		case pid == child.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == child.Pid:
			return 1, nil
		}
	}
}

// mount makes the directory first. The errors of mount(2) name nothing.
func mount(what, where, kind, data string) error {
	if err := os.MkdirAll(where, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(what, where, kind, 0, data); err != nil {
		return fmt.Errorf("mount %s at %q: %w", kind, where, err)
	}
	return nil
}

// layOut gives the namespaces file systems of their own, where whatever is written stays in memory: over /etc, /var and
// /opt in layers, so that what the machine has there can still be read.
func layOut(o Options, p Place) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mount("proc", "/proc", "proc", ""); err != nil {
		return err
	}
	memory := filepath.Join(p.Scratch, "memory")
	if err := mount("tmpfs", memory, "tmpfs", "mode=0755"); err != nil {
		return err
	}
	for _, directory := range []string{"/etc", "/var", "/opt"} {
		upper, work := filepath.Join(memory, directory, "upper"), filepath.Join(memory, directory, "work")
		for _, made := range []string{upper, work} {
			if err := os.MkdirAll(made, 0o755); err != nil {
				return err
			}
		}
		if err := mount("overlay", directory, "overlay", "lowerdir="+directory+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
	}
	// A layered file system cannot hold the layers of another one, and containerd makes some.
	for _, directory := range []string{"/run", "/var/lib/containerd", o.KubeletRoot, "/var/log/pods"} {
		if err := mount("tmpfs", directory, "tmpfs", "mode=0755"); err != nil {
			return err
		}
	}
	// The driver mounts in its container what kubelet is to see.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if err := syscall.Sethostname([]byte(Name)); err != nil {
		return fmt.Errorf("set the host's name: %w", err)
	}
	return nil
}

// guardSysctls puts files over the settings of the whole machine that kubelet insists on: it finds what it wants, and the
// machine keeps what it has.
func guardSysctls() error {
	for setting, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		instead := "/run/sysctl-" + strings.ReplaceAll(setting, "/", "-")
		if err := os.WriteFile(instead, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if err := syscall.Mount(instead, "/proc/sys/"+setting, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("guard the setting %s: %w", setting, err)
		}
	}
	return nil
}

// network makes the node's network: a bridge, which is the pods' as well.
func network() error {
	for _, line := range []string{
		"link set lo up",
		// An address of its own: else it takes the lowest of those of its pods, and whenever that changes, pods that have
		// learned the old one reach the node no more until they ask again.
		"link add " + bridge + " address 0a:58:0a:f4:00:01 type bridge",
		"addr add " + address + "/24 dev " + bridge,
		"link set " + bridge + " up",
		// The node itself calls services, too: the API server its webhooks. Their addresses are translated behind the routing,
		// and what has no route never gets there.
		"route add " + services + " dev " + bridge,
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil { //nolint:noctx // ends at once
			return fmt.Errorf("ip %s: %w: %s", line, err, strings.TrimSpace(string(out)))
		}
	}
	const forward = "/proc/sys/net/ipv4/ip_forward" // of this network namespace alone
	if err := os.WriteFile(forward, []byte("1"), 0o600); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	return nil
}
