// Package session owns one call-home session, from the call to the last log
// line of its sshd: its number and state, its process, its log, a duplicate of
// its socket, and its file, by which a later manager finds it again. The
// manager calls it. It is never in the data path, and nothing that the session
// needs ends with us.
//
//	New ──▶ Start, Execute ──▶ events … ──▶ Done
//	Restore ─────────────────────┘
//
// One goroutine owns a running session's state; others read copies.
package session

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"callhome/internal/proto"
)

// Env is what all sessions share.
type Env struct {
	// Dir holds the sessions' files; on tmpfs, mode 0700.
	Dir   string
	Watch *Watch
	// Publish gets every event, in the session's order, from the session's own
	// goroutine. It must not block.
	Publish func(proto.Event)

	// Helper is callhome-trigger, which reports the start of the subsystem to
	// ReportSocket; "" for none.
	Helper, ReportSocket string

	// proven stands for the evidence in tests: of a login, and with user "" of the
	// subsystem.
	proven func(sshd Identity, user string) bool
}

// Session is one call home.
type Session struct {
	env    *Env
	ctx    context.Context // ends with the session
	cancel func()

	begin sync.Mutex // held while sshd is started, and to end what is not; before mu
	over  sync.Once  // the end is published once

	reported chan struct{} // wakes the reader of the log

	mu      sync.Mutex // guards the fields that follow
	rec     record
	changed chan struct{} // closed and made anew when rec.State changes
	sock    *os.File      // duplicate; nil where we have none
	order   order         // to end
	unsaved bool          // the state file is not as rec is
}

// Owner is the part of the configuration that a session belongs to.
type Owner struct {
	Client, Endpoint string
	// Config tells one version of the endpoint's configuration from another.
	Config string
}

// New returns a session that has no connection yet.
func New(env *Env, id int, p proto.CallParams, via proto.Via, owner Owner) *Session {
	s := of(env, record{Version: recordVersion, SessionInfo: proto.SessionInfo{
		Session: id, State: proto.StateCalling, Host: p.Host, Port: p.Port, Opaque: p.Opaque, Since: stamp(), Via: via,
		Client: owner.Client, Endpoint: owner.Endpoint,
	}, Config: owner.Config})
	s.publish(proto.EventCalling, "")
	return s
}

// of returns the session of a record.
func of(env *Env, r record) *Session {
	s := &Session{env: env, rec: r, changed: make(chan struct{}), reported: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Context ends with the session: what a call that has no connection yet is made
// under.
func (s *Session) Context() context.Context { return s.ctx }

// Info returns a copy of what is known, with the kernel's figures.
func (s *Session) Info() proto.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.rec.SessionInfo
	if s.sock != nil {
		info.Stats = stats(s.sock) // else those of the end, if any
	}
	return info
}

// Stats returns the kernel's figures now; nil where there is no connection.
func (s *Session) Stats() *proto.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stats(s.sock)
}

// Owner returns what the session belongs to; the zero value where somebody
// asked for it.
func (s *Session) Owner() Owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Owner{s.rec.Client, s.rec.Endpoint, s.rec.Config}
}

// Done is closed when the session has ended and left nothing behind.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

func (s *Session) id() int { return s.rec.Session } // never changes

// Await returns when the session has come as far as state. It fails when the
// session ends before, or with ctx.
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

// ErrEnded says that a session ended before it came as far as was awaited.
var ErrEnded = errors.New("the session has ended")

// reached reports whether a state is wanted or one after it.
func reached(is, wanted proto.State) bool {
	return slices.Index(proto.States, is) >= slices.Index(proto.States, wanted)
}

func (s *Session) isUnsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsaved
}

func (s *Session) moved(event, words string) {
	s.publish(event, words)
	s.wake()
}

// wake lets those who wait for a state look again.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Session) publish(event, words string) {
	s.mu.Lock()
	e := proto.Event{Time: time.Now().UTC(), Event: event, Session: s.rec.SessionInfo, Text: words}
	s.mu.Unlock()
	s.env.Publish(e)
}

// save writes the state file. Where that fails the session is unsaved until a
// later try succeeds: a later manager would else take it for what it was.
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
