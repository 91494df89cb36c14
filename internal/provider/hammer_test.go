package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"

	"leasehold/internal/render"
)

// hammerTime is how long TestHammer goes on: "make hammer" sets a minute.
func hammerTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("HAMMER")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HAMMER: %v", err)
	}
	return d
}

// always are the files that every generation of the hammered volume has; others come and go.
var always = []string{"user", "password", "tls/key"}

// hammered are the files of a generation. Each line of each file names the generation.
func hammered(generation int) []render.File {
	names := append([]string{fmt.Sprintf("extra-%d", generation%3), fmt.Sprintf("tls/chain-%d", generation%2)}, always...)
	if generation%5 == 0 {
		names = append(names, "changing/file")
	} else {
		names = append(names, "changing")
	}
	files := make([]render.File, len(names))
	for i, name := range names {
		line := strconv.Itoa(generation) + "\n"
		files[i] = render.File{Path: name, Mode: 0o644, Contents: bytes.Repeat([]byte(line), 1+generation*(i+7)%500)}
	}
	return files
}

// generationOf returns the generation that a file is of, or an error if it is of none, or of two.
func generationOf(contents []byte) (int, error) {
	lines := strings.Split(strings.TrimSuffix(string(contents), "\n"), "\n")
	for _, line := range lines {
		if line != lines[0] {
			return 0, fmt.Errorf("one file is of the generations %q and %q", lines[0], line)
		}
	}
	return strconv.Atoi(lines[0])
}

// TestHammer has everybody at one volume at once: polls, in which the driver is given the files and then compares and
// writes outside of our lock; the keeper's refills; crashes between any two steps of a writer; and the pod's readers.
//
// A refill waits until the driver is done with the answer of the poll before. With the keeper that is a time; here it is
// what the time stands for, so that nothing hangs on the machine's speed. (What a driver does that took longer is a row
// of TestPublishMendsWhatACrashLeft: the keeper looks again.)
func TestHammer(t *testing.T) {
	p, target := volume(t, "")
	generation := 1
	mustPublish(t, p, target, hammered(generation))

	ctx, cancel := context.WithTimeout(t.Context(), hammerTime(t))
	defer cancel()
	var polls, refills, crashes, wholes, singles, retried atomic.Int64
	var (
		turn   sync.Mutex     // the volume's; guards generation
		driver sync.WaitGroup // at work on an answer
	)
	publish := func(who string) []render.File {
		if rand.IntN(4) > 0 { // or else nothing changed
			generation++
		}
		if rand.IntN(8) == 0 {
			leaveTrash(t, target)
			crashes.Add(1)
		}
		files := hammered(generation)
		if written, err := p.Publish(target, publishUID, files); !written || err != nil {
			t.Errorf("%s: Publish = %v, %v", who, written, err)
		}
		return files
	}
	repeat := func(group *sync.WaitGroup, ctx context.Context, work func()) {
		group.Go(func() {
			for work(); ctx.Err() == nil && !t.Failed(); {
				work()
			}
		})
	}

	var writers, readers sync.WaitGroup
	repeat(&writers, ctx, func() { // kubelet makes one call for a volume at a time
		turn.Lock()
		files := publish("poll")
		driver.Add(1)
		turn.Unlock()
		defer driver.Done()
		if err := fileutil.WritePayloads(target, forDriver(files)); err != nil {
			t.Errorf("the driver's writer: %v", err)
		}
		polls.Add(1)
	})
	for range 2 {
		repeat(&writers, ctx, func() {
			turn.Lock()
			defer turn.Unlock()
			driver.Wait()
			publish("refill")
			refills.Add(1)
		})
	}
	reading, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	read := func(dir string, names []string, done *atomic.Int64) {
		seen := -1
		for _, name := range names {
			contents, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				retried.Add(1) // the generation was replaced: the driver's writer removes it at once
				return
			}
			if err != nil {
				t.Errorf("read %s: %v", name, err)
				return
			}
			found, err := generationOf(contents)
			if err != nil || (seen >= 0 && found != seen) {
				t.Errorf("%s is of generation %d (%v), another file through the same ..data of %d", name, found, err, seen)
				return
			}
			seen = found
		}
		done.Add(1)
	}
	readAll := func() { // through one ..data
		shown, err := os.Readlink(filepath.Join(target, dataLink))
		if err != nil {
			t.Errorf("..data: %v", err)
			return
		}
		read(filepath.Join(target, shown), always, &wholes)
	}
	readOne := func() { // by its path
		name := always[rand.IntN(len(always))]
		first, _, _ := strings.Cut(name, "/")
		if _, err := os.Lstat(filepath.Join(target, first)); err != nil {
			t.Errorf("the link is missing: %v", err)
		}
		read(target, []string{name}, &singles)
	}
	for range 2 {
		repeat(&readers, reading, readAll)
		repeat(&readers, reading, readOne)
	}
	writers.Wait()
	stopReading()
	readers.Wait()
	// What reads a volume that nobody changes any more comes to its end.
	readAll()
	readOne()

	wantVolume(t, target, hammered(generation))
	t.Logf("hammer seconds=%.0f polls=%d refills=%d generations=%d crashes=%d whole_reads=%d single_reads=%d retried_reads=%d",
		hammerTime(t).Seconds(), polls.Load(), refills.Load(), generation, crashes.Load(), wholes.Load(), singles.Load(), retried.Load())
	if polls.Load() < 1 || refills.Load() < 1 || wholes.Load() < 1 || singles.Load() < 1 {
		t.Error("somebody did nothing")
	}
}

// leaveTrash leaves what a writer leaves that is killed before its swap.
func leaveTrash(t *testing.T, target string) {
	name := time.Now().UTC().Format("..2006_01_02_15_04_05.") + strconv.Itoa(rand.Int())
	err := os.MkdirAll(filepath.Join(target, name, "tls"), 0o755)
	if rand.IntN(2) == 0 {
		err = errors.Join(err, os.WriteFile(filepath.Join(target, name, "tls/key"), []byte("0\n"), 0o600))
	}
	if rand.IntN(2) == 0 {
		err = errors.Join(err, os.Symlink("..data/orphan", filepath.Join(target, "orphan")))
	}
	if rand.IntN(2) == 0 {
		err = errors.Join(err, os.Symlink(name, filepath.Join(target, dataLinkFresh)))
	}
	if err != nil {
		t.Errorf("leave trash: %v", err)
	}
}
