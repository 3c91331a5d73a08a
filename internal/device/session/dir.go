package session

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// PrepareDir makes the directory of the sessions' files. With size (bytes) it
// becomes a tmpfs of its own of at most that much, unless it is one already: a
// client that makes its sshd log without end can then fill that and nothing
// else, also while no manager reads; what does not fit is lost to the log, and
// sshd goes on. The mount stays when the manager ends, for its sessions.
func PrepareDir(dir string, size uint64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the sessions' directory: %w", err)
	}
	if size == 0 || isMount(dir) {
		return nil
	}
	options := "mode=0700,size=" + strconv.FormatUint(size, 10)
	if err := unix.Mount("callhome", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("bounding the sessions' directory %s: %w", dir, err)
	}
	return nil
}

// isMount reports whether dir is the root of a mount.
func isMount(dir string) bool {
	var own, parent unix.Stat_t
	return unix.Stat(dir, &own) == nil && unix.Stat(dir+"/..", &parent) == nil && own.Dev != parent.Dev
}
