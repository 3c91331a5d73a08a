// Package wire owns what an SSH client of call homes needs and
// golang.org/x/crypto/ssh does not offer: the lines before a server's version string, a
// login banner that the library cannot parse, keepalives that each server survives, and
// SSH_MSG_DISCONNECT. Packages handshake, login and station use it. It never decides
// about a key or a login, and holds none.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ClientVersion is the SSH version string of callhome-nms.
const ClientVersion = "SSH-2.0-callhome-nms"

// Bounds of the lines that a server may send before its version string (RFC 4253
// section 4.2). They are those of OpenSSH's client: SSH_MAX_PRE_BANNER_LINES and
// SSH_MAX_BANNER_LEN. The lines are dropped as they come.
const (
	maxLines = 1024
	maxLine  = 8192 // bytes of one line
)

// maxKept bounds what is kept of a line, for messages: a version string has at most 255
// bytes.
const maxKept = 255

// Conn is a TCP connection to an SSH server. Its Read begins with the version string:
// the library takes no line of more than 254 bytes before it. One goroutine at a time
// may read.
type Conn struct {
	net.Conn
	// GotVersion, if set, is called when the peer's whole version string has come. It
	// must be set before the first Read.
	GotVersion func()

	begun bool   // the version string has begun
	line  int    // bytes of the unfinished line
	lines int    // whole lines before the version string
	rest  []byte // read and not yet returned

	held atomic.Bool // Close leaves the connection open

	mu        sync.Mutex    // guards the fields that follow
	kept      []byte        // the version string as far as it came, or else the first line
	whole     bool          // kept is a whole line
	received  uint64        // reads with at least one byte
	ended     error         // of a read
	heard     chan struct{} // closed by the next read that ends; nil while no one waits
	asked     time.Time     // the last keepalive, until a read returns bytes; else zero
	roundTrip time.Duration // from the keepalive before it to the next read with bytes
}

// NewConn returns conn, which it owns, without the lines before the version string.
func NewConn(conn net.Conn) *Conn { return &Conn{Conn: conn} }

// Version returns the peer's version string, or the first line of a peer that has sent
// none, as far as it came. whole reports that it is a whole line.
func (c *Conn) Version() (text string, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(bytes.TrimSuffix(c.kept, []byte("\r"))), c.whole
}

// IsSSH reports whether the peer has sent a whole version string.
func (c *Conn) IsSSH() bool {
	text, whole := c.Version()
	return whole && len(text) >= len(prefix) && text[:len(prefix)] == prefix
}

// Received counts the reads that returned bytes.
func (c *Conn) Received() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received
}

// next returns a channel that is closed when the next read ends, and what came so far: the
// reads that returned bytes, and the error of one.
func (c *Conn) next() (heard <-chan struct{}, received uint64, ended error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = make(chan struct{})
	}
	return c.heard, c.received, c.ended
}

// ask records that a keepalive is sent now.
func (c *Conn) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = time.Now()
}

// Hold makes Close leave the connection open, or not. The library closes a connection
// whose login failed; a held one can still get SSH_MSG_DISCONNECT, and its owner closes
// it.
func (c *Conn) Hold(held bool) { c.held.Store(held) }

// Close closes the connection unless it is held.
func (c *Conn) Close() error {
	if c.held.Load() {
		return nil
	}
	return c.Conn.Close()
}

// prefix begins a version string.
const prefix = "SSH-"

func (c *Conn) Read(p []byte) (int, error) {
	for !c.begun {
		if err := c.skip(); err != nil {
			return 0, err
		}
	}
	n, err := 0, error(nil)
	if len(c.rest) > 0 {
		n = copy(p, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
	} else {
		n, err = c.Conn.Read(p)
	}
	c.note(p[:n], err)
	return n, err
}

// note keeps the version string, counts, and wakes those that wait for a read.
func (c *Conn) note(p []byte, err error) {
	c.mu.Lock()
	got := false
	if err != nil {
		c.ended = err
	}
	if c.heard != nil {
		close(c.heard)
		c.heard = nil
	}
	if len(p) > 0 {
		c.received++
		if !c.asked.IsZero() {
			c.asked, c.roundTrip = time.Time{}, time.Since(c.asked)
		}
	}
	if !c.whole {
		line, _, whole := bytes.Cut(p, []byte("\n"))
		c.kept = append(c.kept, line[:min(len(line), maxKept-len(c.kept))]...)
		c.whole, got = whole, whole
	}
	c.mu.Unlock()
	if got && c.GotVersion != nil {
		c.GotVersion()
	}
}

// skip reads some bytes and drops those of lines before the version string.
func (c *Conn) skip() error {
	buf := make([]byte, 512)
	copy(buf, c.rest)
	n, err := c.Conn.Read(buf[len(c.rest):])
	text := buf[:len(c.rest)+n]
	c.rest = nil
	for len(text) > 0 {
		if c.line == 0 && len(text) < len(prefix) && prefix[:len(text)] == string(text) {
			c.rest = text // it may become a version string
			break
		}
		if c.line == 0 && bytes.HasPrefix(text, []byte(prefix)) {
			c.begin(text)
			return nil
		}
		line, after, whole := bytes.Cut(text, []byte("\n"))
		c.keepFirst(line, whole)
		if c.line += len(line); c.line > maxLine {
			return fmt.Errorf("a line before the SSH version string has more than %d bytes", maxLine)
		}
		if whole {
			if c.lines, c.line = c.lines+1, 0; c.lines > maxLines {
				return fmt.Errorf("there is no SSH version string in its first %d lines", maxLines)
			}
		}
		text = after
	}
	if err == nil && n == 0 {
		err = errors.New("an empty read")
	}
	return err
}

// begin returns to the reader what begins with the version string.
func (c *Conn) begin(text []byte) {
	c.begun, c.rest = true, text
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.whole = nil, false
}

// keepFirst keeps the first line.
func (c *Conn) keepFirst(line []byte, whole bool) {
	if c.lines > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, line[:min(len(line), maxKept-len(c.kept))]...)
	c.whole = whole
}
