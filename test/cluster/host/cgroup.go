package host

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot is where every Linux distribution has its control groups.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupPrefix begins the names of our groups; the id of the process that made one follows. Such an id means something in
// one pid namespace only, and others may see the same control groups.
func cgroupPrefix() string {
	namespace, _ := os.Readlink("/proc/self/ns/pid") // such as "pid:[4026531836]"
	return "leasehold-cluster-" + strings.Trim(namespace, "pid:[]") + "-"
}

// hierarchies returns the directories in which a group must be made to exist everywhere: one for version 2, several for
// version 1, as mounted below cgroupRoot.
func hierarchies() ([]string, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = mounts.Close() }()
	var found []string
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		// "36 35 98:0 /root /where options - kind what more": see proc_pid_mountinfo(5).
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, "cgroup") {
			continue
		}
		if where := fields[4]; where == cgroupRoot || filepath.Dir(where) == cgroupRoot {
			found = append(found, where)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no control groups are mounted at %s", cgroupRoot)
	}
	return found, nil
}

// makeCgroup makes a group in every hierarchy.
func makeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		group := filepath.Join(hierarchy, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			return err
		}
		// A cpuset of version 1 begins empty, and nothing can run in an empty one.
		for _, setting := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(hierarchy, setting))
			if errors.Is(err, fs.ErrNotExist) || strings.HasSuffix(hierarchy, "unified") {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, setting), value, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroup removes a group with all that is below it. The processes in it have been killed, but may need a moment.
func removeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, hierarchy := range all {
		errs = append(errs, removeGroup(filepath.Join(hierarchy, name)))
	}
	return errors.Join(errs...)
}

func removeGroup(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeGroup(filepath.Join(group, entry.Name())); err != nil {
				return err
			}
		}
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Rmdir(group)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the control group %q: %w", group, err)
		}
	}
}

// sweepCgroups removes groups whose makers were killed together with their janitors.
func sweepCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, hierarchy := range all {
		groups, err := filepath.Glob(filepath.Join(hierarchy, cgroupPrefix()+"*"))
		errs = append(errs, err)
		for _, group := range groups {
			pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(group), cgroupPrefix()))
			if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				errs = append(errs, removeGroup(group))
			}
		}
	}
	return errors.Join(errs...)
}
