package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	longestLife = 2 * time.Second // of an instance, when what it is to be killed at does not happen

	// Now and then an instance lives for longer: for a second after its start it leaves alone what the driver may be about
	// to write, so what lives shorter never replaces anything. After soundAfter nothing has an excuse any more. Most of what
	// it is given comes so long before its end that no kill is an excuse for not knowing of it.
	calmEvery  = 15 // instances
	calmLife   = 4 * time.Second
	soundAfter = 3 * time.Second
)

// killAll launches the provider and kills it, again and again. In the end nobody runs.
func (s *scene) killAll(ctx context.Context, kills int) error {
	for n := range kills {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.launch(ctx); err != nil {
			return err
		}
		life := longestLife
		kind, fire := s.moment()
		if n%calmEvery == calmEvery-1 {
			life, fire = calmLife, nil
		}
		limit := time.NewTimer(life)
		select {
		case <-fire:
			s.steps[kind]++
		case <-limit.C:
		case <-s.provider.Ended():
			log, _ := s.provider.Log()
			return fmt.Errorf("the provider ended by itself, after %d kills:\n%s", n, log)
		case <-ctx.Done():
		}
		limit.Stop()
		at := kill{from: time.Now()}
		s.launched.Store(0)
		s.provider.Kill()
		at.to = time.Now()
		s.lastKill = at.from
		text, err := readJournal(s.journal)
		if err != nil {
			return err
		}
		s.log.killed(at, text)
		if (n+1)%50 == 0 {
			fmt.Fprintf(os.Stderr, "crash: %d kills of %d\n", n+1, kills)
		}
	}
	return nil
}

// launch starts the provider, and sees the journal from then on.
func (s *scene) launch(ctx context.Context) (err error) {
	s.provider, err = s.bed.LaunchProvider(ctx, s.options)
	if err != nil {
		return err
	}
	s.launched.Store(time.Now().UnixNano())
	if _, err := os.Stat(s.journal); err == nil {
		return s.watch.add(journal, s.journal)
	}
	return nil
}

// moment returns what fires at a random moment of an instance's life, and the kind of the moment.
func (s *scene) moment() (kind string, fire <-chan struct{}) {
	n := 1 + s.random.IntN(6)
	switch s.random.IntN(10) {
	case 0, 1: // any request
		return request, s.trigger.set(request, "", 1+s.random.IntN(12))
	case 2: // one that makes something
		return request, s.trigger.set(request, []string{"login", "creds"}[s.random.IntN(2)], 1+s.random.IntN(3))
	case 3:
		return answer, s.trigger.set(answer, []string{"", "login", "creds", "revoke", "renew"}[s.random.IntN(5)], 1+s.random.IntN(3))
	case 4, 5:
		return volumes, s.trigger.set(volumes, "", n)
	case 6:
		return journal, s.trigger.set(journal, "", n)
	default:
		limit := []time.Duration{100, 300, 700, 2000}[s.random.IntN(4)] * time.Millisecond
		fire := make(chan struct{})
		time.AfterFunc(time.Duration(s.random.Int64N(int64(limit))), func() { close(fire) })
		return anytime, fire
	}
}

// sound tells whether an instance has lived so long that nothing has an excuse any more.
func (s *scene) sound() bool {
	at := s.launched.Load()
	return at != 0 && time.Since(time.Unix(0, at)) > soundAfter
}

// readJournal returns the text of all records of the journal. One that was being written when the provider died is none: it
// has another name until it is whole, and the next instance removes it.
func readJournal(dir string) (string, error) {
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".json" {
			return gone(err)
		}
		file, err := os.ReadFile(path)
		text.Write(file)
		return gone(err)
	})
	return text.String(), err
}

// gone makes no error of a file that is not there any more.
func gone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
