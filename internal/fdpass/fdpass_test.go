package fdpass

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketpair returns two connected Unix sockets.
func socketpair(t testing.TB, kind int) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// anyFile returns an open file that holds text, at its beginning.
func anyFile(t testing.TB, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// sendRights sends data with files beside it, as another program might.
func sendRights(t testing.TB, c *net.UnixConn, data string, files ...*os.File) {
	t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix([]byte(data), oob, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDescriptorArrivesWithItsBytes(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	f := anyFile(t, "content")
	before := openDescriptors(t)
	if err := Send(a, []byte("line\n"), f); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, got, err := Recv(b, buf)
	if err != nil || string(buf[:n]) != "line\n" {
		t.Fatalf("received %q, %v", buf[:n], err)
	}
	if flags, err := unix.FcntlInt(got.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor would survive an exec: flags %#x, %v", flags, err)
	}
	// Sent away is lent: the sender still has it.
	if _, err := f.Stat(); err != nil {
		t.Errorf("the sender's own file: %v", err)
	}
	if text, err := io.ReadAll(got); err != nil || string(text) != "content" {
		t.Errorf("the descriptor reads %q, %v", text, err)
	}
	got.Close()
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func TestSendRefuses(t *testing.T) {
	a, _ := socketpair(t, unix.SOCK_STREAM)
	closed := anyFile(t, "")
	closed.Close()
	gone, other := socketpair(t, unix.SOCK_STREAM)
	other.Close()
	for _, tt := range []struct {
		name string
		to   *net.UnixConn
		data string
		file *os.File
		says string
	}{
		{"no data", a, "", anyFile(t, ""), "passing a descriptor: without a byte of data it cannot travel"},
		{"a closed file", a, "x", closed, "use of closed file"},
		{"a peer that has gone", gone, "x", anyFile(t, ""), "broken pipe"},
		// The socket's buffer holds far less, and no program reads.
		{"more than the socket takes", a, strings.Repeat("x", 16<<20), anyFile(t, ""), "of 16777216 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Send(tt.to, []byte(tt.data), tt.file)
			if err == nil || !strings.HasPrefix(err.Error(), "passing ") || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("says %v, want %q in it", err, tt.says)
			}
		})
	}
}

// The socket that is passed on belongs to others too: its mode stays as it is.
func TestSendLeavesTheFileNonBlocking(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	p, _ := socketpair(t, unix.SOCK_STREAM)
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Send(a, []byte("x"), f); err != nil {
		t.Fatal(err)
	}
	_, got, err := Recv(b, make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	raw, err := got.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("the socket became blocking: flags %#x, %v", flags, err)
		}
	})
}

func TestRecvRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files int
		creds bool // the receiver asks for the sender's credentials as well
		want  error
	}{
		{"none", 0, false, ErrNone},
		{"two", 2, false, ErrMany},
		{"three", 3, false, ErrTruncated},
		{"as many as the kernel sends", 253, false, ErrTruncated},
		{"credentials", 0, true, ErrTruncated},
		{"credentials and one", 1, true, ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketpair(t, unix.SOCK_STREAM)
			if tt.creds {
				askForCredentials(t, b)
			}
			f := anyFile(t, "")
			before := openDescriptors(t)
			files := make([]*os.File, tt.files)
			for i := range files {
				files[i] = f
			}
			sendRights(t, a, "data", files...)
			buf := make([]byte, 16)
			n, got, err := Recv(b, buf)
			if got != nil || !errors.Is(err, tt.want) || string(buf[:n]) != "data" {
				t.Errorf("received %q, %v, %v, want %v", buf[:n], got, err, tt.want)
			}
			if open := openDescriptors(t); open != before {
				t.Errorf("%d descriptors are left", open-before)
			}
		})
	}
}

func askForCredentials(t testing.TB, c *net.UnixConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	ctl := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err := errors.Join(ctl, set); err != nil {
		t.Fatal(err)
	}
}

