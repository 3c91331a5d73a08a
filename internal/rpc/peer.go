package rpc

import (
	"context"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process that connected, with the ids that it had then, as the
// kernel gives them (SO_PEERCRED and SO_PEERGROUPS in unix(7)).
type Peer struct {
	PID    int32
	UID    uint32
	Groups []uint32 // all of them, the primary one among them
}

func (p Peer) String() string { return fmt.Sprintf("uid %d pid %d", p.UID, p.PID) }

// peerKey is the key of a context's peer.
type peerKey struct{}

// WithPeer returns a context that says for whom a call is made.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns for whom a call is made; the context of a method's handler says it.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// PeerOf asks the kernel which process connected to c.
func PeerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var optErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); optErr != nil {
			return
		}
		p.PID, p.UID, p.Groups = cred.Pid, cred.Uid, append(peerGroups(fd), cred.Gid)
	})
	if err == nil {
		err = optErr
	}
	return p, err
}

// peerGroups returns the supplementary groups; none before Linux 4.13, which has
// no SO_PEERGROUPS.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE && len(groups) < maxGroups {
			groups = make([]uint32, min(int(size/4), maxGroups))
			continue
		}
		if errno != 0 {
			return nil
		}
		return groups[:size/4]
	}
}
