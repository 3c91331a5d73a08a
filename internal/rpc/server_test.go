package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/wake"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// backend answers at once, unless block is set.
type backend struct {
	block   chan struct{} // Call waits for its end
	calls   atomic.Int32  // begun
	byHost  bool          // what comes with adopt holds the host's name
	adopted chan string   // name of what came with adopt
	events  chan proto.Event
	killed  []string
	mu      sync.Mutex
}

func (b *backend) Call(ctx context.Context, p proto.CallParams) (proto.SessionInfo, error) {
	b.calls.Add(1)
	if p.Host == "refused" {
		return proto.SessionInfo{}, proto.StageError(proto.StageTCP, "no answer", proto.ErrorData{Address: "a", Reason: "connection refused"})
	}
	if b.block != nil {
		select {
		case <-b.block:
		case <-ctx.Done():
			return proto.SessionInfo{}, context.Cause(ctx)
		}
	}
	return proto.SessionInfo{Session: 1, Host: p.Host, Opaque: p.Opaque}, nil
}

func (b *backend) Adopt(_ context.Context, p proto.HandoverParams, f *os.File) (proto.SessionInfo, error) {
	defer f.Close()
	data, _ := io.ReadAll(f)
	if b.byHost && string(data) == p.Host {
		data = nil // not in errors that have none
	}
	b.adopted <- string(data)
	return proto.SessionInfo{Session: 2}, nil
}

func (b *backend) Kill(_ int, who string) (proto.SessionInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.killed = append(b.killed, who)
	return proto.SessionInfo{}, nil
}

func (b *backend) Sessions() []proto.SessionInfo { return []proto.SessionInfo{{Session: 7}} }
func (b *backend) Status() proto.Status          { return proto.Status{PID: 5} }
func (b *backend) SubscribeSince() ([]proto.Event, <-chan proto.Event, func()) {
	return []proto.Event{{Event: "before"}}, b.events, func() {}
}

// serve runs a server for b in which the test's own user has those rights, and
// returns its socket.
func serve(t *testing.T, b *backend, a Access) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- newServer(b, a, hclog.NewNullLogger()).Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// full lets the user who runs the test call every method.
func full() Access { return Access{Full: []uint32{uint32(os.Getgid())}} }

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends one line and returns the answer.
func ask(t *testing.T, c *net.UnixConn, line string) proto.Response {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
	return answer(t, bufio.NewReader(c))
}

func answer(t *testing.T, r *bufio.Reader) proto.Response {
	t.Helper()
	text, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	var out proto.Response
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

const status = `{"jsonrpc":"2.0","id":1,"method":"call_home_status"}`

func TestOneLineIsOneCall(t *testing.T) {
	path := serve(t, &backend{}, full())
	for _, tt := range []struct{ name, line, result, err string }{
		{"a status", status, `"pid":5`, ""},
		{"a call", `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"nms"}}`, `"host":"nms"`, ""},
		{"a call that fails", `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"refused"}}`, "", "no answer"},
		{"an unknown parameter", `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"hots":"nms"}}`, "", `unknown parameter "hots"; expected host, client, port, opaque, wait`},
		{"a parameter of another type", `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":5}}`, "", `parameter "host": found 5; expected a string`},
		{"a port out of range", `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"n","port":65536}}`, "", `parameter "port": found 65536; expected a whole number from 1 to 65535`},
		{"no parameters, as an object", `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params":{}}`, `"pid":5`, ""},
		{"no parameters, as an array", `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params": [ ]}`, `"pid":5`, ""},
		{"no parameters, as null", `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params":null}`, `"pid":5`, ""},
		{"a parameter of a method that has none", `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params":{"host":"n"}}`, "", "call_home_status has no parameters: leave params out, or empty"},
		{"the same by position", `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params":["n"]}`, "", "call_home_status has no parameters"},
		{"an unknown method", `{"jsonrpc":"2.0","id":1,"method":"reboot"}`, "", `unknown method "reboot"`},
		{"no JSON", `hello`, "", "byte 1 of the line is no JSON"},
		{"handover without a descriptor", `{"jsonrpc":"2.0","id":1,"method":"handover","params":{"host":"n","port":1}}`, "", "no descriptor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ask(t, dial(t, path), tt.line)
			if tt.err != "" {
				if r.Error == nil || !strings.Contains(r.Error.Message, tt.err) {
					t.Errorf("got %s, %+v; expected an error with %q", r.Result, r.Error, tt.err)
				}
				return
			}
			if r.Error != nil || !strings.Contains(string(r.Result), tt.result) {
				t.Errorf("got %s, %+v; expected %s", r.Result, r.Error, tt.result)
			}
		})
	}
}

