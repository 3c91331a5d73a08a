package session

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/process"
	"callhome/internal/device/subsystem"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// However late the Watch reads its events, it has them in the order in which they
// happened.
func TestTheWatchKeepsTheOrder(t *testing.T) {
	for events, want := range map[string]happened{
		"":                    {},
		"log":                 {grown: true},
		"end":                 {ended: true},
		"end log":             {grown: true, ended: true},
		"end log log":         {grown: true, ended: true},
		"log end":             {grown: true, ended: true, after: true},
		"log end log":         {grown: true, ended: true, after: true},
		"end log end":         {grown: true, ended: true, after: true}, // the last subsystem counts
		"other":               {},
		"log take end":        {ended: true},
		"log take end log":    {ended: true, grown: true},
		"end take log":        {grown: true},
		"log end take":        {},
		"end held":            {ended: true},
		"end held held-close": {ended: true},
	} {
		t.Run(events, func(t *testing.T) {
			env, _ := newEnv(t)
			env.Watch.add(7, func() {})
			path := func(name string) string { return env.Dir + "/" + name }
			var held *os.File
			for _, event := range strings.Fields(events) {
				switch event {
				case "log":
					appendTo(t, path("7.log"), "line\n")
				case "end":
					open(t, path("7.end")).Close()
				case "held":
					held = open(t, path("7.end"))
				case "held-close":
					held.Close()
				case "other":
					appendTo(t, path("8.log"), "line\n")
					open(t, path("8.end")).Close()
					open(t, path("7.json")).Close()
				case "take":
					env.Watch.take(7)
				}
			}
			if got := env.Watch.take(7); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if held != nil {
				held.Close()
			}
		})
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// reporting is a session whose subsystem is a process of the test's own.
type reporting struct {
	*Session
	t         *testing.T
	end       *os.File // what the subsystem holds
	subsystem process.Identity
	closed    string // sshd's line about the client's close
	station   interface{ Close() error }
}

func newReporting(t *testing.T) *reporting {
	t.Helper()
	env, _ := newEnv(t)
	conn, station := connection(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	pid := t.TempDir() + "/pid"
	cmd := stub(t, at(conn, "printf '%s\\r\\n' '"+lineConnected+"' '"+lineAccepted+"' \""+lineSubsystem+"\" >&2; sleep 600 & echo $! >"+pid+".new; mv "+pid+".new "+pid+"; exec cat"))
	if err := s.Start(cmd, conn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context(), proto.StateServing); err != nil {
		t.Fatal(err)
	}
	r := &reporting{Session: s, t: t, station: station, closed: at(conn, "Connection closed by 192.0.2.1 port 4334\r\n")}
	await(t, "the subsystem's process", func() bool { _, err := os.Stat(pid); return err == nil })
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(child, unix.SIGKILL) })
	s.mu.Lock()
	s.rec.Nonce = "1.x"
	s.mu.Unlock()
	if r.end, err = s.Report(subsystem.Report{PID: child, UID: os.Getuid(), Nonce: "1.x"}); err != nil {
		t.Fatal(err)
	}
	if r.subsystem, err = process.Identify(child); err != nil {
		t.Fatal(err)
	}
	return r
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}

// log writes lines as sshd does.
func (r *reporting) log(lines string) { appendTo(r.t, logPath(r.env.Dir, r.id()), lines) }

// orderly is what the record says now.
func (r *reporting) orderly() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.Orderly
}

// hangUp ends the connection, and sshd with it.
func (r *reporting) hangUp() proto.SessionInfo {
	r.t.Helper()
	r.station.Close()
	return awaitDone(r.t, r.Session)
}

// The session was closed in order where the subsystem ended before sshd logged the
// connection's end, whatever the log says else.
func TestTheOrderOfTheEndsIsTheKernels(t *testing.T) {
	for name, tt := range map[string]struct {
		act      func(r *reporting)
		graceful bool
	}{
		"subsystem first":                {func(r *reporting) { r.end.Close(); r.log(r.closed) }, true},
		"connection first":               {func(r *reporting) { r.log(r.closed); r.end.Close() }, false},
		"connection first, and the rest": {func(r *reporting) { r.log(r.closed + lineFinished + "\r\n"); r.end.Close() }, false},
		"subsystem never":                {func(r *reporting) { r.log(r.closed) }, false},
		"another line first": {func(r *reporting) {
			r.log("Transferred: sent 1\r\n")
			r.end.Close()
			await(r.t, "the end to be seen", r.orderly)
			r.log(lineFinished + "\r\n" + r.closed)
		}, true},
		"neither is logged": {func(r *reporting) { r.end.Close() }, false}, // LogLevel of the operator's own
		"the peer does not answer": {func(r *reporting) {
			r.end.Close()
			r.log("Timeout, client not responding from user netconf 192.0.2.1 port 4334\r\n")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReporting(t)
			tt.act(r)
			if info := r.hangUp(); info.Graceful != tt.graceful || info.Stage != proto.StageSession {
				t.Errorf("it ended as %+v", info)
			}
			r.end.Close()
		})
	}
}

