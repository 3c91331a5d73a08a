package session

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"callhome/internal/atomicfile"
	"callhome/internal/device/dial"
	"callhome/internal/device/process"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
)

// published collects the events of a session.
type published struct {
	mu     sync.Mutex
	events []proto.Event
}

func (t *published) list() []proto.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.events)
}

func (t *published) names() (out []string) {
	for _, e := range t.list() {
		out = append(out, e.Event)
	}
	return out
}

func newEnv(t *testing.T) (*Env, *published) {
	t.Helper()
	dir := t.TempDir()
	w, err := NewWatch(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	all := &published{}
	return &Env{Dir: dir, Watch: w, Publish: func(e proto.Event) {
		all.mu.Lock()
		defer all.mu.Unlock()
		all.events = append(all.events, e)
	}, proven: func(process.Identity, string) bool { return true }}, all // a stub has no processes that prove a login
}

// connection returns a connected socket, and the station's end of it.
func connection(t *testing.T) (*dial.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	station, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { station.Close() })
	f, err := c.(*net.TCPConn).File()
	c.Close()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial.FromSocket(f)
	if err != nil {
		t.Fatal(err)
	}
	return conn, station
}

// stub writes a script that replaces sshd.
func stub(t *testing.T, script string) sshdexec.Command {
	t.Helper()
	path := t.TempDir() + "/sshd"
	// A process that another test forks meanwhile would hold the file open until its exec,
	// and the kernel executes no file that is open for writing (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return sshdexec.Command{Sshd: path, Config: "/dev/null"}
}

// at puts the connection's own peer into sshd's lines, in place of 192.0.2.1.
func at(conn *dial.Conn, script string) string {
	return strings.ReplaceAll(script, "192.0.2.1 port 4334", fmt.Sprintf("%s port %d", conn.Remote.Addr(), conn.Remote.Port()))
}

func awaitDone(t *testing.T, s *Session) proto.SessionInfo {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Fatalf("the session does not end: %+v", s.Info())
	}
	return s.Info()
}

// A call that is killed before it has a connection ends at once, and a connection
// that its dialing returns later is closed.
func TestACallIsEndedBeforeItHasAConnection(t *testing.T) {
	env, all := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	s.Kill("uid 0 pid 7")
	info := awaitDone(t, s)
	if info.State != proto.StateClosed || info.Cause != "ended by uid 0 pid 7" {
		t.Errorf("the session is %+v", info)
	}
	conn, station := connection(t)
	if err := s.Start(stub(t, "exit 1"), conn); !errors.Is(err, ErrEnded) {
		t.Errorf("Start: %v", err)
	}
	_ = station.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := station.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the connection is open: %d, %v", n, err)
	}
	s.Fail(proto.StageTCP, "too late")
	if got := all.names(); !slices.Equal(got, []string{proto.EventCalling, proto.EventFailed}) {
		t.Errorf("published %v", got)
	}
}

