package main

import (
	"strings"
	"testing"
	"time"
)

var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return midnight.Add(time.Duration(ms) * time.Millisecond) }

// kills are kills at these times; the provider is dead 10 ms later.
func kills(times ...int) (all []kill) {
	for _, ms := range times {
		all = append(all, kill{at(ms), at(ms + 10)})
	}
	return all
}

// asked is an entry that nobody knows of; it was not answered if answered is 0.
func asked(volume string, arrived, answered int) *entry {
	e := &entry{volume: volume, arrived: at(arrived)}
	if answered > 0 {
		e.answered = at(answered)
	}
	return e
}

func known(e *entry) *entry { e.known = true; return e }

// orphan makes it one whose sender was dead when it arrived.
func orphan(e *entry) *entry { e.orphan = true; return e }

// under makes it a read with the token of login, which was given back in the end.
func under(login, e *entry) *entry {
	login.revoked = true
	e.login = login
	return e
}

// What a kill excuses, and what not: each history has so many that are unclaimed, and so many that have leaked.
func TestUnknownAnswersNeedAKillEach(t *testing.T) {
	login := known(asked("a", 50, 60))
	for name, row := range map[string]struct {
		kills             []kill
		logins, reads     []*entry
		ended             int // of the pod of a; 0: it lives
		unclaimed, leaked int
	}{
		"known": {
			kills: kills(1000), reads: []*entry{known(asked("a", 100, 200))},
		},
		"in flight at the kill": {
			kills: kills(1000), reads: []*entry{asked("a", 990, 1100)}, unclaimed: 1,
		},
		"in flight at the kill, for long": {
			kills: kills(1000, 2000), reads: []*entry{asked("a", 100, 5000)}, unclaimed: 1,
		},
		"never answered": {
			kills: kills(1000), reads: []*entry{asked("a", 100, 0)}, unclaimed: 1,
		},
		"answered while its sender died": {
			kills: kills(1000), reads: []*entry{asked("a", 900, 1005)}, unclaimed: 1,
		},
		"answered just before the kill": {
			kills: kills(1000), logins: []*entry{asked("a", 500, 501)}, unclaimed: 1,
		},
		"login answered long before the kill": {
			kills: kills(1000), logins: []*entry{asked("a", 490, 500)}, leaked: 1,
		},
		"read answered long before the kill": {
			kills: kills(1000), reads: []*entry{asked("a", 490, 500)}, leaked: 1,
		},
		"the kill of an instance before is no excuse": {
			kills: kills(1000, 3000), reads: []*entry{asked("a", 1100, 1200)}, leaked: 1,
		},
		"the kill of an instance later is no excuse": {
			kills: kills(1000, 1100), reads: []*entry{asked("a", 400, 500)}, leaked: 1,
		},
		"no kill after it": {
			kills: kills(1000), reads: []*entry{asked("a", 1100, 1200)}, leaked: 1,
		},
		"no kill at all": {
			reads: []*entry{asked("a", 100, 200)}, leaked: 1,
		},
		"two of one volume by one kill": {
			kills: kills(1000), reads: []*entry{asked("a", 700, 800), asked("a", 850, 0)}, unclaimed: 1, leaked: 1,
		},
		"a login and a read by one kill": {
			kills: kills(1000), logins: []*entry{asked("a", 700, 800)}, reads: []*entry{asked("a", 850, 900)}, unclaimed: 1, leaked: 1,
		},
		"one each of two volumes by one kill": {
			kills: kills(1000), reads: []*entry{asked("a", 900, 950), asked("b", 900, 950)}, unclaimed: 2,
		},
		"two of one volume by two kills": {
			kills: kills(1000, 1300), reads: []*entry{asked("a", 900, 950), asked("a", 1200, 1250)}, unclaimed: 2,
		},
		"three of one volume by two kills": {
			kills: kills(1000, 1300), reads: []*entry{asked("a", 900, 950), asked("a", 1200, 1250), asked("a", 1260, 1270)},
			unclaimed: 2, leaked: 1,
		},
		"two of one volume by a kill, and one by the next": {
			kills: kills(1000, 1300), reads: []*entry{asked("a", 900, 950), asked("a", 960, 970), asked("a", 1200, 1250)},
			unclaimed: 2, leaked: 1,
		},
		"a dead sender's": {
			kills: kills(1000), reads: []*entry{orphan(asked("a", 1020, 1100))}, unclaimed: 1,
		},
		"a dead sender's, long after": {
			kills: kills(1000), reads: []*entry{orphan(asked("a", 9000, 9100))}, unclaimed: 1,
		},
		"a dead sender's, and no kill before it": {
			kills: kills(1000), reads: []*entry{orphan(asked("a", 800, 900))}, leaked: 1,
		},
		"two dead senders' after one kill": {
			kills: kills(1000), reads: []*entry{orphan(asked("a", 1020, 1100)), orphan(asked("a", 1030, 1100))}, unclaimed: 1, leaked: 1,
		},
		"two dead senders' after two kills, at once": {
			kills: kills(1000, 1200), reads: []*entry{orphan(asked("a", 1220, 1300)), orphan(asked("a", 1230, 1300))}, unclaimed: 2,
		},
		"two dead senders' after two kills, the first long before": {
			kills: kills(1000, 3000), reads: []*entry{orphan(asked("a", 3020, 3100)), orphan(asked("a", 3030, 3100))}, unclaimed: 1, leaked: 1,
		},
		"a dead sender's, and one of the instance killed last": {
			kills: kills(1000, 1200), reads: []*entry{orphan(asked("a", 1220, 1300)), asked("a", 1150, 1250)}, unclaimed: 2,
		},
		"under a token that was given back": {
			kills: kills(1000), logins: []*entry{login}, reads: []*entry{under(login, asked("a", 100, 200))}, leaked: 1,
		},
		"under one that was given back since its pod had ended": {
			kills: kills(1000), logins: []*entry{login}, reads: []*entry{under(login, asked("a", 100, 200))}, ended: 900,
		},
		"under one whose pod ended long after the kill": {
			kills: kills(1000), logins: []*entry{login}, reads: []*entry{under(login, asked("a", 100, 200))}, ended: 3000, leaked: 1,
		},
		"under one that another had replaced": {
			kills: kills(1000), logins: []*entry{login, known(asked("a", 300, 310))}, reads: []*entry{under(login, asked("a", 100, 200))},
		},
		"under one that another replaced after the kill": {
			kills: kills(1000), logins: []*entry{login, known(asked("a", 1300, 1310))}, reads: []*entry{under(login, asked("a", 100, 200))},
			leaked: 1,
		},
		"under one that was given back before anybody looked": {
			kills: kills(10), logins: []*entry{login}, reads: []*entry{under(login, asked("a", 100, 200))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := newRecorder(1, &trigger{}, nil)
			log.kills, log.logins, log.reads = row.kills, row.logins, row.reads
			a := &volume{key: "a"}
			if row.ended > 0 {
				a.ended = at(row.ended)
			}
			s := &scene{log: log, volumes: []*volume{a, {key: "b"}}}
			var v verdict
			s.count(&v)
			if v.unclaimed != row.unclaimed || len(v.leaked) != row.leaked || len(v.reissued) > 0 {
				t.Errorf("got %d unclaimed, leaked %q, reissued %q; want %d unclaimed, %d leaked", v.unclaimed, v.leaked, v.reissued,
					row.unclaimed, row.leaked)
			}
			v.checks, v.owed, v.struck = 100, 1, 1 // so that it has shown something
			if err := v.error(1); (err != nil) != (row.leaked > 0) {
				t.Errorf("error = %v", err)
			}
		})
	}
}