// A subsystem that closes all descriptors that it does not know, and goes on, has
// not ended; its end is then that of its process.
func TestASubsystemThatClosesItsDescriptorsHasNotEnded(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{true, false} {
		r := newReporting(t)
		r.end.Close()
		await(t, "the end of the descriptor", r.orderly)
		await(t, "the end to be taken back", func() bool { return !r.orderly() })
		if ends {
			if err := unix.Kill(r.subsystem.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			await(t, "the end of the process", r.orderly)
		}
		r.log(r.closed)
		if info := r.hangUp(); info.Graceful != ends {
			t.Errorf("ended %v: %+v", ends, info)
		}
	}
}

// A manager that was not there when the subsystem ended knows the order where the
// connection is still open.
func TestALaterManagerKnowsTheOrder(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		act      func(r *reporting)
		graceful bool
	}{
		"subsystem first":  {func(r *reporting) {}, true},
		"connection first": {func(r *reporting) { r.log(r.closed) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReporting(t)
			r.env.Watch.Close() // the earlier manager sees nothing from now on
			r.save()
			tt.act(r)
			if err := errors.Join(r.end.Close(), unix.Kill(r.subsystem.PID, unix.SIGKILL)); err != nil {
				t.Fatal(err)
			}
			await(t, "the end of the process", r.subsystem.Ended)
			later, _ := newEnv(t)
			later.Dir = r.env.Dir
			watch, err := NewWatch(later.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Close()
			later.Watch = watch
			found, _, err := Restore(later)
			if err != nil || len(found) != 1 {
				t.Fatalf("found %v, %v", found, err)
			}
			if tt.graceful {
				await(t, "the order", func() bool { found[0].mu.Lock(); defer found[0].mu.Unlock(); return found[0].rec.Orderly })
			}
			r.log(r.closed)
			r.station.Close()
			if info := awaitDone(t, found[0]); info.Graceful != tt.graceful {
				t.Errorf("it ended as %+v", info)
			}
		})
	}
}

// The end file gives its holder nothing: it is empty, and cannot be written.
func TestTheEndFileIsReadOnly(t *testing.T) {
	r := newReporting(t)
	if _, err := r.end.WriteString("x"); !errors.Is(err, unix.EBADF) {
		t.Errorf("writing: %v", err)
	}
	r.end.Close()
	if info := r.hangUp(); info.State != proto.StateClosed {
		t.Errorf("it is %+v", info)
	}
	if _, err := r.openEnd(); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
	if left, err := os.ReadDir(r.env.Dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// One process that closes two end files, the second as it ends: what was decided then
// is not taken back when its pidfd shows the end.
func TestAnEndIsDecidedOnce(t *testing.T) {
	t.Parallel()
	r := newReporting(t)
	again, err := r.Report(subsystem.Report{PID: r.subsystem.PID, UID: os.Getuid(), Nonce: "1.x"})
	if err != nil {
		t.Fatal(err)
	}
	r.end.Close()
	await(t, "the first end", r.orderly)
	await(t, "the end to be taken back", func() bool { return !r.orderly() })
	again.Close()
	await(t, "the second end", r.orderly)
	r.log(r.closed)
	await(t, "the connection's end", r.closing)
	if err := unix.Kill(r.subsystem.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the process", r.subsystem.Ended)
	if info := r.hangUp(); !info.Graceful {
		t.Errorf("it ended as %+v", info)
	}
}

// A report counts only for the user whose process sends it.
func TestAReportIsItsProcesss(t *testing.T) {
	t.Parallel()
	r := newReporting(t)
	for _, report := range []subsystem.Report{
		{PID: r.subsystem.PID, UID: os.Getuid() + 1, Nonce: "1.x"},
		{PID: r.subsystem.PID, UID: os.Getuid(), Nonce: "1.y"},
		{PID: os.Getpid(), UID: os.Getuid(), Nonce: "1.x"},
	} {
		if f, err := r.Report(report); err == nil {
			f.Close()
			t.Errorf("%+v was taken", report)
		}
	}
	r.mu.Lock()
	r.rec.UID++
	r.mu.Unlock()
	if f, err := r.Report(subsystem.Report{PID: r.subsystem.PID, UID: os.Getuid(), Nonce: "1.x"}); err == nil {
		f.Close()
		t.Error("another user's report was taken")
	}
	r.end.Close()
	r.hangUp()
}
