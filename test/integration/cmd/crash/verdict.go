package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// verdict is what came out of it.
type verdict struct {
	volumes   int // that were shown to a pod
	checks    int // logins with their files that worked
	requests  int
	struck    int // requests that a kill struck in flight
	unclaimed int
	late      int64
	lapsed    int // what had run out before it was replaced
	leaked    []string
	early     []string
	reissued  []string
	troubles  []string
}

func (v verdict) error() error {
	var errs []error
	add := func(what string, lines []string) {
		const most = 10
		if len(lines) > 0 {
			shown := lines[:min(len(lines), most)]
			errs = append(errs, fmt.Errorf("%s (%d):\n\t%s", what, len(lines), strings.Join(shown, "\n\t")))
		}
	}
	add("leaked", v.leaked)
	add("reissued", v.reissued)
	add("tokens used before the journal had them", v.early)
	add("trouble", v.troubles)
	if v.unclaimed > v.struck {
		errs = append(errs, fmt.Errorf("%d unclaimed, but kills struck %d requests only", v.unclaimed, v.struck))
	}
	if v.checks == 0 || v.struck == 0 {
		errs = append(errs, fmt.Errorf("%d logins with files, %d requests struck: this has shown nothing", v.checks, v.struck))
	}
	return errors.Join(errs...)
}

const (
	settleLimit = 60 * time.Second
	slack       = time.Second // Vault counts in whole seconds

	// giveBackWithin is how long after its pod's end a token may wait to be given back, with kills in between.
	giveBackWithin = 5 * time.Second
)

// judge ends the short-lived pods, half of them while there is no provider, lets a last provider set things right, and
// looks at what is left.
func (s *scene) judge(ctx context.Context) (verdict, error) {
	s.calm()
	// The short-lived pods end now, and nobody is there to see it.
	if err := s.until(ctx, "the short-lived pods end", func() error {
		if alive := len(s.alive()); alive > longLived*len(roles) {
			return fmt.Errorf("%d volumes live", alive)
		}
		return nil
	}); err != nil {
		return verdict{}, err
	}
	var v verdict
	var err error
	if s.provider, err = s.bed.StartProvider(ctx, s.options); err != nil {
		return v, err
	}
	settled := s.until(ctx, "settle", func() error { return s.settled(ctx) })
	// All that lives has to be renewed by then; what was not, has ended.
	if err := s.until(ctx, "wait", func() error {
		if left := leaseTTL + 2*time.Second - time.Since(s.lastKill); left > 0 {
			return fmt.Errorf("%v more", left)
		}
		return nil
	}); err != nil {
		return v, err
	}
	for _, vol := range s.alive() {
		if err := errors.Join(s.check(ctx, vol), tidy(vol.bed.Path)); err != nil {
			v.troubles = append(v.troubles, fmt.Sprintf("%s in the end: %v", vol.key, err))
		}
		if _, err := vol.bed.Mount(ctx); err != nil {
			v.troubles = append(v.troubles, fmt.Sprintf("%s in the end: %v", vol.key, err))
		}
	}
	if settled != nil {
		v.leaked = append(v.leaked, settled.Error())
	}
	text, err := readJournal(s.journal)
	if err != nil {
		return v, err
	}
	s.log.sees(text)
	s.count(&v)
	return v, nil
}

