package sshdexec

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// BoundDir makes an existing directory for sshd's logs a tmpfs of size bytes,
// unless it is a mount already: a client that makes its sshd log without limit can
// then fill only that. Log lines that do not fit are lost, sshd continues. The
// mount stays, for the sessions. The error is unix.EPERM where this is not
// permitted, as in many containers.
func BoundDir(dir string, size uint64, mode os.FileMode) error {
	if isMount(dir) {
		return nil
	}
	// Of two callers at once the second must not hide the first one's logs. The lock
	// is on the directory itself, which other users cannot open.
	locked, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("mounting a tmpfs on %q: %w", dir, err)
	}
	defer locked.Close()
	if err := lock(locked, unix.LOCK_EX); err != nil {
		return err
	}
	if isMount(dir) {
		return nil
	}
	options := fmt.Sprintf("mode=%#o,size=%d", mode, size)
	if err := unix.Mount("callhome", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mounting a tmpfs on %q: %w", dir, err)
	}
	return nil
}

// isMount reports whether dir is the root of a mount.
func isMount(dir string) bool {
	var own, parent unix.Stat_t
	return unix.Stat(dir, &own) == nil && unix.Stat(dir+"/..", &parent) == nil && own.Dev != parent.Dev
}
