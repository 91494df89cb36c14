package observe

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scrape returns the series of ours as Prometheus reads them.
func scrape(t *testing.T, m *Metrics) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("got status %d: %s", w.Code, w.Body)
	}
	var series []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "leasehold_") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

// newMetrics are those of a provider that has nothing to do yet.
func newMetrics() *Metrics {
	return NewMetrics("v", func() Held { return Held{} }, func() bool { return false })
}

func TestMetrics(t *testing.T) {
	held, standby := Held{Volumes: 3, Leases: map[string]int{"held": 7, "due": 1, "over": 0}}, true
	m := NewMetrics("v1.2.3", func() Held { return held }, func() bool { return standby })
	m.Mount("OK", 3*time.Millisecond)
	m.Mount("OK", 3*time.Millisecond)
	m.Mount("NotFound", 45*time.Second)
	m.VaultRequest("login", "ok", 20*time.Millisecond)
	m.VaultRequest("read", "denied", 20*time.Millisecond)
	m.Stale()
	m.Unrevocable()
	m.FromMemory()
	m.JournalError()
	m.Renewal("token", "ok")
	m.Renewal("lease", "ok")
	m.Renewal("lease", "ok")
	m.Renewal("lease", "expired")
	m.Replacement("ok")
	m.Replacement("denied")
	m.Replacement("denied")
	m.Release("revoked")
	m.Release("unavailable")
	m.Release("unavailable")
	got := scrape(t, m)
	for _, want := range []string{
		`leasehold_build_info{version="v1.2.3"} 1`,
		`leasehold_journal_errors_total 1`,
		`leasehold_leases{state="due"} 1`,
		`leasehold_leases{state="held"} 7`,
		`leasehold_leases{state="over"} 0`,
		`leasehold_mount_duration_seconds_bucket{code="OK",le="0.001"} 0`,
		`leasehold_mount_duration_seconds_bucket{code="OK",le="0.005"} 2`,
		`leasehold_mount_duration_seconds_bucket{code="NotFound",le="60"} 1`,
		`leasehold_mount_duration_seconds_count{code="OK"} 2`,
		`leasehold_mount_duration_seconds_sum{code="NotFound"} 45`,
		`leasehold_polls_from_memory_total 1`,
		`leasehold_releases_total{outcome="revoked"} 1`,
		`leasehold_releases_total{outcome="unavailable"} 2`,
		`leasehold_renewals_total{outcome="expired",what="lease"} 1`,
		`leasehold_renewals_total{outcome="ok",what="lease"} 2`,
		`leasehold_renewals_total{outcome="ok",what="token"} 1`,
		`leasehold_replacements_total{outcome="denied"} 2`,
		`leasehold_replacements_total{outcome="ok"} 1`,
		`leasehold_stale_answers_total 1`,
		`leasehold_standby 1`,
		`leasehold_unrevocable_logins_total 1`,
		`leasehold_vault_request_duration_seconds_count{operation="login",outcome="ok"} 1`,
		`leasehold_vault_request_duration_seconds_count{operation="read",outcome="denied"} 1`,
		`leasehold_volumes 3`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("got no series %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
	held, standby = Held{}, false
	got = scrape(t, m)
	for _, want := range []string{"leasehold_volumes 0", "leasehold_standby 0"} {
		if !slices.Contains(got, want) {
			t.Errorf("what is held and the standby did not follow: got no series %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if slices.ContainsFunc(got, func(series string) bool { return strings.HasPrefix(series, "leasehold_leases") }) {
		t.Errorf("got states of what is not held any more in\n%s", strings.Join(got, "\n"))
	}
}

// The first end of all: the one figure to be alerted on.
func TestSecondsToExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held Held
		asked := 0
		m := NewMetrics("v", func() Held { asked++; return held }, func() bool { return false })
		expiry := func() (series []string) {
			t.Helper()
			for _, line := range scrape(t, m) {
				if strings.HasPrefix(line, "leasehold_seconds_to_expiry") {
					series = append(series, line)
				}
			}
			return series
		}
		if got := expiry(); got != nil {
			t.Errorf("no end is known: got %q, want no such series", got)
		}
		if asked != 1 {
			t.Errorf("a scrape asked %d times what is held, want once: its figures must fit together", asked)
		}
		held.End = time.Now().Add(90 * time.Second)
		time.Sleep(30 * time.Second)
		if got, want := expiry(), []string{"leasehold_seconds_to_expiry 60"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(61 * time.Second)
		if got, want := expiry(), []string{"leasehold_seconds_to_expiry -1"}; !slices.Equal(got, want) {
			t.Errorf("after the end: got %q, want %q", got, want)
		}
	})
}

// A dashboard must find a counter before the first thing is counted.
func TestMetricsAtTheStart(t *testing.T) {
	got := scrape(t, newMetrics())
	want := []string{
		`leasehold_build_info{version="v"} 1`, `leasehold_journal_errors_total 0`, `leasehold_polls_from_memory_total 0`,
		`leasehold_stale_answers_total 0`, `leasehold_standby 0`,
		`leasehold_unrevocable_logins_total 0`, `leasehold_volumes 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Labels must come from small sets that we choose: pods, roles, paths and addresses are without number.
func TestLabelsAreBounded(t *testing.T) {
	m := NewMetrics("v", func() Held { return Held{Leases: map[string]int{"held": 1}} }, func() bool { return false })
	m.Mount("OK", time.Second)
	m.VaultRequest("read", "ok", time.Second)
	m.Renewal("token", "ok")
	m.Replacement("ok")
	m.Release("revoked")
	label := regexp.MustCompile(`[{,]([a-z_]+)="`)
	for _, series := range scrape(t, m) {
		for _, found := range label.FindAllStringSubmatch(series, -1) {
			if !slices.Contains([]string{"code", "operation", "outcome", "state", "version", "what", "le"}, found[1]) {
				t.Errorf("got label %q in %s", found[1], series)
			}
		}
	}
}

// Two providers in one process, as in tests, do not share figures; nothing is registered globally.
func TestMetricsAreApart(t *testing.T) {
	one, other := newMetrics(), newMetrics()
	one.Stale()
	if got := scrape(t, other); !slices.Contains(got, "leasehold_stale_answers_total 0") {
		t.Errorf("got %q, want no stale answer", got)
	}
}
