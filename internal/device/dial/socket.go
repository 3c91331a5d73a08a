package dial

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// localError is a failure of this machine, the same whatever the address.
type localError struct {
	doing string
	err   error
}

func (e *localError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func isLocal(err error) bool {
	var l *localError
	return errors.As(err, &l)
}

// attempt is one connect(2) under way; it owns fd.
type attempt struct {
	fd   int
	addr netip.AddrPort
}

// start makes the socket and begins to connect it.
func start(addr netip.AddrPort, o Options) (attempt, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := socketIn(o.Netns, family)
	if err != nil {
		return attempt{}, err
	}
	if err := configure(fd, family, o); err != nil {
		unix.Close(fd)
		return attempt{}, err
	}
	to, err := sockaddr(fd, addr)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return attempt{}, err
	}
	return attempt{fd, addr}, nil
}

// socketIn makes a non-blocking TCP socket in the network namespace of the file
// netns, or in our own. Only socket(2) runs there: a socket stays in the
// namespace it was made in, and sshd and the NETCONF server belong to ours.
func socketIn(netns string, family int) (fd int, err error) {
	err = InNetns(netns, func() error {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err == unix.EAFNOSUPPORT {
			return err // of this address only
		}
		return local("making a socket", err)
	})
	return fd, err
}

// ErrNotNetns reports that a file exists but is not a network namespace.
var ErrNotNetns = errors.New("not a network namespace")

// Try makes a socket as Dial would, in the namespace and with the interface,
// address and options of o, and closes it. It returns the error that Dial would
// return for this machine, and sends nothing.
func Try(o Options) error {
	family := unix.AF_INET
	if a := o.LocalAddress.Unmap(); a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := socketIn(o.Netns, family)
	if err == unix.EAFNOSUPPORT && !o.LocalAddress.IsValid() {
		family = unix.AF_INET6
		fd, err = socketIn(o.Netns, family)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return configure(fd, family, o)
}

// InNetns runs f on a thread that is in the network namespace of the file path;
// with "", on the current thread. f must not leave the thread. Errors other than f's
// own are failures of this machine.
func InNetns(path string, f func() error) error {
	if path == "" {
		return f()
	}
	target, err := os.Open(path)
	if err != nil {
		return local("opening the network namespace", err)
	}
	defer target.Close()
	// A namespace belongs to a thread: keep the goroutine on it, and let the
	// thread end with the goroutine (no unlock) if it cannot go back.
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return local("opening our own network namespace", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		if err == unix.EINVAL {
			err = ErrNotNetns
		}
		return local("entering the network namespace "+path, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return local("leaving the network namespace "+path, back)
	}
	runtime.UnlockOSThread()
	return err
}

// configure sets what has to be set before connect(2).
func configure(fd, family int, o Options) error {
	rows := []struct {
		on                   bool
		doing                string
		level, option, value int
	}{
		{true, "setting TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{o.KeepAlive.Idle > 0, "setting SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{o.KeepAlive.Idle > 0, "setting TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, o.KeepAlive.Idle},
		{o.KeepAlive.Interval > 0, "setting TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, o.KeepAlive.Interval},
		{o.KeepAlive.Count > 0, "setting TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepAlive.Count},
		{o.UserTimeout > 0, "setting TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds())},
		{o.DSCP != nil && family == unix.AF_INET, "setting the DSCP", unix.IPPROTO_IP, unix.IP_TOS, dscp(o)},
		{o.DSCP != nil && family == unix.AF_INET6, "setting the DSCP", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscp(o)},
		{o.LocalPort != 0, "setting SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{o.LocalPort == 0 && o.LocalAddress.IsValid(), "setting IP_BIND_ADDRESS_NO_PORT", unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
	}
	for _, r := range rows {
		if !r.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, r.level, r.option, r.value); err != nil {
			return local(r.doing, err)
		}
	}
	if o.Interface != "" {
		if err := unix.BindToDevice(fd, o.Interface); err != nil {
			return local("binding to the interface "+o.Interface, err)
		}
	}
	if !o.LocalAddress.IsValid() && o.LocalPort == 0 {
		return nil
	}
	from := netip.AddrPortFrom(o.LocalAddress.Unmap(), o.LocalPort)
	if !o.LocalAddress.IsValid() {
		from = netip.AddrPortFrom(anyAddr(family), o.LocalPort)
	}
	sa, err := sockaddr(fd, from)
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	return local(fmt.Sprintf("binding to the local address %v", from), err)
}

func dscp(o Options) int {
	if o.DSCP == nil {
		return 0
	}
	return *o.DSCP << 2
}

func anyAddr(family int) netip.Addr {
	if family == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func local(doing string, err error) error {
	if err == nil {
		return nil
	}
	return &localError{doing, err}
}

// sockaddr converts an address for the socket fd, whose namespace decides
// what interface a zone names.
func sockaddr(fd int, a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		n, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			n, err = interfaceIndex(fd, zone)
		}
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", zone, err)
		}
		sa.ZoneId = uint32(n)
	}
	return sa, nil
}

// interfaceIndex asks the kernel for an interface's number (netdevice(7)).
func interfaceIndex(fd int, name string) (uint64, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return uint64(ifr.Uint32()), nil
}

// await polls the attempts for at most wait and reports which have an answer.
func await(pending []attempt, wait time.Duration) ([]bool, error) {
	fds := make([]unix.PollFd, len(pending))
	for i, a := range pending {
		fds[i] = unix.PollFd{Fd: int32(a.fd), Events: unix.POLLOUT}
	}
	ts := unix.NsecToTimespec(max(wait, 0).Nanoseconds())
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return nil, local("waiting for the connection", err)
	}
	ready := make([]bool, len(pending))
	for i := range fds {
		ready[i] = fds[i].Revents != 0
	}
	return ready, nil
}

// result returns how the connect ended.
func (a attempt) result() error {
	n, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	own, err := unix.Getsockname(a.fd)
	if err != nil {
		return err
	}
	// Without a peer name the peer has closed already: sshd reports that.
	if peer, err := unix.Getpeername(a.fd); err == nil && addrPort(own) == addrPort(peer) {
		return ErrSelf
	}
	return nil
}

// finish makes the socket blocking, as inetd-style programs expect it, and
// hands it to the caller.
func (a attempt) finish() (*Conn, error) {
	if err := unix.SetNonblock(a.fd, false); err != nil {
		unix.Close(a.fd)
		return nil, local("making the socket blocking", err)
	}
	c := &Conn{Remote: a.addr}
	if sa, err := unix.Getsockname(a.fd); err == nil {
		c.Local = addrPort(sa)
	}
	c.File = os.NewFile(uintptr(a.fd), "tcp:"+a.addr.String())
	return c, nil
}

// addrPort converts a socket's address. An IPv4-mapped IPv6 address, which a
// dual-stack socket has, becomes IPv4.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
