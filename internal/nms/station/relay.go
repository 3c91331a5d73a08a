package station

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/wire"
	"callhome/internal/printable"
	"callhome/internal/ratelimit"

	"golang.org/x/crypto/ssh"
)

// Duplex is a stream whose ends are closed one by one: a Unix or TCP socket.
type Duplex interface {
	net.Conn
	CloseWrite() error
}

// maxStderr bounds what is kept of a subsystem's stderr, in bytes.
const maxStderr = 4 << 10

// copyBuffer is the buffer of each direction of a session, in addition to SSH's
// own window.
const copyBuffer = 16 << 10

// lingerTime is how long a session stays without a byte to the peer after the peer
// or the device has sent its end. A peer that has closed its whole socket looks
// like one that has only shut down its sending side.
const lingerTime = 30 * time.Second

// leaveTime is how long a device may take to answer the close of a channel, and a
// peer to read the remaining bytes after the session was ended.
const leaveTime = 3 * time.Second

// relay copies bytes both ways, each as fast as its reader takes them, until the
// device closes the channel or ended is closed. It passes on the end of one
// direction and leaves the other open. It closes both at the end, and never waits
// longer than lingerTime and leaveTime, neither for a device that does not answer
// the close nor for a peer that does not read.
func relay(c *channel, sock Duplex, ended <-chan struct{}) (out nmsproto.ConnectResult) {
	var sent, received atomic.Uint64
	activity := make(chan struct{}, 1)
	broken := make(chan struct{}, 2) // a direction failed
	peerDone := make(chan struct{})  // the peer has sent its end
	go func() {
		defer close(peerDone)
		if _, err := io.CopyBuffer(counted{c, &sent, nil}, plainReader{sock}, make([]byte, copyBuffer)); err != nil && !errors.Is(err, io.EOF) {
			broken <- struct{}{}
			return
		}
		_ = c.CloseWrite()
	}()
	var down sync.WaitGroup
	down.Go(func() {
		if _, err := io.CopyBuffer(counted{sock, &received, activity}, plainReader{c}, make([]byte, copyBuffer)); err != nil {
			broken <- struct{}{} // the peer does not read any more
		}
		_ = sock.CloseWrite()
	})
	var errs tail
	down.Go(func() { _, _ = io.Copy(&errs, c.Stderr()) })
	deviceDone := make(chan struct{}) // the device has sent its end
	go func() {
		defer close(deviceDone)
		down.Wait()
	}()

	finished := supervise(c, ended, &out, flow{activity, broken, peerDone, deviceDone})
	sock.Close() // wakes both directions
	if finished {
		<-deviceDone
		<-peerDone
	}
	out.Sent, out.Received, out.Stderr = sent.Load(), received.Load(), errs.String()
	return out
}

// flow is how relay reports on a session's two directions.
type flow struct {
	activity, broken     <-chan struct{} // one value each time
	peerDone, deviceDone <-chan struct{} // closed at the end
}

// supervise watches a session and ends it when a time limit expires. It reports
// whether the device has closed the channel; if not, the channel is abandoned.
func supervise(c *channel, ended <-chan struct{}, out *nmsproto.ConnectResult, f flow) (closed bool) {
	var linger, leave <-chan time.Time
	hangUp := func() {
		if leave == nil {
			leave = time.After(leaveTime)
			go c.Close() // it blocks while the device reads nothing
		}
	}
	requests, left := c.requests, allowances[channelRequests].limit
	for requests != nil || f.deviceDone != nil {
		select {
		case r, ok := <-requests:
			if ok {
				if c.of.spendOn(&left) {
					exit(r, out)
					c.of.refuse(r)
				}
				continue
			}
			// The peer still gets what the device has sent, as long as it reads.
			requests, linger = nil, time.After(lingerTime)
			if ended != nil {
				leave = nil
			}
		case <-f.deviceDone:
			f.deviceDone = nil
		case <-f.peerDone:
			f.peerDone, linger = nil, time.After(lingerTime)
		case <-f.activity:
			if linger != nil {
				linger = time.After(lingerTime)
			}
		case <-f.broken:
			if requests != nil {
				hangUp()
			}
		case <-linger:
			hangUp()
		case <-ended:
			ended = nil
			hangUp()
		case <-leave:
			if requests != nil {
				c.of.abandon(requests, left)
			}
			return requests == nil
		}
	}
	return true
}

// maxAbandoned is how many channels of a connection may wait for the device's
// answer to their close. Each can hold a window of bytes.
const maxAbandoned = 8

// abandon waits in the background for the device to answer the close of a channel.
// It ends the connection of a device that leaves too many unanswered.
func (h *connection) abandon(requests <-chan *ssh.Request, left ratelimit.Limit) {
	if h.unanswered.Add(1) > maxAbandoned {
		h.end(fmt.Sprintf("the device did not answer the close of %d sessions within %v", maxAbandoned+1, leaveTime), wire.ProtocolError)
	}
	go func() {
		h.ignore(requests, left)
		h.unanswered.Add(-1)
	}()
}

// exit records how the subsystem ended (RFC 4254 section 6.10).
func exit(r *ssh.Request, out *nmsproto.ConnectResult) {
	switch r.Type {
	case "exit-status":
		var m struct{ Status uint32 }
		if ssh.Unmarshal(r.Payload, &m) == nil {
			status := int(m.Status)
			out.ExitStatus = &status
		}
	case "exit-signal":
		var m struct {
			Name          string
			Core          bool
			Message, Lang string
		}
		if ssh.Unmarshal(r.Payload, &m) == nil {
			out.Signal = printable.Line(m.Name)
		}
	}
}

// counted is a writer that counts its bytes and reports each write on activity,
// unless that is nil.
type counted struct {
	io.Writer
	n        *atomic.Uint64
	activity chan<- struct{}
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(uint64(n))
	if c.activity != nil {
		select {
		case c.activity <- struct{}{}:
		default:
		}
	}
	return n, err
}

// plainReader hides a WriteTo, which would allocate a buffer of its own.
type plainReader struct{ io.Reader }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if more := len(t.text) - maxStderr; more > 0 {
		t.text = append(t.text[:0], t.text[more:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
