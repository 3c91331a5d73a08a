package peering

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/printable"
	"callhome/internal/proto"
)

const (
	// dialTime is for TCP and TLS. Stations are near each other, and a device that is
	// held by a station out of reach may have called another one meanwhile.
	dialTime = 5 * time.Second
	// stalledTime is how long a caller may read nothing after the session's end.
	stalledTime = 30 * time.Second
)

// Client opens streams to other stations.
type Client struct {
	identity *Identity
	stalled  time.Duration // stalledTime, but in tests
}

// NewClient returns a client.
func NewClient(i *Identity) *Client { return &Client{i, stalledTime} }

// Settle asks a station about the connection of a device that has called this one.
// Errors are *proto.Error.
func (c *Client) Settle(ctx context.Context, p Peer, device string) (kept bool, cause string, err error) {
	var out settled
	if err := c.call(ctx, p, requestSettle, device, &out); err != nil {
		return false, "", err
	}
	return out.Kept, printable.Line(out.Cause), nil
}

// Detail returns a device with its history at a station, less what its entry has. Errors are *proto.Error.
func (c *Client) Detail(ctx context.Context, p Peer, device string) (out nmsproto.DeviceDetail, err error) {
	err = c.call(ctx, p, requestDetail, device, &out)
	return out, err
}

// call sends a request that is answered with a result.
func (c *Client) call(ctx context.Context, p Peer, kind, device string, out any) error {
	f, err := c.ask(ctx, p, request{Version: version, Request: kind, Device: device, Caller: Caller{Station: c.identity.Station()}})
	if err != nil {
		return err
	}
	defer f.Close()
	k, err := f.next(maxFrame)
	if err == nil && k != frameResult {
		err = fmt.Errorf("%w: a frame of kind %d in place of a result", errFrame, k)
	}
	if err != nil {
		return lost(ctx, p, device, err)
	}
	if err := f.result(out); err != nil {
		return failed(p, device, err)
	}
	return nil
}

// Session is a stream to a device's open channel, which Relay uses and closes.
type Session struct {
	frames  *frames
	peer    Peer
	device  string
	stalled time.Duration
}

// Open opens a session with a device at the station that holds it, and returns when the
// device's channel is open. Its caller may read the claim of the device again after an
// error, and try another station. Errors are *proto.Error.
func (c *Client) Open(ctx context.Context, p Peer, device string, who Caller) (*Session, error) {
	who.Station = c.identity.Station()
	f, err := c.ask(ctx, p, request{Version: version, Request: requestConnect, Device: device, Caller: who})
	if err != nil {
		return nil, err
	}
	switch k, err := f.next(maxFrame); {
	case err != nil:
		f.Close()
		return nil, lost(ctx, p, device, err)
	case k == frameOpened:
		return &Session{f, p, device, c.stalled}, nil
	case k == frameResult:
		err := f.result(new(nmsproto.ConnectResult))
		if err == nil {
			err = fmt.Errorf("%w: a result of a session that has not begun", errFrame)
		}
		f.Close()
		return nil, failed(p, device, err)
	default:
		f.Close()
		return nil, failed(p, device, fmt.Errorf("%w: a frame of kind %d in place of a session", errFrame, k))
	}
}

// ask connects to a station and sends a request. When ctx ends, the connection is closed.
func (c *Client) ask(ctx context.Context, p Peer, q request) (*frames, error) {
	unreachable := func(err error) error {
		return failed(p, q.Device, fmt.Errorf("it cannot be reached at %s: %w", p.Address, err))
	}
	limited, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext(limited, "tcp", p.Address)
	if err != nil {
		return nil, unreachable(err)
	}
	prepare(raw)
	conn := tls.Client(raw, c.identity.client(p.Station))
	if err := conn.HandshakeContext(limited); err != nil {
		raw.Close()
		return nil, unreachable(err)
	}
	f := &frames{Conn: &bound{conn, context.AfterFunc(ctx, func() { conn.Close() })}}
	if err := f.sendMessage(frameRequest, q); err != nil {
		f.Close()
		return nil, unreachable(err)
	}
	return f, nil
}

// bound is a connection that the end of a context closes.
type bound struct {
	*tls.Conn
	release func() bool
}

// Close implements net.Conn.
func (b *bound) Close() error {
	b.release()
	return b.Conn.Close()
}

// failed is the error for a request that a station did not fulfil. An error of the
// station is passed on.
func failed(p Peer, device string, err error) error {
	var theirs *proto.Error
	if errors.As(err, &theirs) {
		return theirs
	}
	why := printable.Line(err.Error())
	return proto.StageError(proto.StageSession, fmt.Sprintf("device %s of station %s: %s", device, p.Station, why), proto.ErrorData{Reason: why})
}

// lost is the error for a stream that ended without a result.
func lost(ctx context.Context, p Peer, device string, err error) error {
	var refused *net.OpError
	switch {
	case ctx.Err() != nil:
		err = errors.New("the peer closed its connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it closed the stream before the result")
	case errors.As(err, &refused) && refused.Op == "remote error":
		err = fmt.Errorf("it refuses the certificate of this station: %w", refused.Err)
	}
	return failed(p, device, err)
}

// Relay copies bytes both ways between the session and sock, which it owns, each as fast
// as its reader takes them, and passes on the end of each direction. It returns at the
// session's end with its result.
func (s *Session) Relay(ctx context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
	f := newStream(s.frames)
	defer f.Close()
	defer sock.Close()
	var sent, received atomic.Uint64
	var gone atomic.Bool // the caller's socket failed
	leave := func() {
		gone.Store(true)
		f.Close()
	}
	go func() {
		read, written := transfer(f, sock, &sent, nil)
		switch {
		case written != nil: // receive has the cause
		case errors.Is(read, io.EOF):
			_ = f.CloseWrite()
		default:
			leave() // no effect at the session's end
		}
	}()
	activity, passed := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(passed)
		read, written := transfer(sock, f, &received, activity)
		switch {
		case written != nil:
			leave()
		case errors.Is(read, io.EOF):
			_ = sock.CloseWrite()
		}
	}()
	var out nmsproto.ConnectResult
	err := f.receive()
	if err == nil {
		err = f.result(&out)
	} else {
		err = lost(ctx, s.peer, s.device, err)
	}
	if ctx.Err() == nil {
		linger(passed, activity, s.stalled)
	}
	switch {
	case err == nil:
		return out, nil
	case gone.Load() || ctx.Err() != nil: // no error, as at the station that holds the device
		return nmsproto.ConnectResult{Sent: sent.Load(), Received: received.Load()}, nil
	}
	return out, failed(s.peer, s.device, err)
}

// transfer copies until a read or a write fails, counts the bytes, and reports each write
// on activity.
func transfer(to io.Writer, from io.Reader, n *atomic.Uint64, activity chan<- struct{}) (read, written error) {
	buffer := make([]byte, dataSize)
	for {
		m, err := from.Read(buffer)
		if m > 0 {
			if _, err := to.Write(buffer[:m]); err != nil {
				return nil, err
			}
			n.Add(uint64(m))
			select {
			case activity <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return err, nil
		}
	}
}

// linger waits until a caller has got the last bytes, or takes none for limit.
func linger(passed, activity <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-passed:
			return
		case <-activity:
			timer.Reset(limit)
		case <-timer.C:
			return
		}
	}
}
