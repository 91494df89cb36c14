package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/render"
)

// Publisher writes files into pods' volumes, in the form in which the driver writes them: in a directory of their own,
// to which the link ..data leads and is swapped over at once. The driver, given the same files, then finds nothing to
// change.
//
// It writes with the driver's own writer, which is safe neither against a second writer nor against a crash: what is
// left of a crash is mended here, before and after. Two calls for one volume at once are the caller's to prevent.
type Publisher struct {
	pods  string // kubelet's directory of pods
	sound recent[string, snapshot]
}

// NewPublisher returns a Publisher for the volumes below kubelet's directory of pods, such as /var/lib/kubelet/pods.
func NewPublisher(podsDir string) *Publisher { return &Publisher{pods: filepath.Clean(podsDir)} }

// PublishError tells that the files of a volume could not be written, though it is a volume of ours to write. It names
// no file's contents.
type PublishError struct{ Err error }

func (e *PublishError) Error() string {
	cause := e.Err
	// The writer's paths lead through a file descriptor and say nothing to anybody.
	if errno := syscall.Errno(0); errors.As(e.Err, &errno) {
		cause = errno
	}
	return fmt.Sprintf("write the files into the volume: %v", cause)
}

// Unwrap returns the cause.
func (e *PublishError) Unwrap() error { return e.Err }

// errVanished is the end of a volume that was unmounted while it was written. What was written is gone with it.
var errVanished = errors.New("the volume was unmounted meanwhile")

// Publish makes files the files of the volume at target, all of them in one swap. Files that are there already, with
// these contents, are left alone. The volume's modification time stays as it is: it is by what the driver tells when to
// poll again, and a volume that is filled often between polls would never be polled. If it returns an error, the volume shows
// what it showed before, unless the swap itself was over; calling it again mends that.
//
// It writes only into <pods>/<podUID>/volumes/kubernetes.io~csi/<name>/mount, without a symbolic link on the way, and
// only where that is a tmpfs of its own. For any other target, written is false and the driver has to write. So it is
// for files that their owner may not read: root without capabilities could not compare them.
func (p *Publisher) Publish(target, podUID string, files []render.File) (written bool, err error) {
	for _, f := range files {
		if f.Mode&0o400 == 0 {
			return false, nil
		}
	}
	asked := digestOfFiles(files)
	if s, found := p.sound.find(target); found && s.digest == asked && s.holds() {
		return true, nil
	}
	began := time.Now()
	volume, err := p.open(target, podUID)
	if err != nil {
		return false, &PublishError{err}
	}
	if volume == nil {
		return false, nil
	}
	defer func() { _ = volume.Close() }()
	if err := p.into(volume, target, podUID, files); err != nil {
		return false, &PublishError{err}
	}
	if s, quiet := takeSnapshot(target, asked, began); quiet {
		p.sound.put(target, s)
	}
	return true, nil
}

// into writes into an open volume.
func (p *Publisher) into(volume *os.File, target, podUID string, files []render.File) error {
	// The descriptor holds on to the file system. Through the path, files could end up on the disk below, once the
	// volume is unmounted. (It also makes an unmount fail as busy for as long, and kubelet tries again.)
	root := fmt.Sprintf("/proc/self/fd/%d", volume.Fd())
	before, err := volume.Stat()
	if err != nil {
		return err
	}
	err = write(root, files)
	if after, err := volume.Stat(); err == nil && !after.ModTime().Equal(before.ModTime()) {
		_ = os.Chtimes(root, time.Time{}, before.ModTime()) // without it polls come later: that is no reason to fail
	}
	same, errAgain := p.leadsTo(target, podUID, volume)
	switch {
	case err != nil:
		return err
	case errAgain != nil:
		return errAgain
	case !same:
		return errVanished
	}
	return nil
}

// tmpfsMagic is the kernel's number of the file system tmpfs.
const tmpfsMagic = 0x01021994

