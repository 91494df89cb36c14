package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// privateMounts is set in a process whose mounts are its own.
const privateMounts = "LEASEHOLD_TEST_PRIVATE_MOUNTS"

// TestMain runs the tests in a mount namespace of their own, where one may be had: volumes are mounted, and nothing of
// them is seen outside or is left behind, however the tests end.
func TestMain(m *testing.M) {
	if os.Getenv(privateMounts) != "" {
		os.Exit(m.Run())
	}
	inside := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	inside.Env = append(os.Environ(), privateMounts+"=true")
	inside.Stdin, inside.Stdout, inside.Stderr = os.Stdin, os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := inside.Run()
	if errors.Is(err, syscall.EPERM) {
		os.Exit(m.Run())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "tests in a mount namespace of their own:", err)
		os.Exit(1)
	}
	os.Exit(inside.ProcessState.ExitCode())
}

// needMounts ends a test that cannot mount anything. In CI that is a failure.
func needMounts(t *testing.T) {
	t.Helper()
	if os.Getenv(privateMounts) != "" {
		return
	}
	const message = "NOT RUN: mounting a volume needs root (CAP_SYS_ADMIN), and that is missing"
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// mountTmpfs mounts a tmpfs, as the driver does for a volume, with options such as "size=16k".
func mountTmpfs(t *testing.T, path, options string) {
	t.Helper()
	needMounts(t)
	if err := os.MkdirAll(path, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs at %s: %v", path, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
}

// unmount takes a volume away, though it may be in use.
func unmount(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
		t.Fatalf("unmount %s: %v", path, err)
	}
}
