package lease

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The policy: each row of it.
func TestNext(t *testing.T) {
	const never = -1
	usual := spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.5}
	for name, row := range map[string]struct {
		term   term
		life   func(*spec.Lifecycle)
		action Action
		after  time.Duration // the term's start
	}{
		"lease":                        {term: term{Kind: kindLease, End: hours(1), Renewable: true}, action: Renew, after: 30 * time.Minute},
		"lease, spread":                {term: term{Kind: kindLease, End: hours(1), Renewable: true, Early: 1}, action: Renew, after: 27 * time.Minute},
		"lease, half spread":           {term: term{Kind: kindLease, End: hours(1), Renewable: true, Early: 0.5}, action: Renew, after: 28*time.Minute + 30*time.Second},
		"lease, renewed late":          {term: term{Kind: kindLease, End: hours(1), Renewable: true}, life: renewAt(0.9), action: Renew, after: 54 * time.Minute},
		"lease of seconds":             {term: term{Kind: kindLease, End: began.Add(3 * time.Second), Renewable: true}, action: Renew, after: 1500 * time.Millisecond},
		"lease that is not renewable":  {term: term{Kind: kindLease, End: hours(1)}, action: Replace, after: 30 * time.Minute},
		"lease whose renewal is short": {term: term{Kind: kindLease, End: hours(1), Renewable: true, Short: true}, action: Replace},
		"short and not renewable":      {term: term{Kind: kindLease, End: hours(1), Short: true}, action: Replace},
		"lost lease":                   {term: term{Kind: kindLease, End: hours(1), Renewable: true, Lost: true}, action: Replace},
		"lost and short lease":         {term: term{Kind: kindLease, End: hours(1), Renewable: true, Lost: true, Short: true}, action: Replace},
		"token":                        {term: term{Kind: kindToken, End: hours(1), Renewable: true}, action: Renew, after: 30 * time.Minute},
		"token that is not renewable":  {term: term{Kind: kindToken, End: hours(1)}, action: Replace, after: 30 * time.Minute},
		"token near its max TTL":       {term: term{Kind: kindToken, End: hours(1), Renewable: true, Short: true}, action: Replace},
		"token without end":            {term: term{Kind: kindToken, Renewable: true}, after: never},
		"root's token":                 {term: term{Kind: kindToken}, after: never},
		"lost token without end":       {term: term{Kind: kindToken, Lost: true}, action: Replace},
		"certificate":                  {term: term{Kind: kindCertificate, End: hours(30)}, action: Replace, after: 15 * time.Hour},
		"certificate, spread":          {term: term{Kind: kindCertificate, End: hours(30), Early: 1}, action: Replace, after: 13*time.Hour + 30*time.Minute},
		"static role":                  {term: term{Kind: kindStatic, End: hours(1)}, action: Replace, after: time.Hour},
		"static role, never early":     {term: term{Kind: kindStatic, End: hours(1), Early: 1}, action: Replace, after: time.Hour},
		"static role, refresh off":     {term: term{Kind: kindStatic, End: hours(1)}, life: refresh(0), action: Replace, after: time.Hour},
		"static role, to be looked at": {term: term{Kind: kindStatic, End: hours(1), Look: time.Second}, action: Replace, after: time.Second},
		"static role, look comes late": {term: term{Kind: kindStatic, End: hours(1), Look: 2 * time.Hour}, action: Replace, after: time.Hour},
		"schedule":                     {term: term{Kind: kindStatic, End: hours(1), Scheduled: true}, action: Replace, after: 5 * time.Minute},
		"schedule, time comes sooner":  {term: term{Kind: kindStatic, End: began.Add(time.Minute), Scheduled: true}, action: Replace, after: time.Minute},
		"schedule, refresh":            {term: term{Kind: kindStatic, End: hours(1), Scheduled: true}, life: refresh(10 * time.Minute), action: Replace, after: 10 * time.Minute},
		"schedule, refresh off":        {term: term{Kind: kindStatic, End: hours(1), Scheduled: true}, life: refresh(0), action: Replace, after: time.Hour},
		"secret":                       {term: term{Kind: kindSecret}, action: Replace, after: 5 * time.Minute},
		"secret, spread":               {term: term{Kind: kindSecret, Early: 1}, action: Replace, after: 4*time.Minute + 30*time.Second},
		"secret, renewAt is not its":   {term: term{Kind: kindSecret}, life: renewAt(0.9), action: Replace, after: 5 * time.Minute},
		"secret, refresh off":          {term: term{Kind: kindSecret}, life: refresh(0), after: never},
		"lease, refresh off":           {term: term{Kind: kindLease, End: hours(1), Renewable: true}, life: refresh(0), action: Renew, after: 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			life := usual
			if row.life != nil {
				row.life(&life)
			}
			row.term.Start = began
			action, at := row.term.next(life)
			want := began.Add(row.after)
			if row.after == never {
				want = time.Time{}
			}
			if action != row.action || !at.Equal(want) {
				t.Errorf("got %q at %v, want %q at %v", action, at, row.action, want)
			}
			if row.after == never {
				if row.term.isDue(life, began.AddDate(100, 0, 0)) {
					t.Error("it is due some day, want never")
				}
				return
			}
			if before := row.term.isDue(life, at.Add(-1)); before {
				t.Error("it is due before its time")
			}
			if due := row.term.isDue(life, at); due != (action == Replace) {
				t.Errorf("due at its time: got %v, want %v", due, action == Replace)
			}
			if end := row.term.End; !end.IsZero() && !row.term.isDue(life, end) {
				t.Error("it is over, but not due")
			}
		})
	}
}

