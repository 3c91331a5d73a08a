package rpc

import (
	"context"
	"fmt"

	"callhome/internal/proto"
)

// Method is one method. A Reading one changes nothing, so that the group for
// reading may call it (Access.Read).
type Method struct {
	Handle  Handler
	Reading bool
}

// assign returns the handler of all methods for one connection.
func (s *Server) assign(c *Conn) Handler {
	table := make(map[string]Handler)
	for name, m := range s.methods(c) {
		table[name] = s.guard(name, m, c.Peer)
	}
	return func(ctx context.Context, r *Request) (any, error) {
		handle, ok := table[r.Method]
		if !ok {
			return nil, standardError(methodNotFound, fmt.Sprintf("unknown method %q", r.Method))
		}
		return handle(ctx, r)
	}
}

// guard answers calls of m that p may make, refuses the others, and logs those
// that change something.
func (s *Server) guard(name string, m Method, p Peer) Handler {
	full, read := s.access.Allows(p)
	return func(ctx context.Context, r *Request) (any, error) {
		if !full && !(read && m.Reading) {
			s.warnings.Warn("call refused", "method", name, "uid", p.UID, "pid", p.PID)
			return nil, proto.NewError(proto.CodeAccessDenied, name+s.access.needs())
		}
		ctx, cancel := context.WithCancelCause(WithPeer(ctx, p))
		defer cancel(nil)
		defer context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })()
		out, err := m.Handle(ctx, r)
		if !m.Reading {
			s.logCall(name, p, string(r.Params), err)
		}
		return out, err
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

// Subscribe returns the last events and sends the following ones until the
// connection ends. A connection may subscribe once.
func Subscribe[E any](ctx context.Context, c *Conn, since func() ([]E, <-chan E, func())) ([]E, error) {
	if !c.subscribed.CompareAndSwap(false, true) {
		return nil, proto.NewError(proto.CodeBusy, "this connection has subscribed already")
	}
	if !c.server.subscribe(c.Peer.UID) {
		c.subscribed.Store(false)
		return nil, proto.NewError(proto.CodeBusy, "too many subscriptions")
	}
	last, events, cancel := since()
	go func() {
		defer c.server.unsubscribe(c.Peer.UID)
		defer cancel()
		for {
			select {
			case <-c.Done():
				return
			case e, ok := <-events:
				if !ok {
					// The daemon stops, or this peer read too slowly. The end of the
					// connection shows that events are missing.
					c.line.stop()
					return
				}
				if c.line.notify(proto.NotifyEvent, e) != nil {
					return
				}
			}
		}
	}()
	return last, nil
}
