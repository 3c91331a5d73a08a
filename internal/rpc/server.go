// Package rpc serves methods over a Unix socket and calls them: JSON-RPC 2.0,
// one message a line, with a descriptor where a method takes one. It owns
// framing, the peer's credentials, who may call what, and the limits that keep
// one user from taking another's connections. Both daemons serve their methods
// with it, and their commands call them. It never knows what a method does.
package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/handler"
	"github.com/hashicorp/go-hclog"
)

// Limits on connections. A user who fills the own share takes nothing from
// another; root has no share of its own.
type Limits struct{ All, PerUser int }

// maxStrangers is how many connections those may have, all together, who may call
// nothing: enough to be told so, and none of anybody else's.
const maxStrangers = 16

// maxRefused is how many refused connections are closed at a time, each on a
// thread of its own for as long as their callers can make that take.
const maxRefused = 64

// endTime bounds how long the end waits for calls that are being answered:
// longer than a session takes to be killed.
const endTime = 5 * time.Second

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
	// warnings are those that anybody who can connect can cause.
	warnings *ratelimit.Warnings
	ctx      context.Context // ends with Serve
	stop     context.CancelCauseFunc

	mu        sync.Mutex // guards the fields that follow
	conns     map[*net.UnixConn]Peer
	uids      map[uint32]int
	strangers int // of conns
}

// Conn is one caller's connection.
type Conn struct {
	context.Context // ends with the connection
	Peer            Peer
	line            *requests
	subscribed      atomic.Bool
}

// Take returns the descriptor that came with the request of ctx, now the
// caller's, or nil.
func (c *Conn) Take(ctx context.Context) *os.File {
	return c.line.take(jrpc2.InboundRequest(ctx).ID())
}

// NewServer returns a server. It asks methods for the table of each new
// connection. Serve makes it work.
func NewServer(methods func(*Conn) map[string]Method, a Access, l Limits, log hclog.Logger) *Server {
	s := &Server{methods: methods, access: a, limits: l, log: log, warnings: ratelimit.NewWarnings(log),
		conns: make(map[*net.UnixConn]Peer), uids: make(map[uint32]int)}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

// listener is what a server needs of a net.UnixListener.
type listener interface {
	AcceptUnix() (*net.UnixConn, error)
}

// Serve accepts connections until l is closed, and then ends those it has. A
// server serves once.
func (s *Server) Serve(l listener) error {
	var wg sync.WaitGroup
	refused := make(chan struct{}, maxRefused)
	defer s.warnings.Rest()
	defer s.end(&wg)
	for {
		c, err := daemon.Accept(l.AcceptUnix, func(err error) {
			s.warnings.Warn("connections cannot be accepted for now", "error", err)
		})
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		peer, err := PeerOf(c)
		if err == nil {
			err = s.enter(c, peer)
		}
		if err != nil {
			s.warnings.Warn("connection refused", "peer", peer.String(), "error", err)
			refused <- struct{}{}
			wg.Go(func() {
				fdpass.Close(c)
				<-refused
			})
			continue
		}
		wg.Go(func() {
			defer s.leave(c)
			s.serve(c, peer)
		})
	}
}

// Why a connection is refused.
var (
	errFull      = errors.New("there are as many connections as there can be")
	errUserFull  = errors.New("this user has as many connections as one can have")
	errStrangers = errors.New("users who may call nothing have as many connections as they can have")
)

// enter counts a connection in, unless its user or all have enough. Those who
// may call nothing come in too, so that each call tells them so, but take no
// place of those who may.
func (s *Server) enter(c *net.UnixConn, p Peer) error {
	stranger := s.stranger(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.UID == 0:
	case stranger && s.strangers >= maxStrangers:
		return errStrangers
	case !stranger && len(s.conns)-s.strangers >= s.limits.All:
		return errFull
	case s.uids[p.UID] >= s.limits.PerUser:
		return errUserFull
	}
	s.conns[c] = p
	s.uids[p.UID]++
	if stranger {
		s.strangers++
	}
	return nil
}

func (s *Server) stranger(p Peer) bool {
	full, read := s.access.Allows(p)
	return !full && !read
}

func (s *Server) leave(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.conns[c]
	delete(s.conns, c)
	if s.uids[p.UID]--; s.uids[p.UID] == 0 {
		delete(s.uids, p.UID)
	}
	if s.stranger(p) {
		s.strangers--
	}
}

// end lets the callers go. Those whose call waits for something are answered
// that the daemon stops, those whose call is being carried out what came of it.
// What takes longer than endTime is left: no caller holds up the end.
func (s *Server) end(wg *sync.WaitGroup) {
	s.stop(proto.NewError(proto.CodeShutdown, "the daemon is stopping"))
	s.closeAll()
	gone := make(chan struct{})
	go func() {
		wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(endTime):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log.Warn("connections were left at the end, their calls took too long", "connections", len(s.conns))
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
	l := newRequests(newLine(c, proto.MaxLine))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := jrpc2.NewServer(s.assign(&Conn{Context: ctx, Peer: p, line: l}), &jrpc2.ServerOptions{
		AllowPush: true, DisableBuiltin: true, Concurrency: concurrency,
		NewContext: func() context.Context { return ctx },
	}).Start(l)
	if err := server.Wait(); err != nil {
		s.log.Debug("connection ended", "peer", p.String(), "error", err)
	}
}

// assign is the table of the API for one caller.
func (s *Server) assign(c *Conn) jrpc2.Assigner {
	table := make(map[string]jrpc2.Handler)
	for name, m := range s.methods(c) {
		table[name] = s.guard(name, m, c.Peer)
	}
	return &assigner{table, c.line}
}

// assigner finds the handler of a method; what is none has an answer too, with
// the data that all our errors have.
type assigner struct {
	table map[string]jrpc2.Handler
	line  *requests
}

// Assign is jrpc2.Assigner's.
func (a *assigner) Assign(_ context.Context, method string) jrpc2.Handler {
	handle, ok := a.table[method]
	if !ok {
		handle = func(context.Context, *jrpc2.Request) (any, error) {
			return nil, standardError(jrpc2.MethodNotFound, fmt.Sprintf("there is no method %q", method))
		}
	}
	return func(ctx context.Context, r *jrpc2.Request) (any, error) {
		defer a.line.forget(r.ID())
		return handle(ctx, r)
	}
}

// guard lets a caller through who may, and logs what changes something.
func (s *Server) guard(name string, m Method, p Peer) jrpc2.Handler {
	full, read := s.access.Allows(p)
	return func(ctx context.Context, r *jrpc2.Request) (any, error) {
		if !full && !(read && m.Reading) {
			s.warnings.Warn("call refused", "method", name, "uid", p.UID, "pid", p.PID)
			return nil, rpcError(proto.NewError(proto.CodeAccessDenied, name+s.access.needs()))
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })()
		out, err := m.Handle(ctx, r)
		if !m.Reading {
			s.logCall(name, p, r.ParamString(), err)
		}
		return out, rpcError(err)
	}
}

func (s *Server) logCall(name string, p Peer, params string, err error) {
	fields := []any{"method", name, "uid", p.UID, "pid", p.PID}
	if params != "" {
		fields = append(fields, "params", asciiJSON(params))
	}
	if err != nil {
		fields = append(fields, "error", ascii(err.Error()))
	}
	s.log.Info("call", fields...)
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
	if !c.subscribed.CompareAndSwap(false, true) {
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