// until waits for a condition, within settleLimit.
func (s *scene) until(ctx context.Context, what string, ready func() error) error {
	deadline := time.Now().Add(settleLimit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, settleLimit, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// alive returns the volumes whose pods live.
func (s *scene) alive() (living []*volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.volumes {
		v.mu.Lock()
		if v.ended.IsZero() {
			living = append(living, v)
		}
		v.mu.Unlock()
	}
	return living
}

// settled returns what is left in Vault, in PostgreSQL and in the journal of pods that have ended, or nil.
func (s *scene) settled(ctx context.Context) error {
	leases, err := s.vault.Leases(ctx, "database/creds")
	if err != nil {
		return err
	}
	accessors, err := s.vault.Tokens(ctx)
	if err != nil {
		return err
	}
	users, err := s.postgres.Roles(ctx)
	if err != nil {
		return err
	}
	living := make(map[string]bool)
	for _, v := range s.alive() {
		living[v.key] = true
	}
	var left []string
	s.log.mu.Lock()
	for _, lease := range leases {
		if e := s.log.leases[lease]; e == nil || !living[e.volume] {
			left = append(left, fmt.Sprintf("lease %s, %v", lease, e))
		}
	}
	for _, e := range s.log.logins {
		if slices.Contains(accessors, e.accessor) && !living[e.volume] {
			left = append(left, e.String())
		}
	}
	s.log.mu.Unlock()
	if len(users) > len(leases) {
		left = append(left, fmt.Sprintf("%d users of PostgreSQL for %d leases", len(users), len(leases)))
	}
	files, err := os.ReadDir(s.journal)
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(s.journal, f.Name()))
		if err != nil {
			continue
		}
		uid := func(v *volume) string { return strings.Split(v.key, "/")[0] }
		if !slices.ContainsFunc(s.alive(), func(v *volume) bool { return strings.Contains(string(text), uid(v)) }) {
			left = append(left, "journal file "+f.Name()+" of no live pod")
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%d left, of pods that have ended: %s", len(left), strings.Join(left[:min(len(left), 5)], "; "))
	}
	return nil
}

// count goes through all that Vault has given.
func (s *scene) count(v *verdict) {
	s.mu.Lock()
	v.troubles = append(v.troubles, s.troubles...)
	all := slices.Clone(s.volumes)
	s.mu.Unlock()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	v.requests, v.early, v.late = s.log.total, s.log.early, s.late.Load()
	for _, e := range slices.Concat(s.log.logins, s.log.reads) {
		login := e
		if e.login != nil {
			login = e.login
		}
		if e.struck {
			v.struck++
		}
		switch {
		case e.known, login.revoked: // somebody has it, or it is gone
		case e.struck:
			v.unclaimed++
		default:
			v.leaked = append(v.leaked, "nobody knows of "+e.String())
			s.blame(e.volume)
		}
	}
	for _, vol := range all {
		vol.mu.Lock()
		if vol.shown {
			v.volumes++
		}
		v.checks += vol.checks
		vol.mu.Unlock()
		found := len(v.leaked) + len(v.reissued)
		logins, reads := s.log.of(vol.key)
		for _, e := range logins {
			// Without anybody's doing it ends by itself: that it has is not enough.
			if e.known && !e.revoked && !vol.ended.IsZero() && e.end.After(vol.ended.Add(giveBackWithin)) {
				v.leaked = append(v.leaked, fmt.Sprintf("never given back, pod ended %s, token ended %s: %v",
					vol.ended.Format("15:04:05.000"), e.end.Format("15:04:05.000"), e))
			}
		}
		v.again(logins, tokenMax-tokenTTL-slack)
		v.again(reads, leaseMax-leaseTTL-slack)
		if len(v.leaked)+len(v.reissued) > found {
			s.blame(vol.key)
		}
	}
}

// again adds the entries of one volume that had no reason: it had one that somebody knew of, and had it for less than
// enough. A new token is a reason for new leases; whether it had one is judged by itself. One that had run out by then is a
// reason too: then kills came too fast to renew it.
func (v *verdict) again(entries []*entry, enough time.Duration) {
	var before *entry
	for _, e := range entries {
		switch {
		case before == nil, e.arrived.Sub(before.answered) >= enough, before.login != e.login:
		case e.arrived.After(before.end):
			v.lapsed++
		default:
			v.reissued = append(v.reissued, fmt.Sprintf("%v; %v before there was %v", e,
				e.arrived.Sub(before.answered).Round(time.Millisecond), before))
		}
		if e.known {
			before = e
		}
	}
}
