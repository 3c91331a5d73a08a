// Package login owns the way from a TCP connection to a NETCONF channel on it
// for a client that knows beforehand which device it talks to: SSH handshake,
// the check of the host key, the login, the netconf subsystem (RFC 6242 section
// 3). The console calls it. It makes no connection and decides nothing about
// keys: that is package knownhosts'.
package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"callhome/internal/nms/knownhosts"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
)

// Subsystem is NETCONF's name in SSH.
const Subsystem = "netconf"

// stage is how far a handshake came; each has its exit status and hint.
type stage struct {
	doing string
	code  int
	hint  string
}

var (
	stageVersion  = stage{"waiting for its SSH version string", sysexits.Protocol, "what called may be no SSH server"}
	stageExchange = stage{"exchanging keys", sysexits.Protocol, ""}
	stageLogin    = stage{"logging in", sysexits.NoPerm, "the device has to know the user and one of the keys, or the password"}
)

// Error is a login that failed after the device had proved who it is. To wait
// for it to call again does not help.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// Client is a login; close it to end the connection.
type Client struct {
	*ssh.Client
	// Fingerprint is that of the device's host key.
	Fingerprint string
}

// Do logs in over conn, which it owns: with an error, and when ctx ends before
// the login, conn is closed. A peer that is not the device is a
// *knownhosts.Refusal, a device that does not let us in an *Error.
func Do(ctx context.Context, conn net.Conn, device *knownhosts.Device, user string, auth []ssh.AuthMethod) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	heard := &recorder{Conn: conn}
	var known identity
	config := &ssh.ClientConfig{
		User:              user,
		Auth:              auth,
		ClientVersion:     "SSH-2.0-callhome-nms",
		HostKeyAlgorithms: device.Algorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			return known.set(k, device.Check(k))
		},
	}
	c, channels, requests, err := ssh.NewClientConn(heard, "", config)
	if !stop() {
		if err == nil {
			c.Close()
		}
		err = ctx.Err()
	}
	key, refused := known.get()
	at := stageVersion
	switch {
	case err == nil:
		return &Client{ssh.NewClient(c, channels, requests), ssh.FingerprintSHA256(key)}, nil
	case refused != nil:
		return nil, refused
	case key != nil:
		return nil, &Error{failed(stageLogin, err)}
	case heard.version():
		at = stageExchange
	case !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && heard.text() != "":
		err = fmt.Errorf("it began with %q", heard.text())
	}
	return nil, failed(at, err)
}

// identity is what the host key's check came to. It is written by the library's
// goroutine, which may outlive a handshake that was broken off.
type identity struct {
	mu      sync.Mutex // guards what follows
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
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text = "it did not answer in time"
	case errors.Is(err, context.Canceled):
		text = "interrupted"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "it closed the connection"
	}
	for _, prefix := range []string{"ssh: handshake failed: ", "ssh: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return sysexits.New(at.code, at.hint, &cause{at.doing + ": " + text, err})
}

// cause has words of its own for an error.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }

func (c *cause) Unwrap() error { return c.err }

// Netconf opens the netconf subsystem. The stream's Close ends the channel and
// the connection with it: a device that is gone would never agree to the
// channel's end, and a read on it would not return.
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
		err = errors.New("the device has none")
	}
	if err != nil {
		channel.Close()
		return nil, sysexits.New(sysexits.Unavailable, "sshd_config of the device needs `Subsystem netconf`", fmt.Errorf("opening the netconf subsystem: %w", err))
	}
	go io.Copy(io.Discard, channel.Stderr()) //nolint:errcheck // nothing is said there
	return &stream{channel, c}, nil
}

type stream struct {
	ssh.Channel
	client *Client
}

func (s *stream) Close() error {
	_ = s.Channel.Close() // what counts is the connection
	return s.client.Close()
}

// KeepAlive asks the device whether it is there, each interval, until the
// connection ends; one that does not answer within an interval is closed. A
// refusal is an answer (RFC 4254 section 4).
func (c *Client) KeepAlive(interval time.Duration) {
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return
		case <-time.After(interval):
		}
		answered := make(chan struct{})
		go func() { _, _, _ = c.SendRequest("keepalive@openssh.com", true, nil); close(answered) }()
		select {
		case <-answered:
		case <-ended:
			return
		case <-time.After(interval):
			c.Close()
			return
		}
	}
}

// recorder keeps the peer's first bytes, for the message when they are no SSH.
type recorder struct {
	net.Conn
	mu    sync.Mutex // guards first
	first []byte
}

// mostHeard bounds what is kept: more than the version string and the lines
// that may stand before it (RFC 4253 section 4.2).
const mostHeard = 8 << 10

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.first) < mostHeard {
		r.first = append(r.first, p[:n]...)
	}
	return n, err
}

// version reports whether the peer has sent an SSH version string.
func (r *recorder) version() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(string(r.first)) {
		if strings.HasPrefix(line, "SSH-2.0-") && strings.HasSuffix(line, "\n") {
			return true
		}
	}
	return false
}

// text is the beginning of what came.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.first[:min(len(r.first), 60)])
}
