package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// tmpfs mounts a tmpfs for a test, for a provider's state.
func tmpfs(t testing.TB, options string) string {
	t.Helper()
	dir := filepath.Join(shared.bed.Dir, shared.unique("state"))
	must(t, "make a directory", os.Mkdir(dir, 0o700))
	must(t, "mount", bed.MountTmpfs(dir, "mode=700,"+options))
	return dir
}

// recordOf returns the path of a volume's file in the journal.
func recordOf(t testing.TB, p *bed.Provider, v *bed.Volume) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.Journal(), "*.json"))
	must(t, "list the journal", err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, "read the journal", err)
		if strings.Contains(string(text), v.Pod.UID) {
			return path
		}
	}
	t.Fatalf("no file of %d in the journal is pod %s's", len(paths), v.Pod.UID)
	return ""
}

// polled mounts a volume again and wants it to be as it was: the same versions, the same files, and nothing written.
func polled(t testing.TB, v *bed.Volume, versions, before map[string]string) {
	t.Helper()
	if again := mustMount(t, v); !maps.Equal(again, versions) {
		t.Errorf("object versions: got %v, want those of before, %v", again, versions)
	}
	wantFiles(t, files(t, v), before)
}

// TestRestart ends a provider with fifty volumes. The next one knows them all: no login, no user, the same bytes. It goes on
// to renew what the first had.
func TestRestart(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(testing.TB, *bed.Provider){"killed": kill, "stopped": stop} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			trouble := startTrouble(t)
			name := role(t, bed.Role{TTL: 20 * time.Second})
			o := bed.ProviderOptions{VaultAddress: trouble.Address, StateDir: tmpfs(t, "size=4m")}
			first := startProvider(t, o)
			volumes := make([]*bed.Volume, 50)
			for i := range volumes {
				volumes[i] = newVolume(t, first, class(name, credentials(name)))
			}
			mountAll(t, volumes)
			before, versions := make([]map[string]string, len(volumes)), make([]map[string]string, len(volumes))
			for i, v := range volumes {
				before[i], versions[i] = files(t, v), mustMount(t, v)
			}
			end(t, first)

			o.Dir = first.Dir
			startProvider(t, o)
			for i, v := range volumes {
				polled(t, v, versions[i], before[i])
			}
			wantRequests(t, trouble, name, len(volumes), len(volumes))
			eventually(t, "all tokens are renewed", func(context.Context) error {
				if n := trouble.Count("POST", "auth/token/renew-self"); n < len(volumes) {
					return fmt.Errorf("got %d renewals, want %d", n, len(volumes))
				}
				return nil
			})
			holds(t, name, len(volumes), len(volumes))
			wantRequests(t, trouble, name, len(volumes), len(volumes))
			for _, v := range volumes {
				logIn(t, v)
			}
		})
	}
}

// TestDamagedJournal damages some files of the journal. They are set aside, and stop nothing: their volumes get new
// credentials at the next Mount, and the others keep theirs.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	damage := map[string]func(text string) string{
		"truncated":          func(text string) string { return text[:len(text)/2] },
		"emptied":            func(string) string { return "" },
		"of a newer version": func(text string) string { return strings.Replace(text, `"Version":1`, `"Version":999`, 1) },
		"of another volume":  func(text string) string { return strings.Replace(text, `"UID":"`, `"UID":"0`, 1) },
		"nonsense":           func(string) string { return "\x00\xff{" },
	}
	whole := newVolume(t, p, class(name, credentials(name)))
	versions := mustMount(t, whole)
	before := files(t, whole)
	damaged := make(map[string]*bed.Volume)
	for what := range damage {
		damaged[what] = newVolume(t, p, class(name, credentials(name)))
		mustMount(t, damaged[what])
	}
	kill(t, p)
	for what, v := range damaged {
		path := recordOf(t, p, v)
		text, err := os.ReadFile(path)
		must(t, "read the journal", err)
		worse := damage[what](string(text))
		if worse == string(text) {
			t.Fatalf("%s: the damage did none", what)
		}
		write(t, path, worse)
	}

	again := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Dir: p.Dir})
	if got := counted(t, again, "leasehold_journal_errors_total"); got != len(damage) {
		t.Errorf("leasehold_journal_errors_total: got %d, want %d", got, len(damage))
	}
	aside, err := filepath.Glob(filepath.Join(p.Journal(), "*.damaged"))
	if err != nil || len(aside) != len(damage) {
		t.Errorf("files set aside: got %d (%v), want %d", len(aside), err, len(damage))
	}
	log, err := again.Log()
	must(t, "log", err)
	for _, part := range []string{"it is damaged", "version 999", "another volume", "its pod's next mount gets something new"} {
		if !strings.Contains(log, part) {
			t.Errorf("the log does not say %q", part)
		}
	}
	polled(t, whole, versions, before)
	wantRequests(t, trouble, name, 1+len(damage), 1+len(damage))
	for _, v := range damaged {
		old := files(t, v)
		mustMount(t, v)
		logIn(t, v)
		if files(t, v)["username"] == old["username"] {
			t.Error("a volume that the provider has forgotten shows the old user")
		}
	}
	wantRequests(t, trouble, name, 1+2*len(damage), 1+2*len(damage))
}