// open opens the volume at target, or returns nil if that is no place to write.
func (p *Publisher) open(target, podUID string) (*os.File, error) {
	below, ok := strings.CutPrefix(target, p.pods+"/")
	parts := strings.Split(below, "/")
	if !ok || filepath.Clean(target) != target || len(parts) != 5 ||
		parts[0] != podUID || parts[1] != "volumes" || parts[2] != "kubernetes.io~csi" || parts[4] != "mount" {
		return nil, nil
	}
	directory, err := openDirectory(unix{-1}, p.pods, 0) // absolute; the operator's own, and maybe a link
	parent := directory
	for _, part := range parts {
		if err != nil {
			break
		}
		parent = directory
		directory, err = openDirectory(parent, part, syscall.O_NOFOLLOW)
		defer parent.close()
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the volume: %w", err)
	}
	own, err := directory.isOwnTmpfs(parent)
	if err != nil || !own {
		directory.close()
		return nil, err
	}
	return os.NewFile(uintptr(directory.fd), target), nil
}

// leadsTo tells whether target still is the volume.
func (p *Publisher) leadsTo(target, podUID string, volume *os.File) (bool, error) {
	again, err := p.open(target, podUID)
	if again == nil || err != nil {
		return false, err
	}
	defer func() { _ = again.Close() }()
	info, err := volume.Stat()
	if err != nil {
		return false, err
	}
	infoAgain, err := again.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(info, infoAgain), nil
}

// unix is an open directory. Package os has no way to open one without following a link.
type unix struct{ fd int }