// The end is io.EOF itself: readers of a stream compare.
func TestEndOfStreamIsEOF(t *testing.T) {
	for _, tt := range []struct {
		name string
		read func(*net.UnixConn) error
	}{
		{"Recv", func(c *net.UnixConn) error { _, _, err := Recv(c, make([]byte, 16)); return err }},
		{"Reader", func(c *net.UnixConn) error { _, err := NewReader(c).Read(make([]byte, 16)); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketpair(t, unix.SOCK_STREAM)
			a.Close()
			if err := tt.read(b); err != io.EOF {
				t.Errorf("%v, want io.EOF", err)
			}
		})
	}
}

func TestRightsUnderstandsWhatTheKernelWrites(t *testing.T) {
	creds := unix.UnixCredentials(&unix.Ucred{Pid: 1})
	timestamp := bytes.Clone(unix.UnixRights(0))
	binary.NativeEndian.PutUint32(timestamp[unix.SizeofCmsghdr-4:], unix.SCM_TIMESTAMP) // struct cmsghdr: size, level, type
	for _, tt := range []struct {
		name    string
		oob     []byte
		fds     int
		foreign bool
	}{
		{"nothing", nil, 0, false},
		{"one descriptor", unix.UnixRights(7), 1, false},
		{"two in one message", unix.UnixRights(7, 8), 2, false},
		{"two messages", append(unix.UnixRights(7), unix.UnixRights(8)...), 2, false},
		{"credentials", creds, 0, true},
		{"credentials before a descriptor", append(bytes.Clone(creds), unix.UnixRights(7)...), 1, true},
		{"a descriptor before credentials", append(unix.UnixRights(7), creds...), 1, true},
		{"another kind of the same level", timestamp, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fds, foreign := rights(tt.oob)
			if len(fds) != tt.fds || foreign != tt.foreign {
				t.Errorf("descriptors %v, foreign %v, want %d and %v", fds, foreign, tt.fds, tt.foreign)
			}
		})
	}
}

// play sends anything that the kernel lets a peer send. Each byte of plan is one
// message: six bits say how many descriptors come with it, one asks for
// credentials beside them and one for a longer message. It closes c.
func play(t testing.TB, c *net.UnixConn, f *os.File, plan []byte) {
	t.Helper()
	for _, step := range plan {
		var oob []byte
		if n := int(step & 0x3f); n > 0 {
			fds := make([]int, n)
			for i := range fds {
				fds[i] = int(f.Fd())
			}
			oob = unix.UnixRights(fds...)
		}
		if step&0x40 != 0 {
			oob = append(oob, unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})...)
		}
		if _, _, err := c.WriteMsgUnix(bytes.Repeat([]byte{'x'}, 1+int(step>>7)*100), oob, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
}

// maxPlan is what the socket's buffer surely holds.
const maxPlan = 16

func FuzzRecv(f *testing.F) {
	f.Add([]byte{1}, false, uint8(64))
	f.Add([]byte{0, 1, 2, 3}, false, uint8(64))
	f.Add([]byte{0x41, 0x40, 0x81, 0x01}, true, uint8(1))
	f.Add([]byte{0x3f, 0x01}, false, uint8(0))
	f.Add([]byte{}, true, uint8(5))
	f.Fuzz(func(t *testing.T, plan []byte, passcred bool, size uint8) {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		a, b := socketpair(t, unix.SOCK_STREAM)
		if passcred {
			askForCredentials(t, b)
		}
		before := openDescriptors(t)
		play(t, a, file, plan[:min(len(plan), maxPlan)])
		buf := make([]byte, 1+int(size))
		for {
			n, got, err := Recv(b, buf)
			if (got != nil) == (err != nil) {
				t.Fatalf("a file %v with error %v", got, err)
			}
			if got != nil {
				if flags, err := unix.FcntlInt(got.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("the descriptor would survive an exec: flags %#x, %v", flags, err)
				}
				got.Close()
			}
			if n == 0 {
				break
			}
		}
		if left := openDescriptors(t) - (before - 1); left != 0 { // a is closed
			t.Errorf("%v, credentials %v: %d descriptors are left", plan, passcred, left)
		}
	})
}
