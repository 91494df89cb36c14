package observe

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the provider's figures, in a registry of their own. No label holds anything that a tenant can choose, so
// the number of series is bounded.
type Metrics struct {
	registry      *prometheus.Registry
	mounts        *prometheus.HistogramVec
	vaultRequests *prometheus.HistogramVec
	stale         prometheus.Counter
	unrevocable   prometheus.Counter
	releases      *prometheus.CounterVec
}

// NewMetrics returns metrics for a provider of the given version. held tells how many volumes hold something now, and
// standby whether another instance answers in this one's place.
func NewMetrics(version string, held func() int, standby func() bool) *Metrics {
	// From a poll answered from memory (tens of microseconds) to the longest Mount that is waited for.
	mountBuckets := []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	vaultBuckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		mounts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "leasehold_mount_duration_seconds", Buckets: mountBuckets,
			Help: "Mount calls of the driver, by gRPC code.",
		}, []string{"code"}),
		vaultRequests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "leasehold_vault_request_duration_seconds", Buckets: vaultBuckets,
			Help: "Requests to Vault, by operation and outcome (ok, or the kind of failure).",
		}, []string{"operation", "outcome"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_stale_answers_total",
			Help: "Objects answered with a grant that was due to be read again, because Vault was unavailable.",
		}),
		unrevocable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_unrevocable_logins_total",
			Help: "Logins that gave a batch token, which lives for its TTL because it cannot be revoked.",
		}),
		releases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leasehold_releases_total",
			Help: "Attempts to give a Vault token back, by outcome (revoked, ended, or the kind of failure).",
		}, []string{"outcome"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leasehold_build_info", Help: "Always 1; the version is the label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	volumes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leasehold_volumes", Help: "Volumes for which this provider holds something in Vault.",
	}, func() float64 { return float64(held()) })
	stands := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leasehold_standby", Help: "1 while another instance on the node answers and this one waits to take over, else 0.",
	}, func() float64 {
		if standby() {
			return 1
		}
		return 0
	})
	m.registry.MustRegister(m.mounts, m.vaultRequests, m.stale, m.unrevocable, m.releases, build, volumes, stands,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Mount counts a finished Mount call.
func (m *Metrics) Mount(code string, d time.Duration) {
	m.mounts.WithLabelValues(code).Observe(d.Seconds())
}

// VaultRequest counts a finished request to Vault.
func (m *Metrics) VaultRequest(operation, outcome string, d time.Duration) {
	m.vaultRequests.WithLabelValues(operation, outcome).Observe(d.Seconds())
}

// Stale counts an object that was answered with a grant due to be read again.
func (m *Metrics) Stale() { m.stale.Inc() }

// Unrevocable counts a login that gave a batch token.
func (m *Metrics) Unrevocable() { m.unrevocable.Inc() }

// Release counts an attempt to give a Vault token back.
func (m *Metrics) Release(outcome string) { m.releases.WithLabelValues(outcome).Inc() }

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
