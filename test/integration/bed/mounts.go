package bed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

// isolated is the environment variable that tells the second run of a program from the first.
const isolated = "LEASEHOLD_BED_ISOLATED"

// Isolate runs this program a second time, in a mount namespace of its own, so that nobody else sees what the bed mounts
// and nothing of it is left when the program has ended. Call it first in main:
//
//	if status, again := bed.Isolate(); again {
//		os.Exit(status)
//	}
//
// In the second run again is false. It takes root; whoever is not root gets no namespace, and cannot mount either.
func Isolate() (status int, again bool) {
	if os.Geteuid() != 0 {
		return 0, false
	}
	if os.Getenv(isolated) != "" {
		// Mounts of the machine still arrive here, but none of ours leaves.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make the mounts our own:", err)
			os.Exit(1)
		}
		return 0, false
	}
	status, err := runIsolated()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run in a mount namespace:", err)
	}
	return status, true
}

// runIsolated returns the exit status of the second run.
func runIsolated() (int, error) {
	program, err := os.Executable()
	if err != nil {
		return 1, err
	}
	runtime.LockOSThread() // the child dies with the thread that made it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(context.Background(), program, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	// A terminal's signals reach the child by themselves; others are passed on.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			if s != syscall.SIGINT {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if code := exit.ExitCode(); code > 0 {
			return code, nil
		}
		return 1, err
	}
	return 0, err
}

// MountTmpfs mounts a tmpfs at a directory, with options as mount(8) takes them, such as "size=64k".
func MountTmpfs(dir, options string) error {
	if os.Getenv(isolated) == "" {
		return fmt.Errorf("mount a tmpfs at %q: this takes root, and a mount namespace of one's own", dir)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount a tmpfs at %q: %w", dir, err)
	}
	return nil
}

// Unmount ends a mount, also while somebody has a file of it open.
func Unmount(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %q: %w", dir, err)
	}
	return nil
}

// unmountAll ends all mounts below a directory, last made first.
func unmountAll(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		errs = append(errs, Unmount(mounts[i]))
	}
	return errors.Join(errs...)
}

// mountsBelow returns the mount points below a directory, in the order in which they were made.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// "source place type options ..."
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			found = append(found, fields[1])
		}
	}
	return found, lines.Err()
}
