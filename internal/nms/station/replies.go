package station

import (
	"fmt"

	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// maxReplies bounds the replies that wait until the device reads. sshd sends at most a
// request a second, and all of some outage at once.
const maxReplies = 64

// reply queues a reply to the device. Sending blocks while the device does not read, and
// its callers watch sessions and keepalives, which must end then, too.
func (h *connection) reply(send func() error) {
	select {
	case h.replies <- send:
	default:
		h.end(fmt.Sprintf("the device does not read: %d replies to it wait", maxReplies), wire.ByApplication)
	}
}

// sendReplies sends the queued replies until the connection ends.
func (h *connection) sendReplies() {
	for {
		select {
		case send := <-h.replies:
			_ = send() // an error ends the connection
		case <-h.done:
			return
		}
	}
}

// refuse replies to a request with a failure, if it wants a reply. ssh, too, answers a
// server's keepalive so.
func (h *connection) refuse(r *ssh.Request) {
	if r.WantReply {
		h.reply(func() error { return r.Reply(false, nil) })
	}
}
