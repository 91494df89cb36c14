package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is what the Makefile builds, with all that it needs beside it.
const program = "../../../../build/bin/cluster"

// cluster runs it and returns its standard output.
func cluster(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	t.Logf("cluster %s: %v\n%s", strings.Join(args, " "), err, said.String())
	return out.String(), err
}

// must is cluster for what has to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster(t, args...)
	if err != nil {
		t.Fatalf("cluster %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// owned is what the state of a cluster says of its leftovers.
type owned struct {
	Owner int
	First int
	Place struct{ Scratch, Cgroup string }
}

func stateOf(t *testing.T, home string) owned {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(home, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s owned
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// leftovers returns what is there of a cluster.
func (s owned) leftovers(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(s.Place.Cgroup))
	if err != nil {
		t.Fatal(err)
	}
	unified, err := filepath.Glob("/sys/fs/cgroup/" + filepath.Base(s.Place.Cgroup))
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, unified...)
	if _, err := os.Stat(s.Place.Scratch); err == nil {
		found = append(found, s.Place.Scratch)
	}
	for _, pid := range []int{s.Owner, s.First} {
		if syscall.Kill(pid, 0) == nil {
			found = append(found, "process "+strconv.Itoa(pid))
		}
	}
	return found
}

func TestUpFindsWhatIsUpAndDownLeavesNothing(t *testing.T) {
	home := t.TempDir()
	must(t, "up", "-dir="+home, "-driver=false")
	t.Cleanup(func() { _, _ = cluster(t, "down", "-dir="+home) })
	first := stateOf(t, home)
	if len(first.leftovers(t)) < 4 {
		t.Fatalf("got %q of a cluster that is up, want its control groups, directory and processes", first.leftovers(t))
	}

	must(t, "up", "-dir="+home, "-driver=false")
	if second := stateOf(t, home); second != first {
		t.Errorf("a second up made another cluster: %+v, want %+v", second, first)
	}
	if _, err := cluster(t, "up", "-dir="+home, "-driver=false", "-sync-frequency=10s"); err == nil {
		t.Error("up with other options found the cluster that is up, want an error")
	}
	if got := must(t, "exec", "-dir="+home, "--", "kubectl", "get", "nodes", "--output=name"); got != "node/node\n" {
		t.Errorf("got nodes %q, want node/node", got)
	}
	if _, err := cluster(t, "exec", "-dir="+home, "--", "sh", "-c", "exit 7"); exitCode(err) != 7 {
		t.Errorf("got %v of a command in the cluster, want its exit code, 7", err)
	}

	must(t, "down", "-dir="+home)
	if left := first.leftovers(t); len(left) > 0 {
		t.Errorf("after down there is %q", left)
	}
	if out := must(t, "status", "-dir="+home); !strings.Contains(out, "no cluster is up") {
		t.Errorf("got status %q after down", out)
	}
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	home := t.TempDir()
	must(t, "up", "-dir="+home, "-driver=false")
	s := stateOf(t, home)
	if err := syscall.Kill(s.Owner, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, s)
	if _, err := cluster(t, "exec", "-dir="+home, "--", "true"); err == nil {
		t.Error("a cluster that was killed is still found")
	}
}

func TestKilledRunLeavesNothing(t *testing.T) {
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "run", "-dir="+home, "-driver=false", "sh", "-c", "echo inside; exec sleep 600")
	inside, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := inside.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the command in the cluster did not start: %v", err)
	}
	s := stateOf(t, home)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
	gone(t, s)
}

// TestNothingOfTheMachineChanges looks at what a cluster writes to in its own namespaces, from outside.
func TestNothingOfTheMachineChanges(t *testing.T) {
	before := machine(t)
	out := must(t, "run", "-driver=false", "sh", "-c", "ls /etc/cni/net.d /run/containerd /var/lib/kubelet; cat /proc/sys/net/ipv4/ip_forward; ip link")
	for _, want := range []string{"10-leasehold.conflist", "containerd.sock", "pods", "cni0"} {
		if !strings.Contains(out, want) {
			t.Errorf("within the cluster there is no %q: the look from outside would prove nothing\n%s", want, out)
		}
	}
	after := machine(t)
	for what, was := range before {
		if after[what] != was {
			t.Errorf("%s changed\nfrom %s\nto   %s", what, was, after[what])
		}
	}
}

// machine is what a node would change if it had no namespaces of its own.
func machine(t *testing.T) map[string]string {
	t.Helper()
	state := make(map[string]string)
	for name, command := range map[string]string{
		"interfaces": "ip -brief link | sort",
		"mounts":     "cut -d ' ' -f 5 /proc/self/mountinfo | sort",
		"iptables":   "iptables-save | grep -v '^[#:]'; true",
		"/etc":       "find /etc | sort | cksum",
		"/run":       "find /run /var/run/ -maxdepth 2 | sort | cksum",
		"/var/lib":   "find /var/lib -maxdepth 2 | sort | cksum",
		"settings":   "cd /proc/sys && grep -H . net/ipv4/ip_forward vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/hostname",
	} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		state[name] = string(out)
	}
	return state
}

// gone waits until nothing is left of a cluster whose owner was killed.
func gone(t *testing.T, s owned) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := s.leftovers(t)
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("30 s after its owner was killed there is still %q", left)
		case <-tick.C:
		}
	}
}

func exitCode(err error) int {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	return -1
}
