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

// toManager hands the connected socket to callhome-mgr, waits for the answer, and
// returns the manager's session number. It borrows manager and c.
func toManager(manager *os.File, s *settings.Settings, c *dial.Conn) (int, error) {
	session, err := requestHandover(manager, c.File, s, managerTime)
	if err == nil {
		return session, nil
	}
	if _, err := unix.Getpeername(int(c.File.Fd())); err == unix.ENOTCONN {
		return 0, resetError(c)
	}
	code, hint := adviceFor(err)
	return 0, sysexits.New(code, hint,
		fmt.Errorf("handing the connection to %v over to the manager at %s: %w", c.Remote, s.ManagerSocket, err))
}

// refusal is an error that the manager answered.
type refusal struct{ why *proto.Error }

func (r refusal) Error() string { return fmt.Sprintf("it refused: %.300q", r.why.Message) }

// errTimeout and errClosed say that the manager did not answer.
var (
	errTimeout = fmt.Errorf("no answer within %v", managerTime)
	errClosed  = errors.New("it closed the connection without an answer")
)

// refusals maps the manager's error codes to exit statuses and hints.
var refusals = map[proto.Code]struct {
	exit int
	hint string
}{
	proto.CodeBusy:         {sysexits.Unavailable, "try again later, or use --handover exec"},
	proto.CodeShutdown:     {sysexits.Unavailable, "try again when callhome-mgr runs, or use --handover exec"},
	proto.CodeUnavailable:  {sysexits.Unavailable, clientHint},
	proto.CodeSSH:          {sysexits.Unavailable, clientHint},
	proto.CodeHandover:     {sysexits.Config, "callhome-mgr check names what is missing"},
	proto.CodeAccessDenied: {sysexits.NoPerm, "give this user the group callhome, or use --handover exec"},
}

// adviceFor returns the exit status and the hint for a failed handover to the
// manager.
func adviceFor(err error) (code int, hint string) {
	var refused refusal
	if errors.As(err, &refused) {
		if advice, ok := refusals[refused.why.Code]; ok {
			return advice.exit, advice.hint
		}
	}
	hint = "see callhome-mgr's log, or use --handover exec"
	if errors.Is(err, errTimeout) || errors.Is(err, errClosed) {
		return sysexits.Unavailable, hint
	}
	return osCode(err), hint
}

// noAnswer replaces the errors of a manager that does not answer by errTimeout or
// errClosed.
func noAnswer(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTimeout
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return errClosed
	}
	return err
}

// requestHandover requests the handover. wait bounds the whole exchange.
func requestHandover(manager, sock *os.File, s *settings.Settings, wait time.Duration) (session int, err error) {
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
		return 0, fmt.Errorf("its answer is longer than %d bytes", proto.MaxLine)
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
