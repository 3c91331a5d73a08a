package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/creachadair/jrpc2"
)

// maxAnswer bounds an answer, in bytes: as many sessions as there can be, each
// with the longest words, escaped.
const maxAnswer = 64 << 20

// Client calls a manager.
type Client struct {
	rpc  *jrpc2.Client
	line *eventLine
}

// eventLine takes the events out of what comes, in their order: jrpc2 hands
// notifications on in any.
type eventLine struct {
	*line
	events chan proto.Event // closed by Recv, at the end of the connection
	closed chan struct{}    // nobody takes events any more
}

// Recv returns the next message that is an answer.
func (l *eventLine) Recv() ([]byte, error) {
	for {
		message, err := l.line.Recv()
		if err != nil {
			close(l.events)
			return nil, err
		}
		if !bytes.HasPrefix(message, notification) {
			return message, nil
		}
		var n struct{ Params proto.Event }
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

// Dial connects to the manager at path. Errors carry their exit status.
func Dial(path string) (*Client, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, sysexits.New(sysexits.NoPerm, "run as root or as a member of the group callhome", fmt.Errorf("calling callhome-mgr at %s: permission denied", path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, sysexits.New(sysexits.Unavailable, "start it with systemctl start callhome-mgr, or callhome-mgr run", fmt.Errorf("callhome-mgr does not run: nobody answers at %s", path))
	case err != nil:
		return nil, sysexits.New(sysexits.OSErr, "", fmt.Errorf("calling callhome-mgr: %w", err))
	}
	l := &eventLine{newLine(conn, maxAnswer), make(chan proto.Event, 64), make(chan struct{})}
	return &Client{jrpc2.NewClient(l, &jrpc2.ClientOptions{OnStop: func(*jrpc2.Client, error) { close(l.closed) }}), l}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.rpc.Close() }

// Call calls a method; result may be nil. The manager's own errors come as
// *proto.Error.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	r, err := c.rpc.Call(ctx, method, params)
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

// Events returns what comes after a subscribe, until the connection ends.
func (c *Client) Events() <-chan proto.Event { return c.line.events }
