package web

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// crowd opens n connections that send nothing.
func crowd(t *testing.T, addr string, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

// A local user can take all connections of a loopback address, but keeps no user out,
// and closes no user's connection.
func TestACrowdKeepsNoUserOut(t *testing.T) {
	s := newSite(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page := New(s.page.options)
	served := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { served <- page.Serve(ctx, l) }()
	addr := l.Addr().String()
	crowd(t, addr, maxConns)
	link, _ := page.Link(addr)
	out, err := s.client.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	live, err := s.client.Get("http://" + addr + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Body.Close()
	lines := bufio.NewReader(live.Body)
	for round := range 3 {
		crowd(t, addr, maxConns)
		out, err := s.client.Get("http://" + addr + "/devices")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		out.Body.Close()
		if out.StatusCode != http.StatusOK {
			t.Errorf("round %d: %d", round, out.StatusCode)
		}
	}
	page.fleet.fresh(t.Context())
	for seen := 0; seen < 2; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream: %v", err)
		}
		if strings.HasPrefix(line, "data: ") {
			seen++
		}
	}
	live.Body.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Where users have all connections, a new one waits until one ends.
func TestUsersConnectionsAreNotEvicted(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newConns(raw, 1)
	crowd(t, raw.Addr().String(), 3)
	accept := func() *conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*conn)
	}
	first := accept()
	second := accept()
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the oldest connection is open")
	}
	second.retain()
	next := make(chan *conn, 1)
	go func() {
		c, _ := l.Accept()
		k, _ := c.(*conn)
		next <- k
	}()
	if err := second.SetReadDeadline(time.Now()); err != nil {
		t.Errorf("a user's connection: %v", err)
	}
	second.Close()
	second.Close()
	third := <-next
	if third == nil {
		t.Fatal("there is no third connection")
	}
	third.retain()
	crowd(t, raw.Addr().String(), 1)
	go func() {
		c, _ := l.Accept()
		k, _ := c.(*conn)
		next <- k
	}()
	l.Close()
	if c := <-next; c != nil {
		t.Error("a closed listener accepts")
	}
	third.Close()
}
