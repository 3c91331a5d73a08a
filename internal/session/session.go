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
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"callhome/internal/dial"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// Env is what all sessions share.
type Env struct {
	// Dir holds the sessions' files; on tmpfs, mode 0700.
	Dir   string
	Watch *Watch
	// Tell gets every event, in the session's order, from the session's own
	// goroutine. It must not block.
	Tell func(proto.Event)

	proven func(sshd Identity, user string) bool // nil: proven; for tests
}

// prove reports whether sshd's processes show a login.
func (e *Env) prove(sshd Identity, user string) bool {
	if e.proven != nil {
		return e.proven(sshd, user)
	}
	return proven(sshd, user)
}

// order is that a session shall end, how that is called, and why.
type order struct {
	end   proto.End
	cause string
}

// Session is one call home.
type Session struct {
	env  *Env
	done chan struct{}

	begin sync.Mutex // held while sshd is started, and to end what is not; before mu
	over  sync.Once  // the end is told once

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
func New(env *Env, id int, p proto.CallParams, via string, owner Owner) *Session {
	s := &Session{env: env, done: make(chan struct{}), changed: make(chan struct{})}
	s.rec = record{Version: recordVersion, SessionInfo: proto.SessionInfo{
		Session: id, State: proto.StateCalling, Host: p.Host, Port: p.Port, Opaque: p.Opaque, Since: stamp(), Via: via,
		Client: owner.Client, Endpoint: owner.Endpoint,
	}, Config: owner.Config}
	s.tell(proto.EventCalling, "")
	return s
}

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
func (s *Session) Done() <-chan struct{} { return s.done }

// Fail ends a session that never got a connection, unless it was ended before.
func (s *Session) Fail(stage proto.Stage, cause string) {
	if s.ended() {
		return
	}
	s.mu.Lock()
	s.rec.Stage, s.rec.Cause, s.rec.End = stage, cause, proto.EndNoConnection
	if stage == proto.StageHandover {
		s.rec.End = proto.EndSshd
	}
	s.mu.Unlock()
	s.finish(proto.EventFailed)
}

// Start hands the connection to sshd and supervises it. The socket of conn
// belongs to the session from here on, also on error; an error has ended the
// session.
func (s *Session) Start(cmd sshdexec.Command, conn *dial.Conn) error {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.ended() {
		conn.File.Close()
		return ErrEnded
	}
	log, err := s.openLog()
	if err != nil {
		conn.File.Close()
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	defer log.Close()
	s.mu.Lock()
	s.rec.Remote, s.rec.Local = conn.Remote.String(), conn.Local.String()
	cmd.Opaque = s.rec.Opaque
	s.mu.Unlock()
	// Whose it is must be known also where we are ended before its process is
	// noted, or its client would be called once more.
	s.save()
	p, err := cmd.Start(conn.File, log)
	if err != nil {
		conn.File.Close()
		_ = remove(s.env.Dir, s.id())
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	return s.supervise(p, conn.File)
}

// Execute lets another program make the call home, as ConfD runs its
// sshCallHomeExecutable: with host, port and opaque for arguments. Its standard
// error is the session's log, a regular file.
func (s *Session) Execute(program string) error {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.ended() {
		return ErrEnded
	}
	log, err := s.openLog()
	if err != nil {
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	defer log.Close()
	args := []string{s.rec.Host, strconv.Itoa(int(s.rec.Port))}
	if s.rec.Opaque != "" {
		args = append(args, s.rec.Opaque)
	}
	cmd := exec.Command(program, args...)
	// Were it callhome-trigger, it would else hand the socket back to us.
	cmd.Env = append(sshdexec.Environ(), "CALLHOME_HANDOVER=exec")
	cmd.Stderr = log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := sshdexec.Cleanly(cmd.Start); err != nil {
		_ = remove(s.env.Dir, s.id())
		s.Fail(proto.StageHandover, err.Error())
		return fmt.Errorf("starting %s: %w", program, err)
	}
	return s.supervise(cmd.Process, nil)
}

// ended reports whether the session is over.
func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *Session) id() int { return s.rec.Session } // never changes

func (s *Session) openLog() (*os.File, error) {
	f, err := os.OpenFile(logPath(s.env.Dir, s.id()), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log for sshd: %w", err)
	}
	return f, nil
}

// supervise takes over a process that was just started, and sock. A process that
// cannot be told from a later one could never be ended: then it is now.
func (s *Session) supervise(p *os.Process, sock *os.File) error {
	id, err := identify(p.Pid) // it is there until it is waited for, below
	if err != nil {
		if sock != nil {
			sock.Close()
		}
		_ = p.Kill()
		_, _ = p.Wait()
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	s.mu.Lock()
	s.rec.Process, s.rec.PID = id, p.Pid
	s.sock = sock
	if s.rec.Via != viaExecutable {
		s.rec.State = proto.StateStarting
	}
	s.mu.Unlock()
	s.save()
	if sock != nil {
		s.moved(proto.EventConnected, "")
		go quickAck(sock, s.loggedIn())
	}
	exited := make(chan int, 1)
	go func() {
		// Wait alone would keep a thread for as long as the session lives.
		if pidfd, err := id.open(); err == nil {
			_ = awaitExit(pidfd)
			pidfd.Close()
		}
		state, err := p.Wait()
		if err != nil {
			exited <- -1
			return
		}
		exited <- state.ExitCode()
	}()
	go s.run(exited)
	return nil
}

// viaExecutable is the session whose program dials by itself.
const viaExecutable = "executable"

// loggedIn returns a channel that is closed when the login is over.
func (s *Session) loggedIn() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_, _ = s.Await(context.Background(), proto.StateAuthenticated)
	}()
	return c
}

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

func reached(is, wanted proto.State) bool {
	for _, s := range proto.States {
		if s == wanted {
			return true
		}
		if s == is {
			return false
		}
	}
	return false
}

// Kill ends the session for the named caller, as End does.
func (s *Session) Kill(who string) { s.End(proto.EndKilled, "ended by "+who) }

// End ends the session: sshd, its group, the subsystem, and the connection. It
// returns when all are gone. The first reason that is given is the one told.
func (s *Session) End(end proto.End, cause string) {
	s.begin.Lock()
	s.mu.Lock()
	id := s.rec.Process
	if s.order.end == "" {
		s.order = order{end, cause}
	}
	if id.PID == 0 && !s.ended() {
		s.rec.Stage, s.rec.Cause, s.rec.End = proto.StageTCP, s.order.cause, s.order.end
	}
	s.mu.Unlock()
	if id.PID == 0 {
		// Nothing was started, and nothing will be: Start finds it ended.
		s.finish(proto.EventFailed)
	}
	s.begin.Unlock()
	if id.PID > 1 {
		endTree(id)
		s.shutdown()
	}
	<-s.done
}

// shutdown ends the connection, whatever still has the socket open.
func (s *Session) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sock == nil {
		return
	}
	if raw, err := s.sock.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// run reads the log until sshd has exited, and the rest of it then.
func (s *Session) run(exited <-chan int) {
	wake := make(chan struct{}, 1)
	s.env.Watch.add(s.id(), wake)
	defer s.env.Watch.drop(s.id())
	e := &ear{s: s, tail: tail{offset: s.rec.Offset, punched: s.rec.Offset}}
	defer e.close()
	again := time.NewTimer(0) // what is there already
	defer again.Stop()
	for {
		select {
		case <-wake:
		case <-again.C:
		case exit := <-exited:
			e.listen(&exit)
			s.exited(exit)
			return
		}
		if next := e.listen(nil); next > 0 {
			again.Reset(next)
		}
	}
}

// hear takes in a line of the log.
func (s *Session) hear(l heard, c *chatter) {
	s.mu.Lock()
	before := s.rec.State
	if before == proto.StateCalling && l.Remote != "" {
		// The program of Execute has its connection now.
		s.rec.State = proto.StateStarting
	}
	events := s.rec.apply(l.Line)
	after := s.rec.State
	needSock := s.sock == nil && after != proto.StateCalling
	id := s.rec.Process
	s.rec.Offset = l.end
	s.mu.Unlock()
	if needSock {
		s.setSock(socketOf(id))
	}
	if before == proto.StateCalling && after != before {
		s.tell(proto.EventConnected, "")
	}
	for _, e := range events {
		if e == proto.EventLog {
			ok, left := c.tell(time.Now())
			if left > 0 {
				s.tell(proto.EventLog, fmt.Sprintf("%d lines of sshd's were left out here", left))
			}
			if !ok {
				continue
			}
		}
		s.tell(e, l.Words)
	}
	if before != after {
		s.wake()
	}
}

// awaitsLogin reports whether a login would count now.
func (s *Session) awaitsLogin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(beforeLogin, s.rec.State)
}

func (s *Session) process() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Process
}