// A run in which nothing could have gone wrong says nothing.
func TestARunHasToShowSomething(t *testing.T) {
	both := map[string]int{volumes: 1, journal: 1}
	for _, row := range []struct {
		verdict verdict
		want    string // in the error; "" for none
	}{
		{verdict{checks: 1, owed: 1, struck: 1, steps: both}, ""},
		{verdict{owed: 1, struck: 1, steps: both}, "shown nothing"},
		{verdict{checks: 1, struck: 1, steps: both}, "shown nothing"},
		{verdict{checks: 1, owed: 1, steps: both}, "shown nothing"},
		{verdict{checks: 1, owed: 1, struck: 1, steps: map[string]int{volumes: 1}}, "0 into the journal"},
		{verdict{checks: 1, owed: 1, struck: 1, steps: map[string]int{journal: 1}}, "0 kills between the steps of a write into a volume"},
		{verdict{checks: 100, owed: 1, struck: 1, steps: both, late: 3, lapsed: 2}, ""},
		{verdict{checks: 100, owed: 1, struck: 1, steps: both, late: 3, lapsed: 3}, "too late for kills"},
	} {
		err := row.verdict.error(usualKills)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%+v: error = %v, want %q", row.verdict, err, row.want)
		}
	}
	if err := (verdict{checks: 1, owed: 1, struck: 1}).error(usualKills - 1); err != nil {
		t.Errorf("a short run: error = %v", err)
	}
}

// Only answers that a kill came long after had to be known.
func TestAnswersThatHadToBeKnown(t *testing.T) {
	log := newRecorder(1, &trigger{}, nil)
	log.kills = kills(1000)
	log.reads = []*entry{known(asked("a", 100, 200)), known(asked("a", 700, 800)), known(asked("a", 1200, 1300))}
	var v verdict
	(&scene{log: log}).count(&v)
	if v.owed != 1 || v.struck != 0 {
		t.Errorf("got %d that had to be known and %d struck, want 1 and 0", v.owed, v.struck)
	}
}

func TestARunHasItsTime(t *testing.T) {
	for _, row := range []struct {
		kills int
		took  time.Duration
		fails bool
	}{
		{usualKills, longestRun, false},
		{usualKills, longestRun + time.Second, true},
		{1, longestRun + time.Second, true},
		{usualKills + 1, longestRun + time.Second, false},
	} {
		if err := inTime(row.kills, row.took); (err != nil) != row.fails {
			t.Errorf("%d kills in %v: %v", row.kills, row.took, err)
		}
	}
}
