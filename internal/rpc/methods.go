package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"callhome/internal/proto"

	"github.com/creachadair/jrpc2"
)

// Method is one method. A Reading one changes nothing, so that the group for
// reading may call it (Access.Read).
type Method struct {
	Handle  jrpc2.Handler
	Reading bool
}

// assign returns the methods for one connection.
func (s *Server) assign(c *Conn) jrpc2.Assigner {
	table := make(map[string]jrpc2.Handler)
	for name, m := range s.methods(c) {
		table[name] = s.guard(name, m, c.Peer)
	}
	return &assigner{table, c.line}
}

// assigner finds the handler of a method. An unknown method is answered with the
// data that all errors have.
type assigner struct {
	table map[string]jrpc2.Handler
	line  *requests
}

// Assign implements jrpc2.Assigner.
func (a *assigner) Assign(_ context.Context, method string) jrpc2.Handler {
	handle, ok := a.table[method]
	if !ok {
		handle = func(context.Context, *jrpc2.Request) (any, error) {
			return nil, standardError(jrpc2.MethodNotFound, fmt.Sprintf("unknown method %q", method))
		}
	}
	return func(ctx context.Context, r *jrpc2.Request) (any, error) {
		defer a.line.forget(r.ID())
		return handle(ctx, r)
	}
}

// guard answers calls of m that p may make, refuses the others, and logs those
// that change something.
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

// rpcError turns a *proto.Error into the error of JSON-RPC.
func rpcError(err error) error {
	var e *proto.Error
	if errors.As(err, &e) {
		data, _ := json.Marshal(e.Data)
		return &jrpc2.Error{Code: jrpc2.Code(e.Code), Message: e.Message, Data: data}
	}
	return err
}

// standardError is an error that JSON-RPC 2.0 defines, with the data that all
// errors have.
func standardError(code jrpc2.Code, message string) error {
	data, _ := json.Marshal(proto.ErrorData{Name: proto.CodeBadType.String()})
	return &jrpc2.Error{Code: code, Message: message, Data: data}
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
	to := jrpc2.ServerFromContext(ctx)
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
