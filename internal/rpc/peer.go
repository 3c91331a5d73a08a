package rpc

import (
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a connection, as the kernel vouches for
// it (SO_PEERCRED, SO_PEERGROUPS in unix(7)): at the time it connected.
type Peer struct {
	PID    int32
	UID    uint32
	Groups []uint32 // all of them, the primary one among them
}

func (p Peer) String() string { return fmt.Sprintf("uid %d pid %d", p.UID, p.PID) }

// Access says who may call what. Root may call everything.
type Access struct {
	Full  []uint32 // groups that may call every method
	Read  []uint32 // groups that may call those that change nothing
	Group string   // the name of Full's, for who is refused; "" if only root may
}

// Allows reports whether p may call methods: all of them, or the reading ones.
func (a Access) Allows(p Peer) (full, read bool) {
	full = p.UID == 0 || anyOf(p.Groups, a.Full)
	return full, full || anyOf(p.Groups, a.Read)
}

// needs is what a caller lacks who may not call a method.
func (a Access) needs() string {
	if a.Group == "" {
		return " needs root"
	}
	return " needs root or the group " + a.Group
}

func anyOf(have, wanted []uint32) bool {
	return slices.ContainsFunc(have, func(g uint32) bool { return slices.Contains(wanted, g) })
}

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// PeerOf asks the kernel who is at the other end of c.
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

// peerGroups returns the supplementary groups; none where the kernel (before
// 4.13) cannot tell.
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
