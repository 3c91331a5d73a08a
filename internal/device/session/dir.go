package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// PrepareDir creates the directory of the sessions' files. With size (bytes) it is a
// tmpfs of that size (sshdexec.BoundDir), also for the time when no manager runs.
func PrepareDir(dir string, size uint64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the sessions' directory: %w", err)
	}
	if size == 0 {
		return nil
	}
	return sshdexec.BoundDir(dir, size, 0o700)
}

// lockTime bounds the wait for the lock.
const lockTime = 2 * time.Second

// LockDir makes this the only manager of a state directory, whatever its socket:
// two would use the same session numbers and end each other's sessions. The kernel
// releases the lock when the process ends. The caller owns the file and keeps it
// open.
func LockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the sessions' directory: %w", err)
	}
	// Children of a killed manager hold the lock until their exec.
	for end := time.Now().Add(lockTime); ; time.Sleep(5 * time.Millisecond) {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, sysexits.New(sysexits.Unavailable, "stop it first, or use another --state-dir", fmt.Errorf("another callhome-mgr has the sessions in %s", dir))
		}
		return nil, fmt.Errorf("locking the sessions' directory: %w", err)
	}
	return f, nil
}
