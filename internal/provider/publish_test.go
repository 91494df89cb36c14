package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"

	"leasehold/internal/render"
)

const publishUID = "uid-app-0"

// volume is a publisher and a volume that it may write.
func volume(t *testing.T, options string) (p *Publisher, target string) {
	t.Helper()
	pods := filepath.Join(t.TempDir(), "pods")
	target = filepath.Join(pods, publishUID, "volumes/kubernetes.io~csi/secrets/mount")
	mountTmpfs(t, target, options)
	return NewPublisher(pods), target
}

// filesOf makes files of "path mode contents" texts, sorted as render does it.
func filesOf(texts ...string) []render.File {
	var files []render.File
	for _, text := range texts {
		var f render.File
		var contents string
		if _, err := fmt.Sscanf(text, "%s %o %s", &f.Path, &f.Mode, &contents); err != nil {
			panic(text)
		}
		f.Contents = []byte(contents)
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b render.File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

func mustPublish(t *testing.T, p *Publisher, target string, files []render.File) {
	t.Helper()
	if written, err := p.Publish(target, publishUID, files); !written || err != nil {
		t.Fatalf("Publish = %v, %v; want the files to be written", written, err)
	}
}

// mustDrive writes as the driver does with an answer.
func mustDrive(t *testing.T, target string, files []render.File) {
	t.Helper()
	if err := fileutil.WritePayloads(target, forDriver(files)); err != nil {
		t.Fatalf("the driver's writer: %v", err)
	}
}

// tree lists what is below a directory, links not followed: path -> mode, contents or target, and modification time.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), " ", info.ModTime().UnixNano(), " ")
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += link
		case info.Mode().IsRegular():
			contents, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(contents)
		}
		all[strings.TrimPrefix(path, root)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantVolume checks that a volume shows these files and has nothing else in it.
func wantVolume(t *testing.T, target string, files []render.File) {
	t.Helper()
	shown, err := os.Readlink(filepath.Join(target, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{dataLink: true, shown: true}
	for _, f := range files {
		name, _, _ := strings.Cut(f.Path, "/")
		names[name] = true
		if link, err := os.Readlink(filepath.Join(target, name)); err != nil || link != "..data/"+name {
			t.Errorf("the link %q leads to %q, %v", name, link, err)
		}
		path := filepath.Join(target, f.Path)
		contents, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(contents, f.Contents) {
			t.Errorf("%s holds %d bytes, %v; want %d others", f.Path, len(contents), err, len(f.Contents))
			continue
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != f.Mode {
			t.Errorf("%s has the mode %v, %v; want %v", f.Path, info.Mode(), err, f.Mode)
		}
		for dir := filepath.Dir(path); dir != target; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%s has the mode %v, %v; want 0755, so that any user finds the files", dir, info.Mode(), err)
			}
		}
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !names[entry.Name()] {
			t.Errorf("%q is left in the volume", entry.Name())
		}
	}
	mounted := 0
	err = filepath.WalkDir(filepath.Join(target, shown), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			mounted++
		}
		return err
	})
	if err != nil || mounted != len(files) {
		t.Errorf("%d files, %v; want %d", mounted, err, len(files))
	}
}

var (
	generation1 = filesOf("user 644 u1", "password 400 p1", "tls/key 600 k1", "only/in/one 644 x1")
	generation2 = filesOf("user 644 u2", "password 400 p2", "tls/key 600 k2", "tls/cert 644 c2", "only-in-two 644 x2")
	generation3 = filesOf("other 644 o3", "only 644 x3") // "only" was a directory

	// Of one file each, so that the driver's writer cannot but meet what is in its way: it looks at files in any order, and
	// no further than to the first that is new.
	onlyDirectory = filesOf("only/in/one 644 x1")
	onlyFile      = filesOf("only 644 x3")
)

// The driver must find nothing to change in what was published, nor the other way round: each would move the volume's
// modification time, which is the driver's clock, and the files under a reader.
func TestPublishWritesAsTheDriverDoes(t *testing.T) {
	for _, first := range []string{"publisher", "driver"} {
		t.Run(first+" first", func(t *testing.T) {
			p, target := volume(t, "")
			if first == "driver" {
				mustDrive(t, target, generation1)
			} else {
				mustPublish(t, p, target, generation1)
			}
			wantVolume(t, target, generation1)
			before := tree(t, target)
			mustDrive(t, target, generation1)
			mustPublish(t, p, target, generation1)
			mustPublish(t, p, target, generation1)
			if now := tree(t, target); !maps.Equal(now, before) {
				t.Errorf("the volume changed though no file did\nbefore %v\nnow    %v", before, now)
			}
		})
	}
}

// The driver polls a volume when its modification time is as long ago as its interval. With the polls come newer service account
// tokens and changed classes, and they must come however often the keeper fills the volume.
func TestPublishLeavesTheDriversClock(t *testing.T) {
	p, target := volume(t, "")
	polled := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for _, files := range [][]render.File{generation1, generation2, generation2, generation3} {
		if err := os.Chtimes(target, time.Time{}, polled); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, p, target, files)
		wantVolume(t, target, files)
		info, err := os.Stat(target)
		if err != nil || !info.ModTime().Equal(polled) {
			t.Errorf("the volume's modification time: got %v, %v; want %v", info.ModTime(), err, polled)
		}
	}
}

