package station

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/nms/handshake"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// held is the connection of a device that is logged in.
type held struct {
	id       string
	conn     *handshake.Conn
	key      ssh.PublicKey
	address  netip.AddrPort
	since    time.Time
	sessions atomic.Int64
	// unanswered are channels whose end we have sent and the device has not.
	unanswered atomic.Int64

	endOnce sync.Once
	cause   string // why we ended it; written before done is closed
	done    chan struct{}
}

// end ends the connection, for that cause unless there is one already.
func (h *held) end(cause string) {
	h.endOnce.Do(func() {
		h.cause = cause
		close(h.done)
	})
	h.conn.Close()
}

// why is the cause of the end, after the end.
func (h *held) why() string {
	<-h.done
	return h.cause
}

// keepalive is the request that OpenSSH and its relatives answer, if only with
// a failure.
const keepalive = "keepalive@openssh.com"

// ask sends a keepalive and returns a channel that gets the answer's error. The
// goroutine ends with the connection at the latest.
func (h *held) ask() <-chan error {
	answered := make(chan error, 1)
	go func() {
		_, _, err := h.conn.SendRequest(keepalive, true, nil)
		answered <- err
	}()
	return answered
}

// alive reports whether the device answers within max.
func (h *held) alive(max time.Duration) bool {
	select {
	case err := <-h.ask():
		return err == nil
	case <-h.done:
		return false
	case <-time.After(max):
		return false
	}
}

// serve answers the device and asks it for signs of life until the connection
// ends.
func (h *held) serve(every, patience time.Duration) {
	var answered <-chan error
	timer := time.NewTimer(jitter(every))
	defer timer.Stop()
	channels, requests := h.conn.Channels, h.conn.Requests
	for channels != nil || requests != nil {
		select {
		case ch, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			_ = ch.Reject(ssh.Prohibited, "a management station serves no channels")
		case r, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			// A device's own keepalive is answered so, as stock ssh does.
			_ = r.Reply(false, nil)
		case <-answered:
			// An error comes with the connection's end.
			answered = nil
			timer.Reset(jitter(every))
		case <-timer.C:
			if answered != nil {
				h.end(fmt.Sprintf("no answer to a keepalive within %v", patience))
				continue
			}
			answered = h.ask()
			timer.Reset(patience)
		}
	}
	h.end(causeOf(h.conn.Wait()))
}

// jitter spreads the keepalives of devices that came at once.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

func causeOf(err error) string {
	if err == nil || err.Error() == "EOF" {
		return "the device closed the connection"
	}
	return printable(plain(err))
}

// channelTime bounds how long a device may take to open a channel and to start
// the subsystem.
const channelTime = 20 * time.Second

// channel is a session with the device's netconf subsystem.
type channel struct {
	ssh.Channel
	of       *held
	requests <-chan *ssh.Request
}

// open opens one. Errors are *proto.Error.
func (h *held) open(ctx context.Context) (*channel, error) {
	type result struct {
		c   *channel
		err error
	}
	opened, gone := make(chan result, 1), make(chan struct{})
	go func() {
		c, err := h.start()
		select {
		case <-gone:
			if err == nil {
				c.Close()
				go ssh.DiscardRequests(c.requests)
			}
		default:
			opened <- result{c, err}
		}
	}()
	fail := func(why string) (*channel, error) {
		close(gone)
		// It may have been opened at this very moment.
		select {
		case r := <-opened:
			if r.err == nil {
				r.c.Close()
				go ssh.DiscardRequests(r.c.requests)
			}
		default:
		}
		return nil, proto.StageError(proto.StageSession, fmt.Sprintf("opening a netconf channel to %s: %s", h.id, why), proto.ErrorData{Address: h.address.String(), Reason: why})
	}
	select {
	case r := <-opened:
		return r.c, r.err
	case <-h.done:
		return fail("its connection ended: " + h.why())
	case <-ctx.Done():
		return fail("the caller has gone")
	case <-time.After(channelTime):
		return fail(fmt.Sprintf("no answer within %v", channelTime))
	}
}

// start opens a channel and starts the subsystem in it.
func (h *held) start() (*channel, error) {
	fail := func(stage proto.Stage, why string) error {
		return proto.StageError(stage, fmt.Sprintf("opening a netconf channel to %s: %s", h.id, why), proto.ErrorData{Address: h.address.String(), Reason: why})
	}
	c, requests, err := h.conn.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		return nil, fail(proto.StageSession, "the device refuses: "+printable(refused.Message))
	case err != nil:
		return nil, fail(proto.StageSession, causeOf(err))
	}
	ok, err := c.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"netconf"}))
	if err == nil && ok {
		return &channel{c, h, requests}, nil
	}
	c.Close()
	go ssh.DiscardRequests(requests)
	if err != nil {
		return nil, fail(proto.StageSession, causeOf(err))
	}
	return nil, fail(proto.StageSubsystem, "the device has no netconf subsystem")
}
