// Package announce reads what a device that calls home says of itself before
// SSH begins: its id in the version string, or in the lines of Junos
// outbound-ssh before it (callhome-trigger's --device-id and --announce). The
// bytes stay in the socket, so that whoever gets it next, stock ssh say, reads
// them too. `callhome-nms accept --device` calls it. What it returns is a
// claim and proves nothing: that is the host key's part.
package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// most is how many bytes are looked at: more than a device's few lines.
const most = 4 << 10

// ID waits for the device's version string and returns the id that it claims,
// "" for none. No byte is taken from the connection, and none is sent.
func ID(ctx context.Context, conn *net.TCPConn) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, most)
	var id string
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
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
			return false // more wakes us
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

// hungUp reports whether nothing more comes, while what came is still there.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// parse finds the id in what came so far; whole is true once the version string
// is there (RFC 4253 section 4.2), before which more may come.
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

// lastComment is the last of the words behind the software's: where
// callhome-trigger puts the id, behind what the distribution has there.
func lastComment(version string) string {
	words := strings.Fields(version)
	if len(words) < 2 {
		return ""
	}
	return words[len(words)-1]
}
