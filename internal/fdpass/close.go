package fdpass

import (
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// lingerTime is how long a close may take.
const lingerTime = 50 * time.Millisecond

// Close closes a descriptor that a peer sent, or a Unix socket in which such
// descriptors may wait unread. The sender decides how long the close of a socket
// takes (SO_LINGER in socket(7)), also of one inside another, and the last
// close is ours. A signal ends the kernel's wait, not the close.
func Close(c io.Closer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, thread := os.Getpid(), unix.Gettid()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(lingerTime):
				// The runtime takes SIGURG for its own at any time. One that
				// comes too late means nothing, one too early is not the last.
				_ = unix.Tgkill(pid, thread, unix.SIGURG)
			}
		}
	}()
	return c.Close()
}
