package manager

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/porttest"
	"callhome/internal/proto"
)

var owner = session.Owner{Client: "nms", Endpoint: "a", Config: "4b1d"}

// station returns a listener in place of a management station, and settings with
// its address and an sshd that sends and logs nothing.
func station(t *testing.T, m *Manager) (*settings.Call, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	sshd := filepath.Join(t.TempDir(), "sshd")
	if err := os.WriteFile(sshd, []byte("#!/bin/sh\nexec cat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	with := *m.config.Load().Call
	with.Target = settings.Target{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
	with.Sshd.Sshd, with.Sshd.Subsystem = sshd, "/bin/cat"
	return &with, l
}

func kept(t *testing.T, m *Manager, want int) []*session.Session {
	t.Helper()
	list := m.Kept()
	if len(list) != want {
		t.Fatalf("%d sessions belong to the configuration, expected %d", len(list), want)
	}
	return list
}

// awaitNone returns when all sessions have ended.
func awaitNone(t *testing.T, m *Manager) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); m.Status().Sessions > 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("open sessions: %+v", m.Sessions())
		}
	}
}

func TestKeptSessionsAreRestoredWithTheirOwner(t *testing.T) {
	m := newManager(t)
	with, _ := station(t, m)
	made, err := m.Keep(with, owner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.Await(t.Context(), proto.StateStarting); err != nil {
		t.Fatal(err)
	}
	m.SetConfig(&Config{Call: with})
	if _, err := m.Call(t.Context(), proto.CallParams{Host: with.Host, Port: with.Port}); err != nil {
		t.Fatal(err)
	}
	if got := kept(t, m, 1)[0]; got != made || got.Owner() != owner {
		t.Errorf("kept is %+v", got.Info())
	}
	if n := len(m.Sessions()); n != 2 {
		t.Errorf("%d sessions", n)
	}

	// The next manager restores it with its owner.
	m.Stop()
	m.lock.Close() // as when its process ends
	next, err := New("2", m.env.Dir, m.config.Load())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Stop()
	if err := next.Restore(); err != nil {
		t.Fatal(err)
	}
	if got := kept(t, next, 1)[0]; got.Owner() != owner {
		t.Errorf("kept by the next manager is %+v", got.Info())
	}
	for _, s := range next.Sessions() {
		if _, err := next.Kill(s.Session, "the test"); err != nil {
			t.Error(err)
		}
	}
	awaitNone(t, next)
	kept(t, next, 0)
	awaitNone(t, m)
}

// Keep returns before the connection is made; the session has the failure.
func TestAKeptCallThatIsRefused(t *testing.T) {
	m := newManager(t)
	with, _ := station(t, m)
	with.Port = porttest.Reserve(t, "127.0.0.1").Port()
	made, err := m.Keep(with, owner)
	if err != nil {
		t.Fatal(err)
	}
	<-made.Done()
	if info := made.Info(); info.Stage != proto.StageTCP || info.End != proto.EndNoConnection || info.Client != "nms" {
		t.Errorf("it ended as %+v", info)
	}
	awaitNone(t, m)
	kept(t, m, 0)
}

func TestAStoppingManagerKeepsNothing(t *testing.T) {
	m := newManager(t)
	with, _ := station(t, m)
	m.Stop()
	made, err := m.Keep(with, owner)
	var e *proto.Error
	if made != nil || !errors.As(err, &e) || e.Code != proto.CodeShutdown {
		t.Errorf("%v, %v", made, err)
	}
}

func TestPublishReachesTheSubscribers(t *testing.T) {
	m := newManager(t)
	_, events, cancel := m.SubscribeSince()
	defer cancel()
	m.Publish(proto.Event{Event: proto.EventConfigApplied, Text: "2 clients"})
	if e := <-events; e.Event != proto.EventConfigApplied || e.Text != "2 clients" {
		t.Errorf("got %+v", e)
	}
	if st := m.Status(); st.Failed != 0 {
		t.Errorf("%d calls failed", st.Failed)
	}
}
