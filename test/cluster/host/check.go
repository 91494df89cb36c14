package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Check makes everything once that a cluster is made of: a control group, namespaces, and in them a layered file system
// and a bridge. It leaves nothing behind. Its error says in a sentence what the machine does not allow.
func Check(ctx context.Context) error {
	name := cgroupPrefix() + strconv.Itoa(os.Getpid()) // named as a cluster's, so that it is swept as one if we are killed
	if err := makeCgroup(name); err != nil {
		_ = removeCgroup(name)
		return fmt.Errorf("this machine does not let us make control groups: %w", err)
	}
	if err := removeCgroup(name); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "leasehold-cluster-check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	const script = `mount --make-rprivate / && mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" &&
mount -t overlay overlay /etc -o "lowerdir=/etc,upperdir=$1/u,workdir=$1/w" && ip link add cni0 type bridge && iptables --table nat --list >/dev/null`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script, "check", scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("this machine does not let us make namespaces with a layered file system and a network: %w: %s",
			err, strings.TrimSpace(string(out)))
	}
	return nil
}
