package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Lock is the right to be the one instance of a provider that answers on a node. Two are there while an update replaces
// the old one: whoever has the lock has the volumes, the other one stands by.
//
// It is the kernel's lock of a file (flock), which goes with whoever had it, in whatever way that ends. The file is never
// removed: two instances could then have a lock each, of two files of one name.
type Lock struct {
	path string
	file *os.File // nil while it is not ours
}

// NewLock returns the lock of the provider's name in the state directory, which it makes, with mode 0700, if it is
// missing. A directory that others may write to is refused: they could put a file of theirs in the lock's place.
func NewLock(dir, name string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("directory %q: its owner is not known", dir)
	}
	if us := os.Geteuid(); int(owner.Uid) != us || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("directory %q: must be of user %d, and nobody else may write to it: it is of user %d, mode %s",
			dir, us, owner.Uid, info.Mode())
	}
	return &Lock{path: filepath.Join(dir, name+".lock")}, nil
}

// Path is where the lock's file is.
func (l *Lock) Path() string { return l.path }

// Try takes the lock if nobody has it, and tells whether it is ours now.
func (l *Lock) Try() (bool, error) {
	if l.file != nil {
		return true, nil
	}
	// Opened for each try, so that a file which somebody has removed is made again instead of being waited for.
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return false, fmt.Errorf("lock %q: %w", l.path, err)
	}
	l.file = file
	l.sign()
	return true, nil
}

// tryEvery is how often Take tries. Nobody answers on the node from the moment that one instance lets go of the lock until
// the next one has it, and a call of the driver that finds nobody waits for a second. A try costs some microseconds.
const tryEvery = 20 * time.Millisecond

// Take waits until the lock is ours, or returns why ctx ended. It asks again and again: flock would wait by itself, but
// nothing could call a thread back from there when ctx ends, and the lock that it got in the end would be nobody's.
func (l *Lock) Take(ctx context.Context) error {
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	for {
		if ours, err := l.Try(); ours || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Release lets go of the lock.
func (l *Lock) Release() error {
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}

// sign writes into the file who has the lock, for people. A lock without it is as good.
func (l *Lock) sign() {
	host, _ := os.Hostname() // of a pod it is the pod's name, and tells more than its process id
	_ = l.file.Truncate(0)
	_, _ = fmt.Fprintf(l.file, "pid %d on %s\n", os.Getpid(), host)
}

// Holder tells who has the lock, as that one wrote it, such as "pid 1 on leasehold-provider-x7k2p".
func (l *Lock) Holder() string {
	file, err := os.Open(l.path)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = file.Close() }()
	text, _ := io.ReadAll(io.LimitReader(file, 256))
	line, _, whole := strings.Cut(string(text), "\n")
	if !whole { // it is just being written
		return "unknown"
	}
	return line
}
