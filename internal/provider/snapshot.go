package provider

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"leasehold/internal/render"
)

// snapshot is how the kernel saw a volume when it showed just the files that it was to show, and nothing else. As long as
// the kernel sees the same, it still does: whoever writes to a file or changes its mode moves the time of the file's last
// change, and whoever makes, removes or renames something moves that of its directory. To look at these times takes a
// fraction of what it takes to read the files, and that is the answer to nearly every poll.
type snapshot struct {
	digest digest // of the files
	marks  []mark
}

// mark is a directory or a file of a volume, and by what it is known.
type mark struct {
	path    string
	device  uint64
	inode   uint64
	mode    uint32
	size    int64
	changed syscall.Timespec // nobody can set it
}

// digestOfFiles tells files apart that differ in anything.
func digestOfFiles(files []render.File) digest {
	h := sha256.New()
	for _, f := range files {
		add(h, []byte(f.Path))
		add(h, binary.LittleEndian.AppendUint32(nil, uint32(f.Mode)))
		add(h, f.Contents)
	}
	return digest(h.Sum(nil))
}

// markOf looks at a path, and follows no link.
func markOf(path string) (mark, error) {
	var info syscall.Stat_t
	if err := syscall.Lstat(path, &info); err != nil {
		return mark{}, err
	}
	return mark{path: path, device: info.Dev, inode: info.Ino, mode: info.Mode, size: info.Size, changed: info.Ctim}, nil
}

// holds tells whether the volume is as it was.
func (s snapshot) holds() bool {
	for _, then := range s.marks {
		if now, err := markOf(then.path); err != nil || now != then {
			return false
		}
	}
	return true
}

// moment is more than what one moment of the kernel's clock for files lasts. Two changes within one have the same time.
const moment = time.Second

// errRestless is why there is no snapshot.
var errRestless = errors.New("it has changed lately")

// takeSnapshot returns the snapshot of the volume at target, which was found to show the files of the digest after began. It
// is not quiet, and there is none, if anything has changed lately: another change might leave the same time behind.
func takeSnapshot(target string, files digest, began time.Time) (s snapshot, quiet bool) {
	s = snapshot{digest: files}
	look := func(path string) bool {
		m, err := markOf(path)
		s.marks = append(s.marks, m)
		return err == nil && time.Unix(m.changed.Unix()).Before(began.Add(-moment))
	}
	generation, err := os.Readlink(filepath.Join(target, dataLink))
	if err != nil || !look(target) {
		return snapshot{}, false
	}
	err = filepath.WalkDir(filepath.Join(target, generation), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && !look(path) {
			err = errRestless
		}
		return err
	})
	return s, err == nil
}
