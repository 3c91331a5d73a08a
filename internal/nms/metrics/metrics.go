// Package metrics owns the Prometheus metrics of a management station: it reads the
// station's counts at each scrape, and counts events and login times. cmd/callhome-nms
// feeds it, and serves it with package scrape. No text from outside and no device's
// name becomes a label: the number of series is fixed.
package metrics

import (
	"time"

	"callhome/internal/hook"
	"callhome/internal/metric"
	"callhome/internal/nms/cluster"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
)

// Metrics are all metrics of a station.
type Metrics struct {
	metric.Registry

	stats  func() station.Stats
	logins *metric.Histograms
	events *metric.Counters
}

// single are the figures without a label.
var single = []struct {
	name, help string
	kind       metric.Kind
	of         func(station.Stats) float64
}{
	{"calls_total", "Connections accepted.", metric.Counter, func(s station.Stats) float64 { return float64(s.Calls) }},
	{"unauthenticated", "Connections before their login.", metric.Gauge, func(s station.Stats) float64 { return float64(s.Unauthenticated) }},
	{"unknown_keys", "Host keys on the list of unknown devices.", metric.Gauge, func(s station.Stats) float64 { return float64(s.Unknown) }},
	{"sessions", "Netconf channels that are open.", metric.Gauge, func(s station.Stats) float64 { return float64(s.SessionsNow) }},
	{"sessions_total", "Netconf channels opened.", metric.Counter, func(s station.Stats) float64 { return float64(s.Sessions) }},
	{"sessions_failed_total", "Netconf channels that could not be opened.", metric.Counter, func(s station.Stats) float64 { return float64(s.SessionsFailed) }},
	{"sent_bytes_total", "Bytes of ended sessions to devices.", metric.Counter, func(s station.Stats) float64 { return float64(s.Sent) }},
	{"received_bytes_total", "Bytes of ended sessions from devices.", metric.Counter, func(s station.Stats) float64 { return float64(s.Received) }},
}

// New returns the metrics of a station of that version.
func New(stats func() station.Stats, version string) *Metrics {
	m := &Metrics{
		stats: stats,
		logins: metric.NewHistograms("callhome_nms_login_duration_seconds", "Time from accept to login, of calls that logged in.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}),
		events: metric.NewCounters("callhome_nms_events_total", "Published events.", "event"),
	}
	for _, e := range nmsproto.Events {
		m.events.Show(e)
	}
	m.Add(m, m.logins, m.events, metric.BuildInfo("callhome_nms_build_info", "Always 1; the labels say which callhome-nms runs.", version), metric.Process)
	return m
}

// LoggedIn records how long a login took.
func (m *Metrics) LoggedIn(took time.Duration) { m.logins.Observe(took.Seconds()) }

// Handle counts an event.
func (m *Metrics) Handle(e nmsproto.Event) { m.events.Inc(e.Event) }

// Collect implements metric.Collector.
func (m *Metrics) Collect(to *metric.Text) {
	stats := m.stats()
	to.Metric("callhome_nms_devices", "Devices of the registry, by state. In a cluster each device is counted at one station.", metric.Gauge)
	for _, state := range nmsproto.States {
		to.Sample(float64(stats.Devices[state]), "state", string(state))
	}
	to.Metric("callhome_nms_calls_finished_total", "Calls home by outcome.", metric.Counter)
	for _, o := range station.Outcomes {
		to.Sample(float64(stats.Outcomes[o]), "outcome", string(o))
	}
	for _, s := range single {
		to.Single("callhome_nms_"+s.name, s.help, s.kind, s.of(stats))
	}
}

// AddHook adds the hook's counters, which count returns at each scrape.
func (m *Metrics) AddHook(count func() hook.Counts) {
	m.Add(metric.Func(func(to *metric.Text) {
		c := count()
		to.Metric("callhome_nms_hook_runs_total", "Runs of the hook, by how they ended; dropped ones did not begin.", metric.Counter)
		to.Sample(float64(c.OK), "outcome", "ok")
		to.Sample(float64(c.Failed), "outcome", "failed")
		to.Sample(float64(c.TimedOut), "outcome", "timeout")
		to.Sample(float64(c.Stopped), "outcome", "stopped")
		to.Sample(float64(c.Dropped), "outcome", "dropped")
	}))
}

// AddCluster adds how the station stands in its cluster, which figures returns at each
// scrape.
func (m *Metrics) AddCluster(figures func() cluster.Figures) {
	number := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	m.Add(metric.Func(func(to *metric.Text) {
		f := figures()
		to.Single("callhome_nms_cluster_connected", "1 while NATS is reached.", metric.Gauge, number(f.Connected))
		to.Single("callhome_nms_cluster_leased", "1 while the station has its lease in the cluster.", metric.Gauge, number(f.Leased))
		to.Single("callhome_nms_cluster_stations", "Stations that are alive, as this one knows it.", metric.Gauge, float64(f.Alive))
		to.Single("callhome_nms_cluster_unconfirmed", "Devices that are connected here and not claimed in the cluster.", metric.Gauge, float64(f.Unconfirmed))
		to.Single("callhome_nms_cluster_relayed_total", "Netconf channels to devices of other stations.", metric.Counter, float64(f.Relayed))
	}))
}
