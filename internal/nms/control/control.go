// Package control serves a management station's API on its Unix socket, and has the
// client that the commands of callhome-nms call it with, as package api does on a
// device. It owns the table of methods, and how a session's socket gets to the
// station. The Backend does what a method asks for; package rpc has framing, peer
// credentials and limits. It never reads a session's bytes at the station.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"callhome/internal/daemon"
	"callhome/internal/fdpass"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Backend is what the methods do.
type Backend interface {
	List() nmsproto.DeviceList
	// DetailFor returns a device with its history, of the whole cluster if it can.
	DetailFor(ctx context.Context, device string) (nmsproto.DeviceDetail, error)
	History() nmsproto.History
	Adopt(p nmsproto.AdoptParams, root bool) (nmsproto.Adopted, error)
	Remove(nmsproto.RemoveParams) error
	Revoke(nmsproto.RevokeParams) (nmsproto.Revoked, error)
	Unrevoke(nmsproto.UnrevokeParams) (nmsproto.Unrevoked, error)
	Forget(nmsproto.ForgetParams) error
	Import(p nmsproto.ImportParams, root bool) (nmsproto.Imported, error)
	Export(nmsproto.ExportParams) (nmsproto.Exported, error)
	// Connect owns the socket; rpc.PeerFrom says for whom it is.
	Connect(ctx context.Context, device string, sock station.Duplex) (nmsproto.ConnectResult, error)
	Subscribe() (last []nmsproto.Event, events <-chan nmsproto.Event, cancel func())
	SubscribeAfter(sequence uint64) (last []nmsproto.Event, events <-chan nmsproto.Event, cancel func())
	Status() nmsproto.Status
	Reload() error
	Drain(nmsproto.DrainParams) (nmsproto.Drain, error)
}

// limits are the control socket's. Each session is a connection, and one user may
// have sessions with every device.
var limits = rpc.Limits{All: 8192, PerUser: 4096}

// NewServer returns the API's server.
func NewServer(b Backend, a rpc.Access, log hclog.Logger) *rpc.Server {
	return rpc.NewServer(func(c *rpc.Conn) map[string]rpc.Method { return methods(b, c) }, a, limits, log)
}

func methods(b Backend, c *rpc.Conn) map[string]rpc.Method {
	return map[string]rpc.Method{
		nmsproto.MethodDevices: {Reading: true, Handle: rpc.Plain(func(context.Context) (nmsproto.DeviceList, error) { return b.List(), nil })},
		nmsproto.MethodHistory: {Reading: true, Handle: rpc.Plain(func(context.Context) (nmsproto.History, error) { return b.History(), nil })},
		nmsproto.MethodDevice: {Reading: true, Handle: rpc.Typed(func(ctx context.Context, p nmsproto.DeviceParams) (nmsproto.DeviceDetail, error) {
			return b.DetailFor(ctx, p.Device)
		})},
		nmsproto.MethodStatus: {Reading: true, Handle: rpc.Plain(func(context.Context) (nmsproto.Status, error) {
			s := b.Status()
			s.Access = nmsproto.AccessRead
			if c.Full() {
				s.Access = nmsproto.AccessFull
			}
			return s, nil
		})},
		nmsproto.MethodSubscribe: {Reading: true, Handle: rpc.Typed(func(ctx context.Context, p nmsproto.SubscribeParams) (nmsproto.EventList, error) {
			since := b.Subscribe
			if p.After > 0 {
				since = func() ([]nmsproto.Event, <-chan nmsproto.Event, func()) { return b.SubscribeAfter(p.After) }
			}
			last, err := rpc.Subscribe(ctx, c, since)
			return nmsproto.EventList{Events: last}, err
		})},
		nmsproto.MethodAdopt: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.AdoptParams) (nmsproto.Adopted, error) {
			return b.Adopt(p, c.Peer.UID == 0)
		})},
		nmsproto.MethodRemove: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.RemoveParams) (nmsproto.Nothing, error) {
			return nmsproto.Nothing{}, b.Remove(p)
		})},
		nmsproto.MethodRevoke: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.RevokeParams) (nmsproto.Revoked, error) {
			return b.Revoke(p)
		})},
		nmsproto.MethodUnrevoke: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.UnrevokeParams) (nmsproto.Unrevoked, error) {
			return b.Unrevoke(p)
		})},
		nmsproto.MethodForget: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.ForgetParams) (nmsproto.Nothing, error) {
			return nmsproto.Nothing{}, b.Forget(p)
		})},
		nmsproto.MethodImport: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.ImportParams) (nmsproto.Imported, error) {
			return b.Import(p, c.Peer.UID == 0)
		})},
		nmsproto.MethodExport: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.ExportParams) (nmsproto.Exported, error) {
			return b.Export(p)
		})},
		nmsproto.MethodReload: {Handle: rpc.Plain(func(context.Context) (nmsproto.Nothing, error) {
			return nmsproto.Nothing{}, b.Reload()
		})},
		nmsproto.MethodDrain: {Handle: rpc.Typed(func(_ context.Context, p nmsproto.DrainParams) (nmsproto.Drain, error) {
			return b.Drain(p)
		})},
		nmsproto.MethodConnect: {Handle: connect(b, c)},
	}
}

