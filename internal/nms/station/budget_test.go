package station

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/handshake"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// until calls one until it fails.
func until(one func() error) {
	for one() == nil {
	}
}

// open opens a channel that the station is to refuse.
func open(c ssh.Conn) error {
	var refused *ssh.OpenChannelError
	if _, _, err := c.OpenChannel("session", nil); !errors.As(err, &refused) {
		return errors.Join(err, errors.New("not refused"))
	}
	return nil
}

func request(c ssh.Conn) error {
	_, _, err := c.SendRequest("flood@example.com", true, nil)
	return err
}

// A device that floods is ended; another one and its session notice nothing.
func TestADeviceThatFloodsIsEnded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flood func(*standIn)
		over  string
	}{
		{"channel opens", func(d *standIn) { d.loggedIn = func(c ssh.Conn) { until(func() error { return open(c) }) } }, "30 channel opens a minute"},
		{"requests", func(d *standIn) { d.loggedIn = func(c ssh.Conn) { until(func() error { return request(c) }) } }, "120 requests a minute"},
		{"requests on a channel", func(d *standIn) {
			d.netconf = func(ch ssh.Channel) uint32 {
				until(func() error {
					_, err := ch.SendRequest("flood@example.com", true, nil)
					return err
				})
				return 0
			}
		}, "120 requests on a channel a minute"},
		{"packets that the library drops", func(d *standIn) {
			d.loggedIn = func(c ssh.Conn) {
				until(func() error { return wire.Send(c, append([]byte{2}, make([]byte, 16<<10)...)) }) // SSH_MSG_IGNORE
			}
		}, "4096 KiB without a session a minute"},
		{"key exchanges", func(d *standIn) {
			d.rekey = 256
			d.loggedIn = func(c ssh.Conn) {
				until(func() error {
					_, _, err := c.SendRequest("flood@example.com", true, make([]byte, d.rekey))
					return err
				})
			}
		}, "10 key exchanges after its login a minute"},
		{"key exchanges in a session", func(d *standIn) {
			d.rekey = 256
			d.netconf = func(ch ssh.Channel) uint32 {
				until(func() error {
					_, err := ch.Write([]byte("hello"))
					return err
				})
				return 0
			}
		}, "10 key exchanges after its login a minute"},
	} {
		// The bubble's clock stands still while the device floods: no budget is given anew
		// however slow the machine is.
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d, other := newSite(t, nil), newStandIn(t), newStandIn(t)
				tt.flood(d)
				s.know("edge7", d, "")
				s.know("edge8", other, "")
				s.call("192.0.2.2:1", other.serve)
				s.await(nmsproto.EventUp)
				c := s.dial("edge8")
				c.exchange("before")
				s.call("192.0.2.1:1", d.serve)
				s.await(nmsproto.EventUp)
				if d.loggedIn == nil {
					s.dial("edge7")
				}
				if e := s.await(nmsproto.EventDown); e.Device != "edge7" || !strings.Contains(e.Cause, "over its budget of "+tt.over) {
					t.Errorf("got %+v", e)
				}
				c.exchange("after")
				if _, err := c.end(); err != nil {
					t.Error(err)
				}
				s.mustBe("edge8", nmsproto.Connected, "")
			})
		})
	}
}

// Only an open session, or one that is being opened, is a reason to send without limit.
func TestDataWithoutASessionIsLimited(t *testing.T) {
	for _, tt := range []struct {
		name  string
		count func(*connection)
		ends  bool
	}{
		{"no session", func(*connection) {}, true},
		{"an unanswered close", func(h *connection) { h.unanswered.Store(1) }, true},
		{"a session", func(h *connection) { h.sessions.Store(1) }, false},
		{"an unanswered open", func(h *connection) { h.opening.Store(1) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &line{}
			h := newConnection("edge7", &handshake.Conn{Conn: l}, nil, netip.AddrPort{}, newBudget())
			tt.count(h)
			const window = 2 << 20 // under way when a session ends
			for range window / 1448 {
				h.idle(1448)
			}
			synctest.Wait()
			if l.ended {
				t.Errorf("%s: the window has ended it", tt.name)
			}
			h.idle(window + 4<<10)
			synctest.Wait()
			if l.ended != tt.ends {
				t.Errorf("%s: ended %v", tt.name, l.ended)
			}
		})
	}
}

// What stock devices send at most stays below their budget.
func TestADeviceWithinItsBudgetStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		done := make(chan struct{})
		d.loggedIn = func(c ssh.Conn) { // as sshd with ClientAliveInterval 1
			defer close(done)
			for range 600 {
				time.Sleep(time.Second)
				if err := request(c); err != nil {
					t.Error(err)
				}
			}
		}
		d.netconf = func(ch ssh.Channel) uint32 {
			for range 600 {
				time.Sleep(time.Second)
				if _, err := ch.SendRequest("keepalive@openssh.com", true, nil); err != nil {
					t.Error(err)
				}
			}
			return 0
		}
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		ctx := t.Context()
		a, b := net.Pipe()
		defer a.Close()
		go func() { _, _ = bytes.NewBuffer(nil).ReadFrom(a) }()
		if _, err := s.Connect(ctx, "edge7", duplexPipe{b}); err != nil {
			t.Error(err)
		}
		<-done
		s.mustBe("edge7", nmsproto.Connected, "")
	})
}

// A device that logs in without pause is refused, and its address loses its priority;
// later it gets in again.
func TestADevicesLoginsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, other := newSite(t, nil), newStandIn(t), newStandIn(t)
		s.know("edge7", d, "")
		s.know("edge8", other, "")
		s.call("192.0.2.2:1", other.serve)
		s.await(nmsproto.EventUp)
		call := func(n int) {
			conn := s.call(fmt.Sprintf("192.0.2.1:%d", 1000+n), d.serve)
			synctest.Wait()
			conn.Close()
			synctest.Wait()
		}
		limit := allowances[logins].limit.Burst
		for n := range limit {
			call(n)
		}
		if n := s.Stats().Outcomes[LoggedIn]; n != uint64(limit)+1 {
			t.Fatalf("%d logins", n)
		}
		for n := range 20 {
			call(n)
		}
		st := s.Stats()
		if st.Outcomes[OverBudget] != 10 || st.Outcomes[OverLimit] != 10 {
			t.Errorf("stats %+v", st)
		}
		if info, _ := s.Device("edge7"); !strings.Contains(info.LastError, "over its budget of 30 logins a minute") {
			t.Errorf("it is %+v", info)
		}
		s.mustBe("edge8", nmsproto.Connected, "")
		time.Sleep(10 * time.Second)
		call(1)
		if n := s.Stats().Outcomes[LoggedIn]; n != uint64(limit)+2 {
			t.Errorf("%d logins", n)
		}
	})
}
