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

// stubborn is a channel whose device says one byte after the other and does not
// answer its end unless it is polite.
type stubborn struct {
	ssh.Channel
	says     int // so many bytes; below 0: without end
	polite   bool
	requests chan *ssh.Request

	gone    chan struct{} // the device has ended it
	endOnce sync.Once
}

func newStubborn(says int, polite bool) *stubborn {
	return &stubborn{says: says, polite: polite, requests: make(chan *ssh.Request), gone: make(chan struct{})}
}

func (s *stubborn) Read(p []byte) (int, error) {
	if s.says == 0 {
		<-s.gone
		return 0, io.EOF
	}
	s.says--
	p[0] = 'x'
	return 1, nil
}

func (s *stubborn) Write(p []byte) (int, error) {
	<-s.gone // its window has no room
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

// end is the device's end of the channel.
func (s *stubborn) end() {
	s.endOnce.Do(func() {
		close(s.gone)
		close(s.requests)
	})
}

type stubbornStderr struct{ gone chan struct{} }

func (s stubbornStderr) Read([]byte) (int, error)  { <-s.gone; return 0, io.EOF }
func (s stubbornStderr) Write([]byte) (int, error) { return 0, io.EOF }

// line is a connection of which only the end matters.
type line struct {
	ssh.Conn
	ended bool
}

func (l *line) Close() error { l.ended = true; return nil }

// Neither a device that does not answer nor a caller that does not read keeps a
// session from its end.
func TestASessionThatIsOverEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		says   int
		polite bool
		story  func(c *stubborn, caller net.Conn, end func())
		takes  time.Duration
	}{
		{"the station stops, the device does not answer", 0, false, func(_ *stubborn, _ net.Conn, end func()) { end() }, leaveTime},
		{"it does not answer a caller that has gone", -1, false, func(_ *stubborn, caller net.Conn, _ func()) { caller.Close() }, leaveTime},
		{"nor one that has said his last word", 0, false, func(_ *stubborn, caller net.Conn, _ func()) { caller.Close() }, lingerTime + leaveTime},
		{"nor takes what he says", 0, false, func(_ *stubborn, caller net.Conn, end func()) {
			_, _ = io.WriteString(caller, "x")
			end()
		}, leaveTime},
		{"the station stops, the caller does not read", -1, true, func(_ *stubborn, _ net.Conn, end func()) { end() }, leaveTime},
		{"the device ends, the caller does not read", -1, true, func(c *stubborn, _ net.Conn, _ func()) { c.end() }, lingerTime + leaveTime},
		{"both answer", 0, true, func(_ *stubborn, _ net.Conn, end func()) { end() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStubborn(tt.says, tt.polite)
				caller, sock := net.Pipe()
				ended := make(chan struct{})
				done := make(chan time.Duration, 1)
				begun := time.Now()
				go func() {
					relay(&channel{c, &connection{conn: &handshake.Conn{Conn: &line{}}, done: make(chan struct{})}, c.requests}, duplexPipe{sock}, ended)
					done <- time.Since(begun)
				}()
				tt.story(c, caller, func() { close(ended) })
				select {
				case took := <-done:
					if took != tt.takes {
						t.Errorf("it took %v, want %v", took, tt.takes)
					}
				case <-time.After(time.Hour):
					t.Error("it has no end")
				}
				if _, err := sock.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the caller's socket is open: %v", err)
				}
				caller.Close()
				c.end()
			})
		})
	}
}

// A caller that takes its time gets all that was said before the end.
func TestASlowReaderGetsTheWholeSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const said = 10
		c := newStubborn(said, true)
		caller, sock := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			relay(&channel{c, nil, c.requests}, duplexPipe{sock}, nil)
		}()
		c.end()
		got := 0
		for {
			time.Sleep(lingerTime - time.Second)
			if _, err := caller.Read(make([]byte, 1)); err != nil {
				break
			}
			got++
		}
		<-done
		if got != said {
			t.Errorf("he got %d of %d bytes", got, said)
		}
	})
}

// The channels that a device leaves open are counted, and it has no more of
// them than that.
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
		late.end() // an answer that comes late is one
		synctest.Wait()
		var all []*stubborn
		for range maxLeft {
			all = append(all, session())
		}
		if l.ended {
			t.Error("it is ended early")
		}
		all = append(all, session())
		if !l.ended || h.why() != "the ends of 9 sessions were not answered within 3s" {
			t.Errorf("ended %v", l.ended)
		}
		for _, c := range all {
			c.end()
		}
	})
}
