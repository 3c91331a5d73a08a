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
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// Duplex is a stream whose ends are closed one by one: a Unix or TCP socket.
type Duplex interface {
	net.Conn
	CloseWrite() error
}

// maxStderr bounds what is kept of a subsystem's stderr, in bytes.
const maxStderr = 4 << 10

// copyBuffer is what one direction of a session costs while bytes wait, besides
// SSH's own window.
const copyBuffer = 16 << 10

// lingerTime is how long no byte may flow to the caller once the caller or the
// device has said its last word. A caller that has closed its socket altogether
// looks the same.
const lingerTime = 30 * time.Second

// leaveTime is how long a device may take to answer our end of a channel, and a
// caller what is left for him after his session was ended.
const leaveTime = 3 * time.Second

// relay lets bytes flow both ways, each as fast as its reader takes them, until
// the device closes the channel or ended is closed. The end of one direction is
// passed on and leaves the other open. It closes both, and waits for nobody for
// good: neither for a device that does not answer the end nor for a caller that
// does not read.
func relay(c *channel, sock Duplex, ended <-chan struct{}) (out nmsproto.ConnectResult) {
	var sent, received atomic.Uint64
	activity := make(chan struct{}, 1)
	broken := make(chan struct{}, 2) // a direction ended in the middle
	said := make(chan struct{})      // the caller's last word
	go func() {
		defer close(said)
		if _, err := io.CopyBuffer(counted{c, &sent, nil}, plainReader{sock}, make([]byte, copyBuffer)); err != nil && !errors.Is(err, io.EOF) {
			broken <- struct{}{}
			return
		}
		_ = c.CloseWrite()
	}()
	var down sync.WaitGroup
	down.Go(func() {
		if _, err := io.CopyBuffer(counted{sock, &received, activity}, plainReader{c}, make([]byte, copyBuffer)); err != nil {
			broken <- struct{}{} // nobody reads any more
		}
		_ = sock.CloseWrite()
	})
	var errs tail
	down.Go(func() { _, _ = io.Copy(&errs, c.Stderr()) })
	told := make(chan struct{}) // the device's last word
	go func() {
		defer close(told)
		down.Wait()
	}()

	finished := converse(c, ended, &out, flow{activity, broken, said, told})
	sock.Close() // wakes both directions
	if finished {
		<-told
		<-said
	}
	out.Sent, out.Received, out.Stderr = sent.Load(), received.Load(), errs.String()
	return out
}

// flow is what is seen of the bytes of a session.
type flow struct {
	activity, broken <-chan struct{} // get one each time
	said, told       <-chan struct{} // are closed
}

// converse follows a session and ends it when its time is over. It reports
// whether the device has closed the channel; if not, the channel is left.
func converse(c *channel, ended <-chan struct{}, out *nmsproto.ConnectResult, f flow) (closed bool) {
	var linger, leave <-chan time.Time
	hangUp := func() {
		if leave == nil {
			leave = time.After(leaveTime)
			go c.Close() // a connection that takes nothing holds it up
		}
	}
	requests, said := c.requests, f.said
	for requests != nil || f.told != nil {
		select {
		case r, ok := <-requests:
			if ok {
				exit(r, out)
				continue
			}
			// What the device has said is the caller's still, as long as he takes it.
			requests, linger = nil, time.After(lingerTime)
			if ended != nil {
				leave = nil
			}
		case <-f.told:
			f.told = nil
		case <-said:
			said, linger = nil, time.After(lingerTime)
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
				c.of.left(requests)
			}
			return requests == nil
		}
	}
	return true
}

// maxLeft is how many channels of a connection may wait for the device's answer
// to their end. Each can hold a window of bytes.
const maxLeft = 8

// left sees a channel out whose end the device has not answered. A device that
// makes a habit of that loses its connection.
func (h *connection) left(requests <-chan *ssh.Request) {
	if h.unanswered.Add(1) > maxLeft {
		h.end(fmt.Sprintf("the ends of %d sessions were not answered within %v", maxLeft+1, leaveTime))
	}
	go func() {
		ssh.DiscardRequests(requests)
		h.unanswered.Add(-1)
	}()
}

// exit understands how the subsystem ended (RFC 4254 section 6.10).
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
			Name       string
			Core       bool
			Words, Tag string
		}
		if ssh.Unmarshal(r.Payload, &m) == nil {
			out.Signal = printable.Line(m.Name)
		}
	}
	if r.WantReply {
		_ = r.Reply(false, nil)
	}
}

// counted is a writer whose bytes are counted, and told of where somebody
// listens.
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

// plainReader hides a WriteTo, which would bring a buffer of its own.
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