func openDirectory(at unix, name string, flags int) (unix, error) {
	for {
		fd, err := syscall.Openat(at.fd, name, flags|syscall.O_DIRECTORY|syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if !errors.Is(err, syscall.EINTR) {
			return unix{fd}, err
		}
	}
}

func (u unix) close() { _ = syscall.Close(u.fd) }

// isOwnTmpfs tells whether the directory is the root of a tmpfs, rather than a directory of the tmpfs that its parent is
// in.
func (u unix) isOwnTmpfs(parent unix) (bool, error) {
	var system syscall.Statfs_t
	var above, here syscall.Stat_t
	err := errors.Join(syscall.Fstatfs(u.fd, &system), syscall.Fstat(u.fd, &here), syscall.Fstat(parent.fd, &above))
	if err != nil {
		return false, fmt.Errorf("look at the volume's file system: %w", err)
	}
	return system.Type == tmpfsMagic && here.Dev != above.Dev, nil
}

const (
	dataLink      = "..data"     // leads to the directory of the files that the volume shows
	dataLinkFresh = "..data_tmp" // is renamed over it
)

// generationName is what the driver's writer calls a directory of files.
var generationName = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// write makes files the files of the volume at root.
func write(root string, files []render.File) error {
	if err := tidy(root); err != nil {
		return err
	}
	if err := makeReadable(root); err != nil {
		return err
	}
	err := makeWay(root, files)
	if err == nil {
		err = fileutil.WritePayloads(root, forDriver(files))
	}
	if err != nil {
		return errors.Join(err, tidy(root)) // not a byte of the new files stays
	}
	if err := tidy(root); err != nil {
		return err
	}
	return check(root, files)
}

// tidy mends what a writer that did not come to its end may have left, or two of them at once: it removes the link that
// was to be swapped in, directories of files that the volume does not show, and links to files that are not there, and
// it puts back the links of files that are shown. It touches nothing that can be read.
func tidy(root string) error {
	shown, err := os.Readlink(filepath.Join(root, dataLink))
	if errors.Is(err, syscall.EINVAL) {
		err, shown = nil, "no link"
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if shown != "" && !generationName.MatchString(shown) {
		// The driver's writer would follow such a link and remove what is there.
		if err := os.RemoveAll(filepath.Join(root, dataLink)); err != nil {
			return err
		}
		shown = ""
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case name == dataLinkFresh:
		case generationName.MatchString(name) && name != shown:
		case isDangling(root, name):
		default:
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if shown == "" {
		return nil
	}
	return mendLinks(root, filepath.Join(root, shown))
}

// isDangling tells whether a name is the link of a file, or of a directory of files, that the volume does not show.
func isDangling(root, name string) bool {
	target, err := os.Readlink(filepath.Join(root, name))
	if err != nil || target != filepath.Join(dataLink, name) {
		return false
	}
	_, err = os.Lstat(filepath.Join(root, target))
	return errors.Is(err, syscall.ENOENT)
}

// mendLinks puts back the links to what is in the directory of files that is shown. The driver's writer leaves them
// alone when the files themselves are right.
func mendLinks(root, shown string) error {
	entries, err := os.ReadDir(shown)
	if errors.Is(err, syscall.ENOENT) {
		return nil // the writer makes all of it anew
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		link, want := filepath.Join(root, entry.Name()), filepath.Join(dataLink, entry.Name())
		if target, err := os.Readlink(link); err == nil && target == want {
			continue
		}
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink(want, link); err != nil {
			return err
		}
	}
	return nil
}

// makeReadable lets the owner read the files that are shown. The driver may have written some that nobody may read, and
// without capabilities they could not be compared with what is to take their place.
func makeReadable(root string) error {
	shown, err := os.Readlink(filepath.Join(root, dataLink))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(root, shown)
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if path == dir && errors.Is(err, syscall.ENOENT) {
			return nil // the writer makes all of it anew
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode()&0o400 != 0 {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o400) //nolint:gosec // below the volume that is held open, which pods only read
	})
}

// makeWay takes files away that are where files needs a directory, or the other way round: the driver's writer fails for
// ever then. They go with one swap, a moment before the others change.
func makeWay(root string, files []render.File) error {
	shown, err := os.Readlink(filepath.Join(root, dataLink))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(root, shown)
	kept, inTheWay, err := sortOut(dir, files)
	if err != nil || !inTheWay {
		return err
	}
	old := make([]render.File, len(kept))
	for i, name := range kept {
		path := filepath.Join(dir, name)
		contents, err := os.ReadFile(path) //nolint:gosec // below the volume that is held open
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		old[i] = render.File{Path: name, Mode: info.Mode(), Contents: contents}
	}
	return fileutil.WritePayloads(root, forDriver(old))
}

// sortOut returns the names of the files in a directory but of those that are in the way of files, and whether there
// are such.
func sortOut(dir string, files []render.File) (kept []string, inTheWay bool, err error) {
	isFile := make(map[string]bool, len(files)) // path -> whether it is to be a file, rather than a directory
	for _, f := range files {
		for path := filepath.Dir(f.Path); path != "."; path = filepath.Dir(path) {
			isFile[path] = false
		}
		isFile[f.Path] = true
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if path == dir {
			if errors.Is(err, syscall.ENOENT) {
				err = nil // the writer makes all of it anew
			}
			return err
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		wanted, known := isFile[name]
		switch {
		case known && wanted == entry.IsDir():
			inTheWay = true
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir():
			kept = append(kept, name)
		}
		return nil
	})
	return kept, inTheWay, err
}

// check reads every file as the pod does. It gives a file the mode that it should have: when nothing but a mode
// changes, the driver's writer does nothing.
func check(root string, files []render.File) error {
	for _, f := range files {
		path := filepath.Join(root, f.Path)
		contents, err := os.ReadFile(path) //nolint:gosec // below the volume that is held open
		if err != nil {
			return err
		}
		if !bytes.Equal(contents, f.Contents) {
			return fmt.Errorf("the file %q does not hold what was written: somebody else writes into the volume", f.Path)
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode().Perm() == f.Mode.Perm() {
			continue
		}
		if err := os.Chmod(path, f.Mode.Perm()); err != nil {
			return err
		}
	}
	return nil
}

// forDriver returns files as the driver takes them.
func forDriver(files []render.File) []*v1alpha1.File {
	list := make([]*v1alpha1.File, len(files))
	for i, f := range files {
		list[i] = &v1alpha1.File{Path: f.Path, Mode: int32(f.Mode.Perm()), Contents: f.Contents} //nolint:gosec // 0777 at most
	}
	return list
}
