package session

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/inotify"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

var nms = Owner{Client: "nms \"1\"", Endpoint: "first", Config: "4b1d"}

// serving starts a session whose client has logged in.
func serving(t *testing.T, env *Env, owner Owner) *Session {
	t.Helper()
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", owner)
	conn, _ := connection(t)
	cmd := stub(t, at(conn, "printf '%s\\r\\n' '"+lineConnected+"' '"+lineAccepted+"' \""+lineSubsystem+"\" >&2; exec cat"))
	if err := s.Start(cmd, conn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context(), proto.StateServing); err != nil {
		t.Fatal(err)
	}
	return s
}

// A later manager restores a session with its owner, and can end it.
func TestASessionKeepsItsOwner(t *testing.T) {
	env, all := newEnv(t)
	s := serving(t, env, nms)
	if got := s.Owner(); got != nms {
		t.Errorf("it belongs to %+v", got)
	}
	if info := s.Info(); info.Client != nms.Client || info.Endpoint != nms.Endpoint {
		t.Errorf("the session is %+v", info)
	}
	for _, e := range all.list() {
		if e.Session.Client != nms.Client {
			t.Errorf("%s has the client %q", e.Event, e.Session.Client)
		}
	}
	later, _ := newEnv(t)
	later.Dir = env.Dir
	found, _, err := Restore(later)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	if got := found[0].Owner(); got != nms {
		t.Errorf("after Restore it belongs to %+v", got)
	}
	found[0].End(proto.EndSilent, "no answer to keepalives")
	if info := awaitDone(t, found[0]); info.End != proto.EndSilent || info.Cause != "no answer to keepalives" || info.Graceful {
		t.Errorf("after Restore it ended as %+v", info)
	}
	awaitDone(t, s)
}

func TestASessionOnRequestHasNoOwner(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	if got := s.Owner(); got != (Owner{}) {
		t.Errorf("it belongs to %+v", got)
	}
	s.Kill("the test")
}

// The first end and cause given to End are published, and some ends are graceful.
func TestTheFirstEndAndCauseArePublished(t *testing.T) {
	for end, graceful := range map[proto.End]bool{
		proto.EndKilled: true, proto.EndIdle: true, proto.EndSilent: false, proto.EndLoginTimeout: false,
	} {
		t.Run(string(end), func(t *testing.T) {
			env, all := newEnv(t)
			s := serving(t, env, nms)
			s.End(end, "the first reason")
			s.End(proto.EndRefused, "another one")
			info := awaitDone(t, s)
			if info.End != end || info.Cause != "the first reason" || info.Graceful != graceful || info.Stage != proto.StageSession {
				t.Errorf("it ended as %+v", info)
			}
			if got := all.names(); got[len(got)-1] != proto.EventClosed {
				t.Errorf("published %v", got)
			}
		})
	}
}

func TestEndBeforeTheLogin(t *testing.T) {
	env, all := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", nms)
	conn, _ := connection(t)
	if err := s.Start(stub(t, "exec cat"), conn); err != nil {
		t.Fatal(err)
	}
	s.End(proto.EndLoginTimeout, "no login within 20s")
	if info := awaitDone(t, s); info.End != proto.EndLoginTimeout || info.Graceful || info.Cause != "no login within 20s" {
		t.Errorf("it ended as %+v", info)
	}
	if got := all.names(); got[len(got)-1] != proto.EventFailed {
		t.Errorf("published %v", got)
	}

	env, _ = newEnv(t)
	s = New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", nms)
	s.End(proto.EndKilled, "its endpoint is another one")
	s.End(proto.EndRefused, "another reason")
	if info := awaitDone(t, s); info.End != proto.EndKilled || info.Stage != proto.StageTCP || info.Graceful || info.Cause != "its endpoint is another one" {
		t.Errorf("without a connection it ended as %+v", info)
	}
}

// A manager killed right after it started sshd has not written the process yet.
// The next one finds the process by its log, and the owner in the log's first line.
func TestASessionIsRestoredWithoutItsProcessOnDisk(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1, Opaque: "ticket"}, "manager", nms)
	conn, _ := connection(t)
	notes, err := inotify.Open(env.Dir, inotify.Changes)
	if err != nil {
		t.Fatal(err)
	}
	defer notes.Close()
	if err := s.Start(stub(t, "exec cat"), conn); err != nil {
		t.Fatal(err)
	}
	written, name := make(chan struct{}, 100), filepath.Base(recordPath(env.Dir, 1))
	go notes.Follow(func(e inotify.Event) {
		if e.Name == name && e.Mask&unix.IN_MOVED_TO != 0 {
			written <- struct{}{}
		}
	})
	select {
	case <-written:
	case <-time.After(20 * time.Second):
		t.Fatal("the state file was not written")
	}
	if err := os.Remove(recordPath(env.Dir, 1)); err != nil {
		t.Fatal(err)
	}
	later, _ := newEnv(t)
	later.Dir = env.Dir
	found, _, err := Restore(later)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	info := found[0].Info()
	if found[0].Owner() != nms || info.Remote != conn.Remote.String() || info.PID != s.Info().PID || info.State != proto.StateStarting || info.Opaque != "ticket" || info.Stats == nil {
		t.Errorf("found %+v of %+v", info, found[0].Owner())
	}
	found[0].End(proto.EndKilled, "the test")
	awaitDone(t, s)

	// Where sshd had not been started, nothing is left.
	env, _ = newEnv(t)
	s = New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", nms)
	log, err := s.openLog()
	if err != nil {
		t.Fatal(err)
	}
	log.Close()
	if found, _, err := Restore(env); err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
	if left, err := os.ReadDir(env.Dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
