// Package metrics owns the manager's Prometheus metrics: it counts the manager's
// events, reads the sessions' figures at each scrape, and returns the HTTP handler.
// cmd/callhome-mgr uses it. It changes no session. Text from outside (host, user,
// opaque, cause, sshd's lines) never becomes a label, so the number of series is
// fixed. A configured client's name is such text too: each reload can change it,
// and every local user may read the metrics.
package metrics

import (
	"net/http"
	"runtime"
	"sync"

	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/scrape"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Source is the manager.
type Source interface {
	// Sessions returns all sessions that have not ended, with the kernel's
	// figures.
	Sessions() []proto.SessionInfo
	// Clients returns the configured clients.
	Clients() []proto.ClientStatus
}

// Metrics has all metrics of the manager.
type Metrics struct {
	source   Source
	registry *prometheus.Registry

	calls, finished, events  *prometheus.CounterVec
	attemptsFailed           *prometheus.CounterVec
	stages                   *prometheus.HistogramVec
	durations, rtts, outages prometheus.Histogram
	connections, gaps        prometheus.Counter

	// mu guards ledger. It is held from reading the source until the figures are
	// counted, so that no session ends in between.
	mu     sync.Mutex
	ledger ledger
}

// New returns the metrics of a manager of that version.
func New(source Source, version string) *Metrics {
	m := &Metrics{source: source, registry: prometheus.NewRegistry(), ledger: newLedger()}
	m.calls = counters("callhome_calls_total", "Call homes, by what made the connection.", "via")
	m.finished = counters("callhome_calls_finished_total",
		"Call homes that ended, before the login (failed) or after it (closed), by the stage they were in.", "outcome", "stage")
	m.events = counters("callhome_events_total", "Events of sessions, clients and the configuration.", "event")
	m.attemptsFailed = counters("callhome_client_attempts_failed_total", "Attempts to connect to configured clients that failed, by stage.", "stage")
	m.connections = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "callhome_client_connections_total", Help: "Logins of configured clients.",
	})
	m.outages = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "callhome_client_outage_seconds", Help: "Time from the loss of a configured client's connection to its next login.",
		Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 5 * 60, 30 * 60, 3600, 6 * 3600, 24 * 3600},
	})
	m.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "callhome_stage_duration_seconds", Help: "Duration of each completed stage of call homes.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
	}, []string{"stage"})
	m.durations = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "callhome_session_duration_seconds", Help: "Duration of sessions with a login, from the call to the end.",
		Buckets: []float64{1, 10, 60, 5 * 60, 30 * 60, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600},
	})
	m.rtts = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "callhome_session_rtt_seconds", Help: "Smoothed round-trip time of connections at their end.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
	})
	m.gaps = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "callhome_event_gaps_total", Help: "Times that events were missed, so that counters of events are too low.",
	})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callhome_build_info", Help: "Always 1; the labels are the version of callhome-mgr and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m, m.calls, m.finished, m.events, m.stages, m.durations, m.rtts, m.gaps, m.attemptsFailed, m.connections, m.outages, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.startAtZero()
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// startAtZero creates every possible series, so that the first event of a kind is
// an increase from 0.
func (m *Metrics) startAtZero() {
	for _, via := range vias {
		m.calls.WithLabelValues(string(via))
	}
	for _, e := range proto.Events {
		m.events.WithLabelValues(e)
	}
	for _, s := range failing {
		m.finished.WithLabelValues(proto.EventFailed, string(s))
		m.attemptsFailed.WithLabelValues(string(s))
	}
	for _, s := range closing {
		m.finished.WithLabelValues(proto.EventClosed, string(s))
	}
	for _, s := range steps {
		if s.stage != "" {
			m.stages.WithLabelValues(string(s.stage))
		}
	}
}

// Handle counts one event. Events of one session must come in their order.
func (m *Metrics) Handle(e proto.Event) {
	m.mu.Lock()
	o := m.ledger.happened(e)
	m.mu.Unlock()

	m.events.WithLabelValues(oneOf(proto.Events, e.Event)).Inc()
	if e.Event == proto.EventCalling {
		m.calls.WithLabelValues(string(oneOf(vias, e.Session.Via))).Inc()
	}
	m.ofClients(e)
	if o.passed != "" {
		m.stages.WithLabelValues(string(o.passed)).Observe(o.took.Seconds())
	}
	if !o.ended {
		return
	}
	m.finished.WithLabelValues(e.Event, string(oneOf(proto.Stages, e.Session.Stage))).Inc()
	if e.Event == proto.EventClosed {
		m.durations.Observe(o.lasted.Seconds())
	}
	if s := e.Session.Stats; s != nil && s.RTT > 0 {
		m.rtts.Observe(s.RTT.Seconds())
	}
}

// ofClients counts the events of configured clients.
func (m *Metrics) ofClients(e proto.Event) {
	switch {
	case e.Event == proto.EventAuthenticated && e.Session.Client != "":
		m.connections.Inc()
	case e.Event == proto.EventAttemptFailed:
		m.attemptsFailed.WithLabelValues(string(oneOf(proto.Stages, e.Session.Stage))).Inc()
	case e.Event == proto.EventRecovered:
		m.outages.Observe(e.Outage.Seconds())
	}
}

// Missed reports that events were lost before the next one.
func (m *Metrics) Missed() {
	m.gaps.Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.keep(m.source.Sessions())
}

// Handler returns the handler for scrapes.
func (m *Metrics) Handler(log hclog.Logger) http.Handler { return scrape.Handler(m.registry, log) }

// AddHook adds the hook's counters; each scrape calls count.
func (m *Metrics) AddHook(count func() hook.Counts) {
	for outcome, of := range map[string]func(hook.Counts) uint64{
		"ok":      func(c hook.Counts) uint64 { return c.OK },
		"failed":  func(c hook.Counts) uint64 { return c.Failed },
		"timeout": func(c hook.Counts) uint64 { return c.TimedOut },
		"stopped": func(c hook.Counts) uint64 { return c.Stopped },
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "callhome_hook_runs_total", Help: "Runs of the hook, by outcome.", ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(of(count())) }))
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "callhome_hook_dropped_total", Help: "Events without a run of the hook, as its queue was full.",
	}, func() float64 { return float64(count().Dropped) }))
}
