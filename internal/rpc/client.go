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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/creachadair/jrpc2"
)

// maxAnswer bounds an answer, in bytes: the largest number of sessions, each with
// the longest texts, escaped.
const maxAnswer = 64 << 20

// Client is a connection to a daemon that calls its methods and receives its
// events, which are of type E. Its methods may be called by several goroutines.
type Client[E any] struct {
	rpc  *jrpc2.Client
	line *eventLine[E]
}

// Daemon describes a daemon in errors: its name, the command that starts it, and
// the group whose members may connect.
type Daemon struct{ Name, Start, Group string }

// eventLine takes the events out of the messages in their order: jrpc2 delivers
// notifications in any order.
type eventLine[E any] struct {
	*line
	events chan E        // closed at the end of the connection
	ended  sync.Once     // closes events
	recv   sync.Mutex    // held by Recv, which sends to events
	closed chan struct{} // with the Client; events are then dropped
	came   atomic.Int64  // answers received whose Call has not returned
}

// deliveryTime bounds awaitDelivery.
const deliveryTime = time.Second

// awaitDelivery waits until the answers received have reached their calls: jrpc2
// lets the end of the connection overtake them.
func (l *eventLine[E]) awaitDelivery() {
	for end := time.Now().Add(deliveryTime); l.came.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// endEvents closes events.
func (l *eventLine[E]) endEvents() { l.ended.Do(func() { close(l.events) }) }

// stop ends the events when jrpc2 stops: after a message that is not JSON-RPC it does
// not call Recv again.
func (l *eventLine[E]) stop(*jrpc2.Client, error) {
	close(l.closed)
	go func() {
		l.recv.Lock()
		defer l.recv.Unlock()
		l.endEvents()
	}()
}

// Recv returns the next answer.
func (l *eventLine[E]) Recv() ([]byte, error) {
	l.recv.Lock()
	defer l.recv.Unlock()
	for {
		message, err := l.line.Recv()
		if err != nil {
			l.awaitDelivery()
			l.endEvents()
			return nil, err
		}
		if !bytes.HasPrefix(message, notification) {
			l.came.Add(1)
			return message, nil
		}
		var n struct{ Params E }
		if err := json.Unmarshal(message, &n); err != nil {
			l.endEvents()
			return nil, fmt.Errorf("reading an event: %w", err)
		}
		select {
		case l.events <- n.Params:
		case <-l.closed:
		}
	}
}

// How long a full queue of connections is waited for, and how often it is tried:
// the kernel reports a full queue, and not when it no longer is.
const (
	fullTime  = 3 * time.Second
	fullPause = 10 * time.Millisecond
)

// connect connects to path, and again while the daemon's queue is full, which any
// local user can cause for a moment. It calls full before it waits.
func connect(path string, full func()) (conn *net.UnixConn, err error) {
	for end := time.Now().Add(fullTime); ; time.Sleep(fullPause) {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return conn, err
		}
		full()
	}
}

// Dial connects to d at path. Errors carry their exit status.
func Dial[E any](path string, d Daemon) (*Client[E], error) {
	conn, err := connect(path, func() {})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, sysexits.New(sysexits.NoPerm, "run as root or as a member of the group "+d.Group, fmt.Errorf("connecting to %s at %q: permission denied", d.Name, path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, sysexits.New(sysexits.Unavailable, d.Start, fmt.Errorf("%s does not run: no listener at %q", d.Name, path))
	case errors.Is(err, syscall.EAGAIN):
		return nil, sysexits.New(sysexits.Unavailable, "temporary, retry", fmt.Errorf("connecting to %s at %q: its queue of connections is full", d.Name, path))
	case err != nil:
		return nil, sysexits.New(sysexits.OSErr, "", fmt.Errorf("connecting to %s at %q: %w", d.Name, path, err))
	}
	l := &eventLine[E]{line: newLine(conn, maxAnswer), events: make(chan E, 64), closed: make(chan struct{})}
	return &Client[E]{jrpc2.NewClient(l, &jrpc2.ClientOptions{OnStop: l.stop}), l}, nil
}

// Close ends the connection.
func (c *Client[E]) Close() error { return c.rpc.Close() }

// Pass sends f with the next call and then closes it.
func (c *Client[E]) Pass(f *os.File) { c.line.pass.Store(f) }

// Call calls a method and waits for its result, which may be nil. An error that
// the daemon answers is a *proto.Error.
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

// Events returns the events that follow a subscribe; it is closed at the end of
// the connection. Answers wait behind unread events.
func (c *Client[E]) Events() <-chan E { return c.line.events }
