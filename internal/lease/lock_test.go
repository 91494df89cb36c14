package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newLock is one instance's view of the lock. To the kernel, each opening of the file is another holder.
func newLock(t *testing.T, dir, name string) *Lock {
	t.Helper()
	l, err := NewLock(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release() })
	return l
}

// wantTry tries to take the lock.
func wantTry(t *testing.T, l *Lock, want bool) {
	t.Helper()
	if got, err := l.Try(); got != want || err != nil {
		t.Fatalf("try: got %v, %v, want %v", got, err, want)
	}
}

func TestLockHasOneHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, second, other := newLock(t, dir, "vault"), newLock(t, dir, "vault"), newLock(t, dir, "other")
	wantTry(t, first, true)
	wantTry(t, first, true)
	wantTry(t, second, false)
	wantTry(t, other, true) // of another provider on the node
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := second.Holder(), fmt.Sprintf("pid %d on %s", os.Getpid(), host); got != want {
		t.Errorf("holder: got %q, want %q", got, want)
	}

	if err := first.Release(); err != nil {
		t.Errorf("release: got error %v", err)
	}
	wantTry(t, second, true)
	wantTry(t, first, false)
	if err := first.Release(); err != nil {
		t.Errorf("release of what is not ours: got error %v", err)
	}
	wantTry(t, first, false)

	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, second.Path(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: got mode %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
}

func TestTakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, second := newLock(t, dir, "vault"), newLock(t, dir, "vault")
		wantTry(t, first, true)
		taken := make(chan error, 1)
		go func() { taken <- second.Take(t.Context()) }()
		time.Sleep(time.Minute) // of the bubble's time
		select {
		case err := <-taken:
			t.Fatalf("the lock was taken while another had it (error %v)", err)
		default:
		}
		released := time.Now()
		if err := first.Release(); err != nil {
			t.Fatal(err)
		}
		if err := <-taken; err != nil {
			t.Errorf("take: got error %v", err)
		}
		if gap := time.Since(released); gap > 50*time.Millisecond {
			t.Errorf("the lock was nobody's for %v, want 50 ms at most", gap)
		}
		wantTry(t, first, false)
	})
}

// An instance that stands by is told to end like any other.
func TestTakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, second := newLock(t, dir, "vault"), newLock(t, dir, "vault")
		wantTry(t, first, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := second.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("take: got error %v, want context.DeadlineExceeded", err)
		}
		if err := first.Release(); err != nil {
			t.Fatal(err)
		}
		wantTry(t, newLock(t, dir, "vault"), true) // nothing took it behind our back
	})
}

// Whoever waited for the lock of a file that is gone would have a lock that nobody else knows of.
func TestRemovedLockFileIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	first, second, third := newLock(t, dir, "vault"), newLock(t, dir, "vault"), newLock(t, dir, "vault")
	wantTry(t, first, true)
	wantTry(t, second, false)
	if err := os.Remove(first.Path()); err != nil {
		t.Fatal(err)
	}
	wantTry(t, second, true)
	wantTry(t, third, false)
}

func TestHolderIsUnknown(t *testing.T) {
	l := newLock(t, t.TempDir(), "vault")
	for _, text := range []string{"", "pid 1 on no", strings.Repeat("x", 1000) + "\n"} {
		if err := os.WriteFile(l.Path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.Holder(); got != "unknown" {
			t.Errorf("holder of a file with %.20q: got %q, want unknown", text, got)
		}
	}
	if got := newLock(t, t.TempDir(), "vault").Holder(); got != "unknown" {
		t.Errorf("holder of a file that is missing: got %q, want unknown", got)
	}
}

func TestLockDirectory(t *testing.T) {
	for name, row := range map[string]struct {
		prepare func(dir string) error
		want    string // a part of the error; "" for none
	}{
		"missing":             {prepare: func(string) error { return nil }},
		"as kubelet makes it": {prepare: func(dir string) error { return os.Mkdir(dir, 0o755) }},
		"a link to one": {prepare: func(dir string) error {
			return errors.Join(os.Mkdir(dir+"-real", 0o700), os.Symlink(dir+"-real", dir))
		}},
		"a group may write": {
			prepare: func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) },
			want:    "mode drwxrwx---",
		},
		"all may write": {
			prepare: func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777|os.ModeSticky)) },
			want:    "mode dtrwxrwxrwx",
		},
		"another user's": {
			prepare: func(dir string) error {
				if os.Getuid() != 0 { // who cannot give a directory away takes one of root's
					return os.Symlink("/", dir)
				}
				return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 1, 1))
			},
			want: fmt.Sprintf("must be of user %d", os.Geteuid()),
		},
		"a file": {
			prepare: func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
			want:    "not a directory",
		},
		"a lock file that is a directory": {
			prepare: func(dir string) error { return os.MkdirAll(filepath.Join(dir, "vault.lock"), 0o700) },
			want:    "is a directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := row.prepare(dir); err != nil {
				t.Fatal(err)
			}
			l, err := NewLock(dir, "vault")
			if err == nil {
				_, err = l.Try()
				defer func() { _ = l.Release() }()
			}
			switch {
			case row.want == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), dir)):
				t.Errorf("got error %v, want one with %q and the path", err, row.want)
			}
		})
	}
}
