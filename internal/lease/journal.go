package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// journal is a directory with one file for each volume, which is replaced as a whole. It has all that is held, tokens
// included, so it is exactly as secret as the volumes beside it: its modes let nobody else in, and it lies in memory, not
// on a disk.
type journal struct {
	dir  string
	sync bool // on a disk, a record must get there before it counts
}

const (
	recordSuffix  = ".json"
	partSuffix    = ".part"    // a record that is being written, or was when a provider was killed
	damagedSuffix = ".damaged" // a record that could not be read, for a person to look at
)

// The kernel's numbers of the file systems that lie in memory.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// openJournal makes the directory if it is missing.
func openJournal(dir string, onDisk bool) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory needs its x
		return nil, err
	}
	var where syscall.Statfs_t
	if err := syscall.Statfs(dir, &where); err != nil {
		return nil, fmt.Errorf("statfs %q: %w", dir, err)
	}
	inMemory := where.Type == tmpfsMagic || where.Type == ramfsMagic
	if !inMemory && !onDisk {
		return nil, fmt.Errorf("directory %q is not on a tmpfs, and tokens would be written to a disk: use one below /run, or allow it "+
			"with -journal-on-disk", dir)
	}
	return &journal{dir: dir, sync: !inMemory}, nil
}

// CheckJournal tells whether a journal can be had in a directory, which it makes if it is missing: that it is in memory,
// unless onDisk, and that it can be written to. Another instance may be using it meanwhile.
func CheckJournal(dir string, onDisk bool) error {
	j, err := openJournal(dir, onDisk)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	const probe = "probe"
	if err := errors.Join(j.write(probe, nil), j.remove(probe)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// nameOf is the name of a volume's record. A target path may be longer than a file name.
func nameOf(key Key) string {
	sum := sha256.Sum256([]byte(key.PodUID + "\x00" + key.Target))
	return hex.EncodeToString(sum[:16]) + recordSuffix
}

// write replaces a record: whoever reads it finds the old one or the new one.
func (j *journal) write(name string, content []byte) (err error) {
	path := filepath.Join(j.dir, name)
	part := path + partSuffix
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the name is a digest
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if j.sync {
		err = errors.Join(err, file.Sync())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(part, path); err != nil {
		return err
	}
	return j.syncDir()
}

// remove removes a record. One that is not there is as good.
func (j *journal) remove(name string) error {
	err := os.Remove(filepath.Join(j.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, j.syncDir())
}

// syncDir has a disk note the names.
func (j *journal) syncDir() error {
	if !j.sync {
		return nil
	}
	dir, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// setAside renames a record that cannot be used. One that was set aside before is overwritten.
func (j *journal) setAside(name string) error {
	path := filepath.Join(j.dir, name)
	return os.Rename(path, path+damagedSuffix)
}

// read calls visit with every record, and removes what a killed provider left half written. An error of visit sets its
// record aside. All errors come together; none stops the reading.
func (j *journal) read(visit func(name string, content []byte) error) (faults []error, err error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasSuffix(name, partSuffix):
			if err := os.Remove(filepath.Join(j.dir, name)); err != nil {
				faults = append(faults, err)
			}
		case strings.HasSuffix(name, recordSuffix):
			content, err := os.ReadFile(filepath.Join(j.dir, name)) //nolint:gosec // below our own directory
			if err == nil {
				err = visit(name, content)
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("record %q, set aside as %q: %w", name, name+damagedSuffix, errors.Join(err, j.setAside(name))))
			}
		}
	}
	return faults, nil
}
