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
	"syscall"
	"time"

	"callhome/internal/proto"
	"callhome/internal/sysexits"
)

// maxAnswer bounds an answer, in bytes: the largest number of sessions, each with
// the longest texts, escaped.
const maxAnswer = 64 << 20

// Client is a connection to a daemon that calls its methods and receives its
// events, which are of type E. Its methods may be called by several goroutines.
type Client[E any] struct {
	line   *line
	events chan E        // closed at the end of the connection
	closed chan struct{} // with the Client; events are then dropped
	close  sync.Once     // closes closed

	mu      sync.Mutex // guards the fields that follow
	last    int        // the id of the last request
	waiting map[int]chan<- message
	err     error // why the connection has ended
}

// message is what a daemon sends: an answer or an event.
type message struct {
	ID     *int
	Result json.RawMessage
	Error  *proto.Error
}

// Daemon describes a daemon in errors: its name, the command that starts it, and
// the group whose members may connect.
type Daemon struct{ Name, Start, Group string }

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
	c := &Client[E]{line: newLine(conn, maxAnswer), events: make(chan E, 64), closed: make(chan struct{}), waiting: make(map[int]chan<- message)}
	go c.read()
	return c, nil
}

// Close ends the connection.
func (c *Client[E]) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.line.Close()
}

// Pass sends f with the next call and then closes it.
func (c *Client[E]) Pass(f *os.File) { c.line.pass.Store(f) }

// read takes messages until the connection ends.
func (c *Client[E]) read() {
	err := c.receive()
	c.line.Close()
	c.mu.Lock()
	c.err = err
	for _, to := range c.waiting {
		close(to)
	}
	c.waiting = nil
	c.mu.Unlock()
	close(c.events)
}

func (c *Client[E]) receive() error {
	for {
		text, err := c.line.Recv()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(text, notification) {
			err = c.event(text)
		} else {
			err = c.answer(text)
		}
		if err != nil {
			return err
		}
	}
}

func (c *Client[E]) event(text []byte) error {
	var n struct{ Params E }
	if err := json.Unmarshal(text, &n); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	select {
	case c.events <- n.Params:
	case <-c.closed:
	}
	return nil
}

// answer passes an answer on to the call that waits for it. One without an id is to a
// message that the daemon could not read, and so to all.
func (c *Client[E]) answer(text []byte) error {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, to := range c.waiting {
		if m.ID == nil || *m.ID == id {
			to <- m // it has room for one
			delete(c.waiting, id)
		}
	}
	return nil
}

// begin returns the id of a new request and where its answer comes.
func (c *Client[E]) begin() (id int, answer <-chan message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.last++
	to := make(chan message, 1)
	c.waiting[c.last] = to
	return c.last, to, nil
}

// Call calls a method and waits for its result, which may be nil. An error that
// the daemon answers is a *proto.Error.
func (c *Client[E]) Call(ctx context.Context, method string, params, result any) error {
	m, err := c.ask(ctx, method, params)
	switch {
	case err != nil:
		return fmt.Errorf("calling %s: %w", method, err)
	case m.Error != nil:
		return m.Error
	case result == nil:
		return nil
	}
	return json.Unmarshal(m.Result, result)
}

func (c *Client[E]) ask(ctx context.Context, method string, params any) (m message, err error) {
	id, answer, err := c.begin()
	if err != nil {
		return m, err
	}
	text, err := json.Marshal(struct {
		Version string `json:"jsonrpc"`
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  any    `json:"params,omitempty"`
	}{version, id, method, params})
	if err == nil {
		err = c.line.Send(text)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
		return m, err
	}
	select {
	case m, ok := <-answer:
		if !ok {
			c.mu.Lock()
			defer c.mu.Unlock()
			return m, c.err
		}
		return m, nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
		return m, ctx.Err()
	}
}

// Events returns the events that follow a subscribe; it is closed at the end of
// the connection. Answers wait behind unread events.
func (c *Client[E]) Events() <-chan E { return c.events }
