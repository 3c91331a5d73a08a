// Package metrics owns the Prometheus metrics of a management station: it reads the
// station's counts at each scrape, and counts events and login times. cmd/callhome-nms
// feeds it, and serves it with package scrape. No text from outside and no device's
// name becomes a label: the number of series is fixed.
package metrics

import (
	"runtime"
	"time"

	"callhome/internal/hook"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics are all metrics of a station.
type Metrics struct {
	Registry *prometheus.Registry

	stats  func() station.Stats
	logins prometheus.Histogram
	events *prometheus.CounterVec
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("callhome_nms_"+name, help, labels, nil)
}

var (
	devices     = desc("devices", "Devices of the registry, by state.", "state")
	outcomes    = desc("calls_finished_total", "Calls home by outcome.", "outcome")
	sessionsNow = desc("sessions", "Netconf channels that are open.")
)

// single are the figures without a label.
var single = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(station.Stats) float64
}{
	{desc("calls_total", "Connections accepted."), prometheus.CounterValue, func(s station.Stats) float64 { return float64(s.Calls) }},
	{desc("unauthenticated", "Connections before their login."), prometheus.GaugeValue, func(s station.Stats) float64 { return float64(s.Unauthenticated) }},
	{desc("unknown_keys", "Host keys on the list of unknown devices."), prometheus.GaugeValue, func(s station.Stats) float64 { return float64(s.Unknown) }},
	{sessionsNow, prometheus.GaugeValue, func(s station.Stats) float64 { return float64(s.SessionsNow) }},
	{desc("sessions_total", "Netconf channels opened."), prometheus.CounterValue, func(s station.Stats) float64 { return float64(s.Sessions) }},
	{desc("sessions_failed_total", "Netconf channels that could not be opened."), prometheus.CounterValue, func(s station.Stats) float64 { return float64(s.SessionsFailed) }},
	{desc("sent_bytes_total", "Bytes of ended sessions to devices."), prometheus.CounterValue, func(s station.Stats) float64 { return float64(s.Sent) }},
	{desc("received_bytes_total", "Bytes of ended sessions from devices."), prometheus.CounterValue, func(s station.Stats) float64 { return float64(s.Received) }},
}

// New returns the metrics of a station of that version.
func New(stats func() station.Stats, version string) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry(), stats: stats}
	m.logins = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "callhome_nms_login_duration_seconds", Help: "Time from accept to login, of calls that logged in.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "callhome_nms_events_total", Help: "Published events."}, []string{"event"})
	for _, e := range nmsproto.Events {
		m.events.WithLabelValues(e)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callhome_nms_build_info", Help: "Always 1; the labels say which callhome-nms runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.Registry.MustRegister(m, m.logins, m.events, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// LoggedIn records how long a login took.
func (m *Metrics) LoggedIn(took time.Duration) { m.logins.Observe(took.Seconds()) }

// Handle counts an event.
func (m *Metrics) Handle(e nmsproto.Event) { m.events.WithLabelValues(e.Event).Inc() }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- devices
	to <- outcomes
	for _, s := range single {
		to <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	stats := m.stats()
	for _, state := range nmsproto.States {
		to <- prometheus.MustNewConstMetric(devices, prometheus.GaugeValue, float64(stats.Devices[state]), string(state))
	}
	for _, o := range station.Outcomes {
		to <- prometheus.MustNewConstMetric(outcomes, prometheus.CounterValue, float64(stats.Outcomes[o]), string(o))
	}
	for _, s := range single {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.of(stats))
	}
}

// AddHook adds the hook's counters, which count returns at each scrape.
func (m *Metrics) AddHook(count func() hook.Counts) {
	for outcome, of := range map[string]func(hook.Counts) uint64{
		"ok":      func(c hook.Counts) uint64 { return c.OK },
		"failed":  func(c hook.Counts) uint64 { return c.Failed },
		"timeout": func(c hook.Counts) uint64 { return c.TimedOut },
		"stopped": func(c hook.Counts) uint64 { return c.Stopped },
		"dropped": func(c hook.Counts) uint64 { return c.Dropped },
	} {
		m.Registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "callhome_nms_hook_runs_total", Help: "Runs of the hook, by how they ended; dropped ones did not begin.", ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(of(count())) }))
	}
}
