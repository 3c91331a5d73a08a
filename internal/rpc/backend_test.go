package rpc

import (
	"context"

	"callhome/internal/proto"
	"github.com/hashicorp/go-hclog"
)

// testLimits are those of the servers under test.
var testLimits = Limits{All: 1024, PerUser: 64}

// newServer returns a server of b's methods: one that can wait, one that takes a
// descriptor, one that changes something, one that reads, one that subscribes.
func newServer(b *backend, a Access, log hclog.Logger) *Server {
	return NewServer(func(c *Conn) map[string]Method { return b.methods(c) }, a, testLimits, log)
}

func (b *backend) methods(c *Conn) map[string]Method {
	table := map[string]Handler{
		proto.MethodCallHome: Typed(b.Call),
		proto.MethodUserSessions: Plain(func(context.Context) (proto.SessionList, error) {
			return proto.SessionList{Sessions: b.Sessions()}, nil
		}),
		proto.MethodKillUserSession: Typed(func(_ context.Context, q proto.SessionParams) (proto.SessionInfo, error) {
			return b.Kill(q.Session, c.Peer.String())
		}),
		proto.MethodStatus: Plain(func(context.Context) (proto.Status, error) { return b.Status(), nil }),
		proto.MethodStop:   Plain(func(context.Context) (proto.Nothing, error) { return proto.Nothing{}, nil }),
		proto.MethodSubscribe: Plain(func(ctx context.Context) (proto.EventList, error) {
			last, err := Subscribe(ctx, c, b.SubscribeSince)
			return proto.EventList{Events: last}, err
		}),
		proto.MethodHandover: Typed(func(ctx context.Context, q proto.HandoverParams) (proto.SessionInfo, error) {
			sock := c.Take(ctx)
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

func dialClient(path string) (*Client[proto.Event], error) {
	return Dial[proto.Event](path, Daemon{Name: "the daemon", Start: "start it", Group: "callhome"})
}
