package trigger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// managerTime bounds how long the manager may take to answer.
const managerTime = 10 * time.Second

// toManager hands the connected socket to callhome-mgr and returns when that has
// said that it took it, with the manager's name for the session. It borrows
// manager and c.
func toManager(manager *os.File, s *settings.Settings, c *dial.Conn) (int, error) {
	session, err := askManager(manager, c.File, s, managerTime)
	if err == nil {
		return session, nil
	}
	if _, gone := unix.Getpeername(int(c.File.Fd())); gone == unix.ENOTCONN {
		return 0, wasReset(c)
	}
	code, hint := adviceFor(err)
	return 0, sysexits.New(code, hint,
		fmt.Errorf("handing the connection to %v over to the manager at %s: %w", c.Remote, s.ManagerSocket, err))
}

// refusal is the manager's no.
type refusal struct{ why *proto.Error }

func (r refusal) Error() string { return fmt.Sprintf("it refused: %.300q", r.why.Message) }

// errSilent and errClosed say that a manager gave no answer.
var (
	errSilent = fmt.Errorf("no answer within %v", managerTime)
	errClosed = errors.New("it closed the connection without an answer")
)

// refusals is what the manager's codes mean to the trigger's caller.
var refusals = map[proto.Code]struct {
	exit int
	hint string
}{
	proto.CodeBusy:         {sysexits.Unavailable, "try again later, or use --handover exec"},
	proto.CodeShutdown:     {sysexits.Unavailable, "try again when callhome-mgr runs, or use --handover exec"},
	proto.CodeUnavailable:  {sysexits.Unavailable, seeClient},
	proto.CodeSSH:          {sysexits.Unavailable, seeClient},
	proto.CodeHandover:     {sysexits.Config, "callhome-mgr check names what is missing"},
	proto.CodeAccessDenied: {sysexits.NoPerm, "give this user the group callhome, or use --handover exec"},
}

// adviceFor returns the exit status and the advice for a connection that the
// manager did not take.
func adviceFor(err error) (code int, hint string) {
	var no refusal
	if errors.As(err, &no) {
		if r, ok := refusals[no.why.Code]; ok {
			return r.exit, r.hint
		}
	}
	hint = "see callhome-mgr's log, or use --handover exec"
	if errors.Is(err, errSilent) || errors.Is(err, errClosed) {
		return sysexits.Unavailable, hint
	}
	return osCode(err), hint
}

// noAnswer names the ways in which a manager does not answer.
func noAnswer(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return errClosed
	}
	return err
}

// askManager waits no longer than wait, all in all.
func askManager(manager, sock *os.File, s *settings.Settings, wait time.Duration) (session int, err error) {
	conn, err := net.FileConn(manager)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	line, err := json.Marshal(proto.Request[proto.HandoverParams]{
		Version: proto.Version, ID: 1, Method: proto.MethodHandover,
		Params: proto.HandoverParams{Host: s.Host, Port: s.Port, Opaque: s.Opaque},
	})
	if err != nil {
		return 0, err
	}
	if err := fdpass.Send(conn.(*net.UnixConn), append(line, '\n'), sock); err != nil {
		return 0, noAnswer(err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, proto.MaxLine)).ReadBytes('\n')
	if len(answer) == proto.MaxLine && err == io.EOF {
		return 0, fmt.Errorf("its answer has no end within %d bytes", proto.MaxLine)
	}
	if err != nil {
		return 0, noAnswer(err)
	}
	var r proto.Response
	if err := json.Unmarshal(answer, &r); err != nil {
		return 0, fmt.Errorf("reading its answer: %w", err)
	}
	if r.Error != nil {
		return 0, refusal{r.Error}
	}
	var taken proto.SessionInfo
	if err := json.Unmarshal(r.Result, &taken); err != nil || taken.Session == 0 {
		return 0, errors.New("its answer names no session")
	}
	return taken.Session, nil
}
