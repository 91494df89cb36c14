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
	fromMemory    prometheus.Counter
	journalErrors prometheus.Counter
	renewals      *prometheus.CounterVec
	replacements  *prometheus.CounterVec
	releases      *prometheus.CounterVec
}

// Held is what the provider holds in Vault at one moment.
type Held struct {
	Volumes int            // for which something is held
	Leases  map[string]int // tokens, leases and what else is held for them, by state; a state that is not in it is not shown
	End     time.Time      // the soonest end of what volumes need, past or not; zero if no end is known
}

// NewMetrics returns metrics for a provider of the given version. held tells what it holds now, and is called once for
// each scrape; standby tells whether another instance answers in this one's place.
func NewMetrics(version string, held func() Held, standby func() bool) *Metrics {
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
			Help: "Answers from what was due to be replaced, because Vault was unavailable or there was no token for a new login.",
		}),
		unrevocable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_unrevocable_logins_total",
			Help: "Logins that gave a batch token, which lives for its TTL because it cannot be revoked.",
		}),
		fromMemory: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_polls_from_memory_total",
			Help: "Mount calls for a volume that is mounted already, answered without any request to Vault.",
		}),
		journalErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leasehold_journal_errors_total",
			Help: "Records of the journal that could not be written, read or removed.",
		}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leasehold_renewals_total",
			Help: "Attempts to renew a Vault token or a lease, by outcome (ok, the kind of failure, or failed).",
		}, []string{"what", "outcome"}),
		replacements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leasehold_replacements_total",
			Help: "Attempts to replace what a volume holds by something new, by outcome (ok, the kind of failure, or failed).",
		}, []string{"outcome"}),
		releases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leasehold_releases_total",
			Help: "Attempts to give a Vault token back, by outcome (revoked: Vault removes what came of it, and keeps trying; ended, the kind of failure, or failed).",
		}, []string{"outcome"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leasehold_build_info", Help: "Always 1; the version is the label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	stands := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leasehold_standby", Help: "1 while another instance on the node answers and this one waits to take over, else 0.",
	}, func() float64 {
		if standby() {
			return 1
		}
		return 0
	})
	m.registry.MustRegister(m.mounts, m.vaultRequests, m.stale, m.unrevocable, m.fromMemory, m.journalErrors, m.renewals,
		m.replacements, m.releases, build, stands, holdings(held),
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

// Stale counts an answer from something that was due to be replaced.
func (m *Metrics) Stale() { m.stale.Inc() }

// Unrevocable counts a login that gave a batch token.
func (m *Metrics) Unrevocable() { m.unrevocable.Inc() }

// FromMemory counts a poll that was answered without any request to Vault.
func (m *Metrics) FromMemory() { m.fromMemory.Inc() }

// JournalError counts a record of the journal that could not be written, read or removed.
func (m *Metrics) JournalError() { m.journalErrors.Inc() }

// Renewal counts an attempt to renew something: a "token" or a "lease".
func (m *Metrics) Renewal(what, outcome string) { m.renewals.WithLabelValues(what, outcome).Inc() }

// Replacement counts an attempt to replace what a volume holds.
func (m *Metrics) Replacement(outcome string) { m.replacements.WithLabelValues(outcome).Inc() }

// Release counts an attempt to give a Vault token back.
func (m *Metrics) Release(outcome string) { m.releases.WithLabelValues(outcome).Inc() }

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// holdings shows what the provider holds. It is asked anew for each scrape, and once, so that its figures fit together.
type holdings func() Held

var (
	descVolumes = prometheus.NewDesc("leasehold_volumes", "Volumes for which this provider holds something in Vault.", nil, nil)
	descLeases  = prometheus.NewDesc("leasehold_leases",
		"What is held in Vault for these volumes, by state: held, due (to be replaced), over, or unwanted (to be given back).",
		[]string{"state"}, nil)
	descToExpiry = prometheus.NewDesc("leasehold_seconds_to_expiry",
		"Seconds until the first end of what a volume needs; negative from then on, until there is something new; absent if no end is known.",
		nil, nil)
)

// Describe implements prometheus.Collector.
func (h holdings) Describe(c chan<- *prometheus.Desc) {
	c <- descVolumes
	c <- descLeases
	c <- descToExpiry
}

// Collect implements prometheus.Collector.
func (h holdings) Collect(c chan<- prometheus.Metric) {
	held := h()
	c <- prometheus.MustNewConstMetric(descVolumes, prometheus.GaugeValue, float64(held.Volumes))
	for state, n := range held.Leases {
		c <- prometheus.MustNewConstMetric(descLeases, prometheus.GaugeValue, float64(n), state)
	}
	if !held.End.IsZero() {
		c <- prometheus.MustNewConstMetric(descToExpiry, prometheus.GaugeValue, time.Until(held.End).Seconds())
	}
}
