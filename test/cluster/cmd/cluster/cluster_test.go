package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	gone(t, s.leftovers)
	if _, err := cluster(t, "exec", "-dir="+home, "--", "true"); err == nil {
		t.Error("a cluster that was killed is still found")
	}
}

func TestKilledRunLeavesNothing(t *testing.T) {
	temporary := t.TempDir()
	// PostgreSQL runs as a user of its own, and has to pass through.
	if err := errors.Join(os.Chmod(filepath.Dir(temporary), 0o711), os.Chmod(temporary, 0o711)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "run", "-driver=false",
		"sh", "-c", `echo "$LEASEHOLD_CLUSTER" "$(mktemp)"; exec sleep 600`)
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	inside, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var home, file string
	if _, err := fmt.Fscan(inside, &home, &file); err != nil {
		t.Fatalf("the command in the cluster did not start: %v", err)
	}
	for _, path := range []string{home, file} {
		if _, err := os.Stat(path); err != nil || !strings.HasPrefix(path, temporary+"/") {
			t.Errorf("%q is not in %q (%v): that nothing is left there would prove nothing", path, temporary, err)
		}
	}
	s := stateOf(t, home)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
	gone(t, func(t *testing.T) []string { return append(s.leftovers(t), entries(t, temporary)...) })
}

// entries returns what is in a directory.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, entry := range all {
		paths = append(paths, filepath.Join(dir, entry.Name()))
	}
	return paths
}

// TestNothingOfTheMachineChanges looks at what a cluster writes to in its own namespaces, from outside. The driver's pod is
// one with volumes, and a mount for one of them.
func TestNothingOfTheMachineChanges(t *testing.T) {
	before := machine(t)
	out := must(t, "run", "sh", "-c",
		"ls /etc/cni/net.d /run/containerd /var/lib/kubelet; cat /proc/sys/net/ipv4/ip_forward /proc/mounts; ip link")
	for _, want := range []string{"10-leasehold.conflist", "containerd.sock", "pods", "/volumes/kubernetes.io~projected/", "cni0"} {
		if !strings.Contains(out, want) {
			t.Errorf("within the cluster there is no %q: the look from outside would prove nothing\n%s", want, out)
		}
	}
	after := machine(t)
	for what, was := range before {
		if went, came := without(was, after[what]), without(after[what], was); went != "" || came != "" {
			t.Errorf("%s changed\nfrom\n%sto\n%s", what, went, came)
		}
	}
}

// without returns the lines of a text that another one does not have.
func without(text, other string) string {
	known := make(map[string]bool)
	for line := range strings.Lines(other) {
		known[line] = true
	}
	var left strings.Builder
	for line := range strings.Lines(text) {
		if !known[line] {
			left.WriteString(line)
		}
	}
	return left.String()
}

// machine is what a node would change if it had no namespaces of its own. Where others write at any time, it is names only,
// and none of what comes and goes on every machine.
func machine(t *testing.T) map[string]string {
	t.Helper()
	state := make(map[string]string)
	for name, command := range map[string]string{
		"interfaces": "ip -brief link | sort",
		"mounts":     "cut -d ' ' -f 5 /proc/self/mountinfo | sort | uniq -c",
		"iptables":   "iptables-save | grep -v '^[#:]'; true",
		"/etc":       `find /etc ! -name 'resolv.conf*' \( -type f -printf '%p %m %s %T@\n' -o -printf '%p %m %l\n' \) 2>/dev/null | sort`,
		"/opt":       "find /opt -maxdepth 3 2>/dev/null | sort",
		"/run":       "find /run /var/run/ -maxdepth 2 ! -path '*/run/user/*' 2>/dev/null | sort",
		"/var": `find /var -maxdepth 3 \( -path /var/cache -o -path /var/spool -o -path /var/tmp \) -prune \
			-o -path '/var/log/*' ! -type d -o -print 2>/dev/null | sort`,
		"settings": "cd /proc/sys && grep -H . net/ipv4/ip_forward vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/hostname",
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
func gone(t *testing.T, leftovers func(*testing.T) []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := leftovers(t)
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
