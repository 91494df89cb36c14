// Package host is what runs outside of a cluster's namespaces: it makes them, keeps them as long as they are wanted, and
// leaves nothing behind.
//
// A cluster belongs to one process, its owner: process 1 of the namespaces is the owner's child and dies with it, and
// with process 1 everything in there. What the kernel does not clean up by itself, the control groups and directories, is
// removed by a janitor, which outlives the owner, however that ends.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"leasehold/test/cluster/node"
)

// Owner owns a cluster.
type Owner struct {
	home    Home
	options node.Options
	place   node.Place

	janitor *exec.Cmd
	alive   io.Closer     // while it is open, the janitor waits
	first   *exec.Cmd     // process 1
	ended   chan struct{} // closed when process 1 has ended
	reports *os.File
}

// ErrUp says that a cluster is up already.
var ErrUp = errors.New("a cluster is up already")

// Start makes namespaces and has a cluster start in them. build is where make put what it built.
func Start(h Home, o node.Options, build string) (*Owner, error) {
	lock, err := h.lock()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrUp
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }() // the janitor has its own
	if err := os.Remove(h.state()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := sweepCgroups(); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "leasehold-cluster-")
	if err != nil {
		return nil, err
	}
	owner := &Owner{
		home: h, options: o, ended: make(chan struct{}),
		place: node.Place{Build: build, Scratch: scratch, Cgroup: "/" + cgroupPrefix() + strconv.Itoa(os.Getpid())},
	}
	// PostgreSQL runs as a user of its own, and has to pass through.
	if err := errors.Join(os.Chmod(scratch, 0o711), os.Mkdir(owner.place.Temporary(), 0o700)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	if err := owner.startJanitor(lock); err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	if err := makeCgroup(owner.place.Cgroup); err != nil {
		return nil, errors.Join(fmt.Errorf("make a control group: %w", err), owner.Close())
	}
	if err := owner.startFirst(); err != nil {
		return nil, errors.Join(err, owner.Close())
	}
	return owner, nil
}

// startJanitor starts the process that cleans up when this one has ended, and holds the lock until it has.
func (w *Owner) startJanitor(lock *os.File) error {
	in, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // the janitor has its own
	home := ""
	if w.home.Private {
		home = w.home.Dir
	}
	cmd := self("janitor", w.place.Cgroup, w.place.Scratch, home)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's interrupt is not for the janitor
	if err := cmd.Start(); err != nil {
		return errors.Join(err, alive.Close())
	}
	w.janitor, w.alive = cmd, alive
	return nil
}

// Janitor waits until nobody holds the other end of its input any more, and removes what is left then. home is empty if it
// is to stay.
func Janitor(cgroup, scratch, home string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	err := removeCgroup(cgroup)
	// Processes that were killed may write until the kernel is done with them.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		failed := errors.Join(os.RemoveAll(scratch), os.RemoveAll(home))
		if failed == nil || time.Now().After(deadline) {
			return errors.Join(err, failed)
		}
	}
}

// startFirst starts process 1. It dies with the thread that started it, so that thread does nothing else any more.
func (w *Owner) startFirst() error {
	reports, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = write.Close() }() // process 1 has its own
	text, err := json.Marshal(Orders{Options: w.options, Place: w.place})
	if err != nil {
		return errors.Join(err, reports.Close())
	}
	cmd := self("init", string(text))
	cmd.Env = append(os.Environ(), "TMPDIR="+w.place.Temporary())
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // a terminal's interrupt is for the owner
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		_ = cmd.Wait() // whatever its exit status is, it says nothing that a report does not
		close(w.ended)
	}()
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("make namespaces: %w", err), reports.Close())
	}
	w.first, w.reports = cmd, reports
	return nil
}

// Orders are what process 1 and the supervisor are told, as one argument.
type Orders struct {
	Options node.Options
	Place   node.Place
}

// self is this program with other arguments.
func self(args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "/proc/self/exe", args...)
}

// Wait tells what is going on until the cluster is ready, and saves the state by which it is found.
func (w *Owner) Wait(ctx context.Context, tell func(step string, took time.Duration) error) (State, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.reports.Close() })
	defer stop()
	for decoder := json.NewDecoder(w.reports); ; {
		var report node.Report
		switch err := decoder.Decode(&report); {
		case ctx.Err() != nil:
			return State{}, context.Cause(ctx)
		case err != nil:
			return State{}, errors.New("the cluster ended while it was starting; what it said is above")
		case report.Fault != "":
			return State{}, errors.New(report.Fault)
		case report.Ready == nil:
			if err := tell(report.Step, report.Took); err != nil {
				return State{}, err
			}
			continue
		}
		s := State{
			Owner: os.Getpid(), First: w.first.Process.Pid, Since: time.Now(),
			Options: w.options, Place: w.place, Environment: report.Ready,
		}
		return s, w.home.save(s)
	}
}

// Stay returns when ctx or the cluster ends.
func (w *Owner) Stay(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-w.ended:
		return errors.New("the cluster has ended by itself")
	}
}

// Close ends the cluster and returns when nothing of it is left.
func (w *Owner) Close() error {
	errs := []error{os.Remove(w.home.state())}
	if errors.Is(errs[0], os.ErrNotExist) {
		errs[0] = nil
	}
	if w.first != nil {
		_ = w.first.Process.Kill() // and with it all that is in the namespaces
		<-w.ended
		_ = w.reports.Close()
	}
	errs = append(errs, w.alive.Close(), w.janitor.Wait())
	return errors.Join(errs...)
}

// Command is a program that runs in the cluster, with the caller's terminal.
func (s State) Command(args []string) *exec.Cmd {
	enter := append([]string{
		"--target=" + strconv.Itoa(s.First), "--mount", "--net", "--pid", "--ipc", "--uts", "--wdns=" + workingDirectory(), "--",
	}, args...)
	cmd := exec.CommandContext(context.Background(), "nsenter", enter...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	for name, value := range s.Environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(s.Place.Build, "bin")+":"+os.Getenv("PATH"))
	return cmd
}

func workingDirectory() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
