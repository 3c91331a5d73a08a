package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/creachadair/jrpc2"
)

// maxAnswer bounds an answer, in bytes: as many sessions as there can be, each
// with the longest words, escaped.
const maxAnswer = 64 << 20

// Client calls a daemon whose events are of type E.
type Client[E any] struct {
	rpc  *jrpc2.Client
	line *eventLine[E]
}

// Daemon is who shall answer, in the words of errors: the name, what starts it,
// and the group that the package gives it.
type Daemon struct{ Name, Start, Group string }

// eventLine takes the events out of what comes, in their order: jrpc2 hands
// notifications on in any.
type eventLine[E any] struct {
	*line
	events chan E        // closed by Recv, at the end of the connection
	closed chan struct{} // nobody takes events any more
	came   atomic.Int64  // answers that no call has returned with yet
}

// deliveryTime bounds how long the end of a connection waits for that.
const deliveryTime = time.Second

// awaitDelivery lets the answers that came get to their calls: for jrpc2 the
// end of the connection may overtake them.
func (l *eventLine[E]) awaitDelivery() {
	for end := time.Now().Add(deliveryTime); l.came.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// Recv returns the next message that is an answer.
func (l *eventLine[E]) Recv() ([]byte, error) {
	for {
		message, err := l.line.Recv()
		if err != nil {
			l.awaitDelivery()
			close(l.events)
			return nil, err
		}
		if !bytes.HasPrefix(message, notification) {
			l.came.Add(1)
			return message, nil
		}
		var n struct{ Params E }
		if err := json.Unmarshal(message, &n); err != nil {
			close(l.events)
			return nil, fmt.Errorf("reading an event: %w", err)
		}
		select {
		case l.events <- n.Params:
		case <-l.closed:
		}
	}
}

// Dial connects to that daemon at path. Errors carry their exit status.
func Dial[E any](path string, d Daemon) (*Client[E], error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, sysexits.New(sysexits.NoPerm, "run as root or as a member of the group "+d.Group, fmt.Errorf("calling %s at %s: permission denied", d.Name, path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, sysexits.New(sysexits.Unavailable, d.Start, fmt.Errorf("nobody answers at %s: %s does not run", path, d.Name))
	case err != nil:
		return nil, sysexits.New(sysexits.OSErr, "", fmt.Errorf("calling %s: %w", d.Name, err))
	}
	l := &eventLine[E]{line: newLine(conn, maxAnswer), events: make(chan E, 64), closed: make(chan struct{})}
	return &Client[E]{jrpc2.NewClient(l, &jrpc2.ClientOptions{OnStop: func(*jrpc2.Client, error) { close(l.closed) }}), l}, nil
}

// Close ends the connection.
func (c *Client[E]) Close() error { return c.rpc.Close() }

// Pass sends f with the next call, whose method takes it, and closes it then.
func (c *Client[E]) Pass(f *os.File) { c.line.pass.Store(f) }

// Call calls a method; result may be nil. The daemon's own errors come as
// *proto.Error.
func (c *Client[E]) Call(ctx context.Context, method string, params, result any) error {
	r, err := c.rpc.Call(ctx, method, params)
	c.line.came.Add(-1)
	if err != nil {
		var e *jrpc2.Error
		if !errors.As(err, &e) {
			return fmt.Errorf("calling %s: %w", method, err)
		}
		out := &proto.Error{Code: proto.Code(e.Code), Message: e.Message}
		_ = json.Unmarshal(e.Data, &out.Data) // an error of JSON-RPC itself has none
		return out
	}
	if result == nil {
		return nil
	}
	return r.UnmarshalResult(result)
}

// Events returns what comes after a subscribe, until the connection ends. Who
// has subscribed must take them: answers come behind them.
func (c *Client[E]) Events() <-chan E { return c.line.events }