func connect(b Backend, c *rpc.Conn) rpc.Handler {
	return rpc.Typed(func(ctx context.Context, p nmsproto.ConnectParams) (nmsproto.ConnectResult, error) {
		f := c.Take(ctx)
		if f == nil {
			return nmsproto.ConnectResult{}, proto.NewError(proto.CodeBadType, "the message has no socket with it")
		}
		if c.Kept || daemon.IsKept(f, daemon.Kept) {
			fdpass.Close(f)
			return nmsproto.ConnectResult{}, proto.NewError(proto.CodeBusy, "the station has no file descriptor left for a session: raise its limit (LimitNOFILE=)")
		}
		sock, err := duplex(f)
		if err != nil {
			return nmsproto.ConnectResult{}, proto.NewError(proto.CodeBadType, err.Error())
		}
		return b.Connect(ctx, p.Device, sock)
	})
}

// duplex takes ownership of f, which must be a connected stream socket.
func duplex(f *os.File) (station.Duplex, error) {
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("the descriptor that came with the message is not a socket: %w", err)
	}
	switch c := conn.(type) {
	case *net.UnixConn:
		return c, nil
	case *net.TCPConn:
		return c, nil
	}
	conn.Close()
	return nil, errors.New("the descriptor that came with the message is not a TCP or Unix stream socket")
}

// Client calls a station.
type Client = rpc.Client[nmsproto.Event]

// Dial connects to the station at path. Errors carry their exit status.
func Dial(path string) (*Client, error) {
	return rpc.Dial[nmsproto.Event](path, rpc.Daemon{
		Name: "callhome-nms serve", Start: "start it with systemctl start callhome-nms, or callhome-nms serve", Group: "callhome-nms",
	})
}

// Stream is a netconf session with a device, through the station.
type Stream struct {
	*net.UnixConn
	client *Client
	over   <-chan struct{} // closed when the context ends
	ended  chan struct{}
	result nmsproto.ConnectResult
	err    error
}

// Open asks the station for a session, which ends with ctx at the latest, even if
// the station does not answer. An error of the station ends the stream, and Wait
// returns it.
func Open(ctx context.Context, path, device string) (*Stream, error) {
	c, err := Dial(path)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		c.Close()
		return nil, err
	}
	s := &Stream{UnixConn: ours, client: c, over: ctx.Done(), ended: make(chan struct{})}
	c.Pass(theirs)
	go func() {
		defer close(s.ended)
		s.err = c.Call(ctx, nmsproto.MethodConnect, nmsproto.ConnectParams{Device: device}, &s.result)
		c.Close()
		if s.err != nil && ctx.Err() != nil {
			s.err = fmt.Errorf("the session with %s was interrupted: %w", device, ctx.Err())
			ours.Close() // the station may leave its end open
		}
	}()
	return s, nil
}

// Read reads what the device sends. The kernel reports a reset when the station ended
// the session without reading all bytes; like the context's end, Read returns that as
// io.EOF, and Wait returns the cause.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.UnixConn.Read(p)
	if errors.Is(err, unix.ECONNRESET) {
		return n, io.EOF
	}
	if errors.Is(err, net.ErrClosed) {
		select {
		case <-s.over:
			return n, io.EOF
		default:
		}
	}
	return n, err
}

// Wait waits for the session's end and returns its result.
func (s *Stream) Wait() (nmsproto.ConnectResult, error) {
	<-s.ended
	return s.result, s.err
}

// Close ends the session.
func (s *Stream) Close() error {
	return errors.Join(s.UnixConn.Close(), s.client.Close())
}

// Join copies in to the device and the device's bytes to out, until the session ends.
// It passes the end of in on, which ends that direction alone.
func (s *Stream) Join(in io.Reader, out io.Writer) (nmsproto.ConnectResult, error) {
	go func() {
		// A read of in that blocks ends with the process.
		_, _ = io.Copy(s.UnixConn, in)
		_ = s.CloseWrite()
	}()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, struct{ io.Reader }{s}) // not UnixConn's WriteTo
		copied <- err
	}()
	var copyErr error
	select {
	case copyErr = <-copied:
	case <-s.over: // a write to out that blocks ends with the process too
	}
	if copyErr != nil {
		s.Close() // out takes no more bytes
		<-s.ended
		return s.result, fmt.Errorf("passing on the device's bytes: %w", copyErr)
	}
	return s.Wait()
}

func socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("creating a pair of sockets: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "session")
	f := os.NewFile(uintptr(fds[0]), "session")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("creating a pair of sockets: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}
