package station

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/handshake"

	"golang.org/x/crypto/ssh"
)

// stubborn is a channel whose device sends one byte after the other and does not
// answer its close unless it is polite.
type stubborn struct {
	ssh.Channel
	sends    int // so many bytes; below 0: without end
	polite   bool
	requests chan *ssh.Request

	gone    chan struct{} // the device has ended it
	endOnce sync.Once
}

func newStubborn(sends int, polite bool) *stubborn {
	return &stubborn{sends: sends, polite: polite, requests: make(chan *ssh.Request), gone: make(chan struct{})}
}

func (s *stubborn) Read(p []byte) (int, error) {
	if s.sends == 0 {
		<-s.gone
		return 0, io.EOF
	}
	s.sends--
	p[0] = 'x'
	return 1, nil
}

func (s *stubborn) Write(p []byte) (int, error) {
	<-s.gone // its window is full
	return 0, errors.New("gone")
}

func (s *stubborn) Stderr() io.ReadWriter { return stubbornStderr{s.gone} }

func (s *stubborn) CloseWrite() error { return nil }

func (s *stubborn) Close() error {
	if s.polite {
		s.end()
	}
	return nil
}

// end closes the channel from the device's side.
func (s *stubborn) end() {
	s.endOnce.Do(func() {
		close(s.gone)
		close(s.requests)
	})
}

type stubbornStderr struct{ gone chan struct{} }

func (s stubbornStderr) Read([]byte) (int, error)  { <-s.gone; return 0, io.EOF }
func (s stubbornStderr) Write([]byte) (int, error) { return 0, io.EOF }

// line is a connection that records its end.
type line struct {
	ssh.Conn
	ended bool
}

func (l *line) Close() error { l.ended = true; return nil }

// Neither a device that does not answer nor a peer that does not read delays the
// end of a session beyond the time limits.
func TestASessionEndsWithinItsTimeLimits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sends  int
		polite bool
		story  func(c *stubborn, peer net.Conn, end func())
		takes  time.Duration
	}{
		{"the station stops, the device does not answer", 0, false, func(_ *stubborn, _ net.Conn, end func()) { end() }, leaveTime},
		{"the peer has gone while the device sends, the device does not answer", -1, false, func(_ *stubborn, peer net.Conn, _ func()) { peer.Close() }, leaveTime},
		{"the peer has sent its end, the device does not answer", 0, false, func(_ *stubborn, peer net.Conn, _ func()) { peer.Close() }, lingerTime + leaveTime},
		{"the station stops, the device does not read", 0, false, func(_ *stubborn, peer net.Conn, end func()) {
			_, _ = io.WriteString(peer, "x")
			end()
		}, leaveTime},
		{"the station stops, the peer does not read", -1, true, func(_ *stubborn, _ net.Conn, end func()) { end() }, leaveTime},
		{"the device ends, the peer does not read", -1, true, func(c *stubborn, _ net.Conn, _ func()) { c.end() }, lingerTime + leaveTime},
		{"both answer", 0, true, func(_ *stubborn, _ net.Conn, end func()) { end() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStubborn(tt.sends, tt.polite)
				peer, sock := net.Pipe()
				ended := make(chan struct{})
				done := make(chan time.Duration, 1)
				begun := time.Now()
				go func() {
					relay(&channel{c, &connection{conn: &handshake.Conn{Conn: &line{}}, done: make(chan struct{})}, c.requests}, duplexPipe{sock}, ended)
					done <- time.Since(begun)
				}()
				tt.story(c, peer, func() { close(ended) })
				select {
				case took := <-done:
					if took != tt.takes {
						t.Errorf("it took %v, want %v", took, tt.takes)
					}
				case <-time.After(time.Hour):
					t.Error("it has no end")
				}
				if _, err := sock.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the peer's socket is open: %v", err)
				}
				peer.Close()
				c.end()
			})
		})
	}
}

// A peer that reads slowly gets all that the device sent before its end.
func TestASlowReaderGetsTheWholeSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sent = 10
		c := newStubborn(sent, true)
		peer, sock := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			relay(&channel{c, nil, c.requests}, duplexPipe{sock}, nil)
		}()
		c.end()
		got := 0
		for {
			time.Sleep(lingerTime - time.Second)
			if _, err := peer.Read(make([]byte, 1)); err != nil {
				break
			}
			got++
		}
		<-done
		if got != sent {
			t.Errorf("the peer got %d of %d bytes", got, sent)
		}
	})
}

// A device may leave maxAbandoned channels open at a time, one more costs it the
// connection.
func TestADeviceThatLeavesChannelsOpenLosesItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		h := &connection{conn: &handshake.Conn{Conn: l}, done: make(chan struct{})}
		session := func() *stubborn {
			c := newStubborn(0, false)
			_, sock := net.Pipe()
			ended := make(chan struct{})
			close(ended)
			relay(&channel{c, h, c.requests}, duplexPipe{sock}, ended)
			return c
		}
		late := session()
		late.end() // a late answer counts
		synctest.Wait()
		var all []*stubborn
		for range maxAbandoned {
			all = append(all, session())
		}
		if l.ended {
			t.Error("the connection has ended too early")
		}
		all = append(all, session())
		synctest.Wait()
		if !l.ended || h.why() != "the device did not answer the close of 9 sessions within 3s" {
			t.Errorf("ended %v", l.ended)
		}
		for _, c := range all {
			c.end()
		}
	})
}
