package wire

import (
	"encoding/binary"
	"io"
	"net"
	"time"

	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// Reason is a reason code of SSH_MSG_DISCONNECT (RFC 4253 section 11.1).
type Reason uint32

// The reasons that the station gives.
const (
	ProtocolError      Reason = 2
	NotAvailable       Reason = 7  // SERVICE_NOT_AVAILABLE: the station stops
	HostKeyNotVerified Reason = 9  // HOST_KEY_NOT_VERIFIABLE
	ConnectionLost     Reason = 10 // no answer to a keepalive
	ByApplication      Reason = 11 // an intended end; for callhome-mgr only this one is graceful
	TooManyConnections Reason = 12
	NoMoreAuthMethods  Reason = 14
)

// Disconnect says why one end of a connection ends it, for the log of the other end.
type Disconnect struct {
	Reason Reason
	Text   string
}

// ByUser is the orderly end.
var ByUser = Disconnect{ByApplication, "closed by user"}

// disconnectMsg is SSH_MSG_DISCONNECT.
type disconnectMsg struct {
	Reason         uint32 `sshtype:"1"`
	Text, Language string
}

func (d Disconnect) packet() []byte {
	return ssh.Marshal(disconnectMsg{uint32(d.Reason), printable.Line(d.Text), ""})
}

// leaveTime is how long a peer may take to close the connection after
// SSH_MSG_DISCONNECT. The station does not close first: a close with unread bytes in the
// socket sends RST, and sshd then reports the reset instead of the reason.
const leaveTime = time.Second

// Leave sends SSH_MSG_DISCONNECT, and closes the connection when the peer has closed it,
// at the latest after a second. It then returns.
func Leave(c ssh.Conn, d Disconnect) {
	defer c.Close()
	limit := time.After(leaveTime)
	sent := make(chan error, 1)
	go func() { sent <- Send(c, d.packet()) }() // it blocks while the peer does not read
	select {
	case err := <-sent:
		if err != nil {
			return
		}
	case <-limit:
		return
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-limit:
	}
}

// Refuse sends SSH_MSG_DISCONNECT on a connection that is not encrypted yet, and closes
// it when the peer has closed it, at the latest after a second. It then returns.
func Refuse(conn net.Conn, d Disconnect) {
	leave(conn, func() error {
		_, err := conn.Write(unencrypted(d.packet()))
		return err
	})
}

func leave(conn net.Conn, send func() error) {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(leaveTime)) == nil && send() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// RefuseAtOnce is Refuse before the version strings were exchanged.
func RefuseAtOnce(conn net.Conn, d Disconnect) {
	if conn.SetWriteDeadline(time.Now().Add(leaveTime)) == nil {
		_, _ = io.WriteString(conn, ClientVersion+"\r\n")
	}
	Refuse(conn, d)
}

// unencrypted returns a packet without encryption and MAC (RFC 4253 section 6).
func unencrypted(payload []byte) []byte {
	const block = 8
	padding := block - (4+1+len(payload))%block
	if padding < 4 {
		padding += block
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	out = append(append(out, byte(padding)), payload...)
	return append(out, make([]byte, padding)...)
}
