package peering

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Limits of the server.
const (
	// maxGreeting bounds the connections that have not sent a request yet: a new one
	// closes the oldest. A station needs some milliseconds, so a crowd must be very
	// fast to keep one out.
	maxGreeting  = 32
	maxStreams   = 8192
	greetingTime = 5 * time.Second // for TLS and the request
	finishTime   = 3 * time.Second // for the result
)

// The kernel ends a connection to a station that does not answer, with data to send
// (userTimeout) or without.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

const userTimeout = 25 * time.Second

// Backend is what the requests of other stations do.
type Backend interface {
	// Connect opens a session with a device that this station holds. It owns sock, and
	// reads it only once the device's channel is open. Errors are *proto.Error.
	Connect(ctx context.Context, device string, sock station.Duplex) (nmsproto.ConnectResult, error)
	// Detail returns a device with its history. Errors are *proto.Error.
	Detail(device string) (nmsproto.DeviceDetail, error)
	// Settle decides about the connection of a device that has called another station:
	// it is kept, or ended for a cause.
	Settle(ctx context.Context, device string) (kept bool, cause string)
}

// Server answers other stations.
type Server struct {
	identity *Identity
	backend  Backend
	known    func(station string) bool
	log      hclog.Logger
	warnings *ratelimit.Warnings
	wg       sync.WaitGroup

	mu       sync.Mutex // guards the fields that follow
	greeting []net.Conn // the oldest first
	streams  map[*tls.Conn]*x509.Certificate
}

// NewServer returns a server. A station that known does not know is refused, whatever
// its certificate; nil knows all that the CA has signed.
func NewServer(i *Identity, b Backend, known func(station string) bool, log hclog.Logger) *Server {
	return &Server{identity: i, backend: b, known: known, log: log, warnings: ratelimit.NewWarnings(log), streams: make(map[*tls.Conn]*x509.Certificate)}
}

// Listen opens a listener for Serve. Linux has no TCP_USER_TIMEOUT on connections with
// MPTCP, which a Go listener accepts.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l := net.ListenConfig{KeepAliveConfig: keepAlive}
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", address)
}

// Serve accepts connections until ctx ends, which ends their sessions, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.warnings.Rest()
	defer s.wg.Wait()
	for {
		conn, err := daemon.Accept(l.Accept, func(err error) {
			s.warnings.Warn("connections of other stations cannot be accepted; temporary, retry", "error", err)
		})
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			l.Close()
			return fmt.Errorf("accepting connections of other stations: %w", err)
		}
		s.enter(conn)
		s.wg.Go(func() { s.serve(ctx, conn) })
	}
}

// enter counts a connection until leave, and closes the oldest above the limit.
func (s *Server) enter(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = append(s.greeting, conn)
	if len(s.greeting) > maxGreeting {
		s.greeting[0].Close()
		s.greeting = slices.Delete(s.greeting, 0, 1)
	}
}

func (s *Server) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.greeting, conn); i >= 0 {
		s.greeting = slices.Delete(s.greeting, i, i+1)
	}
}

// serve is one connection, from accept to its end.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	conn := tls.Server(raw, s.identity.server())
	q, err := s.greet(ctx, conn)
	s.leave(raw)
	f := &frames{Conn: conn}
	var refused *proto.Error
	switch {
	case errors.As(err, &refused):
		s.warnings.Warn("a request of another station is refused", "address", raw.RemoteAddr().String(), "error", refused.Message)
		_ = f.finish(outcome{Error: refused}, finishTime)
		return
	case err != nil:
		s.warnings.Warn("a connection of another station failed", "address", raw.RemoteAddr().String(), "error", printable.Line(err.Error()))
		return
	}
	if err := s.begin(conn); err != nil {
		_ = f.finish(outcome{Error: err}, finishTime)
		return
	}
	defer s.end(conn)
	switch q.Request {
	case requestDetail:
		d, err := s.backend.Detail(q.Device)
		d.Labels, d.HostKeys, d.CAs = nil, nil, nil // each station has the entry, which may fill a frame
		_ = f.finish(outcomeOf(d, err), finishTime)
	case requestSettle:
		kept, cause := s.backend.Settle(ctx, q.Device)
		s.log.Info("a device called another station", "device", q.Device, "station", q.Caller.Station, "kept", kept, "cause", cause)
		_ = f.finish(outcomeOf(settled{kept, cause}, nil), finishTime)
	default:
		s.session(ctx, q, f)
	}
}

