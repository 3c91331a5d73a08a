package station

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// hesitates accepts every login, and passes the requests for channels to asked
// instead of answering them.
func (d *standIn) hesitates(asked chan<- ssh.NewChannel) func(net.Conn) {
	return func(conn net.Conn) {
		config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
		config.AddHostKey(d.host)
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(false, nil)
			}
		}()
		for c := range channels {
			asked <- c
		}
	}
}

// mustNotOpen asks for a session and expects an error with that text.
func (s *site) mustNotOpen(id, text string) {
	s.t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() { _, _ = io.Copy(io.Discard, a) }()
	_, err := s.Connect(s.t.Context(), id, duplexPipe{b})
	if err == nil || !strings.Contains(err.Error(), text) {
		s.t.Errorf("got %v, want %q", err, text)
	}
}

// Open requests that a device never answers cost a bounded number of goroutines.
func TestUnansweredOpensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.hesitates(make(chan ssh.NewChannel, 10*maxOpening)))
		s.await(nmsproto.EventUp)
		for range maxOpening {
			s.mustNotOpen("edge7", "no answer within 20s")
		}
		synctest.Wait()
		before := runtime.NumGoroutine()
		begun := time.Now()
		for range 2 * maxOpening {
			s.mustNotOpen("edge7", "64 others are still unanswered by the device")
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now >= before+maxOpening || time.Since(begun) > 0 { // the runtime starts some of its own
			t.Errorf("%d goroutines, %d before; it took %v", now, before, time.Since(begun))
		}
		s.mustBe("edge7", nmsproto.Connected, "")
	})
}

// A channel that opens after the time limit is closed, and the device's requests in
// it do not block the connection.
func TestALateChannelIsClosed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers bool // to the opening in time, to the subsystem late
	}{{"opened late", false}, {"the subsystem is late", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				s.know("edge7", d, "")
				asked := make(chan ssh.NewChannel, 1)
				s.call("192.0.2.1:1", d.hesitates(asked))
				s.await(nmsproto.EventUp)
				h := s.devices["edge7"].connection
				var ch ssh.Channel
				var requests <-chan *ssh.Request
				accepted := make(chan struct{})
				accept := func() {
					defer close(accepted)
					var err error
					if ch, requests, err = (<-asked).Accept(); err != nil {
						t.Error(err)
					}
				}
				if tt.answers {
					go accept()
				}
				s.mustNotOpen("edge7", "no answer within 20s")
				if !tt.answers {
					go accept()
				}
				<-accepted
				for range 100 { // more than the library buffers while they are not read
					if _, err := ch.SendRequest("env", false, nil); err != nil {
						break // it is closed
					}
				}
				closed := make(chan struct{})
				go func() {
					for range requests {
					}
					close(closed)
				}()
				select {
				case <-closed:
				case <-time.After(time.Minute):
					t.Error("the channel is open still")
				}
				ch.Close()
				synctest.Wait()
				if n := h.opening.Load(); n != 0 {
					t.Errorf("%d are being opened", n)
				}
				if !h.alive(time.Second) {
					t.Error("the connection hangs")
				}
			})
		})
	}
}

// Too many open requests at a time are refused as busy, and the connection stays.
func TestTooManyOpensAreBusy(t *testing.T) {
	h := &connection{id: "edge7"}
	h.opening.Store(maxOpening)
	_, err := h.open(t.Context())
	if e, ok := err.(*proto.Error); !ok || e.Code != proto.CodeBusy || h.opening.Load() != maxOpening {
		t.Errorf("got %v, %d are being opened", err, h.opening.Load())
	}
}

// Times that end in one slot end at one time, at most a slot later; short ones stay.
func TestKeepalivesAreSentTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(map[time.Duration]bool)
		begun := time.Now()
		for d := 30 * time.Second; d < 31*time.Second; d += 10 * time.Millisecond {
			got := together(d)
			if got < d || got > d+slot {
				t.Errorf("%v became %v", d, got)
			}
			ends[time.Now().Add(got).Sub(begun)] = true
			time.Sleep(time.Millisecond)
		}
		if len(ends) > 6 {
			t.Errorf("they end at %d times", len(ends))
		}
		if got := together(time.Second); got != time.Second {
			t.Errorf("a second became %v", got)
		}
	})
}
