// Package api serves the manager over its Unix socket and is the way for our
// own commands to call it: JSON-RPC 2.0, one message a line, the words those of
// package proto. It owns who may call what and the limits that keep one caller
// from another's way. What a method does is the Backend's. Other daemons serve
// methods of their own with the same care (NewServerOf, DialTo).
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"callhome/internal/proto"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/handler"
	"github.com/hashicorp/go-hclog"
)

// Backend is what the methods do.
type Backend interface {
	Call(context.Context, proto.CallParams) (proto.SessionInfo, error)
	Adopt(context.Context, proto.AdoptParams, *os.File) (proto.SessionInfo, error)
	Kill(id int, who string) (proto.SessionInfo, error)
	Sessions() []proto.SessionInfo
	Status() proto.Status
	AwaitStart(context.Context) error
	SubscribeSince() (last []proto.Event, events <-chan proto.Event, cancel func())
	// Reload, Reopen and Shutdown are the daemon's own.
	Reload() error
	Reopen() error
	Shutdown()
}

// Limits on connections. A user who fills the own share takes nothing from
// another; root has no share of its own.
type Limits struct{ All, PerUser int }

var managerLimits = Limits{All: 1024, PerUser: 64}

// concurrency is how many requests of one connection are answered at a time.
const concurrency = 32

// Method is what one method does, and whether it changes nothing, so that those
// who may only look may call it.
type Method struct {
	Handle  jrpc2.Handler
	Reading bool
}

// Server answers on one socket.
type Server struct {
	methods func(*Conn) map[string]Method
	access  Access
	limits  Limits
	log     hclog.Logger

	mu    sync.Mutex // guards the fields that follow
	conns map[*net.UnixConn]uint32
	uids  map[uint32]int
}

// Conn is one caller's connection.
type Conn struct {
	context.Context // ends with the connection
	Peer            Peer
	line            *line
}

// Take returns the descriptor that came with a message, now the caller's, or
// nil.
func (c *Conn) Take() *os.File { return c.line.fds.Take() }

// NewServer returns a manager's server; Serve makes it work.
func NewServer(b Backend, a Access, log hclog.Logger) *Server {
	return NewServerOf(func(c *Conn) map[string]Method { return methods(b, c) }, a, managerLimits, log)
}

// NewServerOf returns a server whose methods each connection asks for.
func NewServerOf(methods func(*Conn) map[string]Method, a Access, l Limits, log hclog.Logger) *Server {
	return &Server{methods: methods, access: a, limits: l, log: log, conns: make(map[*net.UnixConn]uint32), uids: make(map[uint32]int)}
}

// Serve accepts connections until l is closed, and then ends those it has.
func (s *Server) Serve(l *net.UnixListener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.closeAll()
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		peer, err := PeerOf(c)
		if err != nil || !s.enter(c, peer) {
			s.log.Warn("connection refused", "peer", peer.String(), "error", err)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer s.leave(c, peer)
			s.serve(c, peer)
		})
	}
}

// enter counts a connection in, unless its user or all have enough. Those who
// may call nothing come in too: each call tells them so.
func (s *Server) enter(c *net.UnixConn, p Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.UID != 0 && (len(s.conns) >= s.limits.All || s.uids[p.UID] >= s.limits.PerUser) {
		return false
	}
	s.conns[c] = p.UID
	s.uids[p.UID]++
	return true
}

func (s *Server) leave(c *net.UnixConn, p Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.uids[p.UID]--; s.uids[p.UID] == 0 {
		delete(s.uids, p.UID)
	}
}

// closeAll lets every connection read no more, so that what is being answered
// still is.
func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.CloseRead()
	}
}

// serve answers one connection until it ends.
func (s *Server) serve(c *net.UnixConn, p Peer) {
	l := newLine(c, proto.MaxLine)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := jrpc2.NewServer(s.assign(&Conn{ctx, p, l}), &jrpc2.ServerOptions{
		AllowPush: true, DisableBuiltin: true, Concurrency: concurrency,
		NewContext: func() context.Context { return ctx },
	}).Start(l)
	if err := server.Wait(); err != nil {
		s.log.Debug("connection ended", "peer", p.String(), "error", err)
	}
}

// assign is the table of the API for one caller.
func (s *Server) assign(c *Conn) jrpc2.Assigner {
	table := make(assigner)
	for name, m := range s.methods(c) {
		table[name] = s.guard(name, m, c.Peer)
	}
	return table
}