func hours(n int) time.Time { return began.Add(time.Duration(n) * time.Hour) }

func renewAt(fraction float64) func(*spec.Lifecycle) {
	return func(l *spec.Lifecycle) { l.RenewAt = fraction }
}

func refresh(every time.Duration) func(*spec.Lifecycle) {
	return func(l *spec.Lifecycle) { l.Refresh = every }
}

func TestTermIsOverAtItsEnd(t *testing.T) {
	s := term{Kind: kindLease, Start: began, End: began.Add(3 * time.Second)}
	if s.isOver(s.End.Add(-1)) || !s.isOver(s.End) {
		t.Error("it is over before its end, or not at it")
	}
	if (term{Kind: kindToken, Start: began}).isOver(began.AddDate(100, 0, 0)) {
		t.Error("what has no end is over")
	}
}

func TestRenewedTerm(t *testing.T) {
	lease := term{Kind: kindLease, Start: began, End: hours(1), Full: time.Hour, Renewable: true}
	token := term{Kind: kindToken, Start: began, End: hours(1), Full: time.Hour, Renewable: true}
	short := token
	short.Short = true
	now := began.Add(40 * time.Minute)
	for name, row := range map[string]struct {
		old    term
		answer client.Renewal
		end    time.Duration // from now; -1: never
		short  bool
		action Action
	}{
		"lease, as long as before":    {old: lease, answer: client.Renewal{Duration: time.Hour, Renewable: true}, end: time.Hour, action: Renew},
		"a second less by rounding":   {old: lease, answer: client.Renewal{Duration: time.Hour - time.Second, Renewable: true}, end: time.Hour - time.Second, action: Renew},
		"lease, shortened":            {old: lease, answer: client.Renewal{Duration: 20 * time.Minute, Renewable: true}, end: 20 * time.Minute, short: true, action: Replace},
		"lease, longer than before":   {old: lease, answer: client.Renewal{Duration: 2 * time.Hour, Renewable: true}, end: 2 * time.Hour, action: Renew},
		"lease, not renewable again":  {old: lease, answer: client.Renewal{Duration: time.Hour}, end: time.Hour, action: Replace},
		"lease, for no time":          {old: lease, answer: client.Renewal{Renewable: true}, short: true, action: Replace},
		"token, as long as before":    {old: token, answer: client.Renewal{Duration: time.Hour, Renewable: true}, end: time.Hour, action: Renew},
		"token, shortened":            {old: token, answer: client.Renewal{Duration: 8 * time.Second, Renewable: true}, end: 8 * time.Second, short: true, action: Replace},
		"token, for ever":             {old: token, answer: client.Renewal{Renewable: true}, end: -1, action: Keep},
		"short token, now as before":  {old: short, answer: client.Renewal{Duration: time.Hour, Renewable: true}, end: time.Hour, action: Renew},
		"short token, now for ever":   {old: short, answer: client.Renewal{Renewable: true}, end: -1, action: Keep},
		"token, more than it had had": {old: token, answer: client.Renewal{Duration: 2 * time.Hour, Renewable: true}, end: 2 * time.Hour, action: Renew},
	} {
		t.Run(name, func(t *testing.T) {
			got := row.old.renewed(row.answer, now)
			want := now.Add(row.end)
			if row.end < 0 {
				want = time.Time{}
			}
			if !got.End.Equal(want) || !got.Start.Equal(now) {
				t.Errorf("got %v to %v, want %v to %v", got.Start, got.End, now, want)
			}
			if row.end >= 0 && got.Short != row.short {
				t.Errorf("short: got %v, want %v", got.Short, row.short)
			}
			if got.Full != row.old.Full || got.Kind != row.old.Kind {
				t.Errorf("got %v of %s, want %v of %s", got.Full, got.Kind, row.old.Full, row.old.Kind)
			}
			if action, _ := got.next(spec.Lifecycle{RenewAt: 0.67}); action != row.action {
				t.Errorf("next: got %q, want %q", action, row.action)
			}
		})
	}
}

