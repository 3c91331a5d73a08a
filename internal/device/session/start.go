package session

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"callhome/internal/device/dial"
	"callhome/internal/device/process"
	"callhome/internal/device/subsystem"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"

	"golang.org/x/sys/unix"
)

// starts bounds how many sshds are started at once: each start blocks a thread, which
// Go keeps, with 48 KiB of stacks.
var starts = make(chan struct{}, 4)

// Start hands the connection to sshd and supervises it. The session owns the
// socket of conn from here on, also on error; after an error the session has ended.
func (s *Session) Start(cmd sshdexec.Command, conn *dial.Conn) error {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.ctx.Err() != nil {
		conn.File.Close()
		return ErrEnded
	}
	starts <- struct{}{}
	defer func() { <-starts }()
	s.mu.Lock()
	s.rec.Remote, s.rec.Local = conn.Remote.String(), conn.Local.String()
	if info := tcpInfo(conn.File); info != nil {
		s.sent = info.Bytes_sent - info.Bytes_retrans
	}
	cmd.Opaque = s.rec.Opaque
	if s.env.Helper != "" && cmd.Subsystem != "" {
		s.rec.Nonce = subsystem.Nonce(s.id())
		cmd.Report = []string{s.env.Helper, subsystem.Flag, s.env.ReportSocket, s.rec.Nonce}
	}
	s.mu.Unlock()
	log, err := s.openLog()
	if err != nil {
		conn.File.Close()
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	defer log.Close()
	quick := dial.QuickenAcks(conn.File)
	p, err := cmd.Start(conn.File, log)
	if err != nil {
		conn.File.Close()
		_ = s.env.remove(s.id())
		s.Fail(proto.StageHandover, err.Error())
		return err
	}
	if err := s.supervise(p, conn.File); err != nil {
		return err
	}
	if !quick { // a kernel without the option
		go quickAck(conn.File, s.loggedIn())
	}
	return nil
}

// Execute runs another program that makes the call home, as ConfD runs its
// sshCallHomeExecutable: with host, port and opaque as arguments. The program's
// standard error is the session's log, a regular file.
func (s *Session) Execute(program string) error {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.ctx.Err() != nil {
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
	// Otherwise callhome-trigger would hand the socket back to the manager.
	cmd.Env = append(sshdexec.Environ(), "CALLHOME_HANDOVER=exec")
	cmd.Stderr = log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := sshdexec.Cleanly(cmd.Start); err != nil {
		_ = s.env.remove(s.id())
		s.Fail(proto.StageHandover, err.Error())
		return fmt.Errorf("starting %s: %w", program, err)
	}
	return s.supervise(cmd.Process, nil)
}

// openLog opens a new log for sshd. The first line is the session's record: it
// replaces a lost or damaged state file, and one that a manager killed at sshd's start
// did not write: without the owner the next manager would call the client a second
// time. The line is written before sshd starts, and sshd only appends. On a full file
// system it cannot be written, and a peer's text could be the first line: so the log gets
// headMode when it has a head.
func (s *Session) openLog() (*os.File, error) {
	s.env.removeRemains()
	f, err := sshdexec.Open(logPath(s.env.Dir, s.id()), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return nil, fmt.Errorf("opening a log for sshd: %w", err)
	}
	s.mu.Lock()
	head, err := json.Marshal(&s.rec)
	s.mu.Unlock()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("writing the head of sshd's log: %w", err)
	}
	head = append(append([]byte(logHead), head...), '\n')
	n, err := f.Write(head)
	if err == nil {
		err = f.Chmod(headMode)
	}
	if err != nil { // the session continues without that line
		_, n = f.Truncate(0), 0
	}
	s.mu.Lock()
	s.rec.Offset = int64(n)
	s.mu.Unlock()
	return f, nil
}

// headMode is the mode of a log whose first line is the manager's.
const headMode = 0o600

// logHead begins the first line of a log.
const logHead = "callhome-mgr: session "

// supervise takes ownership of a process just started, and of sock. It kills a
// process that it cannot identify: a later kill could hit another one of that PID.
func (s *Session) supervise(p *os.Process, sock *os.File) error {
	id, err := process.Identify(p.Pid) // the PID is valid until Wait, below
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
	if s.rec.Via != proto.ViaExecutable {
		s.rec.State = proto.StateStarting
	}
	s.mu.Unlock()
	s.save()
	if sock != nil {
		s.publishState(proto.EventConnected, "")
	}
	reap := func() {
		state, err := p.Wait()
		if err != nil {
			s.supervisor.exited(-1)
			return
		}
		s.supervisor.exited(state.ExitCode())
	}
	if s.env.Watch.exits.Await(id, reap) != nil { // for example no free descriptors
		go reap() // blocks a thread until sshd exits
	}
	s.supervisor.begin()
	return nil
}

// loggedIn returns a channel that is closed when the login succeeded or the session
// ended.
func (s *Session) loggedIn() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_, _ = s.Await(context.Background(), proto.StateAuthenticated)
	}()
	return c
}