func TestTheClientGetsTheDataOfAnError(t *testing.T) {
	c, err := dialClient(serve(t, &backend{}, full()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Call(t.Context(), proto.MethodCallHome, proto.CallParams{Host: "refused"}, nil)
	var e *proto.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	want := proto.Error{Code: proto.CodeUnavailable, Message: "no answer", Data: proto.ErrorData{Name: "CALLHOME_ERR_UNAVAILABLE", Stage: proto.StageTCP, Address: "a", Reason: "connection refused", Retry: true}}
	if *e != want {
		t.Errorf("got %+v, expected %+v", *e, want)
	}
}

// Each method against each of the rights that a peer can have.
func TestAccessDecidesWhichMethodsAPeerMayCall(t *testing.T) {
	own := []uint32{uint32(os.Getgid())}
	methods := []string{
		proto.MethodCallHome, proto.MethodCallHomeOpaque, proto.MethodUserSessions, proto.MethodKillUserSession, proto.MethodReloadConfig,
		proto.MethodReopenLogs, proto.MethodStop, proto.MethodWaitStart, proto.MethodStatus, proto.MethodSubscribe, proto.MethodHandover,
	}
	s := newServer(&backend{}, Access{}, hclog.NewNullLogger())
	for _, tt := range []struct {
		name       string
		access     Access
		peer       Peer
		full, read bool
	}{
		{"root", Access{}, Peer{UID: 0}, true, true},
		{"a user without access", Access{Full: own}, Peer{UID: 5, Groups: []uint32{77777}}, false, false},
		{"the group", Access{Full: own}, Peer{UID: 5, Groups: own}, true, true},
		{"the group, not as the first one", Access{Full: own}, Peer{UID: 5, Groups: append([]uint32{77777}, own...)}, true, true},
		{"the reading group", Access{Read: own}, Peer{UID: 5, Groups: own}, false, true},
	} {
		s.access = tt.access
		for _, m := range methods {
			called := false
			handle := func(context.Context, *Request) (any, error) { called = true; return nil, nil }
			h := s.guard(m, Method{handle, proto.ReadOnly(m)}, tt.peer)
			_, err := h(t.Context(), &Request{})
			may := tt.full || tt.read && proto.ReadOnly(m)
			if called != may || (err == nil) != may {
				t.Errorf("%s, %s: called %v with %v, expected %v", tt.name, m, called, err, may)
			}
		}
	}
}

func TestAccessOf(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out})
	a, err := AccessOf("root", "no-such-group-here", log)
	if err != nil || len(a.Full) != 1 || a.Full[0] != 0 || a.Read != nil {
		t.Errorf("got %+v, %v", a, err)
	}
	if got := out.String(); !strings.Contains(got, "so no further user may list and read: group=no-such-group-here option=--read-group") || strings.Contains(got, "root") {
		t.Errorf("the log is %q", got)
	}
	out.Reset()
	if a, err := AccessOf("no-such-group-here", "root", log); err != nil || a.Full != nil || len(a.Read) != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
	if got := out.String(); !strings.Contains(got, "so only root may call what changes something: group=no-such-group-here option=--group") {
		t.Errorf("the log is %q", got)
	}
	if a, err := AccessOf("", "", hclog.NewNullLogger()); err != nil || a.Full != nil {
		t.Errorf("without names: %+v, %v", a, err)
	}
}

func TestPeerOfReturnsTheCredentialsOfTheKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial(t, path)
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := PeerOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if int(p.PID) != os.Getpid() || int(p.UID) != os.Getuid() || p.Groups[len(p.Groups)-1] != uint32(os.Getgid()) {
		t.Errorf("the peer is %+v", p)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Groups) != len(groups)+1 {
		t.Errorf("groups %v, expected %v and the primary one", p.Groups, groups)
	}
}

// A peer that breaks the protocol loses its own connection; others keep theirs.
func TestABadPeerLosesOnlyItsOwnConnection(t *testing.T) {
	path := serve(t, &backend{}, full())
	for name, words := range map[string]string{
		"a message without end":     strings.Repeat("x", proto.MaxLine+2),
		"a message too long":        `{"jsonrpc":"2.0","id":1,"method":"call_home_status","params":{"x":"` + strings.Repeat("x", proto.MaxLine) + `"}}` + "\n",
		"half a message, then gone": `{"jsonrpc":`,
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, path)
			// The server may end the connection before all is written.
			_, _ = io.WriteString(c, words)
			_ = c.CloseWrite()
			if rest, err := io.ReadAll(c); err == nil && strings.Contains(string(rest), `"result"`) {
				t.Errorf("it was answered: %s", rest)
			}
		})
	}
	if r := ask(t, dial(t, path), status); r.Error != nil {
		t.Errorf("another peer got %+v", r.Error)
	}
}