// A lease of three seconds is told as three, then two, seconds by a Vault that rounds down, and is no shorter for that.
func TestRenewalOfSecondsIsNotShort(t *testing.T) {
	l := term{Kind: kindLease, Start: began, End: began.Add(3 * time.Second), Full: 3 * time.Second, Renewable: true}
	if got := l.renewed(client.Renewal{Duration: 2 * time.Second, Renewable: true}, began); got.Short {
		t.Error("2 s after 3 s is short, want it taken for rounding")
	}
	if got := l.renewed(client.Renewal{Duration: time.Second, Renewable: true}, began); !got.Short {
		t.Error("1 s after 3 s is not short")
	}
}

func TestGrantTerm(t *testing.T) {
	certificate := selfSigned(t, began.Add(30*time.Hour))
	rotated := "2026-03-01T11:00:00Z"
	for name, row := range map[string]struct {
		grant     client.Grant
		kind      kind
		full      time.Duration // 0: no end
		renewable bool
	}{
		"lease":                 {client.Grant{LeaseID: "database/creds/a/1", LeaseDuration: time.Hour, Renewable: true}, kindLease, time.Hour, true},
		"lease, not renewable":  {client.Grant{LeaseID: "database/creds/a/1", LeaseDuration: time.Hour}, kindLease, time.Hour, false},
		"key-value":             {grantOf(t, map[string]any{"username": "x"}), kindSecret, 0, false},
		"key-value's duration":  {client.Grant{LeaseDuration: time.Hour, Renewable: true}, kindSecret, 0, false},
		"certificate":           {issued(grantOf(t, map[string]any{"certificate": certificate})), kindCertificate, 30 * time.Hour, false},
		"certificate that lies": {grantOf(t, map[string]any{"certificate": certificate}), kindSecret, 0, false},
		"leased certificate":    {leased(issued(grantOf(t, map[string]any{"certificate": certificate})), 3*time.Hour), kindLease, 3 * time.Hour, false},
		"text of a certificate": {issued(grantOf(t, map[string]any{"certificate": "none"})), kindSecret, 0, false},
		"static role":           {grantOf(t, map[string]any{"ttl": 60, "last_vault_rotation": rotated}), kindStatic, 61 * time.Second, false},
		"static role, overdue":  {grantOf(t, map[string]any{"ttl": 0, "last_vault_rotation": rotated}), kindStatic, time.Second, false},
		"key-value with a ttl":  {grantOf(t, map[string]any{"ttl": 60}), kindSecret, 0, false},
		"odd types":             {grantOf(t, map[string]any{"certificate": 1, "ttl": []int{1}}), kindSecret, 0, false},
		"not an object":         {client.Grant{Data: redact.NewBytes([]byte(`[]`))}, kindSecret, 0, false},
		"no data":               {client.Grant{}, kindSecret, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			row.grant.Obtained = began
			got := grantTerm(row.grant)
			end := time.Time{}
			if row.full != 0 {
				end = began.Add(row.full)
			}
			if got.Kind != row.kind || !got.End.Equal(end) || got.Full != row.full || got.Renewable != row.renewable {
				t.Errorf("got %s to %v (%v, renewable %v), want %s to %v (%v, renewable %v)",
					got.Kind, got.End, got.Full, got.Renewable, row.kind, end, row.full, row.renewable)
			}
			if !got.Start.Equal(began) || got.Early < 0 || got.Early >= 1 || got.Short || got.Lost {
				t.Errorf("got %+v, want a fresh term from %v on", got, began)
			}
		})
	}
}

