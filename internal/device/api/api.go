// Package api owns callhome-mgr's API: the table of methods, their parameters and
// results in the types of package proto, and the Backend's functions they call.
// Package rpc owns framing, peers, access and limits. cmd/callhome-mgr serves it,
// and its commands call it with Dial. It never makes a call home itself.
package api

import (
	"context"
	"os"

	"callhome/internal/proto"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
)

// Backend implements the methods.
type Backend interface {
	Call(context.Context, proto.CallParams) (proto.SessionInfo, error)
	Handover(context.Context, proto.HandoverParams, *os.File) (proto.SessionInfo, error)
	Kill(id int, peer string) (proto.SessionInfo, error)
	Sessions() []proto.SessionInfo
	Status() proto.Status
	AwaitStart(context.Context) error
	SubscribeSince() (last []proto.Event, events <-chan proto.Event, cancel func())
	// Reload, Restart, Reopen and Shutdown concern the daemon, not a session.
	Reload() error
	Restart(client string) ([]string, error)
	Reopen() error
	Shutdown()
}

// limits on the connections of the API's socket.
var limits = rpc.Limits{All: 1024, PerUser: 64}

// NewServer returns the server of the API; call Serve to run it.
func NewServer(b Backend, a rpc.Access, log hclog.Logger) *rpc.Server {
	return rpc.NewServer(func(c *rpc.Conn) map[string]rpc.Method { return methods(b, c) }, a, limits, log)
}

// methods returns the method table for one connection.
func methods(b Backend, c *rpc.Conn) map[string]rpc.Method {
	call := func(ctx context.Context, q proto.CallParams) (proto.SessionInfo, error) { return b.Call(ctx, q) }
	table := map[string]rpc.Handler{
		proto.MethodCallHome:       rpc.Typed(call),
		proto.MethodCallHomeOpaque: rpc.Typed(call),
		proto.MethodUserSessions: rpc.Plain(func(context.Context) (proto.SessionList, error) {
			return proto.SessionList{Sessions: b.Sessions()}, nil
		}),
		proto.MethodKillUserSession: rpc.Typed(func(_ context.Context, q proto.SessionParams) (proto.SessionInfo, error) {
			return b.Kill(q.Session, c.Peer.String())
		}),
		proto.MethodReloadConfig: rpc.Plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reload() }),
		proto.MethodRestartCallHome: rpc.Typed(func(_ context.Context, q proto.RestartParams) (proto.RestartResult, error) {
			names, err := b.Restart(q.Client)
			return proto.RestartResult{Clients: names}, err
		}),
		proto.MethodReopenLogs: rpc.Plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, b.Reopen() }),
		proto.MethodStop: rpc.Plain(func(context.Context) (proto.Nothing, error) {
			b.Shutdown()
			return proto.Nothing{}, nil
		}),
		proto.MethodWaitStart: rpc.Plain(func(ctx context.Context) (proto.Status, error) {
			err := b.AwaitStart(ctx)
			return b.Status(), err
		}),
		proto.MethodStatus: rpc.Plain(func(context.Context) (proto.Status, error) { return b.Status(), nil }),
		proto.MethodSubscribe: rpc.Plain(func(ctx context.Context) (proto.EventList, error) {
			last, err := rpc.Subscribe(ctx, c, b.SubscribeSince)
			return proto.EventList{Events: last}, err
		}),
		proto.MethodHandover: rpc.Typed(func(ctx context.Context, q proto.HandoverParams) (proto.SessionInfo, error) {
			sock := c.Take(ctx)
			if sock == nil {
				return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, "no descriptor came with the message")
			}
			return b.Handover(ctx, q, sock)
		}),
	}
	table[proto.MethodAdopt] = table[proto.MethodHandover]
	out := make(map[string]rpc.Method, len(table))
	for name, h := range table {
		out[name] = rpc.Method{Handle: h, Reading: proto.ReadOnly(name)}
	}
	return out
}

// Client is the API client of a manager.
type Client = rpc.Client[proto.Event]

// Dial connects to the manager at path. Errors carry their exit status.
func Dial(path string) (*Client, error) {
	return rpc.Dial[proto.Event](path, rpc.Daemon{
		Name: "callhome-mgr", Start: "start it with systemctl start callhome-mgr, or callhome-mgr run", Group: "callhome",
	})
}
