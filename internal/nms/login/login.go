// Package login logs in to a device over a TCP connection, where the device is known
// beforehand: SSH handshake, check of the host key, login, netconf subsystem (RFC
// 6242 section 3). The console calls it, and the station reads its credentials with
// it. It never opens a connection, and package knownhosts decides about host keys.
package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"callhome/internal/nms/knownhosts"
	"callhome/internal/nms/wire"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
)

// Subsystem is NETCONF's name in SSH.
const Subsystem = "netconf"

// stage is how far a handshake came, with the exit status and hint for its failure.
type stage struct {
	doing string
	code  int
	hint  string
}

var (
	stageVersion  = stage{"waiting for its SSH version string", sysexits.Protocol, "the peer may not be an SSH server"}
	stageExchange = stage{"exchanging keys", sysexits.Protocol, ""}
	stageLogin    = stage{"logging in", sysexits.NoPerm, "check the user, and its key or password, on the device"}
)

// Error is a login that failed after the device had proven its host key. Waiting for
// another call home does not help.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// Client is an authenticated connection; Close ends it.
type Client struct {
	*ssh.Client
	// Fingerprint is that of the device's host key.
	Fingerprint string

	keepalive *wire.Keepalive
	silent    atomic.Int64 // interval without an answer that made KeepAlive close, in ns
	leaving   sync.Once
}

// Close ends the connection in order, and waits up to a second for the device to close
// it. Every call returns after the end.
func (c *Client) Close() error {
	c.leave(wire.ByUser)
	return nil
}

func (c *Client) leave(d wire.Disconnect) { c.leaving.Do(func() { wire.Leave(c.Conn, d) }) }

// Do logs in over conn, which it owns. It closes conn on an error, and when ctx ends
// before the login. Its error for a peer that is not the device is a
// *knownhosts.Refusal, that for a refused login an *Error.
func Do(ctx context.Context, conn net.Conn, device *knownhosts.Device, user string, auth []wire.Method) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	under := wire.NewConn(conn)
	var known identity
	config := &ssh.ClientConfig{
		User:              user,
		ClientVersion:     wire.ClientVersion,
		HostKeyAlgorithms: device.Algorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			return known.set(k, device.Check(k))
		},
	}
	watched := wire.Watch(config, auth...)
	under.Hold(true)
	c, channels, requests, err := ssh.NewClientConn(under, "", config)
	under.Hold(false)
	if !stop() {
		if err == nil {
			c.Close()
		}
		err = ctx.Err()
	}
	key, refused := known.get()
	at := stageVersion
	first, _ := under.Version()
	switch {
	case err == nil:
		return &Client{Client: ssh.NewClient(c, channels, requests), Fingerprint: ssh.FingerprintSHA256(key), keepalive: wire.NewKeepalive(c, under)}, nil
	case refused != nil:
		wire.Refuse(conn, wire.Disconnect{Reason: wire.HostKeyNotVerified, Text: "host key verification failed"})
		return nil, refused
	case key != nil:
		watched.Refuse(conn, wire.Disconnect{Reason: wire.NoMoreAuthMethods, Text: "login failed: " + wire.LoginError(err)})
		return nil, &Error{failed(stageLogin, err)}
	case under.IsSSH():
		at = stageExchange
	case first != "" && errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("it began with %q, and no version string came in time", first[:min(len(first), 60)])
	case first != "" && !errors.Is(err, context.Canceled):
		err = fmt.Errorf("it began with %q", first[:min(len(first), 60)])
	}
	conn.Close()
	return nil, failed(at, err)
}

// identity is the result of the host key check. The library's goroutine writes it,
// which can run after Do has returned.
type identity struct {
	mu      sync.Mutex // guards the fields that follow
	key     ssh.PublicKey
	refused error
}

func (i *identity) set(key ssh.PublicKey, refused error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.refused = key, refused
	return refused
}

func (i *identity) get() (ssh.PublicKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key, i.refused
}

func failed(at stage, err error) error {
	text := wire.LoginError(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text = "it did not answer in time"
	case errors.Is(err, context.Canceled):
		text = "interrupted"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "it closed the connection"
	}
	return sysexits.New(at.code, at.hint, &cause{at.doing + ": " + text, err})
}

// cause is an error with another text.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }

func (c *cause) Unwrap() error { return c.err }

// Netconf opens the netconf subsystem. The stream's Close closes the whole
// connection: a device that is gone never answers the close of a channel, and a Read
// would wait for that.
func (c *Client) Netconf(ctx context.Context) (io.ReadWriteCloser, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	channel, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		return nil, sysexits.New(sysexits.Unavailable, "", fmt.Errorf("opening a channel: %w", err))
	}
	go ssh.DiscardRequests(requests)
	ok, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{Subsystem}))
	if err == nil && !ok {
		err = errors.New("the device has no netconf subsystem")
	}
	if err != nil {
		channel.Close()
		return nil, sysexits.New(sysexits.Unavailable, "add `Subsystem netconf` to the device's sshd_config", fmt.Errorf("opening the netconf subsystem: %w", err))
	}
	go io.Copy(io.Discard, channel.Stderr()) //nolint:errcheck // NETCONF does not use it
	return &stream{channel, c}, nil
}

type stream struct {
	ssh.Channel
	client *Client
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Channel.Read(p)
	return n, s.client.why(err)
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Channel.Write(p)
	return n, s.client.why(err)
}

// why replaces io.EOF with the cause if KeepAlive has closed the connection.
func (c *Client) why(err error) error {
	if interval := time.Duration(c.silent.Load()); errors.Is(err, io.EOF) && interval > 0 {
		return sysexits.New(sysexits.Unavailable, "the network path to the device may be down", fmt.Errorf("no answer to a keepalive within %v", interval))
	}
	return err
}

func (s *stream) Close() error {
	_ = s.Channel.Close() // closing the connection is enough
	return s.client.Close()
}

// KeepAlive sends a keepalive each interval, until the connection ends. It ends the
// connection if nothing comes from the device within an interval after one.
func (c *Client) KeepAlive(interval time.Duration) {
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return
		case <-time.After(interval):
		}
		if err := c.keepalive.Ask(interval); errors.Is(err, wire.ErrSilent) {
			c.silent.Store(int64(interval))
			c.leave(wire.Disconnect{Reason: wire.ConnectionLost, Text: fmt.Sprintf("%v within %v", err, interval)})
			return
		}
	}
}