func TestPublishChangesAllFilesInOneSwap(t *testing.T) {
	p, target := volume(t, "")
	swapped := swaps(t, target)
	var last string
	for i, row := range []struct {
		files []render.File
		swaps int // two where a file takes the place of a directory, or the other way round
	}{
		{generation1, 1},
		{generation2, 1},
		{generation3, 1},
		{generation1, 2},
		{generation3, 2},
		{generation2, 1},
		{nil, 1},
		{generation1, 1},
		{onlyDirectory, 1},
		{onlyFile, 2},
		{onlyDirectory, 2},
	} {
		mustPublish(t, p, target, row.files)
		wantVolume(t, target, row.files)
		if n := swapped(); n != row.swaps {
			t.Errorf("generation %d: ..data was swapped %d times, want %d", i, n, row.swaps)
		}
		shown, err := os.Readlink(filepath.Join(target, dataLink))
		if err != nil || shown == last {
			t.Errorf("..data leads to %q, %v, as before: the files were not swapped", shown, err)
		}
		last = shown
	}
}

// swaps watches a volume. The function that it returns tells how often ..data has been swapped since it was last asked.
func swaps(t *testing.T, target string) func() int {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	// The kernel tells once of events that are equal and follow on one another, so what is renamed is watched for, too.
	if _, err := syscall.InotifyAddWatch(fd, target, syscall.IN_MOVED_FROM|syscall.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return func() int {
		events := make([]byte, 64<<10)
		n, err := syscall.Read(fd, events)
		if errors.Is(err, syscall.EAGAIN) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(events[:n], []byte(dataLink+"\x00")) // of each event, the name
	}
}

// The driver's writer compares contents only: a mode that changes alone is ours to change.
func TestPublishChangesModes(t *testing.T) {
	p, target := volume(t, "")
	mustPublish(t, p, target, filesOf("user 644 u1", "tls/key 644 k1"))
	before := tree(t, target)
	mustPublish(t, p, target, filesOf("user 644 u1", "tls/key 400 k1"))
	wantVolume(t, target, filesOf("user 644 u1", "tls/key 400 k1"))
	if now := tree(t, target); now[""] != before[""] || now["/..data"] != before["/..data"] {
		t.Error("the files were swapped though only a mode changed")
	}
	mustPublish(t, p, target, filesOf("user 444 u2", "tls/key 640 k2"))
	wantVolume(t, target, filesOf("user 444 u2", "tls/key 640 k2"))
}

// unprivileged runs f as root without the capability to read what modes forbid, as the provider runs in its pod.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	const (
		version3 = 0x20080522  // of the kernel's structures, with two words for each set
		override = 1<<1 | 1<<2 // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
	)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine, for it has less than the others
		header := struct {
			version uint32
			pid     int32
		}{version: version3}
		var sets [2]struct{ effective, _, _ uint32 } // permitted, inheritable
		_, _, failed := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets)), 0)
		if failed == 0 {
			sets[0].effective &^= override
			_, _, failed = syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets)), 0)
		}
		if failed != 0 {
			done <- failed
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatalf("give up a capability: %v", err)
	}
}

