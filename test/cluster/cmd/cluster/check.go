package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"leasehold/test/cluster/host"
)

// check fails with a sentence that says what is missing for a cluster.
func check(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can have a cluster: it takes namespaces, mounts and control groups")
	}
	for _, program := range []string{"nsenter", "ip", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: run \"make deps\"", program)
		}
	}
	return host.Check(ctx)
}
