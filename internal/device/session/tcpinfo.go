package session

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/process"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// stats returns the kernel's figures of a session's connection, nil on error. It
// borrows sock.
func stats(sock *os.File) *proto.Stats {
	info := tcpInfo(sock)
	if info == nil {
		return nil
	}
	return &proto.Stats{
		BytesSent:     max(info.Bytes_acked, 1) - 1, // the kernel counts the SYN too
		BytesReceived: info.Bytes_received,
		Retransmits:   info.Total_retrans,
		Unacked:       info.Unacked,
		RTT:           time.Duration(info.Rtt) * time.Microsecond,
		LastData:      time.Duration(min(info.Last_data_sent, info.Last_data_recv)) * time.Millisecond,
		LastReceived:  time.Duration(info.Last_data_recv) * time.Millisecond,
	}
}

// tcpInfo returns what the kernel says of a connection (tcp(7)), nil on error or
// without one. It borrows sock.
func tcpInfo(sock *os.File) (info *unix.TCPInfo) {
	if sock == nil {
		return nil
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil
	}
	if raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}) != nil || err != nil {
		return nil
	}
	if info.Snd_mss == 0 { // the answer was short, as qemu-user's: the rest is not known to be 0
		return nil
	}
	return info
}

// takeSocket takes a duplicate of the process's socket for the session. The
// addresses come from the kernel: those in the log can be forged.
func (s *Session) takeSocket(id process.Identity) {
	sock := socketOf(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sock = sock; sock == nil {
		return
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.Getpeername(int(fd)); err == nil {
			s.rec.Remote = sockaddr(peer, s.rec.Remote)
		}
		if own, err := unix.Getsockname(int(fd)); err == nil {
			s.rec.Local = sockaddr(own, s.rec.Local)
		}
	})
}

// sockaddr formats an address as records have it; for another address family it
// returns known.
func sockaddr(sa unix.Sockaddr, known string) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if _, zone, ok := strings.Cut(known, "%"); ok && a.IsLinkLocalUnicast() {
			zone, _, _ = strings.Cut(zone, "]")
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(sa.Port)).String()
	}
	return known
}

// socketOf duplicates a process's connected TCP socket (pidfd_getfd(2)), for
// sessions whose socket this manager did not open. The caller owns it; nil without
// such a socket or without the permission.
func socketOf(id process.Identity) *os.File {
	pidfd, err := id.Open()
	if err != nil {
		return nil
	}
	defer pidfd.Close()
	dir := "/proc/" + strconv.Itoa(id.PID) + "/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		link, err2 := os.Readlink(dir + e.Name())
		if err != nil || err2 != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		if f := duplicate(pidfd, n); f != nil {
			return f
		}
	}
	return nil
}

func duplicate(pidfd *os.File, n int) (f *os.File) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		got, err := unix.PidfdGetfd(int(fd), n, 0)
		if err != nil {
			return
		}
		if !isTCP(got) {
			unix.Close(got)
			return
		}
		unix.CloseOnExec(got)
		f = os.NewFile(uintptr(got), "session socket")
	})
	return f
}

// isTCP reports whether fd is a connected TCP socket.
func isTCP(fd int) bool {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return false
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || protocol != unix.IPPROTO_TCP {
		return false
	}
	switch peer.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		return true
	}
	return false
}

// restoreAcks ends the quick acknowledgements of the login: those of dial.QuickenAcks,
// which the program that connected may have asked for, too. The caller holds s.mu.
func (s *Session) restoreAcks() {
	if s.sock != nil {
		dial.RestoreAcks(s.sock)
	}
}

// quickAckTime bounds quickAck: for a slower login the 40 ms do not matter.
const quickAckTime = 10 * time.Second

// quickAck is dial.QuickenAcks for kernels without that option: it disables delayed
// acknowledgements until the login is done. TCP_QUICKACK is not permanent (tcp(7)), so
// quickAck sets it repeatedly. It returns when done is closed or after quickAckTime.
func quickAck(sock *os.File, done <-chan struct{}) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return
	}
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(quickAckTime); time.Now().Before(end); {
		if raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		}) != nil || err != nil {
			return
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}