// A thousand idle connections do not delay the call of another peer.
func TestIdleConnectionsDelayNoCall(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("without root one user's connections are limited to fewer")
	}
	path := serve(t, &backend{}, full())
	for range 1000 {
		dial(t, path)
	}
	if r := ask(t, dial(t, path), status); r.Error != nil {
		t.Errorf("the peer got %+v", r.Error)
	}
}

func TestConnectionsOfAUserAreLimited(t *testing.T) {
	group := []uint32{77}
	s := newServer(&backend{}, Access{Full: group, Read: []uint32{78}}, hclog.NewNullLogger())
	enter := func(n int, p Peer) (in int) {
		for range n {
			if s.enter(&net.UnixConn{}, p) == nil {
				in++
			}
		}
		return in
	}
	// Users without access connect first, with as many ids as one user can have
	// (subuid(5)).
	in := 0
	for uid := range uint32(100) {
		in += enter(100, Peer{UID: 100000 + uid, Groups: []uint32{100000 + uid}})
	}
	if in != maxWithoutAccess {
		t.Errorf("users without access have %d connections, want %d", in, maxWithoutAccess)
	}
	if n := enter(100, Peer{UID: 1000, Groups: group}); n != testLimits.PerUser {
		t.Errorf("a user has %d connections, want %d", n, testLimits.PerUser)
	}
	if n := enter(100, Peer{UID: 1001, Groups: []uint32{78}}); n != testLimits.PerUser {
		t.Errorf("one who may read has %d connections, want %d", n, testLimits.PerUser)
	}
	in = 0
	for uid := range uint32(100) {
		in += enter(100, Peer{UID: 2000 + uid, Groups: group})
	}
	if want := testLimits.All - 2*testLimits.PerUser; in != want {
		t.Errorf("all the others have %d connections, want %d", in, want)
	}
	if n := enter(600, Peer{UID: 0}); n != 600 {
		t.Errorf("root has %d connections, want all", n)
	}
	for c := range s.conns {
		s.leave(c)
	}
	if len(s.conns) != 0 || len(s.uids) != 0 || s.withoutAccess != 0 {
		t.Errorf("left: %d connections, %v, %d without access", len(s.conns), s.uids, s.withoutAccess)
	}
}

