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

	"callhome/internal/dial"
	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/settings"
	"callhome/internal/sysexits"
)

// adoptTime bounds how long the manager may take to answer.
const adoptTime = 10 * time.Second

// adopt hands the connected socket to callhome-mgr and returns when that has
// said that it took it, with the manager's name for the session. It borrows
// manager and c.
func adopt(manager *os.File, s *settings.Settings, c *dial.Conn) (int, error) {
	session, err := askToAdopt(manager, c.File, s)
	if err != nil {
		return 0, sysexits.New(osCode(err), "see callhome-mgr's log, or use --handover exec",
			fmt.Errorf("handing the connection to %v over to the manager at %s: %w", c.Remote, s.ManagerSocket, err))
	}
	return session, nil
}

func askToAdopt(manager, sock *os.File, s *settings.Settings) (session int, err error) {
	conn, err := net.FileConn(manager)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(adoptTime)); err != nil {
		return 0, err
	}
	line, err := json.Marshal(proto.Request[proto.AdoptParams]{
		Version: proto.Version, ID: 1, Method: proto.MethodAdopt,
		Params: proto.AdoptParams{Host: s.Host, Port: s.Port, Opaque: s.Opaque},
	})
	if err != nil {
		return 0, err
	}
	if err := fdpass.Send(conn.(*net.UnixConn), append(line, '\n'), sock); err != nil {
		return 0, err
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, proto.MaxLine)).ReadBytes('\n')
	if err != nil {
		return 0, fmt.Errorf("reading its answer: %w", err)
	}
	var r proto.Response
	if err := json.Unmarshal(answer, &r); err != nil {
		return 0, fmt.Errorf("reading its answer: %w", err)
	}
	if r.Error != nil {
		return 0, fmt.Errorf("it refused: %q", r.Error.Message)
	}
	var taken proto.SessionInfo
	if err := json.Unmarshal(r.Result, &taken); err != nil || taken.Session == 0 {
		return 0, errors.New("its answer names no session")
	}
	return taken.Session, nil
}
