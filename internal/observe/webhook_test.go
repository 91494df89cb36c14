package observe

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWebhookMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Time{}
		m := NewWebhookMetrics("1.2.3", func() time.Time { return end })
		m.Admission("pod", "denied", 20*time.Millisecond)
		m.ClassMade()
		m.ClassSwept()
		m.ClassSwept()
		m.SweepFailed()
		want := []string{
			`leasehold_admission_duration_seconds_sum{outcome="denied",what="pod"} 0.02`,
			`leasehold_admission_duration_seconds_count{outcome="denied",what="pod"} 1`,
			`leasehold_build_info{version="1.2.3"} 1`,
			`leasehold_classes_made_total 1`,
			`leasehold_classes_swept_total 2`,
			`leasehold_sweep_failures_total 1`,
			`leasehold_webhook_certificate_seconds 0`,
		}
		wantSeries(t, m, want)
		end = time.Now().Add(time.Hour)
		want[len(want)-1] = `leasehold_webhook_certificate_seconds 3600`
		wantSeries(t, m, want)
	})
}

// wantSeries wants these series of ours, and no others but the buckets of histograms.
func wantSeries(t *testing.T, m *WebhookMetrics, want []string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "leasehold_") && !strings.Contains(line, "_bucket{") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got series\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
