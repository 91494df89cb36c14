package lease

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/client/vaulttest"
)

// records returns the journal's files, by name.
func records(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(content)
	}
	return found
}

// recordOf is the file of a pod's volume.
func (w *world) recordOf(dir, pod string) string {
	return filepath.Join(dir, nameOf(keyOf(w.order(pod))))
}

// inMemory returns a directory for a journal, on a tmpfs if there is one: a disk is asked to keep each record, which takes
// its time.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "journal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// on returns a directory of a test's own below one of some directories: on a tmpfs, or not.
func on(t *testing.T, tmpfs bool, candidates ...string) string {
	t.Helper()
	for _, c := range candidates {
		var where syscall.Statfs_t
		if err := syscall.Statfs(c, &where); err != nil || (where.Type == tmpfsMagic) != tmpfs {
			continue
		}
		dir, err := os.MkdirTemp(c, "journal-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	t.Fatalf("none of %q will do for a test that needs a tmpfs: %v", candidates, tmpfs)
	return ""
}

// Tokens go to no disk, unless the operator says that they may.
func TestJournalLiesInMemory(t *testing.T) {
	disk := filepath.Join(on(t, false, t.TempDir(), "."), "new", "journal")
	memory := filepath.Join(on(t, true, "/dev/shm", "/run", t.TempDir()), "new", "journal")
	for _, row := range []struct {
		dir    string
		onDisk bool
		fails  bool
	}{{disk, false, true}, {disk, true, false}, {memory, false, false}, {memory, true, false}} {
		w := newWorld(t)
		err := w.keeper.Resume(row.dir, row.onDisk)
		if (err != nil) != row.fails {
			t.Errorf("%s, allowed %v: got error %v", row.dir, row.onDisk, err)
		}
		if row.fails {
			if !strings.Contains(err.Error(), "-journal-on-disk") {
				t.Errorf("got error %q, want the cure in it", err)
			}
			continue
		}
		if info, err := os.Stat(row.dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("got mode %v (%v), want 0700", info.Mode(), err)
		}
		w.mounted("a")
		if info, err := os.Stat(w.recordOf(row.dir, "a")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("record: got %v (%v), want mode 0600", info, err)
		}
		if err := os.Remove(w.recordOf(row.dir, "a")); err != nil {
			t.Error(err)
		}
	}
}

func TestJournalDirectoryThatIsNone(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Resume(file, true); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got error %v, want one with the path", err)
	}
}

// A mode that lets others in is mended.
func TestJournalIsNobodyElses(t *testing.T) {
	dir := inMemory(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.restart(dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v (%v), want mode 0700", info.Mode(), err)
	}
}

// A crash between any two steps: whenever a token is sent to Vault, the journal has it already, and whatever lives in
// Vault is in the journal until Vault has heard that it is to go.
func TestTokenIsInTheJournalBeforeItIsUsed(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "2h"})
		w.restart(dir)
		w.run()
		requests := 0
		w.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			token := r.Header.Get("X-Vault-Token")
			if token == "" {
				return false // the login
			}
			requests++
			all := ""
			for name, content := range records(w.t, dir) {
				if strings.HasSuffix(name, recordSuffix) {
					all += content
				}
			}
			for _, living := range append(w.vault.Tokens(), token) {
				if !strings.Contains(all, living) {
					w.t.Errorf("%s %s: a token is not in the journal", r.Method, r.URL.Path)
				}
			}
			return false
		})
		w.mounted("a")
		time.Sleep(5 * time.Hour)
		w.mounted("a", of(keySource))
		time.Sleep(time.Hour)
		w.ends("a")
		synctest.Wait()
		w.wantLeft(0, 0)
		if requests < 40 || w.vault.Count("POST", loginPath) < 3 {
			w.t.Errorf("got %d requests, %d of them logins: hardly anything happened", requests, w.vault.Count("POST", loginPath))
		}
		if left := records(w.t, dir); len(left) != 0 {
			w.t.Errorf("got %d records left, want none", len(left))
		}
	})
}

