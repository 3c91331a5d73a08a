package dial

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAcksAreQuickenedAndRestored(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sock := os.NewFile(uintptr(fd), "socket")
	defer sock.Close()
	delay := func() int {
		d, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DELACK_MAX_US)
		if err != nil {
			return 0
		}
		return d
	}
	if usual := delay(); usual == 0 {
		if QuickenAcks(sock) {
			t.Error("a kernel without the option has quick acknowledgements")
		}
		return
	} else if usual != usualDelay {
		t.Errorf("the kernel's own delay is %d µs, expected %d", usual, usualDelay)
	}
	if !QuickenAcks(sock) {
		t.Error("the kernel has the option, and takes none of the delays")
	}
	if d := delay(); d > delays[len(delays)-1] {
		t.Errorf("quickened, acknowledgements are delayed by up to %d µs", d)
	}
	RestoreAcks(sock)
	if d := delay(); d != usualDelay {
		t.Errorf("restored, the delay is %d µs, expected %d", d, usualDelay)
	}
}

// A socket of another kind, and one that is closed: nothing happens.
func TestNoOtherSocketHasQuickAcks(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[1])
	sock := os.NewFile(uintptr(pair[0]), "socket")
	if QuickenAcks(sock) {
		t.Error("a Unix socket has the option")
	}
	sock.Close()
	if QuickenAcks(sock) {
		t.Error("a closed file has the option")
	}
	RestoreAcks(sock)
}
