// Package announce reads the id that a device announces before SSH begins: in its
// version string, or in the lines of Junos outbound-ssh before that (the options
// --device-id and --announce of callhome-trigger). `callhome-nms accept --device`
// calls it. It never takes a byte out of the socket, so that ssh reads them all. The
// id proves nothing: only the host key does.
package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// most bounds the bytes up to the end of the version string: more than the few lines of
// outbound-ssh. The kernel holds them anyway, ID takes a buffer for each look alone.
const most = 16 << 10

var buffers = sync.Pool{New: func() any { return new([most]byte) }}

// ID waits for the device's version string and returns the announced id, "" if there
// is no id. It takes no byte from the connection and sends none.
func ID(ctx context.Context, conn *net.TCPConn) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var id string
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		buf := buffers.Get().(*[most]byte)
		defer buffers.Put(buf)
		n, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			readErr = err
			return true
		}
		claim, whole := parse(string(buf[:n]))
		switch {
		case whole:
			id = claim
		case n == len(buf):
			readErr = fmt.Errorf("there is no SSH version string in its first %d bytes", most)
		case n == 0 || hungUp(fd):
			readErr = errors.New("it closed the connection before its SSH version string")
		default:
			return false // the next bytes wake the read
		}
		return true
	})
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", err
	}
	return id, readErr
}

// hungUp reports whether the peer has closed its sending side. Bytes that came before
// are still in the socket.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// parse finds the id in the bytes so far. whole is true once they have the whole
// version string; other lines may come before it (RFC 4253 section 4.2).
func parse(text string) (id string, whole bool) {
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		line = strings.TrimSuffix(line, "\r")
		switch {
		case !ended:
			return "", false
		case strings.HasPrefix(line, "SSH-"):
			if id == "" {
				id = lastComment(line)
			}
			return id, true
		}
		if value, ok := strings.CutPrefix(line, "DEVICE-ID:"); ok && id == "" {
			id = strings.TrimSpace(value)
		}
	}
	return "", false
}

// lastComment returns the last field after the software version. callhome-trigger
// puts the id there, after the distribution's own comment.
func lastComment(version string) string {
	fields := strings.Fields(version)
	if len(fields) < 2 {
		return ""
	}
	return fields[len(fields)-1]
}