// The record stays until all is given back, and says so.
func TestRecordGoesWithTheLastToken(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.restart(dir)
		stop := w.run()
		w.mounted("a")
		w.vault.Seal(true)
		w.ends("a")
		time.Sleep(10 * time.Minute)
		if n := len(records(w.t, dir)); n != 1 {
			w.t.Fatalf("got %d records of a token that lives, want 1", n)
		}
		stop()
		// The next instance gives it back, whatever it hears of the pod.
		w.pods.set("a", Unknown)
		w.restart(dir)
		w.vault.Seal(false)
		w.run()
		synctest.Wait()
		w.wantLeft(0, 0)
		if n := len(records(w.t, dir)); n != 0 {
			w.t.Errorf("got %d records left, want none", n)
		}
	})
}

// A batch token cannot be given back. The record has it while its pod lives, and no longer.
func TestRecordOfABatchTokenGoesWithThePod(t *testing.T) {
	dir := inMemory(t)
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_type": "batch", "token_ttl": "1h"})
		w.restart(dir)
		stop := w.run()
		w.mounted("a")
		stop()
		w.restart(dir)
		w.run()
		w.mounted("a")
		w.wantCount("POST", loginPath, 1)
		w.wantCount("GET", userPath, 1)
		w.ends("a")
		synctest.Wait()
		w.wantLeft(1, 0)
		if n := len(records(w.t, dir)); n != 0 {
			w.t.Errorf("got %d records left, want none: nobody can do anything about the token", n)
		}
	})
}

// A record that cannot be used is set aside and told of. It stops nothing.
func TestRecordsThatCannotBeUsed(t *testing.T) {
	dir := inMemory(t)
	w := newWorld(t)
	w.restart(dir)
	pods := []string{"good", "more", "cut", "empty", "newer", "foreign", "role", "key"}
	for _, pod := range pods {
		w.mounted(pod)
	}
	change := func(pod string, f func(content string) string) {
		path := w.recordOf(dir, pod)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f(string(content))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(old, fresh string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("no %s in the record", old)
			}
			return strings.Replace(s, old, fresh, 1)
		}
	}
	change("cut", func(s string) string { return s[:len(s)/2] })
	change("empty", func(string) string { return "" })
	change("newer", replace(`"Version":1`, `"Version":2`))
	change("more", replace(`"Version":1`, `"Version":1,"Later":true`))
	change("foreign", replace(`uid-of-foreign`, `uid-of-another`))
	change("role", replace(`"Role":"shown"`, `"Role":"other"`))
	change("key", replace(`"VersionKey":"`, `"VersionKey":"AAAA`))
	part := w.recordOf(dir, "good") + partSuffix
	for _, name := range []string{part, filepath.Join(dir, "notes.txt")} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := records(t, dir)[filepath.Base(w.recordOf(dir, "good"))]

	w.restart(dir)
	if n := w.keeper.Held(); n != 2 || w.volume("good") == nil || w.volume("more") == nil {
		t.Errorf("got %d volumes, want the good one and the one that a later provider wrote", n)
	}
	if n := w.unwritten.Load(); n != 6 {
		t.Errorf("got %d journal errors counted, want 6", n)
	}
	after := records(t, dir)
	if after[filepath.Base(w.recordOf(dir, "good"))] != good {
		t.Error("the good record changed")
	}
	if _, found := after[filepath.Base(part)]; found {
		t.Error("what was half written is still there")
	}
	for _, pod := range pods[2:] {
		name := filepath.Base(w.recordOf(dir, pod))
		if _, found := after[name+damagedSuffix]; !found {
			t.Errorf("%s: was not set aside", pod)
		}
		if _, found := after[name]; found {
			t.Errorf("%s: is still a record", pod)
		}
		if n := strings.Count(w.log.String(), name+damagedSuffix); n != 1 {
			t.Errorf("%s: the log tells it %d times, want once", pod, n)
		}
	}
	if strings.Contains(w.log.String(), "hvs.") || strings.Contains(w.log.String(), "eyJ") {
		t.Error("the log has a secret")
	}
	if !strings.Contains(w.log.String(), "version 2") {
		t.Error("the log does not name the newer version")
	}
	w.mounted("cut") // something new
	w.restart(dir)
	if n := w.unwritten.Load(); n != 6 {
		t.Errorf("what was set aside is told again: %d errors", n)
	}
}