// What a static role's answer is worth depends on the one before it: whether Vault has come to changing the password.
func TestFollowingTerm(t *testing.T) {
	static := func(rotated string, end time.Duration, more ...func(*term)) term {
		s := term{Kind: kindStatic, Start: began, End: began.Add(end), Full: end, Rotated: rotated}
		for _, change := range more {
			change(&s)
		}
		return s
	}
	ago := func(d time.Duration) func(*term) { return func(s *term) { s.Overdue = began.Add(-d) } }
	scheduled := func(s *term) { s.Scheduled = true }
	for name, row := range map[string]struct {
		fresh   term
		old     *term
		look    time.Duration // give or take a fifth; 0 for none
		overdue bool
	}{
		"first":                           {fresh: static("a", time.Hour)},
		"first, schedule":                 {fresh: static("a", time.Hour, scheduled), look: rotationTick},
		"changed in time":                 {fresh: static("b", time.Hour), old: new(static("a", -time.Second))},
		"changed late":                    {fresh: static("b", time.Hour), old: new(static("a", time.Second, ago(time.Hour)))},
		"read before its time":            {fresh: static("a", time.Hour), old: new(static("a", time.Second))},
		"not changed":                     {fresh: static("a", time.Second), old: new(static("a", 0)), look: time.Second, overdue: true},
		"not changed, schedule":           {fresh: static("a", time.Hour, scheduled), old: new(static("a", 0, scheduled)), look: time.Second, overdue: true},
		"schedule, just before its end":   {fresh: static("a", time.Hour, scheduled), old: new(static("a", 900*time.Millisecond, scheduled)), look: time.Second, overdue: true},
		"schedule, read before its time":  {fresh: static("a", time.Minute, scheduled), old: new(static("a", time.Minute-time.Second, scheduled))},
		"period made longer":              {fresh: static("a", time.Hour), old: new(static("a", 0))},
		"period made longer when overdue": {fresh: static("a", time.Hour), old: new(static("a", 0, ago(time.Minute)))},
		"of a record of before":           {fresh: static("a", time.Hour, scheduled), old: new(static("", 0)), look: rotationTick},
		"not changed for a minute":        {fresh: static("a", time.Second), old: new(static("a", 0, ago(time.Minute))), look: 12 * time.Second, overdue: true},
		"not changed for an hour":         {fresh: static("a", time.Second), old: new(static("a", 0, ago(time.Hour))), look: longestLook, overdue: true},
		"not changed, clock set back":     {fresh: static("a", time.Second), old: new(static("a", 0, ago(-time.Hour))), look: time.Second, overdue: true},
		"still not, schedule":             {fresh: static("a", time.Hour, scheduled), old: new(static("a", time.Hour, scheduled, ago(time.Minute))), look: 12 * time.Second, overdue: true},
		"a secret":                        {fresh: term{Kind: kindSecret, Start: began}, old: new(static("a", 0))},
		"a secret before":                 {fresh: static("a", time.Hour), old: &term{Kind: kindSecret, Start: began}},
	} {
		t.Run(name, func(t *testing.T) {
			old := term{}
			if row.old != nil {
				old = *row.old
			}
			got := row.fresh.following(old)
			if got.Overdue.IsZero() == row.overdue {
				t.Errorf("got overdue since %v, want that it is: %v", got.Overdue, row.overdue)
			}
			if got.Look < row.look*4/5 || got.Look > row.look*6/5 {
				t.Errorf("got a look after %v, want %v", got.Look, row.look)
			}
			if row.overdue && got.End.Before(got.Start.Add(got.Look)) {
				t.Error("it is over before it is looked at")
			}
			if !row.overdue && !got.End.Equal(row.fresh.End) {
				t.Errorf("got end %v, want %v", got.End, row.fresh.End)
			}
		})
	}
}

