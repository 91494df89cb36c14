package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"leasehold/test/cluster/node"
)

// Home is the directory by which a cluster is found again. Its lock is held as long as anything of the cluster is left,
// so that there is no state to believe in: held is up, free is down.
type Home struct {
	Dir     string
	Private bool // of this one cluster, and gone with it
}

// State is what is known of a cluster that is up.
type State struct {
	Owner       int               `json:"owner"` // the process that ends the cluster when it ends
	First       int               `json:"first"` // process 1 of the namespaces
	Since       time.Time         `json:"since"`
	Options     node.Options      `json:"options"`
	Place       node.Place        `json:"place"`
	Environment map[string]string `json:"environment"` // of what is to run in it
}

// ErrDown says that no cluster is up.
var ErrDown = errors.New(`no cluster is up: start one by "make cluster-up"`)

func (h Home) state() string { return filepath.Join(h.Dir, "state.json") }

// lock takes the lock, or fails with EWOULDBLOCK if a cluster is up. Whoever inherits the file holds the lock too.
func (h Home) lock() (*os.File, error) {
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(h.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", file.Name(), err), file.Close())
	}
	return file, nil
}

// State returns what is known of the cluster, or ErrDown.
func (h Home) State() (State, error) {
	var s State
	file, err := h.lock()
	if err == nil {
		return s, errors.Join(ErrDown, file.Close())
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return s, err
	}
	text, err := os.ReadFile(h.state())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, errors.New("a cluster is on its way up or down: wait a moment")
	case err != nil:
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// save writes the state at once or not at all. It holds keys, so it is for its owner only.
func (h Home) save(s State) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.state()+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(h.state()+".new", h.state())
}

// Down ends the cluster, and returns when nothing of it is left.
func (h Home) Down() error {
	s, err := h.State()
	if err != nil {
		return err
	}
	if err := syscall.Kill(s.Owner, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end process %d: %w", s.Owner, err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		file, err := h.lock()
		if err != nil {
			continue
		}
		_ = file.Close()
		// The janitor is through; the owner needs a moment more than it.
		if errors.Is(syscall.Kill(s.Owner, 0), syscall.ESRCH) {
			return nil
		}
	}
	return fmt.Errorf("process %d was told to end, but after a minute there is still something left", s.Owner)
}