func TestASessionPublishesItsEventsAndRemovesItsFiles(t *testing.T) {
	env, all := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, station := connection(t)
	cmd := stub(t, at(conn, "printf '%s\\r\\n' '"+lineConnected+"' '"+lineAccepted+"' \""+lineSubsystem+"\" >&2; exec cat"))
	if err := s.Start(cmd, conn); err != nil {
		t.Fatal(err)
	}
	info, err := s.Await(t.Context(), proto.StateServing)
	if err != nil || info.User != "netconf" {
		t.Errorf("got %+v, %v", info, err)
	}
	if now := s.Info(); now.Stats == nil {
		t.Error("no figures of the connection")
	}
	station.Close()
	last := awaitDone(t, s)
	if last.Stats == nil || last.Ended == nil || last.Stage != proto.StageSession {
		t.Errorf("the ended session is %+v", last)
	}
	want := []string{proto.EventCalling, proto.EventConnected, proto.EventKeyExchange, proto.EventAuthenticated, proto.EventSubsystem, proto.EventClosed}
	if got := all.names(); !slices.Equal(got, want) {
		t.Errorf("published %v, expected %v", got, want)
	}
	if left, err := os.ReadDir(env.Dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestAnSshdThatCannotBeStartedIsAFailedHandover(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, _ := connection(t)
	if err := s.Start(sshdexec.Command{Sshd: "/nonexistent/sshd"}, conn); err == nil {
		t.Error("it was started")
	}
	if info := awaitDone(t, s); info.Stage != proto.StageHandover {
		t.Errorf("the session is %+v", info)
	}
	if left, err := os.ReadDir(env.Dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// Only an sshd that sends its first byte has started: what an announcement sent
// before does not count, and sshd's own lines say why it ended.
func TestAnSshdHasStartedWhenItSends(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		before       string // sent before sshd has the socket
		cause        string // "" where it starts
	}{
		{"it sends", "echo SSH-2.0-x; exec cat", "", ""},
		{"it logs the connection, and sends nothing yet", "echo '" + lineConnected + "' >&2; exec cat", "", ""},
		{"it refuses its configuration", `printf 'f: line 1: Bad option: x\r\nf: terminating\r\n' >&2; exit 255`, "", "f: line 1: Bad option: x; f: terminating"},
		{"it has many lines", `echo 1 >&2; echo 2 >&2; echo 3 >&2; echo 4 >&2; exit 255`, "", "2; 3; 4"},
		{"it says nothing", `exit 255`, "", "sshd ended with status 255"},
		{"after an announcement", `echo no keys >&2; exit 255`, "MSG-ID: DEVICE-CONN-INFO\r\n", "no keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, _ := newEnv(t)
			s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
			conn, _ := connection(t)
			if _, err := conn.File.WriteString(tt.before); err != nil {
				t.Fatal(err)
			}
			if err := s.Start(stub(t, tt.script), conn); err != nil {
				t.Fatal(err)
			}
			info, err := s.AwaitStarted(t.Context())
			if tt.cause == "" {
				if err != nil || info.State == proto.StateClosed {
					t.Errorf("got %+v, %v", info, err)
				}
				s.Kill("the test")
				return
			}
			if !errors.Is(err, ErrEnded) || info.Stage != proto.StageHandover || info.Cause != tt.cause {
				t.Errorf("it ended at %s because %q, %v, want %q", info.Stage, info.Cause, err, tt.cause)
			}
		})
	}
}

// A start, a kill and many waiters at the same time: every waiter returns, and the
// end is published once.
func TestAKillReleasesAllWaiters(t *testing.T) {
	for range 20 {
		env, all := newEnv(t)
		s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
		conn, _ := connection(t)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _, _ = s.Await(t.Context(), proto.StateServing) })
		}
		wg.Go(func() { _ = s.Start(stub(t, "exec cat"), conn) })
		wg.Go(func() { s.Kill("uid 0 pid 7") })
		wg.Wait()
		awaitDone(t, s)
		ends := 0
		for _, e := range all.names() {
			if e == proto.EventFailed || e == proto.EventClosed {
				ends++
			}
		}
		if ends != 1 {
			t.Fatalf("the end was published %d times: %v", ends, all.names())
		}
	}
}

// A session that has failed keeps its cause when it is killed afterwards.
func TestAKillAfterTheEndChangesNothing(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	s.Fail(proto.StageName, "no such host")
	s.Kill("uid 0 pid 1")
	if info := s.Info(); info.Cause != "no such host" || info.Stage != proto.StageName {
		t.Errorf("it ended at %s because %q", info.Stage, info.Cause)
	}
}

// A session whose state cannot be determined keeps its files for a retry.
func TestARestoreThatFailsLeavesTheFiles(t *testing.T) {
	env, all := newEnv(t)
	if err := os.Mkdir(recordPath(env.Dir, 7), 0o700); err != nil { // reading it fails, also for root
		t.Fatal(err)
	}
	if err := os.WriteFile(logPath(env.Dir, 7), []byte(lineConnected+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, left, err := Restore(env)
	if len(found) != 0 || !slices.Equal(left, []int{7}) || err == nil {
		t.Errorf("found %d, left %v, %v", len(found), left, err)
	}
	if _, err := os.Stat(logPath(env.Dir, 7)); err != nil || len(all.names()) != 0 {
		t.Errorf("its log: %v; published %v", err, all.names())
	}
}

// A state file that could not be written is written by a later save.
func TestAFailedStateFileIsWrittenLater(t *testing.T) {
	env, all := newEnv(t)
	s := New(env, 3, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	obstacle := atomicfile.Temporary(recordPath(env.Dir, 3))
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	s.save()
	s.save()
	if got := all.names(); !slices.Equal(got, []string{proto.EventCalling, proto.EventTrouble}) || !s.isUnsaved() {
		t.Errorf("published %v", got)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if s.save(); s.isUnsaved() {
		t.Error("it is not written")
	}
}

// The first of two ends counts, and the published event has its cause.
func TestASessionEndsOnce(t *testing.T) {
	for range 50 {
		env, all := newEnv(t)
		s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
		var both sync.WaitGroup
		both.Go(func() { s.Fail(proto.StageName, "no such host") })
		both.Go(func() { s.Kill("uid 0 pid 7") })
		both.Wait()
		info, events := awaitDone(t, s), all.list()
		if len(events) != 2 || events[1].Session.Cause != info.Cause || events[1].Session.End != info.End {
			t.Fatalf("published %+v, and the session is %+v", events, info)
		}
		if s.Context().Err() == nil {
			t.Fatal("its context has not ended")
		}
	}
}
