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
	"callhome/internal/nms/wire"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"golang.org/x/crypto/ssh"
)

// connection is the authenticated SSH connection of a device.
type connection struct {
	id       string
	conn     *handshake.Conn
	key      ssh.PublicKey
	address  netip.AddrPort
	since    time.Time
	budget   *budget // of the device
	sessions atomic.Int64
	// unanswered counts channels that the station has closed and the device has not.
	unanswered atomic.Int64
	opening    atomic.Int64 // open requests that the device has not answered
	replies    replies
	idleBytes  int // read without a session and not spent yet; its reader's alone

	endOnce sync.Once
	cause   string // why it ended; written before done is closed
	done    chan struct{}
}

func newConnection(id string, conn *handshake.Conn, key ssh.PublicKey, from netip.AddrPort, b *budget) *connection {
	return &connection{
		id: id, conn: conn, key: key, address: from, since: time.Now().UTC(), budget: b,
		done: make(chan struct{}),
	}
}

// end ends the connection. The first cause counts, and the device gets it with the
// reason in SSH_MSG_DISCONNECT. Reason 0 is that of a connection that has ended.
func (h *connection) end(cause string, r wire.Reason) {
	h.endOnce.Do(func() {
		h.cause = cause
		close(h.done)
		if r == 0 {
			h.conn.Close()
			return
		}
		go wire.Leave(h.conn.Conn, wire.Disconnect{Reason: r, Text: cause})
	})
}

// why waits for the end and returns its cause.
func (h *connection) why() string {
	<-h.done
	return h.cause
}

// alive reports whether the device answers within limit.
func (h *connection) alive(limit time.Duration) bool {
	answered := make(chan error, 1)
	go func() { answered <- h.conn.Keepalive.Ask(limit) }()
	select {
	case err := <-answered:
		return err == nil
	case <-h.done:
		return false
	}
}

// serve answers the device's requests and sends it keepalives, each to be answered
// within patience, until the connection ends.
func (h *connection) serve(every, patience time.Duration) {
	var round *wire.Round // the keepalive that waits for its answer
	var due time.Time     // of the keepalive after it
	timer := time.NewTimer(together(jitter(every)))
	defer timer.Stop()
	channels, asked := h.conn.Channels, h.conn.Requests
	for channels != nil || asked != nil {
		select {
		case ch, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			if h.spend(opens) {
				h.reply(func() error { return ch.Reject(ssh.Prohibited, "a management station serves no channels") })
			}
		case r, ok := <-asked:
			if !ok {
				asked = nil
				continue
			}
			if h.spend(requests) {
				h.refuse(r)
			}
		case <-timer.C:
			if round == nil {
				round, due = h.conn.Keepalive.Begin(patience), time.Now().Add(jitter(every))
			}
			send, wait, err := round.Next()
			if send != nil {
				h.reply(send)
			}
			if err != nil {
				h.end(fmt.Sprintf("%v within %v", err, patience), wire.ConnectionLost)
			}
			next := max(0, time.Until(due))
			switch {
			case wait == 0:
				round = nil
			case next == 0 || wait < next: // an answer that is late holds up the next one
				next = wait
			}
			timer.Reset(together(next))
		}
	}
	h.end(causeOf(h.conn.Wait()), 0)
}

// slot is the time within which the keepalives of all devices are sent together: the
// process wakes once for many.
const slot = 250 * time.Millisecond

// together returns d, longer by less than a slot, so that it ends between two slots. A
// short time stays as it is.
func together(d time.Duration) time.Duration {
	if d < 16*slot {
		return d
	}
	end := time.Now().Add(d)
	return d + end.Truncate(slot).Add(slot).Sub(end)
}

// jitter spreads the keepalives of devices that connected at the same time.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

func causeOf(err error) string {
	if err == nil || err.Error() == "EOF" {
		return "the device closed the connection"
	}
	return printable.Line(printable.SSHError(err))
}

// channelTime bounds how long a device may take to open a channel and to start
// the subsystem.
const channelTime = 20 * time.Second

// maxOpening bounds the open requests of a connection that wait for an answer. SSH
// cannot withdraw one, so it stays until the device answers or the connection ends.
const maxOpening = 64

// channel is an SSH channel with the device's netconf subsystem.
type channel struct {
	ssh.Channel
	of       *connection
	requests <-chan *ssh.Request
}

// discard closes a channel that no session uses.
func (c *channel) discard() {
	c.Close()
	go c.of.ignore(c.requests, allowances[channelRequests].limit)
}

// ignore answers the requests on a channel with a failure, as far as its budget goes.
func (h *connection) ignore(all <-chan *ssh.Request, left ratelimit.Limit) {
	for r := range all {
		if h.spendOn(&left) {
			h.refuse(r)
		}
	}
}

// open opens a channel. Errors are *proto.Error.
func (h *connection) open(ctx context.Context) (*channel, error) {
	if h.opening.Add(1) > maxOpening {
		h.opening.Add(-1)
		return nil, proto.NewError(proto.CodeBusy, fmt.Sprintf("opening a netconf channel to %s: %d others are still unanswered by the device", h.id, maxOpening))
	}
	type result struct {
		c   *channel
		err error
	}
	opened := make(chan result)
	wanted, cancel := context.WithTimeout(ctx, channelTime)
	defer cancel() // start discards a channel that is opened later
	go func() {
		defer h.opening.Add(-1)
		c, err := h.start(wanted)
		select {
		case opened <- result{c, err}:
		case <-wanted.Done():
			if err == nil {
				c.discard()
			}
		}
	}()
	why := ""
	select {
	case r := <-opened:
		return r.c, r.err
	case <-h.done:
		why = "its connection ended: " + h.why()
	case <-wanted.Done():
		why = fmt.Sprintf("no answer within %v", channelTime)
		if ctx.Err() != nil {
			why = "the peer closed its connection"
		}
	}
	return nil, h.notOpened(proto.StageSession, why)
}

func (h *connection) notOpened(stage proto.Stage, why string) error {
	return proto.StageError(stage, fmt.Sprintf("opening a netconf channel to %s: %s", h.id, why), proto.ErrorData{Address: h.address.String(), Reason: why})
}

// start opens a channel and starts the subsystem in it. When wanted ends first,
// start closes the channel, whatever the device has answered.
func (h *connection) start(wanted context.Context) (*channel, error) {
	opened, requests, err := h.conn.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		return nil, h.notOpened(proto.StageSession, "the device refuses: "+printable.Line(refused.Message))
	case err != nil:
		return nil, h.notOpened(proto.StageSession, causeOf(err))
	}
	c := &channel{opened, h, requests}
	given := context.AfterFunc(wanted, c.discard)
	ok, err := c.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"netconf"}))
	switch {
	case !given():
		return nil, wanted.Err() // open does not read it any more
	case err == nil && ok:
		return c, nil
	}
	c.discard()
	if err != nil {
		return nil, h.notOpened(proto.StageSession, causeOf(err))
	}
	return nil, h.notOpened(proto.StageSubsystem, "the device has no netconf subsystem")
}
