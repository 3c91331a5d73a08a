package scrape

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// pipes is a listener without a network, so that time can be ours.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// dial returns a connection once the server has accepted it.
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// serve starts a server for the test, in its bubble. The result of Serve comes
// on the channel.
func serve(h http.Handler) (p *pipes, end context.CancelFunc, result <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	p = newPipes()
	c := make(chan error, 1)
	go func() { c <- Serve(ctx, p, h, hclog.NewNullLogger()) }()
	return p, cancel, c
}

func get(t *testing.T, c net.Conn, path string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: here\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end, result := serve(Handler(figures))
		c, idle := p.dial(), p.dial()
		r := get(t, c, "/metrics")
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(text), "g 0") {
			t.Errorf("got status %d, %v", r.StatusCode, err)
		}
		begun := time.Now()
		end()
		if err := <-result; err != nil {
			t.Errorf("got %v at the end", err)
		}
		if took := time.Since(begun); took > endTime {
			t.Errorf("an idle connection held the end up for %s", took)
		}
		if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the connection is still there: %v", err)
		}
		select {
		case <-p.closed:
		default:
			t.Error("the listener is still open")
		}
	})
}

// Whatever a client leaves undone, its connection ends.
func TestServeEndsConnections(t *testing.T) {
	for _, tt := range []struct {
		name string
		send string
		most time.Duration
	}{
		{"without a request", "", requestTime},
		{"in the middle of a header", "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ", requestTime},
		{"in the middle of a body", "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", requestTime},
		{"after its answer", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, end, result := serve(Handler(figures))
				c := p.dial()
				if _, err := io.WriteString(c, tt.send); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > tt.most {
					t.Errorf("it ended after %s, want at most %s", took, tt.most)
				}
				end()
				<-result
			})
		})
	}
	t.Run("taking no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, end, result := serve(Handler(figures))
			c := p.dial()
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(answerTime + time.Second)
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
			}
			if err == nil {
				t.Error("the answer waited longer than it may")
			}
			end()
			<-result
		})
	})
}

func TestServeEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		p, end, result := serve(hangs)
		c := p.dial()
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begun := time.Now()
		end()
		if err := <-result; err != nil {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took != endTime {
			t.Errorf("a scrape that hangs held the end up for %s, want %s", took, endTime)
		}
	})
}

func TestServeConnectionsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end, result := serve(http.NotFoundHandler())
		var conns []net.Conn
		for range maxConns {
			conns = append(conns, p.dial())
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		accepted := make(chan struct{})
		go func() {
			p.conns <- theirs
			close(accepted)
		}()
		synctest.Wait()
		select {
		case <-accepted:
			t.Errorf("connection %d was accepted", maxConns+1)
		default:
		}
		conns[0].Close()
		<-accepted
		end()
		<-result
	})
}

func TestServeSaysWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if err := Serve(ctx, brokenListener{newPipes()}, http.NotFoundHandler(), hclog.NewNullLogger()); !errors.Is(err, errBroken) {
			t.Errorf("got %v, want %v", err, errBroken)
		}
	})
}

var errBroken = errors.New("no more connections")

type brokenListener struct{ *pipes }

func (brokenListener) Accept() (net.Conn, error) { return nil, errBroken }

func TestServeSeesOutALackOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(context.Background())
		l := &poorListener{pipes: newPipes(), tries: 3}
		var log strings.Builder
		result := make(chan error, 1)
		go func() {
			result <- Serve(ctx, l, http.NotFoundHandler(), hclog.New(&hclog.LoggerOptions{Output: &log}))
		}()
		if r := get(t, l.dial(), "/"); r.StatusCode != http.StatusNotFound {
			t.Errorf("got status %d", r.StatusCode)
		}
		end()
		if err := <-result; err != nil {
			t.Errorf("got %v", err)
		}
		if n := strings.Count(log.String(), "cannot be accepted"); n != 1 {
			t.Errorf("warned %d times, want 1:\n%s", n, log.String())
		}
	})
}

// poorListener first fails with EMFILE.
type poorListener struct {
	*pipes
	tries int
}

func (l *poorListener) Accept() (net.Conn, error) {
	if l.tries--; l.tries >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.ENOBUFS}
	}
	return l.pipes.Accept()
}
