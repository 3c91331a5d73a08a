package station

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/handshake"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// stalled is a device's end of a connection that the device stops reading.
type stalled struct {
	net.Conn
	stopped atomic.Bool
	gone    chan struct{}
	once    sync.Once
}

func (s *stalled) Read(p []byte) (int, error) {
	n, err := 0, error(nil)
	if !s.stopped.Load() {
		n, err = s.Conn.Read(p)
	}
	if s.stopped.Load() { // also what came meanwhile is not passed on
		<-s.gone
		return 0, io.EOF
	}
	return n, err
}

func (s *stalled) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.Conn.Close()
}

// Requests that want a reply, and one for a channel (RFC 4254 sections 4, 5.1 and 5.4).
var (
	globalRequest = ssh.Marshal(struct {
		Type string `sshtype:"80"`
		Want bool
	}{"x@example.com", true})
	channelOpen = ssh.Marshal(struct {
		Type                string `sshtype:"90"`
		ID, Window, Maximum uint32
	}{"session", 0, 1 << 15, 1 << 15})
	channelRequest = ssh.Marshal(struct {
		ID   uint32 `sshtype:"98"`
		Type string
		Want bool
	}{0, "x@example.com", true})
)

// A reply that blocks delays no caller, and too many end the connection.
func TestRepliesBlockNoCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		h := newConnection("edge7", &handshake.Conn{Conn: l}, nil, netip.AddrPort{}, newBudget())
		gone, sent := make(chan struct{}), 0
		blocks := func() error { <-gone; sent++; return nil }
		for range 1 + maxReplies {
			h.reply(blocks)
			synctest.Wait()
		}
		if l.ended {
			t.Error("the connection has ended too early")
		}
		h.reply(blocks)
		synctest.Wait()
		if !l.ended || h.why() != "the device does not read: 64 replies to it wait" {
			t.Errorf("ended %v", l.ended)
		}
		close(gone)
		synctest.Wait()
	})
}

// A device that asks and does not read the replies delays neither the end of a session
// nor that of its connection. In the library a writer that blocks holds a mutex, so the
// time is real.
func TestADeviceThatDoesNotReadHoldsNoSession(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet []byte
		times  int
		cause  string // of the end of the connection
	}{
		{"requests on the channel", channelRequest, 5, "no answer to a keepalive"},
		{"global requests", globalRequest, 5, "no answer to a keepalive"},
		{"channel opens", channelOpen, 5, "no answer to a keepalive"},
		{"more requests than replies that wait", channelRequest, maxReplies + 10, "the device does not read: 64 replies to it wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, d := newSite(t, func(c *Config) { c.KeepaliveEvery, c.KeepaliveTime = leaveTime+2*time.Second, time.Second }), newStandIn(t)
			connected, asked := make(chan ssh.Conn, 1), make(chan struct{})
			d.loggedIn = func(c ssh.Conn) { connected <- c }
			device := &stalled{gone: make(chan struct{})}
			d.netconf = func(ch ssh.Channel) uint32 {
				_, _ = io.WriteString(ch, "x")
				<-asked
				_, _ = io.WriteString(ch, "y") // comes after the requests
				<-device.gone
				return 0
			}
			s.know("edge7", d, "")
			s.call("192.0.2.1:1", func(c net.Conn) {
				device.Conn = c
				d.serve(device)
			})
			defer device.Close()
			s.await(nmsproto.EventUp)
			conn := <-connected
			c := s.dial("edge7")
			read := func() { _, _ = io.ReadFull(c.sock, make([]byte, 1)) }
			read()
			device.stopped.Store(true)
			for range tt.times {
				if err := wire.Send(conn, tt.packet); err != nil {
					break // it has ended
				}
			}
			close(asked)
			read()
			begun := time.Now()
			if tt.times < maxReplies {
				c.stop()
			} // else the end of the connection ends the session
			_ = c.wait()
			if took := time.Since(begun); took > leaveTime+time.Second {
				t.Errorf("the session ended after %v", took)
			}
			if e := s.await(nmsproto.EventDown); !strings.Contains(e.Cause, tt.cause) {
				t.Errorf("got %+v", e)
			}
		})
	}
}
