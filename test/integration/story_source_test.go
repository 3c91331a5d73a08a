//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// --local-address and --local-port; the port can be used again at once, though
// the device closed the last connection from it.
func TestLocalAddressAndPort(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		local := net.JoinHostPort("127.0.0.7", freePort())
		for range 2 {
			nms := listen(t, "127.0.0.1:0")
			device := newDevice(t, "/bin/true")
			host, port := splitAddr(t, local)
			device.options = append(device.options, "--local-address", host, "--local-port", port, "--sshd-option", "LoginGraceTime=1")
			use(device)
			start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr())))
			peer := nms.Accept()
			peer.Banner()
			if from := peer.RemoteAddr().String(); from != local {
				t.Errorf("called from %s, want %s", from, local)
			}
			peer.AwaitEOF(patience) // the device is first to close
		}
	})
}

// A local address that is not this machine's is a fault of the configuration.
func TestForeignLocalAddress(t *testing.T) {
	t.Parallel()
	nms := listen(t, "127.0.0.1:0")
	for option, value := range map[string]string{"--local-address": "192.0.2.77", "--interface": "nosuch0", "--netns": "/run/netns/nosuch"} {
		call := newDevice(t, "/bin/true").Call(nms.Addr(), option, value)
		call.MustExit(78)
		oneLine(t, call.Stderr(), strings.TrimPrefix(option, "--"))
	}
	nms.NoCall()
}

// --interface: of two stations with the same address, each behind a cable of
// its own, the one behind that interface is called.
func TestInterface(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		first := newLink(t)
		second := connect(t, first.device, first.port+"b", newNetns(t, first.port+"second"))
		nearby, wanted := listenIn(t, first.nms, nmsV4+":4334"), listenIn(t, second.nms, nmsV4+":4334")
		device := newDevice(t, "/bin/true")
		device.netns = first.device
		device.options = append(device.options, "--interface", second.port)
		use(device)
		start(t, "callhome-trigger", device.Command([]string{nmsV4}))
		wanted.Accept().Banner()
		nearby.NoCall()

		// Without it the kernel takes the first: else this proves nothing.
		device = newDevice(t, "/bin/true")
		device.netns = first.device
		use(device)
		start(t, "callhome-trigger", device.Command([]string{nmsV4}))
		nearby.Accept().Banner()
		wanted.NoCall()
	})
}

// --netns: the connection is made in that namespace; sshd and the session stay
// where the caller is.
func TestNetns(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		link := newLink(t)
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		nms.netns = link.nms
		device.options = append(device.options, "--netns", link.device)
		use(device)
		addr := freeAddr(nmsV4)
		ssh := nms.Netconf(addr)
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
		call.AwaitFamily("cat")
		connection := strings.Fields(probe.Environ()["SSH_CONNECTION"])
		if connection[0] != nmsV4 || connection[2] != deviceV4 {
			t.Errorf("SSH_CONNECTION is %v", connection)
		}
		ours, _ := os.Readlink("/proc/self/ns/net")
		if sshds, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", call.pid)); sshds != ours {
			t.Errorf("sshd is in %s, its caller in %s", sshds, ours)
		}
		ssh.in.Close()
		ssh.MustExit(0)
	})
}

// A zone names the interface of a link-local address.
func TestLinkLocalAddressWithZone(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		link := newLink(t)
		ip(t, "-n "+filepath.Base(link.nms)+" addr add fe80::2/64 nodad dev port")
		ip(t, "-n "+filepath.Base(link.device)+" addr add fe80::1/64 nodad dev "+link.port)
		nms := listenIn(t, link.nms, "[fe80::2%port]:0")
		_, port := splitAddr(t, nms.Addr())
		device := newDevice(t, "/bin/true")
		device.netns = link.device
		use(device)
		start(t, "callhome-trigger", device.Command([]string{"fe80::2%" + link.port, port}))
		nms.Accept().Banner()
	})
}

// The socket's options are there when sshd has it, and stay through the login.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			device, nms := newSite(t, newProbe(t).Command)
			device.options = append(device.options, "--tcp-keepalive", "21,7,3", "--tcp-user-timeout", "33s", "--dscp", "10")
			use(device)
			addr := freeAddr(host)
			ssh := nms.Netconf(addr)
			call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
			session := call.AwaitFamily("cat")
			sock := socketOf(t, session)
			tos := [2]int{unix.IPPROTO_IP, unix.IP_TOS}
			if host == "::1" {
				tos = [2]int{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}
			}
			for _, want := range []struct {
				what               string
				level, option, val int
			}{
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 21},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 33000},
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"the DSCP mark", tos[0], tos[1], 10 << 2},
			} {
				if got, err := unix.GetsockoptInt(sock, want.level, want.option); got != want.val {
					t.Errorf("%s: %s is %d (%v), want %d", host, want.what, got, err, want.val)
				}
			}
			ssh.in.Close()
			ssh.MustExit(0)
		}
	})
}

// socketOf returns a duplicate of the TCP socket that a session's processes
// have open.
func socketOf(t *testing.T, session []proc) int {
	t.Helper()
	for _, p := range session {
		for fd, to := range descriptors(p.pid) {
			if !strings.HasPrefix(to, "socket:") {
				continue
			}
			pidfd, err := unix.PidfdOpen(p.pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			dup, err := unix.PidfdGetfd(pidfd, atoi(t, fd), 0)
			unix.Close(pidfd)
			if err != nil {
				t.Fatal(err)
			}
			if kind, _ := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_PROTOCOL); kind == unix.IPPROTO_TCP {
				t.Cleanup(func() { unix.Close(dup) })
				return dup
			}
			unix.Close(dup)
		}
	}
	t.Fatalf("no process of the session has a TCP socket: %v", session)
	return -1
}
