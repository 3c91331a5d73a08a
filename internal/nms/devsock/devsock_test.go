package devsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/pubsub"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// testStation is a station whose devices send their name.
type testStation struct {
	changed pubsub.Hub[string]
	mu      sync.Mutex
	devices map[string]nmsproto.State
}

func (h *testStation) set(id string, s nmsproto.State) {
	h.mu.Lock()
	h.devices[id] = s
	h.mu.Unlock()
	h.changed.Publish(id)
}

func (h *testStation) Changes() (<-chan string, func()) {
	_, ids, cancel := h.changed.Subscribe()
	return ids, cancel
}

func (h *testStation) Devices() (out []nmsproto.Device) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, s := range h.devices {
		out = append(out, nmsproto.Device{ID: id, State: s})
	}
	return out
}

func (h *testStation) Device(id string) (nmsproto.Device, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.devices[id]
	return nmsproto.Device{ID: id, State: s}, ok
}

func (h *testStation) Connect(_ context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	_, err := fmt.Fprintf(sock, "I am %s", id)
	return nmsproto.ConnectResult{}, err
}

func own() rpc.Access { return rpc.Access{Full: []uint32{uint32(os.Getgid())}} }

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func ask(path, want string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		return fmt.Errorf("it sent %q, %w", got, errors.Join(err, errors.New("wanted "+want)))
	}
	return nil
}

func TestASocketExistsWhileItsDeviceIsConnected(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "devices")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "old.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	h := &testStation{devices: map[string]nmsproto.State{"a": nmsproto.Connected, "b": nmsproto.NeverSeen}}
	d, err := New(dir, h, own(), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	path := func(id string) string { return filepath.Join(dir, id+Suffix) }
	absent := func(id string) func() error {
		return func() error {
			if _, err := os.Lstat(path(id)); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s is there: %w", id, err)
			}
			return nil
		}
	}
	eventually(t, func() error { return ask(path("a"), "I am a") })
	eventually(t, absent("b"))
	eventually(t, absent("old"))
	h.set("b", nmsproto.Connected)
	eventually(t, func() error { return ask(path("b"), "I am b") })
	h.set("b", nmsproto.Connected) // replaced: the socket stays
	h.set("a", nmsproto.Lost)
	eventually(t, absent("a"))
	if err := ask(path("b"), "I am b"); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
	eventually(t, absent("b"))
}

func TestTheSocketsCloseWithTheStation(t *testing.T) {
	h := &testStation{devices: map[string]nmsproto.State{"a": nmsproto.Connected}}
	d, err := New(t.TempDir(), h, own(), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); d.Run(t.Context()) }()
	h.changed.Close()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("they stay open")
	}
}

func TestAPeerWithoutAccessGetsNoByte(t *testing.T) {
	if os.Getuid() == 0 {
		// Root has access to everything, so the rule itself is tested.
		full, _ := rpc.Access{}.Allows(rpc.Peer{UID: 5})
		if full {
			t.Error("a user without a group has access")
		}
		return
	}
	h := &testStation{devices: map[string]nmsproto.State{"a": nmsproto.Connected}}
	d, err := New(t.TempDir(), h, rpc.Access{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	eventually(t, func() error { return ask(filepath.Join(d.dir, "a.sock"), "") })
	cancel()
	<-done
}

// logLines is a log whose lines a test reads.
type logLines chan string

func (w logLines) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// A device socket without a file descriptor left reports it, and accepts again later.
func TestADeviceSocketOutlivesAShortageOfDescriptors(t *testing.T) {
	h := &testStation{devices: map[string]nmsproto.State{"a": nmsproto.Connected}}
	log := make(logLines, 16)
	d, err := New(t.TempDir(), h, own(), hclog.New(&hclog.LoggerOptions{Output: log}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	path := filepath.Join(d.dir, "a.sock")
	eventually(t, func() error { return ask(path, "I am a") })
	<-log // that session's end
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	var line string
	select {
	case line = <-log:
	case <-time.After(20 * time.Second):
	}
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(line, "cannot accept connections to a device socket; temporary, retry") || !strings.Contains(line, "device=a") {
		t.Errorf("the log has %q", line)
	}
	if err := ask(path, "I am a"); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}
