// Package manager owns the set of call-home sessions: it makes each call, lists the
// sessions by number, publishes their events, and restores the sessions of an
// earlier manager. Package api serves it, package reconnect keeps standing
// connections with it, and cmd/callhome-mgr sets it up. It holds no lock while it
// dials or starts or ends a process, so no peer, client or session delays another.
package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/device/process"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/device/subsystem"
	"callhome/internal/proto"
	"callhome/internal/pubsub"
)

// Config configures the call homes on request.
type Config struct {
	// Call has the settings of each call home, as callhome-trigger's without a
	// target.
	Call *settings.Call
	// Executable, if set, makes the calls instead: ConfD's sshCallHomeExecutable.
	Executable string
}

// Limits of a manager.
const (
	maxCalls  = 4096 // open sessions, those without a connection included
	maxRecent = 64   // ended sessions in Status
)

// Manager is the set of sessions.
type Manager struct {
	version string
	env     session.Env
	config  atomic.Pointer[Config]
	begun   time.Time

	mu       sync.Mutex // guards the fields that follow; held for map look-ups only
	sessions map[int]*session.Session
	open     int                 // sessions, and admitted ones without a number yet
	recent   []proto.SessionInfo // newest last
	calls    uint64
	failed   uint64
	stopping bool

	started chan struct{} // closed when Restore is done
	tidies  atomic.Bool   // tidy will run
	lock    *os.File      // of the state directory
	reports *subsystem.Listener
	hub     pubsub.Hub[proto.Event]
}

// New returns a manager of that version with its sessions' files in dir
// (session.PrepareDir). The caller must call Restore next.
func New(version, dir string, c *Config) (*Manager, error) {
	lock, err := session.LockDir(dir)
	if err != nil {
		return nil, err
	}
	watch, err := session.NewWatch(dir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	m := &Manager{version: version, lock: lock, begun: time.Now().UTC(), sessions: make(map[int]*session.Session), started: make(chan struct{})}
	m.config.Store(c)
	m.hub.Spare = func(e proto.Event) bool { return e.Event == proto.EventLog }
	m.env = session.Env{Dir: dir, Watch: watch, Publish: m.publish}
	return m, nil
}

// ServeReports serves at socket the helpers' reports that a session's subsystem
// starts (package subsystem). helper is callhome-trigger, which every user must be
// able to execute. Without ServeReports the manager detects a subsystem only by its
// process, and not in which order a session ended. Call it before Restore.
func (m *Manager) ServeReports(socket, helper string) error {
	l, err := daemon.ListenUnix(socket, "subsystem")
	if err != nil {
		return err
	}
	m.reports = subsystem.Listen(l, m.report, m.inSession)
	m.env.Helper, m.env.ReportSocket = helper, socket
	go func() { // it returns only when the listener is closed
		_ = m.reports.Serve(func() (*net.UnixConn, error) { return daemon.Accept(l.AcceptUnix, func(error) {}) })
	}()
	return nil
}

// report passes a helper's report to the session that its nonce names.
func (m *Manager) report(r subsystem.Report) (*os.File, error) {
	id, ok := subsystem.SessionOf(r.Nonce)
	if !ok {
		return nil, errors.New("malformed nonce")
	}
	m.mu.Lock()
	s := m.sessions[id]
	m.mu.Unlock()
	if s == nil {
		return nil, errors.New("unknown nonce")
	}
	return s.Report(r)
}

// inSession reports whether a process is below a session's sshd.
func (m *Manager) inSession(pid int) bool {
	above := process.System.Ancestors(pid)
	return slices.ContainsFunc(m.Sessions(), func(s proto.SessionInfo) bool { return s.PID != 0 && slices.Contains(above, s.PID) })
}

// SetConfig sets the configuration of later calls; it does not affect sessions.
func (m *Manager) SetConfig(c *Config) { m.config.Store(c) }

// Restore restores the sessions of an earlier manager. The error says what could
// not be read; the manager runs nevertheless, and retries.
func (m *Manager) Restore() error {
	found, left, err := session.Restore(&m.env)
	m.restored(found)
	if len(left) > 0 {
		go m.restoreLeft(left)
	}
	close(m.started)
	return err
}

// retryRestore is the pause before a retry for sessions that could not be restored,
// as without free descriptors or memory.
const retryRestore = 5 * time.Second

func (m *Manager) restoreLeft(left []int) {
	for len(left) > 0 {
		time.Sleep(retryRestore)
		if m.isStopping() {
			return
		}
		var found []*session.Session
		found, left, _ = session.RestoreThese(&m.env, left)
		m.restored(found)
	}
}

func (m *Manager) restored(found []*session.Session) {
	for _, s := range found {
		m.mu.Lock()
		m.open++
		m.mu.Unlock()
		m.keep(s)
	}
}

func (m *Manager) isStopping() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping
}