func (s *Session) isUnsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsaved
}

func (s *Session) setSock(sock *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sock = sock
}

// stageOfExit is what the exit status of an executable says that never got a
// connection, where it follows sysexits(3) as callhome-trigger does.
var stageOfExit = map[int]proto.Stage{
	sysexits.NoHost: proto.StageName, sysexits.NoInput: proto.StageHandover,
	sysexits.Config: proto.StageHandover, sysexits.NoPerm: proto.StageHandover,
}

// exited closes the books after sshd's exit.
func (s *Session) exited(exit int) {
	s.mu.Lock()
	reached := s.rec.State
	event := s.rec.end(exit, s.order)
	if stage, ok := stageOfExit[exit]; ok && reached == proto.StateCalling {
		s.rec.Stage = stage
	}
	s.mu.Unlock()
	s.finish(event)
}

// finish tells of the end and removes what the session had, once.
func (s *Session) finish(event string) { s.over.Do(func() { s.tearDown(event) }) }

func (s *Session) tearDown(event string) {
	s.mu.Lock()
	now := stamp()
	s.rec.State, s.rec.Ended = proto.StateClosed, &now
	s.rec.SessionInfo.Stats = stats(s.sock)
	sock := s.sock
	s.sock = nil
	s.mu.Unlock()
	if sock != nil {
		sock.Close() // not under the lock: it can take its time (SO_LINGER, socket(7))
	}
	err := remove(s.env.Dir, s.id())
	s.tell(event, "")
	if err != nil {
		s.tell(proto.EventTrouble, err.Error())
	}
	s.wake()
	close(s.done)
}

func (s *Session) moved(event, words string) {
	s.tell(event, words)
	s.wake()
}

// wake lets those who wait for a state look again.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Session) tell(event, words string) {
	s.mu.Lock()
	e := proto.Event{Time: time.Now().UTC(), Event: event, Session: s.rec.SessionInfo, Words: words}
	s.mu.Unlock()
	s.env.Tell(e)
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
		s.tell(proto.EventTrouble, err.Error())
	}
}
