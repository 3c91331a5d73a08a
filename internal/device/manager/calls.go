package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"callhome/internal/device/connect"
	"callhome/internal/device/dial"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/sysexits"
)

// Call makes a call home and returns when it has reached the state of p.Wait. The
// call continues when ctx ends first. Errors are *proto.Error.
func (m *Manager) Call(ctx context.Context, p proto.CallParams) (proto.SessionInfo, error) {
	if p.Host == "" {
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, "parameter \"host\" is missing; expected a name or an address, or else \"client\"")
	}
	target, err := settings.ParseTarget([]string{p.Host})
	if err != nil {
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	if p.Port != 0 && target.Port != 0 && p.Port != target.Port {
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("port given twice, in host %q and as %d", p.Host, p.Port))
	}
	p.Port = cmp.Or(p.Port, target.Port, proto.DefaultPort)
	p.Host, target.Port, target.Opaque = target.Host, p.Port, p.Opaque
	if err := checkOpaque(p.Opaque); err != nil {
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	until, err := stateOf(p.Wait)
	if err != nil {
		return proto.SessionInfo{}, err
	}
	c := m.config.Load()
	via := proto.ViaManager
	if c.Executable != "" {
		via = proto.ViaExecutable
	}
	s, err := m.begin(p, via, session.Owner{})
	if err != nil {
		return proto.SessionInfo{}, err
	}
	go m.run(s, c, target)
	return await(ctx, s, until)
}

// Await returns when the session has reached the state of a wait. Errors are
// *proto.Error.
func (m *Manager) Await(ctx context.Context, id int, wait proto.Wait) (proto.SessionInfo, error) {
	until, err := stateOf(wait)
	if err != nil {
		return proto.SessionInfo{}, err
	}
	m.mu.Lock()
	s := m.sessions[id]
	recent := slices.Clone(m.recent)
	m.mu.Unlock()
	if s != nil {
		return await(ctx, s, until)
	}
	for _, last := range recent {
		if last.Session == id {
			return last, failure(last)
		}
	}
	return proto.SessionInfo{}, proto.NewError(proto.CodeNoExists, fmt.Sprintf("there is no session %d", id))
}

// stateOf returns the state that a wait waits for.
func stateOf(wait proto.Wait) (proto.State, error) {
	until, ok := waits[wait]
	if !ok {
		return "", proto.NewError(proto.CodeBadType, fmt.Sprintf("wait %q is not one of none, tcp, ssh, netconf", wait))
	}
	return until, nil
}

// CheckWait refuses an unknown wait.
func CheckWait(wait proto.Wait) error {
	_, err := stateOf(wait)
	return err
}

// Keep starts a call home for a configured client, with that client's settings, and
// returns at once. Errors are *proto.Error; the session publishes the call's result.
// Config.Executable makes no such calls: it takes only host and port.
func (m *Manager) Keep(s *settings.Call, owner session.Owner) (*session.Session, error) {
	made, err := m.begin(proto.CallParams{Host: s.Host, Port: s.Port, Opaque: s.Opaque}, proto.ViaManager, owner)
	if err != nil {
		return nil, err
	}
	go m.run(made, &Config{Call: s}, s.Target)
	return made, nil
}

// checkOpaque refuses an OPAQUE that cannot be passed on unchanged: JSON decoding
// replaces invalid UTF-8 and unpaired surrogates by U+FFFD.
func checkOpaque(opaque string) error {
	if strings.ContainsRune(opaque, utf8.RuneError) {
		return errors.New("opaque is not UTF-8, or contains U+FFFD, which replaces invalid UTF-8")
	}
	return settings.CheckOpaque(opaque)
}

// waits maps each wait to the state that ends it.
var waits = map[proto.Wait]proto.State{
	proto.WaitNone:    proto.StateCalling,
	"":                proto.StateStarting,
	proto.WaitTCP:     proto.StateStarting,
	proto.WaitSSH:     proto.StateAuthenticated,
	proto.WaitNetconf: proto.StateServing,
}

// await waits for a state and converts an early end to the request's error.
func await(ctx context.Context, s *session.Session, until proto.State) (proto.SessionInfo, error) {
	wait := func(ctx context.Context) (proto.SessionInfo, error) { return s.Await(ctx, until) }
	if until == proto.StateStarting {
		wait = s.AwaitStarted
	}
	info, err := wait(ctx)
	if errors.Is(err, session.ErrEnded) {
		return info, failure(info)
	}
	var why *proto.Error
	if errors.As(err, &why) {
		return info, why
	}
	if err != nil {
		return info, proto.NewError(proto.CodeUnavailable, err.Error())
	}
	return info, nil
}

func failure(info proto.SessionInfo) *proto.Error {
	where := info.Remote
	if where == "" {
		where = fmt.Sprintf("%s port %d", info.Host, info.Port)
	}
	return proto.StageError(info.Stage, fmt.Sprintf("call home to %s failed at %s: %s", where, info.Stage, info.Cause),
		proto.ErrorData{Address: where, Reason: info.Cause, Session: info.Session})
}

// run makes a call: it resolves the name, connects, and hands over. The session
// publishes the result.
func (m *Manager) run(s *session.Session, c *Config, t settings.Target) {
	if c.Executable != "" {
		_ = s.Execute(c.Executable)
		return
	}
	// Report missing files before the NETCONF client is called.
	if err := c.Call.CheckFiles(); err != nil {
		s.Fail(proto.StageHandover, withHint(err))
		return
	}
	to := *c.Call
	to.Target = t
	conn, err := connect.To(&to)
	if err != nil {
		stage := proto.StageTCP
		if sysexits.Code(err) == sysexits.NoHost {
			stage = proto.StageName
		}
		s.Fail(stage, err.Error())
		return
	}
	_ = s.Start(c.Call.Sshd, conn)
}

// withHint returns an error's text with its hint.
func withHint(err error) string {
	if hint := sysexits.Hint(err); hint != "" {
		return err.Error() + "; " + hint
	}
	return err.Error()
}

// Handover starts a session on a connection that another program made. The manager
// owns the socket from here on, also on error.
func (m *Manager) Handover(ctx context.Context, p proto.HandoverParams, sock *os.File) (proto.SessionInfo, error) {
	conn, err := dial.FromSocket(sock)
	target, err2 := settings.ParseTarget([]string{p.Host})
	if err := cmp.Or(err, err2, checkOpaque(p.Opaque)); err != nil {
		sock.Close()
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	s, err := m.begin(proto.CallParams{Host: target.Host, Port: cmp.Or(p.Port, target.Port, proto.DefaultPort), Opaque: p.Opaque}, proto.ViaHandover, session.Owner{})
	if err != nil {
		sock.Close()
		return proto.SessionInfo{}, err
	}
	call := m.config.Load().Call
	if err := call.CheckFiles(); err != nil {
		sock.Close()
		s.Fail(proto.StageHandover, withHint(err))
		return proto.SessionInfo{}, failure(s.Info())
	}
	if err := s.Start(call.Sshd, conn); err != nil {
		return proto.SessionInfo{}, failure(s.Info())
	}
	return await(ctx, s, proto.StateStarting)
}
