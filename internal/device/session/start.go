package session

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"callhome/internal/device/dial"
	"callhome/internal/device/subsystem"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"

	"golang.org/x/sys/unix"
)

// Start hands the connection to sshd and supervises it. The socket of conn
// belongs to the session from here on, also on error; an error has ended the
// session.
func (s *Session) Start(cmd sshdexec.Command, conn *dial.Conn) error {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.ctx.Err() != nil {
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
	if s.env.Helper != "" && cmd.Subsystem != "" {
		s.rec.Nonce = subsystem.Nonce(s.id())
		cmd.Report = []string{s.env.Helper, subsystem.Flag, s.env.ReportSocket, s.rec.Nonce}
	}
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

// openLog opens a new log for sshd. Its first line is the session's record: where
// the state file is lost or damaged, a later manager knows from it whose session
// it is. sshd appends, and nobody else can write before that line.
func (s *Session) openLog() (*os.File, error) {
	f, err := os.OpenFile(logPath(s.env.Dir, s.id()), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
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
	if n, err := f.Write(head); err == nil {
		s.mu.Lock()
		s.rec.Offset = int64(n)
		s.mu.Unlock()
	} // on a full file system the session goes on without
	return f, nil
}

// logHead begins the first line of a log.
const logHead = "callhome-mgr: session "

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
	if s.rec.Via != proto.ViaExecutable {
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

// loggedIn returns a channel that is closed when the login is over.
func (s *Session) loggedIn() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_, _ = s.Await(context.Background(), proto.StateAuthenticated)
	}()
	return c
}