// session is one session, to its end. The station hangs up when the caller's connection
// fails.
func (s *Server) session(ctx context.Context, q request, f *frames) {
	who := []any{"device", q.Device, "station", q.Caller.Station, "user", q.Caller.User, "uid", q.Caller.UID}
	s.log.Info("session of another station begins", who...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &relayed{stream: newStream(f)}
	received := make(chan struct{})
	go func() {
		defer close(received)
		_ = r.receive()
		cancel()
	}()
	out, err := s.backend.Connect(ctx, q.Device, r)
	s.log.Info("session of another station ended", append(who, "sent", out.Sent, "received", out.Received, "error", err)...)
	// What is unread when a socket is closed resets the connection, and the result may
	// be lost: receive goes on until the caller's station has closed.
	if f.SetDeadline(time.Now().Add(finishTime)) == nil && f.sendMessage(frameResult, outcomeOf(out, err)) == nil {
		<-received
	}
	f.Close()
}

// greet does the handshake and reads the request. A request that is refused has an
// error of the API.
func (s *Server) greet(ctx context.Context, conn *tls.Conn) (request, error) {
	var q request
	prepare(conn.NetConn())
	if err := conn.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return q, err
	}
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return q, err
	}
	f := &frames{Conn: conn}
	k, err := f.next(maxRequest)
	if err == nil && k != frameRequest {
		err = fmt.Errorf("%w: a frame of kind %d in place of a request", errFrame, k)
	}
	if err == nil {
		err = f.message(&q)
	}
	if err != nil {
		return q, unexpected(err)
	}
	q.Caller.User, q.Device = printable.Line(q.Caller.User), printable.Line(q.Device)
	from := q.Caller.Station
	switch {
	case q.Version != version:
		return q, proto.NewError(proto.CodeBadType, fmt.Sprintf("station %s speaks version %d of the stations' protocol, and got a request of version %d", s.identity.Station(), version, q.Version))
	case !slices.Contains(requests, q.Request):
		return q, proto.NewError(proto.CodeBadType, fmt.Sprintf("station %s has no request %.20q", s.identity.Station(), q.Request))
	case !names(conn.ConnectionState().PeerCertificates[0], from):
		return q, proto.NewError(proto.CodeAccessDenied, fmt.Sprintf("station %s got a request of station %.80q with the certificate of another", s.identity.Station(), from))
	case s.known != nil && !s.known(from):
		return q, proto.NewError(proto.CodeAccessDenied, fmt.Sprintf("station %s knows no station %.80q", s.identity.Station(), from))
	}
	return q, conn.SetDeadline(time.Time{})
}

// prepare sets the options of a TCP connection. Where the kernel refuses one, another
// finds that the station is gone, later.
func prepare(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(keepAlive)
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}
}

// begin counts a stream, unless there are too many.
func (s *Server) begin(conn *tls.Conn) *proto.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= maxStreams {
		return proto.NewError(proto.CodeBusy, fmt.Sprintf("station %s has %d sessions of other stations", s.identity.Station(), maxStreams))
	}
	s.streams[conn] = conn.ConnectionState().PeerCertificates[0]
	return nil
}

func (s *Server) end(conn *tls.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, conn)
}

// Recheck ends the streams of certificates that are denied by now.
func (s *Server) Recheck() {
	m := s.identity.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, c := range s.streams {
		if m.refuses(c) != nil {
			conn.NetConn().Close()
		}
	}
}

// outcomeOf is the last frame for a result or an error.
func outcomeOf(result any, err error) (out outcome) {
	var failed *proto.Error
	if err != nil && !errors.As(err, &failed) {
		failed = proto.NewError(proto.CodeOS, err.Error())
	}
	out.Error = failed
	out.Result, err = json.Marshal(result)
	if err != nil {
		out.Error = proto.NewError(proto.CodeOS, err.Error())
	}
	return out
}
