// Package api serves the manager over its Unix socket and is the way for our
// own commands to call it: JSON-RPC 2.0, one message a line, the words those of
// package proto. It owns who may call what and the limits that keep one caller
// from another's way. What a method does is the Backend's.
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
const (
	maxConns    = 1024
	maxPerUID   = 64
	concurrency = 32 // requests of one connection at a time
)

// Server answers on one socket.
type Server struct {
	backend Backend
	access  Access
	log     hclog.Logger

	mu    sync.Mutex // guards the fields that follow
	conns map[*net.UnixConn]uint32
	uids  map[uint32]int
}

// NewServer returns a server; Serve makes it work.
func NewServer(b Backend, a Access, log hclog.Logger) *Server {
	return &Server{backend: b, access: a, log: log, conns: make(map[*net.UnixConn]uint32), uids: make(map[uint32]int)}
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
		peer, err := peerOf(c)
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
	if p.UID != 0 && (len(s.conns) >= maxConns || s.uids[p.UID] >= maxPerUID) {
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
	server := jrpc2.NewServer(s.methods(ctx, l, p), &jrpc2.ServerOptions{
		AllowPush: true, DisableBuiltin: true, Concurrency: concurrency,
		NewContext: func() context.Context { return ctx },
	}).Start(l)
	if err := server.Wait(); err != nil {
		s.log.Debug("connection ended", "peer", p.String(), "error", err)
	}
}

// methods is the table of the API for one caller; conn ends with the connection.
func (s *Server) methods(conn context.Context, l *line, p Peer) jrpc2.Assigner {
	b := s.backend
	call := func(ctx context.Context, q proto.CallParams) (proto.SessionInfo, error) { return b.Call(ctx, q) }
	table := map[string]jrpc2.Handler{
		proto.MethodCallHome:       typed(call),
		proto.MethodCallHomeOpaque: typed(call),
		proto.MethodUserSessions: plain(func(context.Context) (proto.SessionList, error) {
			return proto.SessionList{Sessions: b.Sessions()}, nil
		}),
		proto.MethodKillUserSession: typed(func(_ context.Context, q proto.SessionParams) (proto.SessionInfo, error) {
			return b.Kill(q.Session, p.String())
		}),
		proto.MethodReloadConfig: plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reload() }),
		proto.MethodReopenLogs:   plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reopen() }),
		proto.MethodStop: plain(func(context.Context) (proto.Nothing, error) {
			b.Shutdown()
			return proto.Nothing{}, nil
		}),
		proto.MethodWaitStart: plain(func(ctx context.Context) (proto.Status, error) {
			err := b.AwaitStart(ctx)
			return b.Status(), err
		}),
		proto.MethodStatus: plain(func(context.Context) (proto.Status, error) { return b.Status(), nil }),
		proto.MethodSubscribe: plain(func(ctx context.Context) (proto.EventList, error) {
			if !l.subscribed.CompareAndSwap(false, true) {
				return proto.EventList{}, proto.NewError(proto.CodeBusy, "this connection is subscribed already")
			}
			return proto.EventList{Events: s.subscribe(conn, jrpc2.ServerFromContext(ctx))}, nil
		}),
		proto.MethodAdopt: typed(func(ctx context.Context, q proto.AdoptParams) (proto.SessionInfo, error) {
			sock := l.fds.Take()
			if sock == nil {
				return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, "no descriptor came with the message")
			}
			return b.Adopt(ctx, q, sock)
		}),
	}
	for name, h := range table {
		table[name] = s.guard(name, h, p)
	}
	return assigner(table)
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
func (s *Server) guard(name string, h jrpc2.Handler, p Peer) jrpc2.Handler {
	reading := proto.ReadOnly(name)
	full, read := s.access.allows(p)
	return func(ctx context.Context, r *jrpc2.Request) (any, error) {
		if !full && !(read && reading) {
			s.log.Warn("call refused", "method", name, "uid", p.UID, "pid", p.PID)
			return nil, rpcError(proto.NewError(proto.CodeAccessDenied, name+" needs root or the group callhome"))
		}
		out, err := h(ctx, r)
		if !reading {
			s.log.Info("call", "method", name, "uid", p.UID, "pid", p.PID, "params", strconv.QuoteToASCII(r.ParamString()), "error", err)
		}
		return out, rpcError(err)
	}
}

// typed makes a handler of a function with parameters; unknown ones are
// refused.
func typed[P, R any](f func(context.Context, P) (R, error)) jrpc2.Handler {
	info, err := handler.Check(f)
	if err != nil {
		panic("BUG: " + err.Error()) // the type of f decides, at the first start
	}
	return info.SetStrict(true).Wrap()
}

// plain makes a handler of a function without parameters.
func plain[R any](f func(context.Context) (R, error)) jrpc2.Handler { return handler.New(f) }

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

// subscribe returns what happened last and sends what follows until the
// connection ends.
func (s *Server) subscribe(conn context.Context, to *jrpc2.Server) []proto.Event {
	last, events, cancel := s.backend.SubscribeSince()
	go func() {
		defer cancel()
		for {
			select {
			case <-conn.Done():
				return
			case e, ok := <-events:
				if !ok {
					// The manager stops, or this caller was too slow: it sees the
					// end of the connection rather than a gap.
					to.Stop()
					return
				}
				if to.Notify(conn, proto.NotifyEvent, e) != nil {
					return
				}
			}
		}
	}()
	return last
}