// methods are the manager's.
func methods(b Backend, c *Conn) map[string]Method {
	call := func(ctx context.Context, q proto.CallParams) (proto.SessionInfo, error) { return b.Call(ctx, q) }
	table := map[string]jrpc2.Handler{
		proto.MethodCallHome:       Typed(call),
		proto.MethodCallHomeOpaque: Typed(call),
		proto.MethodUserSessions: Plain(func(context.Context) (proto.SessionList, error) {
			return proto.SessionList{Sessions: b.Sessions()}, nil
		}),
		proto.MethodKillUserSession: Typed(func(_ context.Context, q proto.SessionParams) (proto.SessionInfo, error) {
			return b.Kill(q.Session, c.Peer.String())
		}),
		proto.MethodReloadConfig: Plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reload() }),
		proto.MethodReopenLogs:   Plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reopen() }),
		proto.MethodStop: Plain(func(context.Context) (proto.Nothing, error) {
			b.Shutdown()
			return proto.Nothing{}, nil
		}),
		proto.MethodWaitStart: Plain(func(ctx context.Context) (proto.Status, error) {
			err := b.AwaitStart(ctx)
			return b.Status(), err
		}),
		proto.MethodStatus: Plain(func(context.Context) (proto.Status, error) { return b.Status(), nil }),
		proto.MethodSubscribe: Plain(func(ctx context.Context) (proto.EventList, error) {
			last, err := Subscribe(ctx, c, b.SubscribeSince)
			return proto.EventList{Events: last}, err
		}),
		proto.MethodAdopt: Typed(func(ctx context.Context, q proto.AdoptParams) (proto.SessionInfo, error) {
			sock := c.Take()
			if sock == nil {
				return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, "no descriptor came with the message")
			}
			return b.Adopt(ctx, q, sock)
		}),
	}
	out := make(map[string]Method, len(table))
	for name, h := range table {
		out[name] = Method{h, proto.ReadOnly(name)}
	}
	return out
}

// assigner finds the handler of a method; what is none has an answer too, with
// the data that all our errors have.
type assigner map[string]jrpc2.Handler

func (a assigner) Assign(_ context.Context, method string) jrpc2.Handler {
	if h, ok := a[method]; ok {
		return h
	}
	return func(context.Context, *jrpc2.Request) (any, error) {
		return nil, standardError(jrpc2.MethodNotFound, fmt.Sprintf("there is no method %q", method))
	}
}

// guard lets a caller through who may, and logs what changes something.
func (s *Server) guard(name string, m Method, p Peer) jrpc2.Handler {
	full, read := s.access.Allows(p)
	return func(ctx context.Context, r *jrpc2.Request) (any, error) {
		if !full && !(read && m.Reading) {
			s.log.Warn("call refused", "method", name, "uid", p.UID, "pid", p.PID)
			return nil, rpcError(proto.NewError(proto.CodeAccessDenied, name+" needs root or the group callhome"))
		}
		out, err := m.Handle(ctx, r)
		if !m.Reading {
			s.log.Info("call", "method", name, "uid", p.UID, "pid", p.PID, "params", strconv.QuoteToASCII(r.ParamString()), "error", err)
		}
		return out, rpcError(err)
	}
}

// Typed makes a handler of a function with parameters; unknown ones are
// refused.
func Typed[P, R any](f func(context.Context, P) (R, error)) jrpc2.Handler {
	info, err := handler.Check(f)
	if err != nil {
		panic("BUG: " + err.Error()) // the type of f decides, at the first start
	}
	return info.SetStrict(true).Wrap()
}

// Plain makes a handler of a function without parameters.
func Plain[R any](f func(context.Context) (R, error)) jrpc2.Handler { return handler.New(f) }

// rpcError puts our error into JSON-RPC's.
func rpcError(err error) error {
	var e *proto.Error
	if errors.As(err, &e) {
		data, _ := json.Marshal(e.Data)
		return &jrpc2.Error{Code: jrpc2.Code(e.Code), Message: e.Message, Data: data}
	}
	var own *jrpc2.Error
	if errors.As(err, &own) && own.Code == jrpc2.InvalidParams {
		return standardError(own.Code, own.Message+": "+string(own.Data))
	}
	return err
}

// standardError is one of JSON-RPC's own, with data like ours.
func standardError(code jrpc2.Code, message string) error {
	data, _ := json.Marshal(proto.ErrorData{Name: proto.CodeBadType.String()})
	return &jrpc2.Error{Code: code, Message: message, Data: data}
}

// Subscribe returns what happened last and sends what follows until the
// connection ends. A connection subscribes once.
func Subscribe[E any](ctx context.Context, c *Conn, since func() ([]E, <-chan E, func())) ([]E, error) {
	if !c.line.subscribed.CompareAndSwap(false, true) {
		return nil, proto.NewError(proto.CodeBusy, "this connection is subscribed already")
	}
	to := jrpc2.ServerFromContext(ctx)
	last, events, cancel := since()
	go func() {
		defer cancel()
		for {
			select {
			case <-c.Done():
				return
			case e, ok := <-events:
				if !ok {
					// The daemon stops, or this caller was too slow: it sees the
					// end of the connection rather than a gap.
					to.Stop()
					return
				}
				if to.Notify(c, proto.NotifyEvent, e) != nil {
					return
				}
			}
		}
	}()
	return last, nil
}
