package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/podwatch/podwatchtest"
	"leasehold/test/integration/bed"
)

const (
	places     = 18 // for pods that come and go
	longLived  = 8  // pods that live to the end
	longestPod = 30 * time.Second
	mountLimit = 2 * time.Minute  // kubelet's
	startLimit = 30 * time.Second // for a volume's first mount, over all of kubelet's tries
)

// volume is a volume of a pod.
type volume struct {
	key    string
	bed    *bed.Volume
	broken bool // one of its sources does not exist: it is never mounted

	mu     sync.Mutex
	shown  bool      // its files have been written
	ended  time.Time // of its pod; zero: it lives
	checks int       // logins with its files that worked
}

func key(uid, role string) string { return uid + "/" + role }

// pod is one pod's life.
type pod struct {
	scene   *scene
	bed     bed.Pod
	random  *rand.Rand
	volumes []*volume
	polled  bool // the driver's rotation is on
}

// populate lets pods live until the scene says otherwise.
func (s *scene) populate(ctx context.Context) {
	var calm, settled context.Context
	calm, s.calm = context.WithCancel(ctx)
	settled, s.settle = context.WithCancel(ctx)
	for i := range longLived {
		s.living.Go(func() { s.newPod(i, 0).live(settled, 0) })
	}
	for place := range places {
		s.living.Go(func() {
			random := rand.New(rand.NewPCG(s.seed, uint64(100+place)))
			for n := 1; calm.Err() == nil; n++ {
				life := time.Duration(random.Int64N(int64(longestPod))) + time.Second/2
				s.newPod(longLived+place, n).live(calm, life)
			}
		})
	}
}

// newPod describes the n-th pod at a place.
func (s *scene) newPod(place, n int) *pod {
	random := rand.New(rand.NewPCG(s.seed, uint64(1000*(place+1)+n)))
	p := &pod{
		scene: s, random: random, polled: random.IntN(4) > 0,
		bed: bed.Pod{
			Namespace: "apps", Name: fmt.Sprintf("pod-%d-%d", place, n), ServiceAccount: "db-app",
			UID: fmt.Sprintf("%08x-%04x-4222-8333-444444444444", place, n),
		},
	}
	count := 1 + random.IntN(5)/4
	for i, role := range roles[:count] {
		path := "database/creds/" + role
		v := &volume{key: key(p.bed.UID, role), broken: n > 0 && random.IntN(10) == 0}
		objects := fmt.Sprintf("- {objectName: username, secretPath: %[1]s, secretKey: username}\n"+
			"- {objectName: password, secretPath: %[1]s, secretKey: password}\n"+
			"- {objectName: deep/word, secretPath: kv/app, secretKey: word}\n", path)
		if v.broken {
			objects += "- {objectName: nothing, secretPath: kv/nothing}\n"
		}
		v.bed = s.driver.NewVolume(p.bed, fmt.Sprintf("volume-%d", i), map[string]string{
			"roleName": role, "objects": objects, "revokeGrace": revokeGrace.String(),
		})
		v.bed.Tmpfs = true
		p.volumes = append(p.volumes, v)
	}
	s.mu.Lock()
	s.volumes = append(s.volumes, p.volumes...)
	s.mu.Unlock()
	return p
}

// live is a pod from its start to its end, which comes with ctx or after its life, if that is not 0.
func (p *pod) live(ctx context.Context, life time.Duration) {
	s := p.scene
	s.api.SetPod(podwatchtest.Pod{
		Namespace: p.bed.Namespace, Name: p.bed.Name, UID: p.bed.UID, Node: node, ServiceAccount: p.bed.ServiceAccount,
	})
	if life > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, life)
		defer cancel()
	}
	var work sync.WaitGroup
	for _, v := range p.volumes {
		random := rand.New(rand.NewPCG(p.random.Uint64(), 2))
		work.Go(func() { p.keep(ctx, v, random) })
	}
	work.Wait()
	p.end()
}

