package dial

import (
	"os"

	"golang.org/x/sys/unix"
)

// delays are tried in this order. The kernel takes at least two of its ticks: 2 ms
// at 1000 Hz, 8 ms at 250 Hz, 20 ms at 100 Hz.
var delays = []int{2000, 8000, 20000}

// usualDelay is the kernel's own value, TCP_DELACK_MAX of net/tcp.h.
const usualDelay = 200_000

// QuickenAcks has the kernel delay acknowledgements on sock as little as it can, and
// reports whether this kernel has an option for that, as Linux 6.18 has. The stock ssh
// client sends two small segments during the login, without TCP_NODELAY, and waits for
// the acknowledgement of the first: 40 ms without QuickenAcks. The option belongs to
// the socket, so it survives exec.
func QuickenAcks(sock *os.File) bool { return setDelay(sock, delays...) }

// RestoreAcks undoes QuickenAcks. After a login every answer carries an
// acknowledgement, and quick ones are packets of their own.
func RestoreAcks(sock *os.File) { setDelay(sock, usualDelay) }

// setDelay sets the first delay that the kernel accepts. It borrows sock.
func setDelay(sock *os.File, delays ...int) (ok bool) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		for _, d := range delays {
			if unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DELACK_MAX_US, d) == nil {
				ok = true
				return
			}
		}
	})
	return ok
}
