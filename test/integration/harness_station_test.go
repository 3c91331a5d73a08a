//go:build integration

package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/fdpass"

	"golang.org/x/sys/unix"
)

// station is an NMS that takes every call home on its address: it listens, and
// for each connection a stock ssh of its own logs in and opens the netconf
// subsystem. With serve it does something else.
type station struct {
	t     *testing.T
	nms   *nms
	Addr  string
	dir   string
	serve func(*net.TCPConn) // owns the connection; nil: ssh

	mu       sync.Mutex // guards the fields that follow
	listener net.Listener
	calls    []call
	open     []*netconf
	held     []*net.TCPConn // those of Hold
	wg       sync.WaitGroup // the goroutines of Open
}

// call is one connection that a station has accepted.
type call struct {
	at   time.Time
	from string
}

// NewStation is a station that does not listen yet.
func (n *nms) NewStation(addr string) *station {
	n.t.Helper()
	s := &station{t: n.t, nms: n, Addr: addr, dir: tempDir(n.t)}
	n.t.Cleanup(func() {
		s.Shut()
		s.HangUp()
	})
	return s
}

// Station is one that listens.
func (n *nms) Station(addr string) *station {
	n.t.Helper()
	s := n.NewStation(addr)
	s.Open()
	return s
}

// Hold is for a serve that leaves the connection as it is until HangUp.
func (s *station) Hold(c *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, c)
}

// Open listens.
func (s *station) Open() {
	s.t.Helper()
	l := listenIn(s.t, s.nms.netns, s.Addr).Listener
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.calls = append(s.calls, call{time.Now(), c.RemoteAddr().String()})
			s.mu.Unlock()
			if s.serve != nil {
				s.serve(c.(*net.TCPConn))
			} else {
				s.logIn(c.(*net.TCPConn))
			}
		}
	})
}

// Shut stops listening: who calls now is refused. Sessions go on.
func (s *station) Shut() {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// HangUp ends all sessions as a program does that is killed: the kernel closes
// its connections.
func (s *station) HangUp() {
	s.mu.Lock()
	open, held := s.open, s.held
	s.open, s.held = nil, nil
	s.mu.Unlock()
	for _, one := range open {
		one.Signal(unix.SIGKILL)
		one.over(patience)
	}
	for _, c := range held {
		c.Close()
	}
}

// Calls returns the connections accepted so far.
func (s *station) Calls() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// AwaitCall waits for the connection number n, from 1.
func (s *station) AwaitCall(limit time.Duration, n int) call {
	s.t.Helper()
	var calls []call
	sandbox.Await(s.t, limit, fmt.Sprintf("call %d at %s", n, s.Addr), func() error {
		if calls = s.Calls(); len(calls) < n {
			return fmt.Errorf("there were %d", len(calls))
		}
		return nil
	})
	return calls[n-1]
}

// Session returns the ssh of the last call, which still runs.
func (s *station) Session() *netconf {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 {
		s.t.Fatalf("the station at %s has no session", s.Addr)
	}
	return s.open[len(s.open)-1]
}

// Live returns the sessions whose ssh runs.
func (s *station) Live() (live []*netconf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.open {
		if !one.over(0) {
			live = append(live, one)
		}
	}
	return live
}

// logIn gives the connection to a stock ssh.
func (s *station) logIn(c *net.TCPConn) {
	defer c.Close()
	f, err := c.File()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer f.Close()
	path := filepath.Join(s.dir, fmt.Sprintf("%d.sock", len(s.Calls())))
	l, err := net.Listen("unix", path)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer l.Close()
	session := s.nms.startNetconf("unix:" + path)
	session.from = c.RemoteAddr().String()
	s.mu.Lock()
	s.open = append(s.open, session)
	s.mu.Unlock()
	go func() {
		<-session.ended // and with it the one who would take the socket
		l.Close()
	}()
	taker, err := l.Accept()
	if err == nil {
		err = fdpass.Send(taker.(*net.UnixConn), []byte{0}, f)
		taker.Close()
	}
	if err != nil && !session.over(time.Second) {
		s.t.Errorf("handing a connection to ssh: %v", err)
	}
}

// leave ends the session as a client does that has done its work.
func (s *netconf) leave() {
	s.t.Helper()
	s.in.Close()
	s.MustExit(0)
}