// keep mounts a volume as kubelet does, polls it as the driver does, and uses it as an application does.
func (p *pod) keep(ctx context.Context, v *volume, random *rand.Rand) {
	s := p.scene
	if err := v.bed.Prepare(); err != nil {
		s.trouble(v, err)
		return
	}
	if err := s.watch.add(volumes, v.bed.Path); err != nil {
		s.trouble(v, err)
		return
	}
	began := time.Now()
	for !p.mount(ctx, v) {
		if !rest(ctx, random, 100*time.Millisecond, 400*time.Millisecond) {
			return
		}
		if !v.broken && time.Since(began) > startLimit {
			s.trouble(v, fmt.Errorf("stuck: not mounted within %v", startLimit))
			return
		}
	}
	for rest(ctx, random, 300*time.Millisecond, 2*time.Second) {
		sound := s.sound()
		if err := s.check(ctx, v); err != nil && ctx.Err() == nil {
			if errors.Is(err, errOver) && !(sound && s.sound()) {
				s.late.Add(1)
			} else {
				s.trouble(v, err)
			}
		}
		if p.polled && random.IntN(2) == 0 {
			p.mount(ctx, v) // the driver masks the errors of a poll
		}
	}
}

// mount is one Mount call. It tells whether the volume shows its files.
func (p *pod) mount(ctx context.Context, v *volume) bool {
	ctx, cancel := context.WithTimeout(ctx, mountLimit)
	defer cancel()
	if _, err := v.bed.Mount(ctx); err != nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shown = true
	return true
}

// rest waits for a random time, and tells whether ctx still lives.
func rest(ctx context.Context, random *rand.Rand, least, most time.Duration) bool {
	timer := time.NewTimer(least + time.Duration(random.Int64N(int64(most-least))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// end ends the pod in one of the ways in which pods end, and removes its volumes.
func (p *pod) end() {
	s := p.scene
	switch p.random.IntN(3) {
	case 0: // as a Job does
		s.api.SetPhase(p.bed.Namespace, p.bed.Name, corev1.PodSucceeded)
	case 1: // deleted with a grace period
		s.api.SetPhase(p.bed.Namespace, p.bed.Name, corev1.PodFailed)
		s.api.DeletePod(p.bed.Namespace, p.bed.Name)
	case 2: // deleted by force, or while nobody watched
		s.api.DeletePod(p.bed.Namespace, p.bed.Name)
	}
	now := time.Now()
	for _, v := range p.volumes {
		v.mu.Lock()
		v.ended = now
		v.mu.Unlock()
		if err := v.bed.Unmount(); err != nil {
			s.trouble(v, err)
		}
	}
	s.api.DeletePod(p.bed.Namespace, p.bed.Name)
}

// errOver is an error of credentials that had come to their end: kills may have come too fast to renew them. Nothing else has
// an excuse: whoever dies at whatever step, the files are whole, and go together.
var errOver = errors.New("they had come to their end")

// check reads a volume's files as one set and logs in with them.
func (s *scene) check(ctx context.Context, v *volume) error {
	user, password, err := credentials(v.bed.Path)
	if err != nil {
		return fmt.Errorf("read the files: %w", err)
	}
	s.log.shows(user)
	if err := s.postgres.Login(ctx, user, password); err != nil {
		if end, found := s.log.endOf(user); found && time.Now().After(end.Add(-slack)) {
			err = fmt.Errorf("%w: %w", errOver, err)
		}
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.checks++
	return nil
}

// credentials reads user and password through one look at the link ..data, so that they are of one set. The set may be
// removed in between; then there is a newer one.
func credentials(dir string) (user, password string, err error) {
	for range 3 {
		var set string
		if set, err = os.Readlink(filepath.Join(dir, "..data")); err != nil {
			continue
		}
		u, err1 := os.ReadFile(filepath.Join(dir, set, "username"))
		p, err2 := os.ReadFile(filepath.Join(dir, set, "password"))
		w, err3 := os.ReadFile(filepath.Join(dir, set, "deep", "word"))
		if err = errors.Join(err1, err2, err3); err == nil && string(w) != "xyzzy" {
			err = errors.New("deep/word: not what is in Vault")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return string(u), string(p), err
		}
	}
	return "", "", err
}

// tidy fails unless the volume holds its files, their links and one set, and nothing that a writer has left behind.
func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	set, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"..data", set, "deep", "password", "username"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		return fmt.Errorf("got %s in the volume, want %s", strings.Join(names, " "), strings.Join(want, " "))
	}
	for _, name := range []string{"username", "password", "deep/word"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
