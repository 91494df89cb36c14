package observe

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// WebhookMetrics are the webhook's figures, in a registry of their own. No label holds anything that a tenant can choose.
type WebhookMetrics struct {
	registry    *prometheus.Registry
	admissions  *prometheus.HistogramVec
	made, swept prometheus.Counter
	failures    prometheus.Counter
}

// NewWebhookMetrics returns metrics for a webhook of the given version. End tells when the certificate that is served ends;
// zero if there is none.
func NewWebhookMetrics(version string, end func() time.Time) *WebhookMetrics {
	m := &WebhookMetrics{
		registry: prometheus.NewRegistry(),
		admissions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "leasehold_admission_duration_seconds", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			Help: "Admissions, by what was admitted (pod, workload or class) and outcome (translated, skipped, advised, denied or failed).",
		}, []string{"what", "outcome"}),
		made: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_classes_made_total", Help: "SecretProviderClasses made for pods.",
		}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_classes_swept_total", Help: "SecretProviderClasses deleted, because no pod used them any more.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_sweep_failures_total", Help: "Sweeps that could not delete all that they should have.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leasehold_build_info", Help: "Always 1; the version is the label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	left := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leasehold_webhook_certificate_seconds", Help: "Seconds until the certificate that is served ends; 0 without one.",
	}, func() float64 {
		if e := end(); !e.IsZero() {
			return time.Until(e).Seconds()
		}
		return 0
	})
	m.registry.MustRegister(m.admissions, m.made, m.swept, m.failures, build, left,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Admission counts an answered admission.
func (m *WebhookMetrics) Admission(what, outcome string, d time.Duration) {
	m.admissions.WithLabelValues(what, outcome).Observe(d.Seconds())
}

// ClassMade counts a class that was made.
func (m *WebhookMetrics) ClassMade() { m.made.Inc() }

// ClassSwept counts a class that was deleted.
func (m *WebhookMetrics) ClassSwept() { m.swept.Inc() }

// SweepFailed counts a sweep that could not do all.
func (m *WebhookMetrics) SweepFailed() { m.failures.Inc() }

// Handler serves the metrics in Prometheus' formats.
func (m *WebhookMetrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
