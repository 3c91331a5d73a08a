package metrics

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/hook"
	"callhome/internal/proto"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// list is a Source of these sessions, without clients.
type list []proto.SessionInfo

func (l *list) Sessions() []proto.SessionInfo { return *l }
func (*list) Clients() []proto.ClientStatus   { return nil }

// configured is a Source with clients and no sessions.
type configured []proto.ClientStatus

func (configured) Sessions() []proto.SessionInfo   { return nil }
func (c configured) Clients() []proto.ClientStatus { return c }

// scraped returns the text of a scrape.
func scraped(m *Metrics) string {
	return string(m.Text())
}

// families parses a scrape, as Prometheus does.
func families(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	f, err := parser.TextToMetricFamilies(strings.NewReader(scraped(m)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// value returns one series: its value, or a histogram's sum and count.
func value(t *testing.T, m *Metrics, name string, labels ...string) (value float64, count uint64) {
	t.Helper()
	for _, s := range families(t, m)[name].GetMetric() {
		var has []string
		for _, l := range s.GetLabel() {
			has = append(has, l.GetName()+"="+l.GetValue())
		}
		if !slices.Equal(has, labels) {
			continue
		}
		h := s.GetHistogram()
		return s.GetCounter().GetValue() + s.GetGauge().GetValue() + h.GetSampleSum(), h.GetSampleCount()
	}
	t.Fatalf("there is no %s with %v", name, labels)
	return 0, 0
}

func TestTheOutputPassesPromlint(t *testing.T) {
	m := New(&list{{Session: 1, State: proto.StateServing, Stats: &proto.Stats{RTT: time.Millisecond}}}, "v1.2")
	m.AddHook(func() hook.Counts { return hook.Counts{} })
	m.Handle(event(proto.EventCalling, 0))
	problems, err := promlint.New(strings.NewReader(scraped(m))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "callhome_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, want := range []string{"callhome_build_info", "go_goroutines", "process_open_fds"} {
		if families(t, m)[want] == nil {
			t.Errorf("there is no %s", want)
		}
	}
}

// session returns the events of a session with text from outside in every field that
// can have it.
func session(id int, text string) []proto.Event {
	info := proto.SessionInfo{
		Session: id, Host: text, Opaque: text, Remote: text, Local: text, User: text, Method: text, Key: text, Cert: text, Cause: text,
		Via: proto.Via(text), Stage: proto.Stage(text), State: proto.StateServing, Since: noon,
	}
	var all []proto.Event
	for i, name := range append(slices.Clone(proto.Events), text) {
		if name == proto.EventClosed {
			info.State = proto.StateClosed
		}
		all = append(all, proto.Event{Time: noon.Add(time.Duration(i) * time.Second), Event: name, Text: text, Session: info})
	}
	return all
}

func TestSeriesAreBounded(t *testing.T) {
	sessions := &list{}
	m := New(sessions, "v1.2")
	series := func() (n int) {
		for _, f := range families(t, m) {
			if strings.HasPrefix(f.GetName(), "callhome_") {
				n += len(f.GetMetric())
			}
		}
		return n
	}
	publish := func(from, to int) {
		for id := from; id < to; id++ {
			text := fmt.Sprintf("outside-%d\n\"{}", id)
			for _, e := range session(id, text) {
				m.Handle(e)
			}
			*sessions = append(*sessions, proto.SessionInfo{Session: id, Host: text, User: text, State: proto.State(text), Stats: &proto.Stats{RTT: 1}})
		}
	}
	publish(1, 2)
	one := series()
	publish(2, 1001)
	if now := series(); now != one {
		t.Errorf("one session makes %d series, a thousand make %d", one, now)
	}
	if strings.Contains(scraped(m), "outside-") {
		t.Error("text from outside is in the output")
	}
	if got, _ := value(t, m, "callhome_events_total", "event=other"); got != 1000 {
		t.Errorf("got %v unknown events, want 1000", got)
	}
}

// Every possible series is 0 from the start: otherwise the first failure of a kind
// would not be an increase.
func TestSeriesStartAtZero(t *testing.T) {
	sessions := &list{}
	m := New(sessions, "v1.2")
	before := seriesOf(t, m)
	for _, name := range proto.Events {
		m.Handle(event(name, 0))
	}
	for _, via := range vias {
		e := event(proto.EventCalling, 0)
		e.Session.Via = via
		m.Handle(e)
	}
	for outcome, at := range map[string][]proto.Stage{proto.EventFailed: failing, proto.EventClosed: closing} {
		for _, stage := range at {
			e := event(outcome, 0)
			e.Session.Stage = stage
			m.Handle(e)
		}
	}
	for _, state := range proto.States {
		*sessions = append(*sessions, proto.SessionInfo{State: state})
	}
	for s := range seriesOf(t, m) {
		// event sets no stage, which is counted as "other".
		if !before[s] && !strings.Contains(s, `value:"other"`) {
			t.Errorf("%s was not there at the start", s)
		}
	}
}

func seriesOf(t *testing.T, m *Metrics) map[string]bool {
	all := make(map[string]bool)
	for name, f := range families(t, m) {
		for _, s := range f.GetMetric() {
			if strings.HasPrefix(name, "callhome_") {
				all[strings.ReplaceAll(fmt.Sprint(name, s.GetLabel()), "  ", " ")] = true
			}
		}
	}
	return all
}

func TestCallsAndEnds(t *testing.T) {
	m := New(&list{}, "v1.2")
	for i, name := range []string{"calling", "connected", "key-exchange", "authenticated", "subsystem"} {
		m.Handle(event(name, 2*i))
	}
	end := event(proto.EventClosed, 100)
	end.Session.Stage = proto.StageSession
	end.Session.Stats = &proto.Stats{BytesSent: 5, BytesReceived: 6, Retransmits: 7, RTT: 250 * time.Millisecond}
	m.Handle(end)
	m.Handle(event(proto.EventCalling, 200))
	end = event(proto.EventFailed, 300)
	end.Session.Stage = proto.StageTCP
	m.Handle(end)

	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
		count  uint64
	}{
		{"callhome_calls_total", []string{"via=manager"}, 2, 0},
		{"callhome_calls_total", []string{"via=handover"}, 0, 0},
		{"callhome_calls_finished_total", []string{"outcome=closed", "stage=session"}, 1, 0},
		{"callhome_calls_finished_total", []string{"outcome=failed", "stage=tcp"}, 1, 0},
		{"callhome_calls_finished_total", []string{"outcome=failed", "stage=ssh"}, 0, 0},
		{"callhome_events_total", []string{"event=calling"}, 2, 0},
		{"callhome_stage_duration_seconds", []string{"stage=tcp"}, 2, 1},
		{"callhome_stage_duration_seconds", []string{"stage=ssh"}, 2, 1},
		{"callhome_stage_duration_seconds", []string{"stage=authentication"}, 2, 1},
		{"callhome_stage_duration_seconds", []string{"stage=subsystem"}, 2, 1},
		{"callhome_session_duration_seconds", nil, 100, 1}, // not of the call that failed
		{"callhome_session_rtt_seconds", nil, 0.25, 1},
		{"callhome_sent_bytes_total", nil, 5, 0},
		{"callhome_received_bytes_total", nil, 6, 0},
		{"callhome_retransmits_total", nil, 7, 0},
		{"callhome_build_info", []string{"goversion=" + runtime.Version(), "version=v1.2"}, 1, 0},
	} {
		if got, count := value(t, m, tt.name, tt.labels...); got != tt.want || count != tt.count {
			t.Errorf("%s %v: got %v of %d, want %v of %d", tt.name, tt.labels, got, count, tt.want, tt.count)
		}
	}
}

func TestOpenSessions(t *testing.T) {
	sessions := &list{}
	m := New(sessions, "v1.2")
	if f := families(t, m); f["callhome_rtt_mean_seconds"] != nil || f["callhome_rtt_max_seconds"] != nil {
		t.Error("there is a round-trip time without a connection")
	}
	*sessions = list{
		{Session: 1, State: proto.StateServing, Stats: &proto.Stats{RTT: 10 * time.Millisecond}},
		{Session: 2, State: proto.StateServing, Stats: &proto.Stats{RTT: 30 * time.Millisecond}},
		{Session: 3, State: proto.StateKeyExchange, Stats: &proto.Stats{}}, // not measured yet
		{Session: 4, State: proto.StateCalling},
		{Session: 5, State: proto.StateClosed}, // ended, not yet off the list
	}
	for state, want := range map[string]float64{"calling": 1, "starting": 0, "key-exchange": 1, "authenticated": 0, "serving": 2} {
		if got, _ := value(t, m, "callhome_sessions", "state="+state); got != want {
			t.Errorf("got %v sessions %s, want %v", got, state, want)
		}
	}
	if got, _ := value(t, m, "callhome_rtt_mean_seconds"); got != 0.02 {
		t.Errorf("got a mean of %v s, want 0.02", got)
	}
	if got, _ := value(t, m, "callhome_rtt_max_seconds"); got != 0.03 {
		t.Errorf("got a maximum of %v s, want 0.03", got)
	}
}

func TestTrafficOfOpenSessions(t *testing.T) {
	sessions := &list{}
	m := New(sessions, "v1.2")
	m.Handle(event(proto.EventCalling, 0))
	for _, sent := range []uint64{100, 150} {
		*sessions = list{{Session: 1, State: proto.StateServing, Stats: &proto.Stats{BytesSent: sent, BytesReceived: sent + 1, Retransmits: 2}}}
		for name, want := range map[string]float64{
			"callhome_sent_bytes_total": float64(sent), "callhome_received_bytes_total": float64(sent + 1), "callhome_retransmits_total": 2,
		} {
			if got, _ := value(t, m, name); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	}
}

func TestMissed(t *testing.T) {
	m := New(&list{{Session: 2}}, "v1.2")
	for id := 1; id <= 2; id++ {
		e := event(proto.EventCalling, 0)
		e.Session.Session = id
		m.Handle(e)
	}
	m.Missed()
	if got, _ := value(t, m, "callhome_event_gaps_total"); got != 1 {
		t.Errorf("got %v gaps, want 1", got)
	}
	if len(m.ledger.open) != 1 {
		t.Errorf("%d entries are open, want that of session 2 alone", len(m.ledger.open))
	}
}

func TestHookCounts(t *testing.T) {
	m := New(&list{}, "v1.2")
	m.AddHook(func() hook.Counts { return hook.Counts{OK: 1, Failed: 2, TimedOut: 3, Stopped: 4, Dropped: 5} })
	for outcome, want := range map[string]float64{"ok": 1, "failed": 2, "timeout": 3, "stopped": 4} {
		if got, _ := value(t, m, "callhome_hook_runs_total", "outcome="+outcome); got != want {
			t.Errorf("got %v runs %s, want %v", got, outcome, want)
		}
	}
	if got, _ := value(t, m, "callhome_hook_dropped_total"); got != 5 {
		t.Errorf("got %v dropped, want 5", got)
	}
}

func TestClients(t *testing.T) {
	m := New(configured{{Client: "a", State: proto.ClientServing}, {Client: "b", State: proto.ClientWaiting}, {Client: "c", State: proto.ClientWaiting}, {Client: "d", State: "new"}}, "v1.2")
	for state, want := range map[proto.ClientState]float64{proto.ClientServing: 1, proto.ClientWaiting: 2, proto.ClientStopped: 0} {
		if got, _ := value(t, m, "callhome_clients", "state="+string(state)); got != want {
			t.Errorf("%v are %s, want %v", got, state, want)
		}
	}
	nms := &proto.ClientStatus{Client: "a"}
	of := func(name string, s proto.SessionInfo) proto.Event {
		return proto.Event{Time: noon, Event: name, Client: nms, Session: s}
	}
	for _, e := range []proto.Event{
		of(proto.EventAttemptFailed, proto.SessionInfo{Session: 1, State: proto.StateClosed, Stage: proto.StageTCP}),
		of(proto.EventAttemptFailed, proto.SessionInfo{Session: 2, State: proto.StateClosed, Stage: proto.StageTCP}),
		of(proto.EventAttemptFailed, proto.SessionInfo{Session: 3, State: proto.StateClosed, Stage: "new"}),
		{Time: noon, Event: proto.EventAuthenticated, Session: proto.SessionInfo{Session: 4, State: proto.StateAuthenticated, Client: "a"}},
		{Time: noon, Event: proto.EventAuthenticated, Session: proto.SessionInfo{Session: 5, State: proto.StateAuthenticated}}, // a call home on request
	} {
		m.Handle(e)
	}
	recovered := of(proto.EventRecovered, proto.SessionInfo{Session: 4, State: proto.StateAuthenticated})
	recovered.Outage = 1500 * time.Millisecond
	m.Handle(recovered)
	for name, want := range map[string]float64{"tcp": 2, "other": 1, "ssh": 0} {
		if got, _ := value(t, m, "callhome_client_attempts_failed_total", "stage="+name); got != want {
			t.Errorf("%v attempts failed at %s, want %v", got, name, want)
		}
	}
	if got, _ := value(t, m, "callhome_client_connections_total"); got != 1 {
		t.Errorf("%v connections", got)
	}
	if sum, n := value(t, m, "callhome_client_outage_seconds"); sum != 1.5 || n != 1 {
		t.Errorf("%d outages, together %v s", n, sum)
	}
}

// A client's event can follow its session's end, and the configuration's events
// have no session: neither opens an entry, which no later event would close.
func TestEventsOfClientsOpenNoEntry(t *testing.T) {
	m := New(configured{}, "v1.2")
	for id := range 100 {
		s := proto.SessionInfo{Session: id + 1, State: proto.StateAuthenticated}
		m.Handle(proto.Event{Time: noon, Event: proto.EventAuthenticated, Session: s})
		closed := s
		closed.State = proto.StateClosed
		m.Handle(proto.Event{Time: noon, Event: proto.EventClosed, Session: closed})
		m.Handle(proto.Event{Time: noon, Event: proto.EventRecovered, Session: s, Client: &proto.ClientStatus{}})
	}
	m.Handle(proto.Event{Time: noon, Event: proto.EventConfigApplied})
	if n := len(m.ledger.open); n != 0 {
		t.Errorf("%d are open", n)
	}
}