// A file that its owner may not read is written by the driver, which may read it all the same. It must not be in the way
// once the class lets its owner read it, or has it no more.
func TestPublishReplacesWhatOnlyTheDriverCouldRead(t *testing.T) {
	closed := filesOf("user 0 u1", "tls/key 040 k1", "only/in/one 0 x1")
	for name, files := range map[string][]render.File{
		"another mode": filesOf("user 400 u1", "tls/key 440 k1", "only/in/one 600 x1"),
		"others":       generation2,
		"in their way": filesOf("user/name 644 u", "tls 644 t", "only/in/one 644 x1"),
		"gone":         filesOf("user 644 u1"),
	} {
		t.Run(name, func(t *testing.T) {
			p, target := volume(t, "")
			mustDrive(t, target, closed)
			unprivileged(t, func() {
				if _, err := os.ReadFile(filepath.Join(target, "user")); !errors.Is(err, syscall.EACCES) {
					t.Errorf("reading what nobody may read: got %v, want %v", err, syscall.EACCES)
				}
				if written, err := p.Publish(target, publishUID, files); !written || err != nil {
					t.Errorf("Publish = %v, %v; want the files to be written", written, err)
				}
			})
			wantVolume(t, target, files)
		})
	}
}

// Whatever is no volume of that pod, known for sure, is the driver's to write.
func TestPublishRefusesOtherPlaces(t *testing.T) {
	const good = publishUID + "/volumes/kubernetes.io~csi/secrets/mount"
	link := func(t *testing.T, to, at string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o750), os.Symlink(to, at)); err != nil {
			t.Fatal(err)
		}
	}
	real := func(t *testing.T, pods string) string { // a good volume elsewhere
		elsewhere := filepath.Join(filepath.Dir(pods), "elsewhere", good)
		mountTmpfs(t, elsewhere, "")
		return elsewhere
	}
	at := func(path string) func(*testing.T, string) string {
		return func(t *testing.T, pods string) string {
			target := filepath.Join(pods, path)
			mountTmpfs(t, target, "")
			return target
		}
	}
	for name, prepare := range map[string]func(t *testing.T, pods string) (target string){
		"outside":                 func(t *testing.T, pods string) string { return real(t, pods) },
		"beside":                  func(t *testing.T, pods string) string { return at("")(t, pods+"-too/"+good) },
		"another pod's":           at("uid-other/volumes/kubernetes.io~csi/secrets/mount"),
		"a pod whose name begins": at(publishUID + "0/volumes/kubernetes.io~csi/secrets/mount"),
		"another driver's kind":   at(publishUID + "/volumes/kubernetes.io~secret/secrets/mount"),
		"no volumes":              at(publishUID + "/plugins/kubernetes.io~csi/secrets/mount"),
		"not named mount":         at(publishUID + "/volumes/kubernetes.io~csi/secrets/mounts"),
		"too short":               at(publishUID + "/volumes/kubernetes.io~csi/mount"),
		"too deep":                at(publishUID + "/volumes/kubernetes.io~csi/a/b/mount"),
		"not clean": func(t *testing.T, pods string) string {
			at(good)(t, pods)
			return pods + "/" + publishUID + "/volumes/kubernetes.io~csi/./secrets/mount"
		},
		"up and down": func(t *testing.T, pods string) string {
			at(good)(t, pods)
			return pods + "/x/../" + good
		},
		"relative": func(t *testing.T, pods string) string { at(good)(t, pods); return good },
		"nothing":  func(_ *testing.T, _ string) string { return "" },
		"missing":  func(_ *testing.T, pods string) string { return filepath.Join(pods, good) },
		"a file": func(t *testing.T, pods string) string {
			target := filepath.Join(pods, good)
			if err := errors.Join(os.MkdirAll(filepath.Dir(target), 0o750), os.WriteFile(target, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			return target
		},
		"the pod is a link": func(t *testing.T, pods string) string {
			link(t, filepath.Join(filepath.Dir(pods), "elsewhere", publishUID), filepath.Join(pods, publishUID))
			real(t, pods)
			return filepath.Join(pods, good)
		},
		"volumes is a link": func(t *testing.T, pods string) string {
			link(t, filepath.Join(filepath.Dir(pods), "elsewhere", publishUID, "volumes"), filepath.Join(pods, publishUID, "volumes"))
			real(t, pods)
			return filepath.Join(pods, good)
		},
		"the driver's is a link": func(t *testing.T, pods string) string {
			link(t, filepath.Dir(filepath.Dir(real(t, pods))), filepath.Dir(filepath.Dir(filepath.Join(pods, good))))
			return filepath.Join(pods, good)
		},
		"the volume is a link": func(t *testing.T, pods string) string {
			link(t, filepath.Dir(real(t, pods)), filepath.Dir(filepath.Join(pods, good)))
			return filepath.Join(pods, good)
		},
		"the mount is a link": func(t *testing.T, pods string) string {
			link(t, real(t, pods), filepath.Join(pods, good))
			return filepath.Join(pods, good)
		},
		"the mount is a link to a volume of the same pod": func(t *testing.T, pods string) string {
			link(t, "../others/mount", filepath.Join(pods, good))
			at(publishUID+"/volumes/kubernetes.io~csi/others/mount")(t, pods)
			return filepath.Join(pods, good)
		},
		"no tmpfs": func(t *testing.T, pods string) string {
			needMounts(t)
			target := filepath.Join(pods, good)
			// Its own mount, but of the file system that the directory is on.
			err := errors.Join(os.MkdirAll(target, 0o750), syscall.Mount(target, target, "", syscall.MS_BIND, ""))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
			return target
		},
		"no tmpfs, on a device of its own": func(t *testing.T, pods string) string {
			needMounts(t)
			target := filepath.Join(pods, good)
			err := errors.Join(os.MkdirAll(target, 0o750), syscall.Mount("proc", target, "proc", syscall.MS_RDONLY, ""))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
			return target
		},
		"a directory of a tmpfs": func(t *testing.T, pods string) string { // all of kubelet's directory is one
			mountTmpfs(t, pods, "")
			target := filepath.Join(pods, good)
			if err := os.MkdirAll(target, 0o750); err != nil {
				t.Fatal(err)
			}
			return target
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pods := filepath.Join(dir, "pods")
			target := prepare(t, pods)
			list := func() (all []string) {
				_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, _ error) error {
					if strings.HasSuffix(path, "/mount/self") || entry.IsDir() && entry.Name() == "1" {
						return fs.SkipAll // proc is endless and never the same
					}
					all = append(all, path)
					return nil
				})
				return all
			}
			before := list()
			written, err := NewPublisher(pods).Publish(target, publishUID, generation1)
			if written || err != nil {
				t.Errorf("Publish = %v, %v; want false and no error", written, err)
			}
			if now := list(); len(now) > len(before) && !strings.Contains(name, "device of its own") {
				t.Errorf("something was written: %q", now)
			}
		})
	}
	t.Run("not for root itself to read", func(t *testing.T) {
		p, target := volume(t, "")
		written, err := p.Publish(target, publishUID, filesOf("user 644 u1", "odd 44 x1"))
		if entries, _ := os.ReadDir(target); written || err != nil || len(entries) > 0 {
			t.Errorf("Publish = %v, %v and wrote %v; want nothing", written, err, entries)
		}
	})
	t.Run("but kubelet's directory may be a link", func(t *testing.T) {
		_, target := volume(t, "")
		linked := filepath.Join(t.TempDir(), "linked")
		pods, _, _ := strings.Cut(target, "/"+publishUID)
		link(t, pods, linked)
		mustPublish(t, NewPublisher(linked+"/"), strings.Replace(target, pods, linked, 1), generation1)
		wantVolume(t, target, generation1)
	})
}

