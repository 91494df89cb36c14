package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// swaps tells when volumes begin to show other files: the link ..data is renamed then, and the kernel says so.
type swaps struct {
	seen chan swap // closed with the watch
	file *os.File

	mu   sync.Mutex
	dirs map[int32]string // :: watch descriptor -> volume
}

type swap struct {
	dir string
	at  time.Time
}

func newSwaps() (*swaps, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	// There is room for what is seen while nobody looks.
	s := &swaps{seen: make(chan swap, 1000), file: os.NewFile(uintptr(fd), "inotify"), dirs: make(map[int32]string)}
	go s.run()
	return s, nil
}

// add watches a volume.
func (s *swaps) add(dir string) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var added error
	err = raw.Control(func(fd uintptr) {
		var wd int
		if wd, added = syscall.InotifyAddWatch(int(fd), dir, syscall.IN_MOVED_TO); added == nil {
			s.dirs[int32(wd)] = dir
		}
	})
	return errors.Join(err, os.NewSyscallError("inotify_add_watch", added))
}

// run reads events until close.
func (s *swaps) run() {
	defer close(s.seen)
	buffer := make([]byte, 64<<10)
	for {
		n, err := s.file.Read(buffer)
		at := time.Now()
		if err != nil {
			return
		}
		for rest := buffer[:n]; len(rest) >= syscall.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(rest))
			end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name := bytes.TrimRight(rest[syscall.SizeofInotifyEvent:end], "\x00")
			rest = rest[end:]
			if string(name) != "..data" {
				continue
			}
			s.mu.Lock()
			dir := s.dirs[wd]
			s.mu.Unlock()
			s.seen <- swap{dir, at}
		}
	}
}

func (s *swaps) close() { _ = s.file.Close() }
