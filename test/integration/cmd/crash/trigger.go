package main

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
)

// What can be a moment to kill at.
const (
	request = "request" // Vault is asked
	answer  = "answer"  // Vault has answered
	volumes = "volumes" // a name has come or gone in a volume: a step of a publish
	journal = "journal" // a name has come or gone in the journal: a step of a write
	anytime = "time"    // none of these
)

// trigger fires at the n-th event of a kind after it was set.
type trigger struct {
	mu    sync.Mutex
	kind  string
	about string // of requests and answers: part of the path
	left  int
	fire  chan struct{}
}

// set returns what is closed at the n-th event.
func (t *trigger) set(kind, about string, n int) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kind, t.about, t.left, t.fire = kind, about, n, make(chan struct{})
	return t.fire
}

// pull is an event.
func (t *trigger) pull(kind, about string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fire == nil || kind != t.kind || !strings.Contains(about, t.about) {
		return
	}
	if t.left--; t.left <= 0 {
		close(t.fire)
		t.fire = nil
	}
}

// watch sees names come and go in directories.
type watch struct {
	file    *os.File
	trigger *trigger

	mu    sync.Mutex
	kinds map[int32]string // :: watch descriptor -> kind of event
}

func newWatch(t *trigger) (*watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "inotify"), trigger: t, kinds: make(map[int32]string)}
	go w.run()
	return w, nil
}

// add watches a directory until it is removed.
func (w *watch) add(kind, dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var added error
	err = raw.Control(func(fd uintptr) {
		var wd int
		const what = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_DELETE
		wd, added = syscall.InotifyAddWatch(int(fd), dir, what)
		if added == nil {
			w.kinds[int32(wd)] = kind
		}
	})
	return errors.Join(err, os.NewSyscallError("inotify_add_watch", added))
}

// run reads events until close.
func (w *watch) run() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		if err != nil {
			return
		}
		for rest := buffer[:n]; len(rest) >= syscall.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(rest))
			length := binary.NativeEndian.Uint32(rest[12:])
			rest = rest[syscall.SizeofInotifyEvent+int(length):]
			w.mu.Lock()
			kind := w.kinds[wd]
			w.mu.Unlock()
			w.trigger.pull(kind, "")
		}
	}
}

func (w *watch) close() { _ = w.file.Close() }
