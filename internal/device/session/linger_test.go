package session

import (
	"net"
	"os"
	"testing"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// Who handed a socket over can still set SO_LINGER on it. The end of its session
// does not wait for a peer that reads nothing.
func TestALingeringSocketDoesNotHoldTheEnd(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, station := connection(t)
	if err := station.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.FcntlInt(conn.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(dup), "duplicate")
	if err := s.Start(stub(t, "head -c 100000000 /dev/zero; exec sleep 60"), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context(), proto.StateStarting); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptLinger(dup, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 300}); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s.Kill("a test")
	awaitDone(t, s) // well within those 300 s
}
