// Package porttest reserves TCP ports for tests. A port that a test finds free by closing
// its listener can be another process's a moment later: the tests of all packages run at
// the same time. No program imports it.
package porttest

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Reserve returns an address of that IP address that refuses connections until a program
// listens on it. Until the end of the test the kernel gives its port to no other socket,
// but to one that asks for this port with SO_REUSEADDR, as the listeners of Go and of
// OpenSSH do: inet_csk_bind_conflict of Linux lets sockets share a port while none that
// has it listens. IPv4 and IPv6 are reserved apart.
func Reserve(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	addr := netip.MustParseAddr(ip)
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.As16()})
	if addr.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, sa))
	}
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Skipf("this machine has no address %s: %v", ip, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	has, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch own := has.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(addr, uint16(own.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(addr, uint16(own.Port))
	}
	panic("a socket of neither family")
}
