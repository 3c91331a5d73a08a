package fdpass

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lingering returns a TCP socket whose last close takes minutes: it has more
// to send than its peer reads.
func lingering(t *testing.T) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	for err = unix.SetNonblock(fd, true); err == nil; {
		_, err = unix.Write(fd, make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 300}); err != nil {
		t.Fatal(err)
	}
	return f
}

// The sender of a socket does not decide how long its close takes here.
func TestCloseTakesNoTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		what func(t *testing.T) io.Closer
	}{
		{"a socket", func(t *testing.T) io.Closer { return lingering(t) }},
		{"a connection with one in it", func(t *testing.T) io.Closer {
			a, b := socketpair(t, unix.SOCK_STREAM)
			f := lingering(t)
			sendRights(t, a, "x", f)
			f.Close() // it is not the last one
			return b
		}},
		{"a connection with many in it", func(t *testing.T) io.Closer {
			a, b := socketpair(t, unix.SOCK_STREAM)
			for range 5 {
				f := lingering(t)
				sendRights(t, a, "x", f)
				f.Close()
			}
			return b
		}},
		{"a connection with one in one in it", func(t *testing.T) io.Closer {
			a, b := socketpair(t, unix.SOCK_STREAM)
			in, out := socketpair(t, unix.SOCK_STREAM)
			f := lingering(t)
			sendRights(t, in, "x", f)
			f.Close()
			carrier, err := out.File()
			if err != nil {
				t.Fatal(err)
			}
			sendRights(t, a, "x", carrier)
			carrier.Close()
			out.Close()
			return b
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			what := tt.what(t)
			begun := time.Now()
			if err := Close(what); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	}
}
