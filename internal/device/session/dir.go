package session

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// PrepareDir creates the directory of the sessions' files. With size (bytes) it
// mounts a tmpfs of that size there, unless dir is a mount already: a client that
// makes its sshd log without limit can then fill only that, also while no manager
// runs. Log lines that do not fit are lost, sshd continues. The mount stays when
// the manager exits, for its sessions.
func PrepareDir(dir string, size uint64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the sessions' directory: %w", err)
	}
	if size == 0 || isMount(dir) {
		return nil
	}
	options := "mode=0700,size=" + strconv.FormatUint(size, 10)
	if err := unix.Mount("callhome", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mounting a tmpfs on the sessions' directory %q: %w", dir, err)
	}
	return nil
}

// isMount reports whether dir is the root of a mount.
func isMount(dir string) bool {
	var own, parent unix.Stat_t
	return unix.Stat(dir, &own) == nil && unix.Stat(dir+"/..", &parent) == nil && own.Dev != parent.Dev
}
