package rpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
)

// await waits until what holds returns nil.
func await(t *testing.T, what func() error) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A waiting call is answered that the daemon stops, and idle connections do not
// delay the end.
func TestWaitingCallsAreAnsweredAtTheEnd(t *testing.T) {
	wait := `{"jsonrpc":"2.0","id":7,"method":"netconf_ssh_call_home","params":{"host":"nms"}}` + "\n"
	for _, tt := range []struct {
		name  string
		lines string
		half  bool // the peer has closed its sending half
		calls int32
	}{
		{"no calls", "", false, 0},
		{"one waits", wait, false, 1},
		{"one waits, its sending half closed", wait, true, 1},
		{"without an id before it", strings.Replace(wait, `"id":7`, `"id":null`, 1) + wait, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{block: make(chan struct{})}
			l := listen(t)
			var log bytes.Buffer
			done := make(chan error, 1)
			go func() { done <- newServer(b, full(), hclog.New(&hclog.LoggerOptions{Output: &log})).Serve(l) }()
			c := dial(t, l.Addr().String())
			if _, err := io.WriteString(c, tt.lines); err != nil {
				t.Fatal(err)
			}
			if tt.half {
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			await(t, func() error {
				if n := b.calls.Load(); n != tt.calls {
					return fmt.Errorf("%d calls have begun", n)
				}
				return nil
			})
			l.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if strings.Contains(log.String(), "connections=") { // as in TestTheEndIsBounded
				t.Errorf("it took endTime: %s", log.String())
			}
			for r := bufio.NewReader(c); tt.calls > 0; {
				if a := answer(t, r); a.ID == 7 {
					if a.Error == nil || a.Error.Code != proto.CodeShutdown {
						t.Errorf("the peer got %+v", a)
					}
					break
				}
			}
		})
	}
}

// An answer that was written before the end reaches its call.
func TestTheEndDoesNotOvertakeAnAnswer(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, `{"jsonrpc":"2.0","id":1,"result":{"pid":5}}`+"\n")
			c.Close()
		}
	}()
	for i := range 300 {
		c, err := dialClient(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var st proto.Status
		err = c.Call(t.Context(), proto.MethodStatus, nil, &st)
		c.Close()
		if err != nil || st.PID != 5 {
			t.Fatalf("call %d: %v, %+v", i, err, st)
		}
	}
}

// A method that ignores its context delays the end by endTime at most.
func TestTheEndIsBounded(t *testing.T) {
	t.Parallel() // it takes endTime
	begun := make(chan struct{})
	release := make(chan struct{})
	defer close(release)
	methods := func(*Conn) map[string]Method {
		return map[string]Method{"hang": {func(context.Context, *Request) (any, error) {
			close(begun)
			<-release
			return nil, nil
		}, true}}
	}
	var log bytes.Buffer
	l := listen(t)
	done := make(chan error, 1)
	go func() {
		done <- NewServer(methods, full(), testLimits, hclog.New(&hclog.LoggerOptions{Output: &log})).Serve(l)
	}()
	c := dial(t, l.Addr().String())
	if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":1,"method":"hang"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	l.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it has not ended")
	}
	if !strings.Contains(log.String(), "connections=1") {
		t.Errorf("logged %q", log.String())
	}
}

// poor is a listener that first fails with EMFILE.
type poor struct {
	*net.UnixListener
	tries int
}

func (l *poor) AcceptUnix() (*net.UnixConn, error) {
	if l.tries--; l.tries >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.UnixListener.AcceptUnix()
}

func TestServeRetriesWhenDescriptorsAreUsedUp(t *testing.T) {
	l := listen(t)
	var log bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- newServer(&backend{}, full(), hclog.New(&hclog.LoggerOptions{Output: &log})).Serve(&poor{l, 3})
	}()
	if r := ask(t, dial(t, l.Addr().String()), status); r.Error != nil {
		t.Errorf("got %+v", r.Error)
	}
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "cannot be accepted, retrying: error="); n != 1 {
		t.Errorf("warned %d times, want 1:\n%s", n, log.String())
	}
}

// Any user can make refused calls at any rate; the log gets two lines.
func TestRefusalsAreRateLimitedInTheLog(t *testing.T) {
	var log bytes.Buffer
	s := newServer(&backend{}, Access{}, hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
	h := s.guard(proto.MethodStop, Method{Handle: func(context.Context, *Request) (any, error) { return nil, nil }}, Peer{UID: 5, PID: 6})
	for range 1000 {
		if _, err := h(t.Context(), &Request{}); err == nil {
			t.Fatal("it was let through")
		}
	}
	s.warnings.Rest()
	want := "[WARN]  call refused: method=stop uid=5 pid=6 times=1\n[WARN]  call refused: times=999\n"
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

func TestTheLineOfACall(t *testing.T) {
	for _, tt := range []struct {
		name, params string
		err          error
		want         string
	}{
		{"that went well", `{"session": 7}`, nil, `params="{\"session\":7}"`},
		{"without parameters", ``, nil, ``},
		{"that failed", `{"host":"nms"}`, errors.New("no\nsuch \"name\""), `params="{\"host\":\"nms\"}" error="no\nsuch \"name\""`},
		{"with characters that a terminal obeys", "{\"host\":\"\u202e\u009b\x7fé😀\"}", nil, `params="{\"host\":\"\u202e\u009b\u007f\u00e9\ud83d\ude00\"}"`},
		{"with bytes that are no UTF-8", "{\"host\":\"\xff\"}", nil, `params="{\"host\":\"\ufffd\"}"`},
		{"with an end of its own", `{"opaque":"\" uid=0 \\"}`, nil, `params="{\"opaque\":\"\u0022 uid=0 \u005c\"}"`},
		{"spread out", "{\t\"host\" :\r\"nms\" }", nil, `params="{\"host\":\"nms\"}"`},
		{"too long", `{"host":"` + strings.Repeat("x", 2*maxLogged) + `"}`, nil, `params="{\"host\":\"` + strings.Repeat("x", maxLogged-len(`{"host":"`)) + `..."`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newServer(&backend{}, full(), hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
			s.logCall("handover", Peer{UID: 5, PID: 6}, tt.params, tt.err)
			want := strings.TrimSpace("[INFO]  call: method=handover uid=5 pid=6 "+tt.want) + "\n"
			if log.String() != want {
				t.Errorf("got  %swant %s", log.String(), want)
			}
		})
	}
}