// A long call delays no other call of the same connection, and ends with the
// connection.
func TestAWaitingCallDelaysNoOtherCall(t *testing.T) {
	b := &backend{block: make(chan struct{})}
	path := serve(t, b, full())
	c := dial(t, path)
	if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"nms"}}`+"\n"); err != nil {
		t.Fatal(err)
	}
	r := ask(t, c, strings.Replace(status, `"id":1`, `"id":2`, 1))
	if r.ID != 2 || r.Error != nil {
		t.Errorf("the status was answered by %+v", r)
	}
	close(b.block)
	if r := answer(t, bufio.NewReader(c)); r.ID != 1 || r.Error != nil {
		t.Errorf("the call was answered by %+v", r)
	}
}

// `echo … | socat` closes its sending half before it is answered.
func TestAHalfClosedConnectionIsAnswered(t *testing.T) {
	b := &backend{block: make(chan struct{})}
	c := dial(t, serve(t, b, full()))
	if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"nms"}}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(b.block)
	if r := answer(t, bufio.NewReader(c)); r.Error != nil || !strings.Contains(string(r.Result), "nms") {
		t.Errorf("got %s, %+v", r.Result, r.Error)
	}
}

func TestHandoverGetsTheDescriptorThatCame(t *testing.T) {
	b := &backend{adopted: make(chan string, 1)}
	c := dial(t, serve(t, b, full()))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("this one"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	err = fdpass.Send(c, []byte(`{"jsonrpc":"2.0","id":1,"method":"handover","params":{"host":"n","port":1}}`+"\n"), r)
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if a := answer(t, bufio.NewReader(c)); a.Error != nil {
		t.Fatalf("got %+v", a.Error)
	}
	if got := <-b.adopted; got != "this one" {
		t.Errorf("adopted %q", got)
	}
}

func TestAClientPassesADescriptorWithOneCall(t *testing.T) {
	b := &backend{adopted: make(chan string, 1)}
	c, err := dialClient(serve(t, b, full()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("that one"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	c.Pass(r)
	if err := c.Call(t.Context(), proto.MethodHandover, proto.HandoverParams{Host: "n"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("it was left open: %v", err)
	}
	if got := <-b.adopted; got != "that one" {
		t.Errorf("adopted %q", got)
	}
	if err := c.Call(t.Context(), proto.MethodHandover, proto.HandoverParams{Host: "n"}, nil); err == nil || !strings.Contains(err.Error(), "no descriptor") {
		t.Errorf("the next call had one too: %v", err)
	}
}

func TestASubscriberGetsTheLastEventsAndTheFollowingOnes(t *testing.T) {
	b := &backend{events: make(chan proto.Event, 8)}
	c, err := dialClient(serve(t, b, full()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last proto.EventList
	if err := c.Call(t.Context(), proto.MethodSubscribe, nil, &last); err != nil {
		t.Fatal(err)
	}
	if len(last.Events) != 1 || last.Events[0].Event != "before" {
		t.Errorf("what was: %+v", last.Events)
	}
	for i := range 5 {
		b.events <- proto.Event{Event: fmt.Sprint(i)}
	}
	for i := range 5 {
		if e := <-c.Events(); e.Event != fmt.Sprint(i) {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	close(b.events) // the manager stops
	if e, open := <-c.Events(); open {
		t.Errorf("an event after the end: %+v", e)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(status))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"netconf_ssh_call_home","params":{"host":"nms","port":4334,"wait":"ssh"}}`))
	f.Add([]byte(`[` + status + `,` + status + `]`))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"stop"}`))
	f.Add([]byte("\x00\xff{"))
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	go func() {
		_ = newServer(&backend{events: make(chan proto.Event)}, full(), hclog.NewNullLogger()).Serve(l)
	}()
	f.Fuzz(func(t *testing.T, message []byte) {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(append(message, '\n'))
		if _, err := c.Write([]byte(strings.Replace(status, `"id":1`, `"id":"last"`, 1) + "\n")); err != nil {
			return // it was cut off
		}
		// Whatever came before, every line that comes back is JSON.
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			if !json.Valid(line) {
				t.Fatalf("%q was answered by %q", message, line)
			}
			if strings.Contains(string(line), `"last"`) {
				return
			}
		}
	})
}

func TestARefusalNamesTheDaemonsOwnGroup(t *testing.T) {
	for group, want := range map[string]string{
		"callhome":     "m needs root or the group callhome",
		"callhome-nms": "m needs root or the group callhome-nms",
		"":             "m needs root",
	} {
		s := newServer(&backend{}, Access{Group: group}, hclog.NewNullLogger())
		_, err := s.guard("m", Method{}, Peer{UID: 1000})(t.Context(), nil)
		if refused, ok := err.(*proto.Error); !ok || refused.Message != want {
			t.Errorf("with the group %q: %v, want %q", group, err, want)
		}
	}
}

// Each subscription can keep events that its peer does not read. The end of one
// makes room for another, and who was refused may ask again.
func TestSubscriptionsAreLimited(t *testing.T) {
	b := &backend{events: make(chan proto.Event)}
	path := serve(t, b, full())
	subscribe := func() (*Client[proto.Event], error) {
		c, err := dialClient(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, c.Call(t.Context(), proto.MethodSubscribe, nil, nil)
	}
	first, err := subscribe()
	for n := 1; n < maxSubscribersPerUser && err == nil; n++ {
		_, err = subscribe()
	}
	if err != nil {
		t.Fatal(err)
	}
	refused, err := subscribe()
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != proto.CodeBusy || !e.Data.Retry {
		t.Fatalf("one more: %v", err)
	}
	first.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := refused.Call(t.Context(), proto.MethodSubscribe, nil, nil); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("after the end of another one: %v", err)
		}
	}
}

// Of all users there are twice as many as of one, root's included.
func TestSubscriptionsOfAllAreLimited(t *testing.T) {
	s := newServer(&backend{}, full(), hclog.NewNullLogger())
	subscribe := func(uid uint32) (n int) {
		for s.subscribe(uid) {
			n++
		}
		return n
	}
	if n := subscribe(0); n != maxSubscribersPerUser {
		t.Errorf("root has %d subscriptions, want %d", n, maxSubscribersPerUser)
	}
	if n := subscribe(1000); n != maxSubscribers-maxSubscribersPerUser {
		t.Errorf("another user has %d subscriptions, want %d", n, maxSubscribers-maxSubscribersPerUser)
	}
	if s.subscribe(1001) {
		t.Error("there are more than in all")
	}
}

// The kernel refuses a connection while the daemon's queue is full, which any user
// can cause for a moment.
func TestAClientWaitsForAFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // fill the queue
		c, err := net.Dial("unix", path)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	full, got := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		c, err := connect(path, func() { wake.Up(full) })
		if err == nil {
			c.Close()
		}
		got <- err
	}()
	<-full
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}
