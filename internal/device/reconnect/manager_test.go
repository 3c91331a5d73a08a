package reconnect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
)

// fakeManager is a Manager whose call homes make no connection. The test moves each
// through its states.
type fakeManager struct {
	t *testing.T

	mu     sync.Mutex // guards the fields that follow
	calls  []*call    // newest last, found sessions included
	events []proto.Event
	err    error         // of the next calls of Keep
	hold   chan struct{} // if set, Kept waits for it
}

func (m *fakeManager) Keep(s *settings.Call, owner session.Owner) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	c := newCall(len(m.calls)+1, owner, proto.StateCalling)
	c.info.Host, c.info.Port, c.with = s.Host, s.Port, *s
	m.calls = append(m.calls, c)
	return c, nil
}

func (m *fakeManager) Kept() []Session {
	if m.hold != nil {
		<-m.hold
	}
	var out []Session
	for _, c := range m.open() {
		out = append(out, c)
	}
	return out
}

func (m *fakeManager) Publish(e proto.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// open returns the calls that have not ended.
func (m *fakeManager) open() (out []*call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c.Info().State != proto.StateClosed {
			out = append(out, c)
		}
	}
	return out
}

// made returns how many calls there were.
func (m *fakeManager) made() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.calls)
}

// last returns the newest call.
func (m *fakeManager) last() *call {
	m.t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls) == 0 {
		m.t.Fatal("no call home was made")
	}
	return m.calls[len(m.calls)-1]
}

// published returns the names of the events since its last call.
func (m *fakeManager) published() (out []string) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		out = append(out, e.Event)
	}
	m.events = nil
	return out
}

func (m *fakeManager) publishes(want ...string) {
	m.t.Helper()
	if got := m.published(); !slices.Equal(got, want) {
		m.t.Errorf("published %v, expected %v", got, want)
	}
}

// found adds a session of an earlier run.
func (m *fakeManager) found(e config.Endpoint, state proto.State) *call {
	c := newCall(len(m.calls)+1, owner(&e), state)
	m.calls = append(m.calls, c)
	return c
}

// call is a session without a process.
type call struct {
	owner session.Owner
	with  settings.Call
	done  chan struct{}

	mu      sync.Mutex // guards the fields that follow
	info    proto.SessionInfo
	heard   time.Time // last data from the peer; zero: Stats returns nil
	silent  bool
	changed chan struct{}
	ended   []proto.End // arguments of EndSoon
	// stubborn: EndSoon does not end the session, only the test does.
	stubborn bool
}

func newCall(id int, owner session.Owner, state proto.State) *call {
	return &call{owner: owner, done: make(chan struct{}), changed: make(chan struct{}), info: proto.SessionInfo{
		Session: id, State: state, Client: owner.Client, Endpoint: owner.Endpoint, Since: time.Now(), User: "netop", Remote: "192.0.2.1:4334",
	}}
}

func (c *call) Owner() session.Owner  { return c.owner }
func (c *call) Done() <-chan struct{} { return c.done }

func (c *call) Info() proto.SessionInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

func (c *call) Stats() *proto.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.heard.IsZero():
		return nil
	case !c.silent:
		c.heard = time.Now()
	}
	return &proto.Stats{LastReceived: time.Since(c.heard)}
}

func (c *call) Await(ctx context.Context, state proto.State) (proto.SessionInfo, error) {
	for {
		c.mu.Lock()
		info, changed := c.info, c.changed
		c.mu.Unlock()
		if info.State == proto.StateClosed {
			return info, session.ErrEnded
		}
		if slices.Index(proto.States, info.State) >= slices.Index(proto.States, state) {
			return info, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return info, ctx.Err()
		}
	}
}

func (c *call) EndSoon(end proto.End, cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, end)
	if !c.stubborn {
		go c.ends(proto.StageSession, end, cause)
	}
}

func (c *call) Ending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ended) > 0
}

// endCalls returns the ends that EndSoon was called with.
func (c *call) endCalls() []proto.End {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ended)
}

// becomes moves the session through states.
func (c *call) becomes(states ...proto.State) {
	for _, s := range states {
		c.mu.Lock()
		c.info.State = s
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		synctest.Wait()
	}
}

// serves moves the session to serving NETCONF.
func (c *call) serves() {
	c.becomes(proto.StateStarting, proto.StateKeyExchange, proto.StateAuthenticated, proto.StateServing)
}

var graceful = []proto.End{proto.EndKilled, proto.EndDisconnected, proto.EndIdle}

// ends ends the session; a second call has no effect.
func (c *call) ends(stage proto.Stage, end proto.End, cause string) {
	c.mu.Lock()
	if c.info.State == proto.StateClosed {
		c.mu.Unlock()
		return
	}
	c.info.State, c.info.Stage, c.info.End, c.info.Cause = proto.StateClosed, stage, end, cause
	c.info.Graceful = (stage == proto.StageSession || stage == proto.StageSubsystem) && slices.Contains(graceful, end)
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	close(c.done)
}

func (c *call) refused() {
	c.ends(proto.StageTCP, proto.EndNoConnection, "connection refused")
	synctest.Wait()
}

func (c *call) lost() {
	c.ends(proto.StageSession, proto.EndReset, "connection reset")
	synctest.Wait()
}

// conf is a persistent client with endpoints of these names. Pauses have no
// jitter.
func conf(name string, endpoints ...string) config.Client {
	c := config.Client{
		Name: name, Enabled: true,
		Reconnect: config.Reconnect{StartWith: config.FirstListed, MaxWait: 5 * time.Second, MaxAttempts: 3},
		Backoff:   config.Backoff{Initial: time.Second, Maximum: time.Minute},
	}
	for _, e := range endpoints {
		c.Endpoints = append(c.Endpoints, config.Endpoint{Client: name, Name: e, Host: e + ".example", Port: 4334})
	}
	return c
}

func periodic(c config.Client, p config.Periodic) config.Client {
	c.Periodic = &p
	return c
}

func clients(list ...config.Client) *config.Config { return &config.Config{Clients: list} }

// play runs a story with virtual time (testing/synctest). A goroutine that still
// runs after Close, when all sessions have ended, fails the test.
func play(t *testing.T, o Options, story func(m *fakeManager, cs *Clients)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &fakeManager{t: t}
		cs := New(m, o, hclog.NewNullLogger())
		story(m, cs)
		cs.Close()
		for _, c := range m.open() {
			c.ends(proto.StageSession, proto.EndKilled, "the test is over")
		}
	})
}

// status returns the status of the only client.
func status(t *testing.T, cs *Clients) proto.ClientStatus {
	t.Helper()
	synctest.Wait()
	list := cs.Status()
	if len(list) != 1 {
		t.Fatalf("%d clients", len(list))
	}
	return list[0]
}

func is(t *testing.T, cs *Clients, want proto.ClientState) {
	t.Helper()
	if got := status(t, cs).State; got != want {
		t.Errorf("the client is %s, expected %s", got, want)
	}
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("nms%d", i))
	}
	return out
}

var errFull = errors.New("limit of 4096 open sessions reached")