// The driver's writer may end between any two of its steps, whoever runs it: each row is what it leaves then, on its
// way from generation 1 to generation 2. The rest is what two writers at once have been seen to leave.
func TestPublishMendsWhatACrashLeft(t *testing.T) {
	const fresh = "..2030_01_02_03_04_05.123456789"
	type volumeAt struct {
		t      *testing.T
		target string
	}
	in := func(v volumeAt, name string) string { return filepath.Join(v.target, name) }
	must := func(v volumeAt, errs ...error) {
		v.t.Helper()
		if err := errors.Join(errs...); err != nil {
			v.t.Fatal(err)
		}
	}
	shown := func(v volumeAt) string {
		name, err := os.Readlink(in(v, dataLink))
		must(v, err)
		return name
	}
	begin := func(v volumeAt) { must(v, os.Mkdir(in(v, fresh), 0o700)) }
	fill := func(files []render.File) func(volumeAt) {
		return func(v volumeAt) {
			for _, f := range files {
				path := filepath.Join(v.target, fresh, f.Path)
				must(v, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Contents, f.Mode))
			}
		}
	}
	links := func(v volumeAt) {
		for _, name := range []string{"user", "password", "tls", "only-in-two"} {
			if err := os.Symlink("..data/"+name, in(v, name)); !errors.Is(err, fs.ErrExist) {
				must(v, err)
			}
		}
	}
	temporary := func(v volumeAt) { must(v, os.Symlink(fresh, in(v, dataLinkFresh))) }
	swap := func(v volumeAt) { must(v, os.Rename(in(v, dataLinkFresh), in(v, dataLink))) }
	prune := func(v volumeAt) {
		if err := os.Remove(in(v, "only")); !errors.Is(err, fs.ErrNotExist) {
			must(v, err)
		}
	}
	first := func(v volumeAt) { mustDrive(v.t, v.target, generation1) }
	outside := func(v volumeAt) string {
		dir := filepath.Join(filepath.Dir(v.target), "outside")
		must(v, os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
		return dir
	}

	steps := func(steps ...func(volumeAt)) []func(volumeAt) { return steps }
	partial := []render.File{{Path: "user", Mode: 0o644, Contents: []byte("u")}}
	for name, row := range map[string][]func(volumeAt){
		"nothing yet":                        steps(),
		"first: the directory":               steps(begin),
		"first: a part of a file":            steps(begin, fill(partial)),
		"first: the files":                   steps(begin, fill(generation2)),
		"first: the links":                   steps(begin, fill(generation2), links),
		"first: the temporary link":          steps(begin, fill(generation2), links, temporary),
		"first: all of it":                   steps(begin, fill(generation2), links, temporary, swap),
		"again: the directory":               steps(first, begin),
		"again: a part of a file":            steps(first, begin, fill(partial)),
		"again: the files":                   steps(first, begin, fill(generation2)),
		"again: the links":                   steps(first, begin, fill(generation2), links),
		"again: the temporary link":          steps(first, begin, fill(generation2), links, temporary),
		"again: the swap":                    steps(first, begin, fill(generation2), links, temporary, swap),
		"again: the old links":               steps(first, begin, fill(generation2), links, temporary, swap, prune),
		"a temporary link and no directory":  steps(first, temporary),
		"a temporary directory for the link": steps(first, func(v volumeAt) { must(v, os.Mkdir(in(v, dataLinkFresh), 0o700)) }),
		"half of the old files removed": steps(first, begin, fill(generation2), links, func(v volumeAt) {
			old := shown(v)
			temporary(v)
			swap(v)
			must(v, os.Remove(filepath.Join(v.target, old, "user")), os.RemoveAll(filepath.Join(v.target, old, "tls")))
		}),
		"a link missing":        steps(first, func(v volumeAt) { must(v, os.Remove(in(v, "user"))) }),
		"a link to another one": steps(first, func(v volumeAt) { must(v, os.Remove(in(v, "user")), os.Symlink("..data/password", in(v, "user"))) }),
		"a file for a link":     steps(first, func(v volumeAt) { must(v, os.Remove(in(v, "user")), os.WriteFile(in(v, "user"), nil, 0o600)) }),
		"a directory for a link": steps(first, func(v volumeAt) {
			must(v, os.Remove(in(v, "tls")), os.MkdirAll(in(v, "tls/key"), 0o755))
		}),
		"the files missing":  steps(first, func(v volumeAt) { must(v, os.RemoveAll(in(v, shown(v)))) }),
		"a file missing":     steps(first, func(v volumeAt) { must(v, os.Remove(in(v, "..data/user"))) }),
		"a file changed":     steps(first, func(v volumeAt) { must(v, os.WriteFile(in(v, "..data/user"), []byte("x"), 0o600)) }),
		"..data missing":     steps(first, func(v volumeAt) { must(v, os.Remove(in(v, dataLink))) }),
		"..data a directory": steps(first, func(v volumeAt) { must(v, os.Remove(in(v, dataLink)), os.MkdirAll(in(v, "..data/user"), 0o755)) }),
		"..data a file":      steps(first, func(v volumeAt) { must(v, os.Remove(in(v, dataLink)), os.WriteFile(in(v, dataLink), nil, 0o600)) }),
		"..data leads out":   steps(first, func(v volumeAt) { must(v, os.Remove(in(v, dataLink)), os.Symlink(outside(v), in(v, dataLink))) }),
		"..data leads up": steps(first, func(v volumeAt) {
			outside(v)
			must(v, os.Remove(in(v, dataLink)), os.Symlink("../outside", in(v, dataLink)))
		}),
		"many directories": steps(first, func(v volumeAt) {
			for i := range 100 {
				must(v, os.MkdirAll(in(v, fmt.Sprintf("..2030_01_02_03_04_05.%d/tls", i)), 0o755))
			}
		}),
		"the driver wrote an old answer late": steps(func(v volumeAt) { mustDrive(v.t, v.target, generation2) }, first),
	} {
		for next, files := range map[string][]render.File{"the old": generation1, "the new": generation2, "others": generation3} {
			t.Run(name+", then "+next, func(t *testing.T) {
				p, target := volume(t, "")
				v := volumeAt{t, target}
				for _, step := range row {
					step(v)
				}
				mustPublish(t, p, target, files)
				wantVolume(t, target, files)
				if strings.Contains(name, "leads") {
					if _, err := os.Stat(filepath.Join(outside(v), "precious")); err != nil {
						t.Error(err)
					}
				}
				before := tree(t, target)
				mustDrive(t, target, files)
				if now := tree(t, target); !maps.Equal(now, before) {
					t.Error("the driver found something to change")
				}
			})
		}
	}
}

