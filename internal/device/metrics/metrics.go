// Package metrics owns the manager's Prometheus metrics: it counts the manager's
// events and reads the sessions' figures at each scrape. cmd/callhome-mgr uses it, and
// serves it with package scrape. It changes no session. Text from outside (host, user,
// opaque, cause, sshd's lines) never becomes a label, so the number of series is
// fixed. A configured client's name is such text too: each reload can change it,
// and every local user may read the metrics.
package metrics

import (
	"sync"

	"callhome/internal/hook"
	"callhome/internal/metric"
	"callhome/internal/proto"
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
	metric.Registry

	source Source

	calls, finished, events  *metric.Counters
	attemptsFailed           *metric.Counters
	stages                   *metric.Histograms
	durations, rtts, outages *metric.Histograms
	connections, gaps        *metric.Counters

	// mu guards ledger. It is held from reading the source until the figures are
	// counted, so that no session ends in between.
	mu     sync.Mutex
	ledger ledger
}

// New returns the metrics of a manager of that version.
func New(source Source, version string) *Metrics {
	m := &Metrics{
		source: source, ledger: newLedger(),
		calls: metric.NewCounters("callhome_calls_total", "Call homes, by what made the connection.", "via"),
		finished: metric.NewCounters("callhome_calls_finished_total",
			"Call homes that ended, before the login (failed) or after it (closed), by the stage they were in.", "outcome", "stage"),
		events:         metric.NewCounters("callhome_events_total", "Events of sessions, clients and the configuration.", "event"),
		attemptsFailed: metric.NewCounters("callhome_client_attempts_failed_total", "Attempts to connect to configured clients that failed, by stage.", "stage"),
		connections:    metric.NewCounters("callhome_client_connections_total", "Logins of configured clients."),
		outages: metric.NewHistograms("callhome_client_outage_seconds", "Time from the loss of a configured client's connection to its next login.",
			[]float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 5 * 60, 30 * 60, 3600, 6 * 3600, 24 * 3600}),
		stages: metric.NewHistograms("callhome_stage_duration_seconds", "Duration of each completed stage of call homes.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}, "stage"),
		durations: metric.NewHistograms("callhome_session_duration_seconds", "Duration of sessions with a login, from the call to the end.",
			[]float64{1, 10, 60, 5 * 60, 30 * 60, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600}),
		rtts: metric.NewHistograms("callhome_session_rtt_seconds", "Smoothed round-trip time of connections at their end.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}),
		gaps: metric.NewCounters("callhome_event_gaps_total", "Times that events were missed, so that counters of events are too low."),
	}
	m.Add(m, m.calls, m.finished, m.events, m.stages, m.durations, m.rtts, m.gaps, m.attemptsFailed, m.connections, m.outages,
		metric.BuildInfo("callhome_build_info", "Always 1; the labels are the version of callhome-mgr and of Go.", version), metric.Process)
	m.startAtZero()
	return m
}

// startAtZero creates every possible series, so that the first event of a kind is
// an increase from 0.
func (m *Metrics) startAtZero() {
	for _, via := range vias {
		m.calls.Show(string(via))
	}
	for _, e := range proto.Events {
		m.events.Show(e)
	}
	for _, s := range failing {
		m.finished.Show(proto.EventFailed, string(s))
		m.attemptsFailed.Show(string(s))
	}
	for _, s := range closing {
		m.finished.Show(proto.EventClosed, string(s))
	}
	for _, s := range steps {
		if s.stage != "" {
			m.stages.Show(string(s.stage))
		}
	}
}

// Handle counts one event. Events of one session must come in their order.
func (m *Metrics) Handle(e proto.Event) {
	m.mu.Lock()
	o := m.ledger.happened(e)
	m.mu.Unlock()

	m.events.Inc(oneOf(proto.Events, e.Event))
	if e.Event == proto.EventCalling {
		m.calls.Inc(string(oneOf(vias, e.Session.Via)))
	}
	m.ofClients(e)
	if o.passed != "" {
		m.stages.Observe(o.took.Seconds(), string(o.passed))
	}
	if !o.ended {
		return
	}
	m.finished.Inc(e.Event, string(oneOf(proto.Stages, e.Session.Stage)))
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
		m.attemptsFailed.Inc(string(oneOf(proto.Stages, e.Session.Stage)))
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

// AddHook adds the hook's counters; each scrape calls count.
func (m *Metrics) AddHook(count func() hook.Counts) {
	m.Add(metric.Func(func(to *metric.Text) {
		c := count()
		to.Metric("callhome_hook_runs_total", "Runs of the hook, by outcome.", metric.Counter)
		to.Sample(float64(c.OK), "outcome", "ok")
		to.Sample(float64(c.Failed), "outcome", "failed")
		to.Sample(float64(c.TimedOut), "outcome", "timeout")
		to.Sample(float64(c.Stopped), "outcome", "stopped")
		to.Single("callhome_hook_dropped_total", "Events without a run of the hook, as its queue was full.", metric.Counter, float64(c.Dropped))
	}))
}