// A login that cannot be written down is given back, and the Mount fails rather than risk a leak.
func TestLoginThatCannotBeWrittenDown(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(w *world, dir string) error
		mend  func(w *world, dir string) error
		cause error
	}{
		"directory is gone": {
			spoil: func(_ *world, dir string) error { return os.RemoveAll(dir) },
			mend:  func(_ *world, dir string) error { return os.Mkdir(dir, 0o700) },
			cause: fs.ErrNotExist,
		},
		"file system is full": {
			spoil: func(w *world, dir string) error { return os.Symlink("/dev/full", w.recordOf(dir, "a")+partSuffix) },
			mend:  func(*world, string) error { return nil }, // what could not be written was removed
			cause: syscall.ENOSPC,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(inMemory(t), "journal")
			bubble(t, func(w *world) {
				w.restart(dir)
				w.run()
				if err := row.spoil(w, dir); err != nil {
					w.t.Fatal(err)
				}
				_, err := w.mount("a")
				if !errors.Is(err, row.cause) || !strings.Contains(err.Error(), "cannot write down what it holds") {
					w.t.Fatalf("got error %v, want one that says why", err)
				}
				w.wantCount("GET", userPath, 0) // nothing was used
				synctest.Wait()
				if got := w.take(); !slices.Contains(got, "released revoked") {
					w.t.Errorf("got %q, want the token given back", got)
				}
				w.wantLeft(0, 0)
				if w.unwritten.Load() == 0 {
					w.t.Error("the failure was not counted")
				}
				if err := row.mend(w, dir); err != nil {
					w.t.Fatal(err)
				}
				w.mounted("a")
				synctest.Wait()
				if n := len(records(w.t, dir)); n != 1 {
					w.t.Errorf("got %d records, want 1", n)
				}
				w.wantLeft(1, 1)
			})
		})
	}
}

// A lease that cannot be written down is not given out either, and no second one is made for that.
func TestLeaseThatCannotBeWrittenDown(t *testing.T) {
	dir := filepath.Join(inMemory(t), "journal")
	bubble(t, func(w *world) {
		w.restart(dir)
		v := w.open("a")
		h := w.holding(v)
		if err := os.Rename(dir, dir+".away"); err != nil {
			w.t.Fatal(err)
		}
		if _, err := h.Read(w.t.Context(), userSource); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("got error %v, want why it could not be written", err)
		}
		v.Close()
		if _, err := w.mount("a"); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("the next Mount: got error %v, want why it could not be written", err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			w.t.Fatal(err)
		}
		w.mounted("a")
		w.wantCount("POST", loginPath, 1)
		w.wantCount("GET", userPath, 1)
	})
}

// What a Mount showed could not be written down just then, and no other Mount comes: the keeper writes it, and so does its end.
// The next instance would take the token for one that no Mount has ever shown, and give it back under a living pod.
func TestRecordThatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	for name, wait := range map[string]time.Duration{"by the keeper": time.Minute, "at its end": 0} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(inMemory(t), "journal")
			bubble(t, func(w *world) {
				w.restart(dir)
				stop := w.run()
				away := func() {
					if err := os.Rename(dir, dir+".away"); err != nil {
						w.t.Error(err)
					}
				}
				w.beforeShow.Store(&away)
				w.mounted("a")
				w.beforeShow.Store(nil)
				if w.unwritten.Load() == 0 {
					w.t.Fatal("it could be written")
				}
				if err := os.Rename(dir+".away", dir); err != nil {
					w.t.Fatal(err)
				}
				time.Sleep(wait)
				if v := w.volume("a"); wait > 0 && v.unwritten {
					w.t.Error("the keeper has not written it")
				}
				stop()
				w.restart(dir)
				w.run()
				time.Sleep(10 * time.Minute) // longer than what no Mount has shown is kept
				w.wantCount("POST", revokePath, 0)
				w.wantLeft(1, 1)
			})
		})
	}
}