func TestTokenTerm(t *testing.T) {
	pool := newWorld(t).config.Pool
	for name, row := range map[string]struct {
		record client.Record
		full   time.Duration
		action Action
	}{
		"renewable":  {client.Record{Start: began, End: hours(1), Renewable: true}, time.Hour, Renew},
		"not so":     {client.Record{Start: began, End: hours(1)}, time.Hour, Replace},
		"batch":      {client.Record{Start: began, End: hours(1), Renewable: true, Batch: true}, time.Hour, Replace},
		"for ever":   {client.Record{Start: began, Renewable: true}, 0, Keep},
		"of seconds": {client.Record{Start: began, End: began.Add(8 * time.Second), Renewable: true}, 8 * time.Second, Renew},
	} {
		got := tokenTerm(pool.Restore(spec.Vault{}, row.record))
		if got.Kind != kindToken || got.Full != row.full || !got.Start.Equal(began) || !got.End.Equal(row.record.End) {
			t.Errorf("%s: got %+v, want a token for %v from %v on", name, got, row.full, began)
		}
		if action, _ := got.next(spec.Lifecycle{RenewAt: 0.67}); action != row.action {
			t.Errorf("%s: next: got %q, want %q", name, action, row.action)
		}
	}
}

// sameTerm tells whether two terms are the same, whatever clock they go by.
func sameTerm(a, b term) bool {
	if !a.Start.Equal(b.Start) || !a.End.Equal(b.End) {
		return false
	}
	a.Start, a.End = b.Start, b.End
	return a == b
}

// What an instance takes over goes by the clock that nobody can set, as what it has obtained itself does. A certificate does not.
func TestRestoredTermGoesByTheSteadyClock(t *testing.T) {
	for kind, steady := range map[kind]bool{kindToken: true, kindLease: true, kindStatic: true, kindSecret: true, kindCertificate: false} {
		now := time.Now()
		old := term{Kind: kind, Start: now.Add(-time.Minute).Round(0), End: now.Add(time.Hour).Round(0)}
		got := old.restored(spec.Lifecycle{RenewAt: 0.67}, now)
		for name, at := range map[string]time.Time{"start": got.Start, "end": got.End} {
			// A time that has a reading of that clock prints it.
			if strings.Contains(at.String(), " m=") != steady {
				t.Errorf("%s: the %s is %v, want a reading of the steady clock: %v", kind, name, at, steady)
			}
		}
		if !sameTerm(got, old) {
			t.Errorf("%s: got %+v, want %+v", kind, got, old)
		}
	}
}

