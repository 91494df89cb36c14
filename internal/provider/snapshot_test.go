package provider

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"leasehold/internal/render"
)

// later is after anything that a test does to a volume: what it has written is quiet by then.
func later() time.Time { return time.Now().Add(time.Hour) }

// nextTick returns when the kernel's clock for files shows another time than that of the last change. It asks the kernel by
// itself: a mark that knows no times would have it wait for ever.
func nextTick(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "tick")
	changed := func() syscall.Timespec {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var info syscall.Stat_t
		if err := syscall.Lstat(file, &info); err != nil {
			t.Fatal(err)
		}
		return info.Ctim
	}
	for first := changed(); changed() == first; {
	}
}

// Whatever is done to a volume shows, and the next publishing puts it right.
func TestSnapshotSeesAnyChange(t *testing.T) {
	files := filesOf("password 0600 xyzzy", "tls/chain/ca 0644 one", "tls/key 0400 two", "user 0644 app")
	for name, change := range map[string]func(volume, shown string) error{
		"a file has other contents": func(_, shown string) error { return os.WriteFile(shown+"/user", []byte("ape"), 0o644) },
		"contents that are no longer": func(_, shown string) error {
			file, err := os.OpenFile(shown+"/tls/chain/ca", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			_, err = file.WriteAt([]byte("eno"), 0)
			return err
		},
		"contents with the old time": func(_, shown string) error {
			info, err := os.Stat(shown + "/user")
			if err != nil {
				return err
			}
			if err := os.WriteFile(shown+"/user", []byte("ape"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(shown+"/user", info.ModTime(), info.ModTime())
		},
		"a file has another mode":    func(_, shown string) error { return os.Chmod(shown+"/user", 0o600) },
		"a file is missing":          func(_, shown string) error { return os.Remove(shown + "/user") },
		"a file too many":            func(_, shown string) error { return os.WriteFile(shown+"/other", nil, 0o644) },
		"a file too many, deep down": func(_, shown string) error { return os.WriteFile(shown+"/tls/chain/other", nil, 0o644) },
		"a directory is another": func(_, shown string) error {
			if err := os.Rename(shown+"/tls", shown+"/old"); err != nil {
				return err
			}
			return os.Mkdir(shown+"/tls", 0o755)
		},
		"a link is missing":          func(volume, _ string) error { return os.Remove(volume + "/user") },
		"a link leads elsewhere":     func(volume, _ string) error { return relink(volume+"/user", "..data/password") },
		"..data is missing":          func(volume, _ string) error { return os.Remove(volume + "/..data") },
		"..data_tmp is left":         func(volume, _ string) error { return os.Symlink("..2026_01_01_00_00_00.1", volume+"/..data_tmp") },
		"another generation is left": func(volume, _ string) error { return os.Mkdir(volume+"/..2026_01_01_00_00_00.1", 0o755) },
		"it is another volume": func(volume, _ string) error {
			if err := syscall.Unmount(volume, syscall.MNT_DETACH); err != nil {
				return err
			}
			return syscall.Mount("tmpfs", volume, "tmpfs", 0, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, target := volume(t, "")
			mustPublish(t, p, target, files)
			s, quiet := takeSnapshot(target, digestOfFiles(files), later())
			if !quiet || !s.holds() {
				t.Fatalf("nothing has changed: got quiet %t, holds %t", quiet, s.holds())
			}
			p.sound.put(target, s)
			mustPublish(t, p, target, files)
			if !s.holds() {
				t.Fatal("what was as it should be was changed")
			}
			shown, err := filepath.EvalSymlinks(filepath.Join(target, "..data"))
			if err != nil {
				t.Fatal(err)
			}
			nextTick(t, t.TempDir())
			if err := change(target, shown); err != nil {
				t.Fatal(err)
			}
			if s.holds() {
				t.Error("the change does not show")
			}
			mustPublish(t, p, target, files)
			wantVolume(t, target, files)
		})
	}
}

// A snapshot is one of these files, and no others.
func TestSnapshotIsOfItsFiles(t *testing.T) {
	files := filesOf("password 0600 xyzzy", "user 0644 app")
	for name, others := range map[string][]render.File{
		"other contents": filesOf("password 0600 yzzyx", "user 0644 app"),
		"another mode":   filesOf("password 0640 xyzzy", "user 0644 app"),
		"another name":   filesOf("passworD 0600 xyzzy", "user 0644 app"),
		"one file less":  filesOf("user 0644 app"),
		"one file more":  filesOf("password 0600 xyzzy", "user 0644 app", "word 0644 x"),
	} {
		t.Run(name, func(t *testing.T) {
			p, target := volume(t, "")
			mustPublish(t, p, target, files)
			s, _ := takeSnapshot(target, digestOfFiles(files), later())
			p.sound.put(target, s)
			mustPublish(t, p, target, others)
			wantVolume(t, target, others)
		})
	}
}

// What has just changed may change once more in the same moment of the kernel's clock, so that is not relied on.
func TestRestlessVolumeHasNoSnapshot(t *testing.T) {
	files := filesOf("user 0644 app", "tls/key 0644 x")
	p, target := volume(t, "")
	for range 2 {
		mustPublish(t, p, target, files)
		if _, found := p.sound.find(target); found {
			t.Error("a volume that was written just now is held to be quiet")
		}
	}
	if _, quiet := takeSnapshot(target, digestOfFiles(files), later()); !quiet {
		t.Fatal("a volume that was written an hour ago is not held to be quiet")
	}
	shown, err := filepath.EvalSymlinks(filepath.Join(target, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	future := make(map[string]time.Time) // when each was changed
	for _, path := range []string{target, shown, filepath.Join(shown, "tls"), filepath.Join(shown, "tls", "key")} {
		m, err := markOf(path)
		if err != nil {
			t.Fatal(err)
		}
		future[path] = time.Unix(m.changed.Unix())
	}
	for path, at := range future {
		if _, quiet := takeSnapshot(target, digestOfFiles(files), at.Add(moment)); quiet {
			t.Errorf("%s was changed within a moment of the look, and the volume is held to be quiet", path)
		}
	}
}

func relink(link, target string) error {
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.Symlink(target, link)
}