// Nobody uses a token while it is being written down: a crash would leave what it has gained to nobody.
func TestTokenIsNotUsedWhileItIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	w.restart(t.TempDir())
	arrived, release := w.holdRecord("a")
	v := w.open("a")
	if _, err := w.leaveAt(arrived, v); !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v, want context.Canceled", err)
	}
	v.Close()
	v = w.open("a")
	v.mu.Lock()
	gained := v.hasGained(v.mount.Class.Vault, time.Now())
	v.mu.Unlock()
	if gained {
		t.Error("the next Mount may use the token, and the journal does not have it")
	}
	release()
	w.holding(v)
	w.wantCount("POST", loginPath, 1)
	v.Close()
	w.wantLeft(1, 1)
}

// What a login has gained is given up while it is being written down, because the volume goes on with its old token. Then the
// next Mount must not find it: it is about to be revoked.
func TestTokenThatIsGivenUpWhileItIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	w.restart(t.TempDir())
	old := w.mounted("a")
	old.mu.Lock()
	old.token.Short = true // a successor is wanted
	old.mu.Unlock()
	arrived, release := w.holdRecord("a")
	v := w.open("a")
	if h, err := w.leaveAt(arrived, v); h != old || err != nil {
		t.Fatalf("got %v, %v; want the old token while the new one is not there", h, err)
	}
	v.Show(old, old.of(userSource))
	v.Close()
	release()
	v = w.open("a")
	fresh := w.holding(v)
	v.mu.Lock()
	_, unwanted := v.unwanted[fresh]
	v.mu.Unlock()
	if unwanted {
		t.Error("the next Mount has a token that is to be revoked")
	}
	w.read(fresh)
	v.Show(fresh, fresh.of(userSource))
	v.Close()
	w.pass()
	w.wantOutcomes("released revoked")
	w.wantLeft(2, 1) // the old one has its grace
}

// A volume that shows something goes on without the journal: its polls gain nothing.
func TestPollWithoutAJournal(t *testing.T) {
	dir := filepath.Join(inMemory(t), "journal")
	bubble(t, func(w *world) {
		w.restart(dir)
		w.run()
		w.mounted("a")
		if err := os.RemoveAll(dir); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(10 * time.Hour)
		w.mounted("a")
		w.wantCount("GET", userPath, 1)
		if w.unwritten.Load() == 0 {
			w.t.Error("no failure was counted")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
		w.mounted("a") // and has it written when that works again
		if n := len(records(w.t, dir)); n != 1 {
			w.t.Errorf("got %d records, want 1", n)
		}
	})
}

// A quiet poll writes nothing, unless it brought a newer token.
func TestQuietPollWritesNothing(t *testing.T) {
	dir := inMemory(t)
	w := newWorld(t)
	w.restart(dir)
	w.mounted("a")
	path := w.recordOf(dir, "a")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.mounted("a")
	if _, err := os.Stat(path); err == nil {
		t.Error("a quiet poll wrote a record")
	}
	w.newToken(400 * 24 * time.Hour)
	w.mounted("a")
	if content := records(t, dir)[filepath.Base(path)]; !strings.Contains(content, w.jwt.Reveal()) {
		t.Error("the newer token is not in the journal")
	}
}

// A target path may be longer than a file's name, and two volumes have two records.
func TestNameOf(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range []Key{{"a", "bc"}, {"ab", "c"}, {"a", "bd"}, {"", "abc"}, {"a", strings.Repeat("/x", 4000)}} {
		name := nameOf(key)
		if seen[name] || len(name) > 64 || strings.Contains(name, "/") || !strings.HasSuffix(name, recordSuffix) || name != nameOf(key) {
			t.Errorf("got name %q", name)
		}
		seen[name] = true
	}
}
