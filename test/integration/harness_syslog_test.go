//go:build integration

package integration

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// startSyslog listens on /dev/log, as a syslogd would, and writes what comes
// to syslogLog, a line each.
func startSyslog() (stop func(), err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "/dev/log"}); err != nil {
		return nil, fmt.Errorf("listening on /dev/log: %w", err)
	}
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		return nil, err
	}
	// A bound on each read lets the reader end without a second thread's help.
	tick := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		return nil, err
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		message := make([]byte, 64<<10)
		for {
			if n, err := unix.Read(fd, message); err == nil {
				_ = appendFile(syslogLog, string(message[:n])+"\n")
				continue
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	return func() {
		close(end)
		<-ended
		unix.Close(fd)
		os.Remove("/dev/log")
	}, nil
}
