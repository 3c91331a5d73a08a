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

// world is a manager whose calls go nowhere: the test says what becomes of
// each.
type world struct {
	t *testing.T

	mu     sync.Mutex // guards the fields that follow
	calls  []*call    // newest last, those of a former run included
	events []proto.Event
	err    error         // of the next calls
	hold   chan struct{} // Kept waits for it, where there is one
}

func (w *world) Keep(s *settings.Call, owner session.Owner) (Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	c := newCall(len(w.calls)+1, owner, proto.StateCalling)
	c.info.Host, c.info.Port, c.with = s.Host, s.Port, *s
	w.calls = append(w.calls, c)
	return c, nil
}

func (w *world) Kept() []Session {
	if w.hold != nil {
		<-w.hold
	}
	var out []Session
	for _, c := range w.open() {
		out = append(out, c)
	}
	return out
}

func (w *world) Publish(e proto.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// open returns the calls that have not ended.
func (w *world) open() (out []*call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c.Info().State != proto.StateClosed {
			out = append(out, c)
		}
	}
	return out
}

// made returns how many calls there were.
func (w *world) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// last returns the newest call.
func (w *world) last() *call {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.t.Fatal("nobody was called")
	}
	return w.calls[len(w.calls)-1]
}

// told returns the names of the events since it was asked last.
func (w *world) told() (out []string) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		out = append(out, e.Event)
	}
	w.events = nil
	return out
}

func (w *world) tells(want ...string) {
	w.t.Helper()
	if got := w.told(); !slices.Equal(got, want) {
		w.t.Errorf("told %v, expected %v", got, want)
	}
}

// found is a session of a former run.
func (w *world) found(e config.Endpoint, state proto.State) *call {
	c := newCall(len(w.calls)+1, owner(&e), state)
	w.calls = append(w.calls, c)
	return c
}

// call is a session without a process.
type call struct {
	owner session.Owner
	with  settings.Call
	done  chan struct{}

	mu      sync.Mutex // guards the fields that follow
	info    proto.SessionInfo
	heard   time.Time // when the peer was heard last; zero: there are no figures
	silent  bool
	changed chan struct{}
	ended   []proto.End // as it was told
	// stubborn is one that End does not end, only the test.
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

func (c *call) End(end proto.End, cause string) {
	c.mu.Lock()
	c.ended = append(c.ended, end)
	stubborn := c.stubborn
	c.mu.Unlock()
	if !stubborn {
		c.ends(proto.StageSession, end, cause)
	}
	<-c.done
}

// orders returns the ends that it was told.
func (c *call) orders() []proto.End {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ended)
}

// becomes lets the session go through states.
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

// serves lets the client log in and speak NETCONF.
func (c *call) serves() {
	c.becomes(proto.StateStarting, proto.StateKeyExchange, proto.StateAuthenticated, proto.StateServing)
}

var graceful = []proto.End{proto.EndKilled, proto.EndDisconnected, proto.EndIdle}

// ends ends the session; once more is no fault.
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

// play runs a story in a bubble with time of its own. What the keeper has left
// running when it is closed and the sessions have ended fails it.
func play(t *testing.T, o Options, story func(w *world, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		k := New(w, o, hclog.NewNullLogger())
		story(w, k)
		k.Close()
		for _, c := range w.open() {
			c.ends(proto.StageSession, proto.EndKilled, "the test is over")
		}
	})
}

// status returns the one client's.
func status(t *testing.T, k *Keeper) proto.ClientStatus {
	t.Helper()
	synctest.Wait()
	list := k.Status()
	if len(list) != 1 {
		t.Fatalf("%d clients", len(list))
	}
	return list[0]
}

func is(t *testing.T, k *Keeper, want proto.ClientState) {
	t.Helper()
	if got := status(t, k).State; got != want {
		t.Errorf("the client is %s, expected %s", got, want)
	}
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("nms%d", i))
	}
	return out
}

var errFull = errors.New("4096 sessions are open, no more are taken")
