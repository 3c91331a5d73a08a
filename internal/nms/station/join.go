package station

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/nms/nmsproto"

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

// lingerTime is how long a device may be silent after the caller has said its
// last word. A caller that has closed its socket altogether looks the same.
const lingerTime = 30 * time.Second

// join lets bytes flow both ways, each as fast as its reader takes them, until
// the device closes the channel or ended is closed. The end of one direction is
// passed on and leaves the other open. It closes both.
func join(c *channel, sock Duplex, ended <-chan struct{}) (out nmsproto.ConnectResult) {
	var sent, received atomic.Uint64
	activity := make(chan struct{}, 1)
	said := make(chan struct{}) // the caller's last word
	var upwards sync.WaitGroup
	upwards.Go(func() {
		defer close(said)
		if _, err := io.CopyBuffer(counted{c, &sent, nil}, plainReader{sock}, make([]byte, copyBuffer)); err != nil && !errors.Is(err, io.EOF) {
			c.Close()
			return
		}
		_ = c.CloseWrite()
	})
	var down sync.WaitGroup
	down.Go(func() {
		if _, err := io.CopyBuffer(counted{sock, &received, activity}, plainReader{c}, make([]byte, copyBuffer)); err != nil {
			c.Close() // nobody reads any more
		}
		_ = sock.CloseWrite()
	})
	var errs tail
	down.Go(func() { _, _ = io.Copy(&errs, c.Stderr()) })

	watched := make(chan struct{})
	go func() {
		watch(c, said, activity, ended, watched)
	}()
	for r := range c.requests {
		exit(r, &out)
	}
	close(watched)
	down.Wait()
	sock.Close() // wakes the other direction
	upwards.Wait()
	c.Close()
	out.Sent, out.Received, out.Stderr = sent.Load(), received.Load(), errs.String()
	return out
}

// watch closes the channel when its time is over, until done is closed.
func watch(c *channel, said, activity, ended, done <-chan struct{}) {
	var linger <-chan time.Time
	for {
		select {
		case <-done:
			return
		case <-ended:
			c.Close()
			return
		case <-said:
			said = nil
			linger = time.After(lingerTime)
		case <-activity:
			if linger != nil {
				linger = time.After(lingerTime)
			}
		case <-linger:
			c.Close()
			return
		}
	}
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
			out.Signal = printable(m.Name)
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
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if more := len(t.text) - maxStderr; more > 0 {
		t.text = append(t.text[:0], t.text[more:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.text) }