// The node's clock may have been set back between two instances.
func TestRestoredTerm(t *testing.T) {
	life := spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67}
	for name, row := range map[string]struct {
		kind  kind
		end   time.Time
		back  time.Duration // the clock now is so long before the term's start
		same  bool
		dueIn time.Duration // for what is not the same: at the latest
	}{
		"lease, clock goes on":   {kind: kindLease, end: hours(1), back: -time.Minute, same: true},
		"lease, clock set back":  {kind: kindLease, end: hours(1), back: 30 * time.Minute},
		"lease, far back":        {kind: kindLease, end: hours(1), back: 1000 * time.Hour},
		"static, clock set back": {kind: kindStatic, end: hours(1), back: time.Minute, dueIn: 20 * time.Minute},
		"certificate, set back":  {kind: kindCertificate, end: hours(1), back: time.Minute, same: true},
		"secret, clock set back": {kind: kindSecret, back: time.Hour, dueIn: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			old := term{Kind: row.kind, Start: began, End: row.end, Full: time.Hour, Renewable: row.kind == kindLease}
			now := began.Add(-row.back)
			got := old.restored(life, now)
			if row.same {
				if !sameTerm(got, old) {
					t.Errorf("got %+v, want it as it was", got)
				}
				return
			}
			if _, at := got.next(life); at.After(now.Add(row.dueIn)) {
				t.Errorf("it is to be looked at in %v, want %v at the latest", at.Sub(now), row.dueIn)
			}
			if got.isOver(now) {
				t.Error("it is over, though Vault may still know it")
			}
		})
	}
}

func TestPause(t *testing.T) {
	for name, row := range map[string]struct{ left, want time.Duration }{
		"a tenth of what is left": {left: 50 * time.Minute, want: 5 * time.Minute},
		"at least a second":       {left: 2 * time.Second, want: time.Second},
		"also when it is over":    {left: -time.Hour, want: time.Second},
		"at most ten minutes":     {left: 1000 * time.Hour, want: 10 * time.Minute},
	} {
		for range 100 {
			if got := pause(began.Add(row.left), began); got < row.want*4/5 || got > row.want*6/5 {
				t.Fatalf("%s: got %v, want %v give or take a fifth", name, got, row.want)
			}
		}
	}
	if got := pause(time.Time{}, began); got < 48*time.Second || got > 72*time.Second {
		t.Errorf("without an end: got %v, want a minute give or take a fifth", got)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for _, most := range []time.Duration{longestCalm, longestPause} {
		for tries := 1; tries < 100; tries++ {
			base := min(time.Second<<min(tries-1, 10), most)
			if got := backoff(tries, most); got < base*4/5 || got > base*6/5 {
				t.Errorf("after %d tries: %v, want %v give or take a fifth", tries, got, base)
			}
		}
	}
}

func TestSooner(t *testing.T) {
	never, early, late := time.Time{}, began, hours(1)
	for _, row := range []struct{ a, b, want time.Time }{
		{never, never, never},
		{never, early, early},
		{early, never, early},
		{early, late, early},
		{late, early, early},
	} {
		if got := sooner(row.a, row.b); !got.Equal(row.want) {
			t.Errorf("sooner(%v, %v): got %v, want %v", row.a, row.b, got, row.want)
		}
	}
}

func grantOf(t *testing.T, data map[string]any) client.Grant {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return client.Grant{Data: redact.NewBytes(text)}
}

func issued(g client.Grant) client.Grant {
	g.Source = spec.Source{Method: http.MethodPut, Path: "pki/issue/a"}
	return g
}

func leased(g client.Grant, d time.Duration) client.Grant {
	g.LeaseID, g.LeaseDuration = "pki/issue/a/1", d
	return g
}

func selfSigned(t *testing.T, end time.Time) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
