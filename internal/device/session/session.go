// Package session owns one call-home session, from the call to the last log line
// of its sshd: its number and state, its process, its log, a duplicate of its
// socket, and its state file, from which a later manager restores it. Package
// manager uses it. It is never in the data path: a session continues when the
// manager ends.
//
//	New ──▶ Start, Execute ──▶ events … ──▶ Done
//	Restore ─────────────────────┘
//
// One goroutine at a time, the supervisor's, changes a running session's state; others
// read copies of it. An idle session has no goroutine.
package session

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"callhome/internal/device/process"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"
)

// Env is shared by all sessions.
type Env struct {
	// Dir holds the sessions' files; on tmpfs, mode 0700.
	Dir   string
	Watch *Watch
	// Publish gets every event, in order within a session. It must not block.
	Publish func(proto.Event)

	// Helper is callhome-trigger, which reports the start of the subsystem to
	// ReportSocket; "" for none.
	Helper, ReportSocket string

	// proven replaces package evidence in tests: for a login, and with user "" for
	// the subsystem.
	proven func(sshd process.Identity, user string) bool

	remains remains
}

// Session is one call home.
type Session struct {
	env    *Env
	ctx    context.Context // ends with the session
	cancel func()

	begin     sync.Mutex // held while sshd is started, or a session without sshd ended; taken before mu
	finishing sync.Once  // the end is published once

	supervisor *supervisor

	mu      sync.Mutex // guards the fields that follow
	rec     record
	changed chan struct{} // closed and replaced when rec.State changes
	sock    *os.File      // duplicate of sshd's socket, or nil
	order   order         // the request to end it, if any
	unsaved bool          // the state file is older than rec
	sent    uint64        // bytes sent on sock before sshd had it, as an announcement
	reports ratelimit.Limit

	// The process that confirmEnd is about, and what cancels it.
	confirming process.Identity
	endConfirm context.CancelFunc
}

// Owner is the part of the configuration that a session belongs to.
type Owner struct {
	Client, Endpoint string
	// Config identifies the version of the endpoint's configuration.
	Config string
}

// New returns a session that has no connection yet.
func New(env *Env, id int, p proto.CallParams, via proto.Via, owner Owner) *Session {
	s := newSession(env, record{Version: recordVersion, SessionInfo: proto.SessionInfo{
		Session: id, State: proto.StateCalling, Host: p.Host, Port: p.Port, Opaque: p.Opaque, Since: stamp(), Via: via,
		Client: owner.Client, Endpoint: owner.Endpoint,
	}, Config: owner.Config})
	s.publish(proto.EventCalling, "")
	return s
}

// newSession returns the session of a record.
func newSession(env *Env, r record) *Session {
	s := &Session{env: env, rec: r, changed: make(chan struct{}), reports: reportLimit}
	s.supervisor = newSupervisor(s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Context ends with the session: the context of its name resolution and dialing.
func (s *Session) Context() context.Context { return s.ctx }

// Info returns a copy of the session's state, with the kernel's current figures.
func (s *Session) Info() proto.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.rec.SessionInfo
	if s.sock != nil {
		info.Stats = stats(s.sock) // without a socket: those at the end, if any
	}
	return info
}

// Stats returns the kernel's current figures, nil without a connection.
func (s *Session) Stats() *proto.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stats(s.sock)
}

// Owner returns the configured endpoint that the session belongs to, the zero
// value for a call home on request.
func (s *Session) Owner() Owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Owner{s.rec.Client, s.rec.Endpoint, s.rec.Config}
}

// Done is closed when the session has ended and its files are removed.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

func (s *Session) id() int { return s.rec.Session } // never changes

// Await returns when the session has reached state. It fails when the session ends
// before that, or when ctx does.
func (s *Session) Await(ctx context.Context, state proto.State) (proto.SessionInfo, error) {
	for {
		s.mu.Lock()
		info, changed := s.rec.SessionInfo, s.changed
		s.mu.Unlock()
		switch {
		case info.State == proto.StateClosed:
			return info, ErrEnded
		case reached(info.State, state):
			return info, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return info, context.Cause(ctx)
		}
	}
}

// startTime bounds AwaitStarted's wait for sshd's first byte. callhome-trigger, which
// waits for the answer to its handover, gives up after 10 s.
const startTime = 5 * time.Second

// AwaitStarted returns when sshd has sent its first byte, or has logged the
// connection, and after startTime. It fails when the session ends before that: an
// sshd that refuses its configuration or finds no host key sends nothing.
func (s *Session) AwaitStarted(ctx context.Context) (proto.SessionInfo, error) {
	info, err := s.Await(ctx, proto.StateStarting)
	for end := time.Now().Add(startTime); err == nil && info.State == proto.StateStarting && !s.hasSent() && time.Now().Before(end); {
		// The kernel has no event for "a byte was sent".
		select {
		case <-time.After(2 * time.Millisecond):
			info, err = s.Await(ctx, proto.StateStarting)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return info, err
}

// hasSent reports whether sshd has sent a byte.
func (s *Session) hasSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := tcpInfo(s.sock)
	return info != nil && info.Bytes_sent-info.Bytes_retrans > s.sent
}

// ErrEnded says that a session ended before it reached the awaited state.
var ErrEnded = errors.New("the session has ended")

// reached reports whether state is wanted or a later one.
func reached(state, wanted proto.State) bool {
	return slices.Index(proto.States, state) >= slices.Index(proto.States, wanted)
}

func (s *Session) isUnsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsaved
}

// publishState publishes the event of a state change and wakes the waiters.
func (s *Session) publishState(event, text string) {
	s.publish(event, text)
	s.wake()
}

// wake wakes the goroutines in Await.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Session) publish(event, text string) {
	s.mu.Lock()
	e := proto.Event{Time: time.Now().UTC(), Event: event, Session: s.rec.SessionInfo, Text: text}
	s.mu.Unlock()
	s.env.Publish(e)
}

// save writes the state file. On failure the session stays unsaved, and save is
// called again: otherwise a later manager would restore an old state.
func (s *Session) save() {
	s.mu.Lock()
	r := s.rec
	s.mu.Unlock()
	err := r.write(s.env.Dir)
	s.mu.Lock()
	first := err != nil && !s.unsaved
	s.unsaved = err != nil
	s.mu.Unlock()
	if first {
		s.publish(proto.EventTrouble, err.Error())
	}
}
