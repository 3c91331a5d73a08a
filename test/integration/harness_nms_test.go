//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// nms is the management station: who it is and which devices it knows.
type nms struct {
	t          *testing.T
	dir        string
	user       string
	key        string // private key file
	knownHosts string
	hostKey    string   // public key file of its device, for clients that pin a key
	netns      string   // network namespace it lives in; "" for ours
	accept     []string // options of callhome-nms accept, which ssh then listens with; nil: a listener of the tests' own
}

// alias is the name under which a station knows its device. Where a device
// calls from, and from which port, says nothing.
const alias = "device-1.example"

func newNMS(t *testing.T) *nms {
	t.Helper()
	dir := tempDir(t)
	return &nms{t: t, dir: dir, user: netop, key: newKey(t, dir, "nmskey"),
		knownHosts: writeFile(t, filepath.Join(dir, "known_hosts"), "", 0o600)}
}

// Know pins the device's host key.
func (n *nms) Know(d *device) {
	n.t.Helper()
	n.hostKey = d.hostKey + ".pub"
	writeFile(n.t, n.knownHosts, alias+" "+publicKey(n.t, d.hostKey)+"\n", 0o600)
}

// listener is a station that is only a TCP socket.
type listener struct {
	t *testing.T
	net.Listener
}

// listen opens a listener; port 0 is any.
func listen(t *testing.T, addr string) *listener {
	t.Helper()
	l := listenWhenFree(t, func() (net.Listener, error) { return net.Listen("tcp", addr) })
	t.Cleanup(func() { l.Close() })
	return &listener{t, l}
}

// listenWhenFree listens, and waits while a process that was forked a moment ago still
// has the last listener of that address.
func listenWhenFree(t *testing.T, listen func() (net.Listener, error)) (l net.Listener) {
	t.Helper()
	sandbox.Await(t, patience, "listening", func() (err error) {
		l, err = listen()
		return err
	})
	return l
}

// listenIn opens a listener inside another network namespace, "" for ours. A
// socket stays where it was made.
func listenIn(t *testing.T, netns, addr string) *listener {
	t.Helper()
	if netns == "" {
		return listen(t, addr)
	}
	type result struct {
		l   net.Listener
		err error
	}
	l := listenWhenFree(t, func() (net.Listener, error) {
		r := atNetns(t, netns, func() result {
			l, err := net.Listen("tcp", addr)
			return result{l, err}
		})
		return r.l, r.err
	})
	t.Cleanup(func() { l.Close() })
	return &listener{t, l}
}

func (l *listener) Addr() string { return l.Listener.Addr().String() }

// Accept waits for a device. Reads and writes on the connection are bounded.
func (l *listener) Accept() *conn {
	l.t.Helper()
	_ = l.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Listener.Accept()
	if err != nil {
		l.t.Fatalf("waiting for a call home on %s: %v", l.Addr(), err)
	}
	l.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return &conn{l.t, c.(*net.TCPConn)}
}

// NoCall fails the test if a call comes or came.
func (l *listener) NoCall() {
	l.t.Helper()
	_ = l.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Millisecond))
	if c, err := l.Listener.Accept(); err == nil {
		c.Close()
		l.t.Errorf("%s called %s", c.RemoteAddr(), l.Addr())
	}
}

// conn is a station's end of a connection, spoken byte by byte.
type conn struct {
	t *testing.T
	*net.TCPConn
}

// Line reads one line, without reading a byte beyond it.
func (c *conn) Line() string {
	c.t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c.TCPConn, b); err != nil {
			c.t.Fatalf("reading a line from the device: %v after %q", err, line)
		}
		if line = append(line, b[0]); b[0] == '\n' {
			return string(line)
		}
	}
}

// Banner reads sshd's version string and wants it to be the first line.
func (c *conn) Banner() string {
	c.t.Helper()
	line := c.Line()
	if !strings.HasPrefix(line, "SSH-2.0-OpenSSH_") || !strings.HasSuffix(line, "\r\n") {
		c.t.Fatalf("the device began with %q instead of sshd's version string", line)
	}
	return line
}

// Send writes to the device.
func (c *conn) Send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, text); err != nil {
		c.t.Fatalf("sending to the device: %v", err)
	}
}

// AwaitEOF reads until the device closes the connection, within limit.
func (c *conn) AwaitEOF(limit time.Duration) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, c.TCPConn); err != nil && !errors.Is(err, unix.ECONNRESET) {
		c.t.Fatalf("waiting for the device to close the connection: %v", err)
	}
}

// AwaitListening waits until the client listens, in whichever network
// namespace it is. To connect as a probe would be a call home.
func (p *process) AwaitListening(addr string) {
	p.t.Helper()
	_, port := splitAddr(p.t, addr)
	sandbox.Await(p.t, patience, p.name+" listening on "+addr, func() error {
		if p.over(0) && p.state.Success() {
			return nil // a device that called at once was served already
		}
		if p.over(0) {
			p.t.Fatalf("%s has ended: %v", p.name, p.state)
		}
		if tcpSocket(p.pid, port, tcpListen) == "" {
			return fmt.Errorf("no listener on port %s", port)
		}
		return nil
	})
}
