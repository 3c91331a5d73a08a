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

// ListenUnix listens on a Unix socket at path that every user may connect to. what
// names the socket in errors. It removes a socket that a former daemon left, and
// never another kind of file.
func ListenUnix(path, what string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("creating the directory of the %s socket %q: %w", what, path, err)
	}
	if err := lock(path, what); err != nil {
		return nil, err
	}
	if answered(path) {
		return nil, sysexits.New(sysexits.Usage, "use another path", fmt.Errorf("listening on the %s socket %q: another process listens there", what, path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listening on the %s socket %q: %w", what, path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, sysexits.New(sysexits.Usage, "use another path", fmt.Errorf("listening on the %s socket %q: the file there is not a socket", what, path))
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the former daemon's %s socket %q: %w", what, path, err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on the %s socket %q: %w", what, path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("permitting all users to connect to the %s socket %q: %w", what, path, err)
	}
	return l, nil
}

// lockTime is how long the lock and the listener of a killed daemon may stay in
// use: its children hold both between fork and exec.
const lockTime = 2 * time.Second

// answered reports whether a process still listens at path after lockTime.
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

// lock makes this process the only daemon at path until it ends.
func lock(path, what string) error {
	fd, err := unix.Open(path+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("locking the %s socket %q: %w", what, path, err)
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
		return sysexits.New(sysexits.Unavailable, "stop it first, or use another socket", fmt.Errorf("locking the %s socket %q: another daemon holds it", what, path))
	}
	return fmt.Errorf("locking the %s socket %q: %w", what, path, err)
}