// TestJournalCannotBeWritten fails Mounts rather than take what might be forgotten. What is in the volumes of running pods
// stays there.
func TestJournalCannotBeWritten(t *testing.T) {
	t.Parallel()
	for what, row := range map[string]struct {
		spoil, mend func(t *testing.T, dir string)
		says        string
	}{
		"full": {
			spoil: func(t *testing.T, dir string) {
				filler := make([]byte, 4096)
				for i := 0; ; i++ {
					err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("filler-%d", i)), filler, 0o600)
					if errors.Is(err, syscall.ENOSPC) {
						return
					}
					must(t, "fill the file system", err)
				}
			},
			mend: func(t *testing.T, dir string) {
				fillers, err := filepath.Glob(filepath.Join(dir, "filler-*"))
				must(t, "list", err)
				for _, path := range fillers {
					must(t, "remove", os.Remove(path))
				}
			},
			says: "no space left on device",
		},
		"read-only": {
			spoil: func(t *testing.T, dir string) {
				must(t, "bind", syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
				must(t, "remount", syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			},
			mend: func(t *testing.T, dir string) {
				must(t, "unmount", bed.Unmount(dir))
			},
			says: "read-only file system",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name := role(t, bed.Role{})
			p := startProvider(t, bed.ProviderOptions{StateDir: tmpfs(t, "size=64k")})
			running := newVolume(t, p, class(name, credentials(name)))
			versions := mustMount(t, running)
			before := files(t, running)

			row.spoil(t, p.Journal())
			v := newVolume(t, p, class(name, credentials(name)))
			for range 2 {
				fails(t, v, codes.Internal, "the provider cannot write down what it holds", row.says)
			}
			holds(t, name, 1, 1) // the running pod's
			polled(t, running, versions, before)
			logIn(t, running)
			if got := counted(t, p, "leasehold_journal_errors_total"); got < 2 {
				t.Errorf("leasehold_journal_errors_total: got %d, want 2 at least", got)
			}

			row.mend(t, p.Journal())
			mustMount(t, v)
			logIn(t, v)
			holds(t, name, 2, 2)
		})
	}
}

// TestJournalOnADisk is refused, unless the operator says otherwise.
func TestJournalOnADisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shared.bed.Dir, shared.unique("disk"))
	must(t, "make a directory", os.Mkdir(dir, 0o700))
	_, err := shared.bed.StartProvider(t.Context(), bed.ProviderOptions{VaultAddress: shared.vault.Address, StateDir: dir})
	wantError(t, err, dir, "is not on a tmpfs", "-journal-on-disk")
}

// TestJournalIsForItsOwnerOnly looks at modes.
func TestJournalIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{StateDir: tmpfs(t, "size=1m")})
	v := newVolume(t, p, class(name, credentials(name)))
	mustMount(t, v)
	for path, want := range map[string]os.FileMode{p.Journal(): 0o700, recordOf(t, p, v): 0o600, filepath.Join(p.Journal(), "status.sock"): 0o600} {
		info, err := os.Stat(path)
		must(t, "stat", err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s: got %o, want %o", filepath.Base(path), got, want)
		}
	}
	status, err := p.Status(t.Context())
	must(t, "status", err)
	for _, part := range []string{v.Pod.Namespace + "/" + v.Pod.Name, name, "database/creds/" + name, "held"} {
		if !strings.Contains(status, part) {
			t.Errorf("provider status: got %q, want it to say %q", status, part)
		}
	}
}

// TestReboot loses the journal and the volumes, as a node does that starts anew. kubelet mounts the same pods again: each
// gets one new set of credentials, and the old one ends with its TTL.
func TestReboot(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{TTL: 8 * time.Second})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	const volumes = 3
	var all []*bed.Volume
	for range volumes {
		v := newVolume(t, p, class(name, credentials(name)))
		mustMount(t, v)
		all = append(all, v)
	}
	kill(t, p)
	for _, v := range all {
		must(t, "unmount", v.Unmount())
	}
	must(t, "remove the journal", os.RemoveAll(p.StateDir))
	startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Dir: p.Dir})
	for range 2 {
		mountAll(t, all)
	}
	wantRequests(t, trouble, name, 2*volumes, 2*volumes)
	holds(t, name, volumes, volumes)
	for _, v := range all {
		logIn(t, v)
	}
}
