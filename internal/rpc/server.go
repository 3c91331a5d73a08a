// Package rpc serves methods over a Unix socket and calls them: JSON-RPC 2.0,
// one message a line, with a descriptor where a method takes one. It owns
// framing, the peer's credentials, who may call what, and the limits that keep
// one user from taking another's connections. Both daemons serve their methods
// with it, and their commands call them. It never knows what a method does.
package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
)

// Limits bound the connections of all users and of one user. Neither holds for
// root.
type Limits struct{ All, PerUser int }

// Limits on subscriptions, root's included: each has a goroutine that waits for its
// peer to read.
const (
	maxSubscribers        = 128
	maxSubscribersPerUser = 64
)

// maxWithoutAccess bounds the connections of all users without access. They are
// accepted so that each call is answered with CALLHOME_ERR_ACCESS_DENIED, and do
// not count towards Limits.All.
const maxWithoutAccess = 16

// maxRefused bounds how many refused connections are closed at a time. Closing
// can block a thread for as long as the peer wants (package fdpass).
const maxRefused = 64

// endTime bounds how long the end of Serve waits for calls that are being carried
// out: longer than killing a session takes.
const endTime = 5 * time.Second

// Server serves a table of methods on one Unix socket. NewServer makes it, Serve
// runs it, and closing the listener ends it.
type Server struct {
	methods func(*Conn) map[string]Method
	access  Access
	limits  Limits
	log     hclog.Logger
	// warnings are those that every local user can trigger.
	warnings *ratelimit.Warnings
	ctx      context.Context // ends with Serve
	stop     context.CancelCauseFunc

	mu            sync.Mutex // guards the fields that follow
	conns         map[*net.UnixConn]Peer
	uids          map[uint32]int // connections of each user
	withoutAccess int            // connections of users without access
	subscribers   map[uint32]int // of each user
}

// Conn is the connection of one peer.
type Conn struct {
	context.Context // ends with the connection
	Peer            Peer
	Kept            bool // it has one of the descriptors that the daemon keeps (daemon.Kept)
	server          *Server
	line            *requests
	subscribed      atomic.Bool
}

// Full reports whether the peer may call every method.
func (c *Conn) Full() bool {
	full, _ := c.server.access.Allows(c.Peer)
	return full
}

// Take returns the descriptor that came with the request of ctx, or nil. The
// caller owns and closes it.
func (c *Conn) Take(ctx context.Context) *os.File {
	r, _ := ctx.Value(requestKey{}).(*Request)
	if r == nil {
		return nil
	}
	return c.line.take(r.id)
}

// NewServer returns a server that serves on each connection the methods that
// the function returns for it.
func NewServer(methods func(*Conn) map[string]Method, a Access, l Limits, log hclog.Logger) *Server {
	s := &Server{methods: methods, access: a, limits: l, log: log, warnings: ratelimit.NewWarnings(log),
		conns: make(map[*net.UnixConn]Peer), uids: make(map[uint32]int), subscribers: make(map[uint32]int)}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

// listener is what a server needs of a net.UnixListener.
type listener interface {
	AcceptUnix() (*net.UnixConn, error)
}

// Serve accepts connections until l is closed, and then ends the open ones. It
// may be called once.
func (s *Server) Serve(l listener) error {
	var wg sync.WaitGroup
	refused := make(chan struct{}, maxRefused)
	defer s.warnings.Rest()
	defer s.end(&wg)
	for {
		c, err := daemon.Accept(l.AcceptUnix, func(err error) {
			s.warnings.Warn("connections cannot be accepted, retrying", "error", err)
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
	errFull          = errors.New("too many connections of all users")
	errUserFull      = errors.New("too many connections of this user")
	errWithoutAccess = errors.New("too many connections of users without access")
	errNoDescriptor  = errors.New("the last file descriptors are for root")
)

// enter counts a connection, or returns why it is refused. A peer without access
// may connect too, so that its calls are answered with a refusal.
func (s *Server) enter(c *net.UnixConn, p Peer) error {
	allowed := s.hasAccess(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.UID == 0:
	case daemon.IsKept(c, daemon.KeptForRoot):
		return errNoDescriptor
	case !allowed && s.withoutAccess >= maxWithoutAccess:
		return errWithoutAccess
	case allowed && len(s.conns)-s.withoutAccess >= s.limits.All:
		return errFull
	case s.uids[p.UID] >= s.limits.PerUser:
		return errUserFull
	}
	s.conns[c] = p
	s.uids[p.UID]++
	if !allowed {
		s.withoutAccess++
	}
	return nil
}

// subscribe counts a subscription of a user, or reports that there are too many.
func (s *Server) subscribe(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.subscribers {
		all += n
	}
	if all >= maxSubscribers || s.subscribers[uid] >= maxSubscribersPerUser {
		return false
	}
	s.subscribers[uid]++
	return true
}

func (s *Server) unsubscribe(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscribers[uid]--; s.subscribers[uid] == 0 {
		delete(s.subscribers, uid)
	}
}

// hasAccess reports whether p may call any method.
func (s *Server) hasAccess(p Peer) bool {
	full, read := s.access.Allows(p)
	return full || read
}

func (s *Server) leave(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.conns[c]
	delete(s.conns, c)
	if s.uids[p.UID]--; s.uids[p.UID] == 0 {
		delete(s.uids, p.UID)
	}
	if !s.hasAccess(p) {
		s.withoutAccess--
	}
}

// end ends all connections. A call that waits for an event is answered with
// CALLHOME_ERR_SHUTDOWN; a call that is being carried out is answered with its
// result. A connection that takes longer than endTime is left open.
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
		s.log.Warn("connections left open at the end, their calls took too long", "connections", len(s.conns))
	}
}

// closeAll ends the reading of all connections. Answers can still be written.
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
	err := l.serve(ctx, s.assign(&Conn{Context: ctx, Peer: p, Kept: daemon.IsKept(c, daemon.Kept), server: s, line: l}))
	cancel()
	l.running.Wait()
	_ = l.Close()
	if !errors.Is(err, io.EOF) {
		s.log.Debug("connection ended", "peer", p.String(), "error", err)
	}
}
