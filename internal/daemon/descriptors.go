package daemon

import (
	"math"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kept is how many file descriptors a daemon keeps for itself: for its control socket,
// its metrics and its files. What any peer can have many of gets no descriptor of these.
const Kept = 64

// KeptForRoot is how many of them only root's connections to the control socket get.
const KeptForRoot = 16

// Descriptors returns the limit of the process's file descriptors. The Go runtime has
// raised it to the hard limit, so it stays.
var Descriptors = sync.OnceValue(func() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return math.MaxInt64
	}
	return min(uint64(l.Cur), math.MaxInt64)
})

// IsKept reports whether a connection has one of the last n descriptors. The kernel
// gives the lowest number that is free: if no peer's connection stays at one of the last
// n, so many are left for the daemon, whatever else is open.
func IsKept(c syscall.Conn, n uint64) bool { return isLast(c, n, Descriptors()) }

// IsKeptNumber is IsKept with Kept, for a descriptor.
func IsKeptNumber(fd int) bool { return uint64(fd)+Kept >= Descriptors() }

func isLast(c syscall.Conn, n, limit uint64) (last bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { last = uint64(fd)+n >= limit })
	return last
}
