package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// verdict is what came out of it.
type verdict struct {
	volumes   int // that were shown to a pod
	checks    int // logins with their files that worked
	requests  int
	owed      int // answers that came so long before a kill that they had to be known
	struck    int // requests that a kill struck in flight
	unclaimed int // of these, those that have a kill to themselves
	lapsed    int // what had run out before it was replaced
	late      int // logins with that
	leaked    []string
	early     []string
	reissued  []string
	troubles  []string
	steps     map[string]int // :: kind of moment -> kills at one
}

// error returns what is not as it must be, after so many kills.
func (v verdict) error(kills int) error {
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
	if v.checks == 0 || v.owed == 0 || v.struck == 0 {
		errs = append(errs, fmt.Errorf("%d logins with files, %d answers that had to be known, %d requests struck: this has shown nothing",
			v.checks, v.owed, v.struck))
	}
	// At each of these some 10 of 100 kills aim.
	if kills >= usualKills && (v.steps[volumes] == 0 || v.steps[journal] == 0) {
		errs = append(errs, fmt.Errorf("%d kills between the steps of a write into a volume, %d into the journal: nothing is known of these",
			v.steps[volumes], v.steps[journal]))
	}
	// Now and then kills come too fast to renew in time. Were it no exception, it could as well be that nothing is renewed.
	if most := v.checks / 20; v.late+v.lapsed > most {
		errs = append(errs, fmt.Errorf("too late for kills: %d logins, %d renewals; at %d logins that worked %d may be",
			v.late, v.lapsed, v.checks, most))
	}
	return errors.Join(errs...)
}

const (
	settleLimit = 60 * time.Second
	slack       = time.Second // Vault counts in whole seconds

	// giveBackWithin is how long after its pod's end a token may wait to be given back, with kills in between.
	giveBackWithin = 5 * time.Second

	// onItsWay is how long after Vault's answer a request still counts as in flight. The provider does nothing in between
	// but parse the answer and write one small file in memory: a few milliseconds, and some hundred when the machine is
	// busy. It is an eighth of a calm instance's life, so what is forgotten shows. What a dead sender had sent may come as
	// long after its death.
	onItsWay = 500 * time.Millisecond
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
	var left []string
	settled := s.until(ctx, "settle", func() (err error) {
		if left, err = s.left(ctx); err == nil && len(left) > 0 {
			err = fmt.Errorf("%d are left of pods that have ended", len(left))
		}
		return err
	})
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
	v.leaked = append(v.leaked, left...)
	if settled != nil {
		v.troubles = append(v.troubles, settled.Error())
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

// left returns what is left in Vault, in PostgreSQL and in the journal of pods that have ended.
func (s *scene) left(ctx context.Context) (left []string, err error) {
	leases, err := s.vault.Leases(ctx, "database/creds")
	if err != nil {
		return nil, err
	}
	accessors, err := s.vault.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	users, err := s.postgres.Roles(ctx)
	if err != nil {
		return nil, err
	}
	living := make(map[string]bool)
	for _, v := range s.alive() {
		living[v.key] = true
	}
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
		return nil, err
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
	return left, nil
}

// striker returns the number of the kill that ended the sender of a request, if it lived when the request arrived.
func (e *entry) striker(kills []kill) (n int, found bool) {
	n = sort.Search(len(kills), func(i int) bool { return kills[i].to.After(e.arrived) })
	return n, n < len(kills) && !e.orphan
}

// excuses returns which kills may be why nobody knows of an answer: those from first on, and before end. A living sender's
// is its own kill, if that came before the answer or soon after. Of a dead sender we do not know which one it was: the last
// one before the request came, or one from a moment before.
func (e *entry) excuses(kills []kill) (first, end int) {
	if e.orphan {
		end = sort.Search(len(kills), func(i int) bool { return kills[i].from.After(e.arrived) })
		first = sort.Search(len(kills), func(i int) bool { return kills[i].to.After(e.arrived.Add(-onItsWay)) })
		return max(min(first, end-1), 0), end
	}
	n, found := e.striker(kills)
	if !found || !e.answered.IsZero() && !kills[n].from.Before(e.answered.Add(onItsWay)) {
		return 0, 0
	}
	return n, n + 1
}

// surplus returns those of one volume's unknown answers that are more than kills can excuse. A kill excuses one: a volume
// here has one source of credentials, and reads nothing while it logs in.
func surplus(unknown []*entry, kills []kill) (more []*entry) {
	last := func(e *entry) int { _, end := e.excuses(kills); return end }
	// Who must take an early kill chooses first, and takes the earliest: no other choice serves more of them.
	unknown = slices.SortedStableFunc(slices.Values(unknown), func(a, b *entry) int { return cmp.Compare(last(a), last(b)) })
	taken := make(map[int]bool)
	for _, e := range unknown {
		n, end := e.excuses(kills)
		for n < end && taken[n] {
			n++
		}
		if n < end {
			taken[n] = true
		} else {
			more = append(more, e)
		}
	}
	return more
}

// parted tells whether the journal of the kill after a read has no place for its lease any more, because its token was to
// be given back by then, and was: its pod had ended, or another login had taken its place. After the last kill nobody has
// looked before the token was gone.
func (e *entry) parted(kills []kill, ended time.Time, logins []*entry) bool {
	if e.login == nil || !e.login.revoked || e.orphan {
		return false
	}
	n, found := e.striker(kills)
	if !found {
		return true
	}
	by := kills[n].to
	if !ended.IsZero() && ended.Before(by.Add(slack)) { // the provider may know it before we have noted when
		return true
	}
	return slices.ContainsFunc(logins, func(l *entry) bool { return l.known && l.arrived.After(e.arrived) && l.arrived.Before(by) })
}

// count goes through all that Vault has given.
func (s *scene) count(v *verdict) {
	s.mu.Lock()
	v.troubles = append(v.troubles, s.troubles...)
	all := slices.Clone(s.volumes)
	s.mu.Unlock()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	v.requests, v.early, v.steps, v.late = s.log.total, s.log.early, s.steps, int(s.late.Load())
	ended := make(map[string]time.Time) // :: volume -> its pod's end
	for _, vol := range all {
		vol.mu.Lock()
		ended[vol.key] = vol.ended
		vol.mu.Unlock()
	}
	struck := make(map[string][]*entry) // :: volume -> unknown answers that kills may excuse
	leak := func(e *entry, why string) {
		v.leaked = append(v.leaked, "nobody knows of "+e.String()+why)
		s.blame(e.volume)
	}
	for _, e := range slices.Concat(s.log.logins, s.log.reads) {
		first, end := e.excuses(s.log.kills)
		if _, found := e.striker(s.log.kills); found && first == end {
			v.owed++
		}
		if e.known {
			continue
		}
		logins, _ := s.log.of(e.volume)
		switch {
		case e.parted(s.log.kills, ended[e.volume], logins):
		case first == end:
			leak(e, "")
		default:
			v.struck++
			struck[e.volume] = append(struck[e.volume], e)
		}
	}
	for _, volume := range slices.Sorted(maps.Keys(struck)) {
		more := surplus(struck[volume], s.log.kills)
		v.unclaimed += len(struck[volume]) - len(more)
		for _, e := range more {
			leak(e, ", and another request of the volume has the kill for its excuse")
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