// A full volume shows what it showed, and not a byte of what did not fit.
func TestPublishIntoAFullVolume(t *testing.T) {
	for name, before := range map[string][]render.File{"mounted": generation1, "first": nil} {
		t.Run(name, func(t *testing.T) {
			p, target := volume(t, "size=64k")
			if before != nil {
				mustPublish(t, p, target, before)
			}
			large := render.File{Path: "z-large", Mode: 0o644, Contents: bytes.Repeat([]byte("secret"), 64<<10)}
			written, err := p.Publish(target, publishUID, append(slices.Clone(generation2), large))
			failure := (*PublishError)(nil)
			if written || !errors.As(err, &failure) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("Publish = %v, %v; want no space", written, err)
			}
			if want := "write the files into the volume: no space left on device"; err.Error() != want {
				t.Errorf("got %q, want %q", err, want)
			}
			if before == nil {
				if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
					t.Errorf("%v, %v is left", entries, err)
				}
				return
			}
			wantVolume(t, target, before)
		})
	}
}

func TestPublishIntoAVanishingVolume(t *testing.T) {
	for _, successor := range []bool{false, true} {
		t.Run(fmt.Sprintf("successor %v", successor), func(t *testing.T) {
			p, target := volume(t, "")
			open, err := p.open(target, publishUID)
			if err != nil || open == nil {
				t.Fatalf("open = %v, %v", open, err)
			}
			defer func() { _ = open.Close() }()
			unmount(t, target)
			if successor {
				mountTmpfs(t, target, "")
			}
			if err := p.into(open, target, publishUID, generation1); !errors.Is(err, errVanished) {
				t.Errorf("got %v, want %v", err, errVanished)
			}
			if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
				t.Errorf("%v, %v was written below the volume, want nothing", entries, err)
			}
		})
	}
}

// Volumes come and go under a publisher that does not stop: nothing may ever be written to the disk below them.
func TestPublishWhileVolumesComeAndGo(t *testing.T) {
	p, target := volume(t, "")
	done, published := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(published)
		for i := 0; ; i++ {
			files := generation1
			if i%2 == 1 {
				files = generation2
			}
			_, err := p.Publish(target, publishUID, files)
			if failure := (*PublishError)(nil); err != nil && !errors.As(err, &failure) {
				t.Errorf("got %v, want a PublishError", err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	until := time.Now().Add(500 * time.Millisecond)
	for i := 0; i < 3 || time.Now().Before(until); i++ {
		unmount(t, target)
		if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
			t.Errorf("%v, %v is on the disk below the volume", entries, err)
		}
		if err := syscall.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	<-published
	mustPublish(t, p, target, generation1)
	wantVolume(t, target, generation1)
}
