package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// ListenUnix opens a Unix socket at path that every user may connect to, for
// what it is called. A socket that a former daemon left is removed; a file of
// another kind stays.
func ListenUnix(path, what string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the %s socket: %w", what, err)
	}
	if err := lock(path, what); err != nil {
		return nil, err
	}
	if answered(path) {
		return nil, sysexits.New(sysexits.Usage, "use another path", fmt.Errorf("somebody else answers at the %s socket %s", what, path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("looking for the %s socket: %w", what, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, sysexits.New(sysexits.Usage, "use another path", fmt.Errorf("%s is there and is no socket", path))
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a former daemon's socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening at the %s socket: %w", what, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("opening the %s socket for callers: %w", what, err)
	}
	return l, nil
}

// lockTime is how long a lock may stay that a daemon had who was killed: its
// children have it too between fork and exec, as they have its listener, so to
// ask whether somebody answers would tell less.
const lockTime = 2 * time.Second

// answered reports whether somebody listens at path and goes on doing so: a
// killed daemon's children do, until they have executed.
func answered(path string) bool {
	for end := time.Now().Add(lockTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		conn.Close()
	}
	return true
}

// lock makes this the only daemon at path, for as long as the process lives.
func lock(path, what string) error {
	fd, err := unix.Open(path+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("locking the %s socket: %w", what, err)
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil // fd stays open
		}
		if err != unix.EWOULDBLOCK || time.Now().After(end) {
			break
		}
	}
	unix.Close(fd)
	if err == unix.EWOULDBLOCK {
		return sysexits.New(sysexits.Unavailable, "stop it first, or use another socket", fmt.Errorf("a daemon runs already, it has the %s socket %s", what, path))
	}
	return fmt.Errorf("locking the %s socket: %w", what, err)
}
