package observe

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
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
	return NewMetrics("v", func() int { return 0 }, func() bool { return false })
}

func TestMetrics(t *testing.T) {
	volumes, standby := 3, true
	m := NewMetrics("v1.2.3", func() int { return volumes }, func() bool { return standby })
	m.Mount("OK", 3*time.Millisecond)
	m.Mount("OK", 3*time.Millisecond)
	m.Mount("NotFound", 45*time.Second)
	m.VaultRequest("login", "ok", 20*time.Millisecond)
	m.VaultRequest("read", "denied", 20*time.Millisecond)
	m.Stale()
	m.Unrevocable()
	m.Release("revoked")
	m.Release("unavailable")
	m.Release("unavailable")
	got := scrape(t, m)
	for _, want := range []string{
		`leasehold_build_info{version="v1.2.3"} 1`,
		`leasehold_mount_duration_seconds_bucket{code="OK",le="0.001"} 0`,
		`leasehold_mount_duration_seconds_bucket{code="OK",le="0.005"} 2`,
		`leasehold_mount_duration_seconds_bucket{code="NotFound",le="60"} 1`,
		`leasehold_mount_duration_seconds_count{code="OK"} 2`,
		`leasehold_mount_duration_seconds_sum{code="NotFound"} 45`,
		`leasehold_releases_total{outcome="revoked"} 1`,
		`leasehold_releases_total{outcome="unavailable"} 2`,
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
	volumes, standby = 0, false
	if got := scrape(t, m); !slices.Contains(got, "leasehold_volumes 0") || !slices.Contains(got, "leasehold_standby 0") {
		t.Errorf("the number of volumes and the standby did not follow: got\n%s", strings.Join(got, "\n"))
	}
}

// A dashboard must find a counter before the first thing is counted.
func TestMetricsAtTheStart(t *testing.T) {
	got := scrape(t, newMetrics())
	want := []string{
		`leasehold_build_info{version="v"} 1`, `leasehold_stale_answers_total 0`, `leasehold_standby 0`,
		`leasehold_unrevocable_logins_total 0`, `leasehold_volumes 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Labels must come from small sets that we choose: pods, roles, paths and addresses are without number.
func TestLabelsAreBounded(t *testing.T) {
	m := newMetrics()
	m.Mount("OK", time.Second)
	m.VaultRequest("read", "ok", time.Second)
	m.Release("revoked")
	label := regexp.MustCompile(`[{,]([a-z_]+)="`)
	for _, series := range scrape(t, m) {
		for _, found := range label.FindAllStringSubmatch(series, -1) {
			if !slices.Contains([]string{"code", "operation", "outcome", "version", "le"}, found[1]) {
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