// AwaitStart returns when Restore is done.
func (m *Manager) AwaitStart(ctx context.Context) error {
	select {
	case <-m.started:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stop refuses further calls. Subscribers still get events until Close.
func (m *Manager) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
}

// Close, after Stop, stops supervising. Sessions continue without a manager.
func (m *Manager) Close() {
	m.hub.Close()
	m.env.Watch.Close()
	if m.reports != nil {
		m.reports.Close()
	}
	m.lock.Close()
}

// tidyPause is how long after an event memory is returned to the kernel.
const tidyPause = 3 * time.Second

// tidySoon has the memory returned to the kernel that the calls and logins of the last
// seconds needed. Go itself collects no garbage before there are 4 MiB of it, and the
// stacks of goroutines that have ended count as garbage: 50 sessions that began at
// once left 60 KiB each. Nothing runs while there are no events.
func (m *Manager) tidySoon() {
	if m.tidies.CompareAndSwap(false, true) {
		time.AfterFunc(tidyPause, func() {
			m.tidies.Store(false)
			debug.FreeOSMemory()
		})
	}
}

// publish counts a session's event and sends it to the subscribers.
func (m *Manager) publish(e proto.Event) {
	m.tidySoon()
	if e.Event == proto.EventFailed {
		m.mu.Lock()
		m.failed++
		m.mu.Unlock()
	}
	m.hub.Publish(e)
}

// Follow returns a subscription to all events from now on, until Close.
func (m *Manager) Follow() pubsub.Source[proto.Event] { return m.hub.Follow() }

// SubscribeSince returns the latest events, and a channel of those that follow. It is
// closed after cancel, at Close, or when the subscriber reads too slowly.
func (m *Manager) SubscribeSince() (last []proto.Event, events <-chan proto.Event, cancel func()) {
	return m.hub.Subscribe()
}

// admit counts one more session or refuses it; keep or abandon must follow.
func (m *Manager) admit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopping:
		return proto.NewError(proto.CodeShutdown, "callhome-mgr is stopping")
	case m.open >= maxCalls:
		return proto.NewError(proto.CodeBusy, fmt.Sprintf("limit of %d open sessions reached", maxCalls))
	}
	m.calls++
	m.open++
	return nil
}

// abandon uncounts an admitted session that was not created.
func (m *Manager) abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

// keep lists an admitted session until it has ended.
func (m *Manager) keep(s *session.Session) {
	id := s.Info().Session
	m.mu.Lock()
	m.sessions[id] = s
	m.mu.Unlock()
	context.AfterFunc(s.Context(), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open--
		delete(m.sessions, id)
		m.recent = append(m.recent, s.Info())
		if len(m.recent) > maxRecent {
			m.recent = slices.Delete(m.recent, 0, len(m.recent)-maxRecent)
		}
	})
}

// begin creates a session without a connection.
func (m *Manager) begin(p proto.CallParams, via proto.Via, owner session.Owner) (*session.Session, error) {
	if err := m.admit(); err != nil {
		return nil, err
	}
	id, err := session.Next(m.env.Dir)
	if err != nil {
		m.abandon()
		return nil, proto.NewError(proto.CodeOS, err.Error())
	}
	s := session.New(&m.env, id, p, via, owner)
	m.keep(s)
	return s, nil
}

// Kept returns the sessions that belong to the configuration.
func (m *Manager) Kept() []*session.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*session.Session
	for _, s := range m.sessions {
		if s.Owner().Client != "" {
			out = append(out, s)
		}
	}
	return out
}

// Publish sends the subscribers an event that concerns no session.
func (m *Manager) Publish(e proto.Event) { m.hub.Publish(e) }

// Kill ends a session for the named peer and returns when it has ended.
func (m *Manager) Kill(id int, peer string) (proto.SessionInfo, error) {
	m.mu.Lock()
	s := m.sessions[id]
	m.mu.Unlock()
	if s == nil {
		return proto.SessionInfo{}, proto.NewError(proto.CodeNoExists, fmt.Sprintf("there is no session %d", id))
	}
	s.Kill(peer)
	return s.Info(), nil
}

// Sessions returns all sessions that have not ended, by number.
func (m *Manager) Sessions() []proto.SessionInfo {
	m.mu.Lock()
	list := make([]*session.Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		list = append(list, s)
	}
	m.mu.Unlock()
	out := make([]proto.SessionInfo, len(list))
	for i, s := range list {
		out[i] = s.Info()
	}
	slices.SortFunc(out, func(a, b proto.SessionInfo) int { return a.Session - b.Session })
	return out
}

// Status returns the manager's state.
func (m *Manager) Status() proto.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	recent := append([]proto.SessionInfo{}, m.recent...) // [] in JSON, not null
	slices.Reverse(recent)
	st := proto.Status{Version: m.version, PID: os.Getpid(), Since: m.begun, Sessions: len(m.sessions), Calls: m.calls, Failed: m.failed, Recent: recent}
	select {
	case <-m.started:
		st.Started = true
	default:
	}
	return st
}
