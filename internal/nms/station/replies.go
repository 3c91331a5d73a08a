package station

import (
	"fmt"
	"sync"

	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// maxReplies bounds what waits to be sent until the device reads: replies, and a
// keepalive. sshd sends at most a request a second, and all of some outage at once.
const maxReplies = 64

// replies are what waits to be sent.
type replies struct {
	mu      sync.Mutex // guards the fields that follow
	waiting []func() error
	sending bool // a goroutine sends them
}

// reply queues what is to be sent to the device. Sending blocks while the device does not
// read, and the callers watch sessions and keepalives, which must end then, too.
func (h *connection) reply(send func() error) {
	q := &h.replies
	q.mu.Lock()
	full := len(q.waiting) >= maxReplies
	if !full {
		q.waiting = append(q.waiting, send)
	}
	begin := !full && !q.sending
	q.sending = q.sending || begin
	q.mu.Unlock()
	switch {
	case full:
		h.end(fmt.Sprintf("the device does not read: %d replies to it wait", maxReplies), wire.ByApplication)
	case begin:
		go h.sendReplies()
	}
}

// sendReplies sends what waits. At the end of the connection each send returns an error.
func (h *connection) sendReplies() {
	q := &h.replies
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.waiting, q.sending = nil, false
			q.mu.Unlock()
			return
		}
		send := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		_ = send() // an error ends the connection
	}
}

// refuse replies to a request with a failure, if it wants a reply. ssh, too, answers a
// server's keepalive so.
func (h *connection) refuse(r *ssh.Request) {
	if r.WantReply {
		h.reply(func() error { return r.Reply(false, nil) })
	}
}
