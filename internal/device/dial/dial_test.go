package dial

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/porttest"

	"golang.org/x/sys/unix"
)

// patience is longer than anything on the loopback takes.
const patience = time.Minute

func soon() time.Time { return time.Now().Add(patience) }

// listen returns a listener on a free port of addr.
func listen(t *testing.T, addr string) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if addr == "::1" && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

// refused returns an address without a listener.
func refused(t *testing.T) netip.AddrPort {
	t.Helper()
	return porttest.Reserve(t, "127.0.0.1")
}

// swallowing returns an address that does not answer: its listener accepts no
// connection and its queue is full, so the kernel drops each SYN.
func swallowing(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := addrPort(sa)
	c, err := net.Dial("tcp", addr.String()) // a queue of 0 holds one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return addr
}

func mustDial(t *testing.T, o Options, to ...netip.AddrPort) *Conn {
	t.Helper()
	c, err := Dial(to, nil, o, soon())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.File.Close() })
	return c
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func sockopt(t *testing.T, c *Conn, level, option int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(int(c.File.Fd()), level, option)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDialHandsOverABlockingSocket(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			l, addr := listen(t, host)
			c := mustDial(t, Options{}, addr)
			peer := accept(t, l)
			if c.Remote != addr || c.Local.String() != peer.RemoteAddr().String() {
				t.Errorf("from %v to %v, want from %v to %v", c.Local, c.Remote, peer.RemoteAddr(), addr)
			}
			fd := c.File.Fd()
			if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("the socket does not block: flags %#x, %v", flags, err)
			}
			if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("the socket would survive an exec: flags %#x, %v", flags, err)
			}
			if sockopt(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 {
				t.Error("TCP_NODELAY is off")
			}
			if sockopt(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
				t.Error("SO_KEEPALIVE is on without being asked for")
			}
		})
	}
}

// What the peer says at once is still in the socket.
func TestDialReadsNothing(t *testing.T) {
	l, addr := listen(t, "127.0.0.1")
	c := mustDial(t, Options{}, addr)
	peer := accept(t, l)
	if _, err := io.WriteString(peer, "SSH-2.0-x\r\n"); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	got, err := io.ReadAll(c.File)
	if err != nil || string(got) != "SSH-2.0-x\r\n" {
		t.Errorf("the socket holds %q, %v", got, err)
	}
}

func TestDialSetsTheOptions(t *testing.T) {
	mark, none := 46, 0
	usual := Options{KeepAlive: KeepAlive{Idle: 31, Interval: 11, Count: 7}, UserTimeout: 91 * time.Second, DSCP: &mark}
	least := Options{KeepAlive: KeepAlive{Idle: 1, Interval: 1, Count: 1}, UserTimeout: time.Millisecond, DSCP: &none}
	for _, tt := range []struct {
		name, host       string
		o                Options
		dscpLevel, dscpO int
	}{
		{"IPv4", "127.0.0.1", usual, unix.IPPROTO_IP, unix.IP_TOS},
		{"IPv6", "::1", usual, unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
		{"the least there is", "127.0.0.1", least, unix.IPPROTO_IP, unix.IP_TOS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := listen(t, tt.host)
			c := mustDial(t, tt.o, addr)
			for _, row := range []struct {
				name                string
				level, option, want int
			}{
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, tt.o.KeepAlive.Idle},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, tt.o.KeepAlive.Interval},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, tt.o.KeepAlive.Count},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tt.o.UserTimeout.Milliseconds())},
				{"the DSCP", tt.dscpLevel, tt.dscpO, *tt.o.DSCP << 2},
			} {
				if got := sockopt(t, c, row.level, row.option); got != row.want {
					t.Errorf("%s is %d, want %d", row.name, got, row.want)
				}
			}
		})
	}
}

func TestDialFromALocalAddress(t *testing.T) {
	for _, tt := range []struct{ host, from string }{{"127.0.0.1", "127.0.0.2"}, {"127.0.0.1", "::ffff:127.0.0.2"}, {"::1", "::1"}} {
		t.Run(tt.from, func(t *testing.T) {
			_, addr := listen(t, tt.host)
			from := netip.MustParseAddr(tt.from)
			c := mustDial(t, Options{LocalAddress: from}, addr)
			if c.Local.Addr() != from.Unmap() || c.Local.Port() == 0 {
				t.Errorf("comes from %v, want %v", c.Local, from)
			}
			// Else one source address would have no more than 28000 ports for
			// all the clients it calls.
			if sockopt(t, c, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT) != 1 {
				t.Error("the local port was taken before it was known whom to call")
			}
		})
	}
}

// A connection just ended keeps its local port in TIME_WAIT; the next call
// from that port must not wait for a minute.
func TestDialFromALocalPortAgain(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			l, addr := listen(t, host)
			o := Options{LocalPort: porttest.Reserve(t, host).Port()}
			for range 2 {
				c := mustDial(t, o, addr)
				if c.Local.Port() != o.LocalPort {
					t.Errorf("comes from port %d, want %d", c.Local.Port(), o.LocalPort)
				}
				c.File.Close()
				accept(t, l).Close()
				l, addr = listen(t, host)
			}
		})
	}
}

// A port that calls itself is answered by itself (RFC 9293 section 3.5,
// simultaneous open). That is no listener, and the port is free again at once.
func TestDialDoesNotTakeItselfForTheClient(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			self := porttest.Reserve(t, host)
			before := openDescriptors(t)
			for range 2 {
				c, err := Dial([]netip.AddrPort{self}, nil, Options{LocalPort: self.Port(), LocalAddress: self.Addr()}, soon())
				if c != nil || !errors.Is(err, ErrSelf) {
					t.Fatalf("%v, %v, want %v", c, err, ErrSelf)
				}
			}
			if open := openDescriptors(t); open != before {
				t.Errorf("%d descriptors are left", open-before)
			}
		})
	}
}

// Another address of the host may be the client's.
func TestDialGoesOnWhenItMetItself(t *testing.T) {
	self := porttest.Reserve(t, "127.0.0.1")
	_, live := listen(t, "127.0.0.1")
	c, err := Dial([]netip.AddrPort{self, live}, nil, Options{LocalPort: self.Port()}, soon())
	if err != nil {
		t.Fatal(err)
	}
	defer c.File.Close()
	if c.Remote != live {
		t.Errorf("connected to %v, want %v", c.Remote, live)
	}
}

func TestTryLeavesNothingOpen(t *testing.T) {
	before := openDescriptors(t)
	for _, o := range []Options{{}, {Interface: "lo"}, {LocalAddress: netip.MustParseAddr("127.0.0.1")}, {LocalAddress: netip.MustParseAddr("::ffff:127.0.0.1")}} {
		if err := Try(o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func TestAddrPortSpeaksIPv4(t *testing.T) {
	for want, sa := range map[string]unix.Sockaddr{
		"192.0.2.1:830":     &unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:192.0.2.1").As16(), Port: 830},
		"192.0.2.1:831":     &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 831},
		"[2001:db8::1]:832": &unix.SockaddrInet6{Addr: netip.MustParseAddr("2001:db8::1").As16(), Port: 832},
	} {
		if got := addrPort(sa); got.String() != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

func TestDialTakesTheAddressThatAnswers(t *testing.T) {
	_, live := listen(t, "127.0.0.1")
	for _, tt := range []struct {
		name string
		dead netip.AddrPort
		min  time.Duration
	}{
		{"one that refuses costs no time", refused(t), 0},
		{"one that swallows packets costs the attempt delay", swallowing(t), attemptDelay},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := openDescriptors(t)
			start := time.Now()
			c := mustDial(t, Options{}, tt.dead, live)
			took := time.Since(start)
			if took < tt.min || took >= patience/2 {
				t.Errorf("took %v, want %v", took, tt.min)
			}
			// A busy machine can take that long for one call, but not for each.
			for n := 0; tt.min == 0 && took >= attemptDelay; n++ {
				if n == 20 {
					t.Fatalf("%d calls took %v each or more", n, attemptDelay)
				}
				start := time.Now()
				mustDial(t, Options{}, tt.dead, live).File.Close()
				took = time.Since(start)
			}
			if c.Remote != live {
				t.Errorf("connected to %v, want %v", c.Remote, live)
			}
			if open := openDescriptors(t); open != before+1 {
				t.Errorf("%d descriptors more are open, want 1", open-before)
			}
		})
	}
}

func TestDialTellsWhyNobodyAnswered(t *testing.T) {
	dead, silent := refused(t), swallowing(t)
	before := openDescriptors(t)
	for _, tt := range []struct {
		name  string
		to    []netip.AddrPort
		local string
		time  time.Duration
		want  []Failure
	}{
		{"refused", []netip.AddrPort{dead}, "", patience, []Failure{{dead, unix.ECONNREFUSED}}},
		{"no answer by the deadline", []netip.AddrPort{silent}, "", attemptDelay / 2, []Failure{{silent, ErrTimeout}}},
		{"the deadline comes before the second address", []netip.AddrPort{silent, dead}, "", attemptDelay / 2, []Failure{{silent, ErrTimeout}, {dead, ErrNotTried}}},
		{"the deadline has passed", []netip.AddrPort{dead}, "", -time.Second, []Failure{{dead, ErrNotTried}}},
		{"of the other family", []netip.AddrPort{dead}, "::1", patience, []Failure{{dead, ErrFamily}}},
		{"no addresses", nil, "", patience, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o Options
			if tt.local != "" {
				o.LocalAddress = netip.MustParseAddr(tt.local)
			}
			start := time.Now()
			c, err := Dial(tt.to, nil, o, start.Add(tt.time))
			if c != nil {
				t.Fatalf("connected to %v", c.Remote)
			}
			var failed *Error
			if !errors.As(err, &failed) {
				t.Fatalf("%v is no *Error", err)
			}
			if len(failed.Failures) != len(tt.want) {
				t.Fatalf("failures %v, want %v", failed.Failures, tt.want)
			}
			for i, want := range tt.want {
				if failed.Failures[i] != want {
					t.Errorf("failure %d is %v, want %v", i, failed.Failures[i], want)
				}
			}
			if took := time.Since(start); tt.time > 0 && tt.time < patience && took < tt.time {
				t.Errorf("gave up after %v, before the deadline at %v", took, tt.time)
			}
		})
	}
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

// The first address refuses, and the one that answers comes later.
func TestDialTakesLateAddresses(t *testing.T) {
	_, live := listen(t, "127.0.0.1")
	asked := 0
	late := func() ([]netip.AddrPort, bool) {
		if asked++; asked < 5 {
			return nil, true
		}
		return []netip.AddrPort{live}, false
	}
	c, err := Dial([]netip.AddrPort{refused(t)}, late, Options{}, soon())
	if err != nil {
		t.Fatal(err)
	}
	defer c.File.Close()
	if c.Remote != live || asked != 5 {
		t.Errorf("connected to %v after asking %d times, want %v after 5", c.Remote, asked, live)
	}
	_, err = Dial([]netip.AddrPort{refused(t)}, func() ([]netip.AddrPort, bool) { return nil, true }, Options{}, time.Now().Add(attemptDelay))
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without a late address: %v", err)
	}
}

// An address that cannot even be tried is out like one that refuses; the others
// go on.
func TestDialPassesOverAnAddressThatCannotBeTried(t *testing.T) {
	_, live := listen(t, "127.0.0.1")
	nowhere := netip.MustParseAddrPort("[fe80::1%nosuch0]:1")
	before := openDescriptors(t)
	c := mustDial(t, Options{}, nowhere, live)
	if c.Remote != live {
		t.Errorf("connected to %v, want %v", c.Remote, live)
	}
	c.File.Close()
	_, err := Dial([]netip.AddrPort{nowhere}, nil, Options{}, soon())
	var failed *Error
	if want := "[fe80::1%nosuch0]:1: zone nosuch0: no such device"; !errors.As(err, &failed) || err.Error() != want {
		t.Errorf("%T says %v, want %s", err, err, want)
	}
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

// Failures of this machine end the race at once and are not taken for an
// address that does not answer.
func TestDialTellsWhatIsWrongHere(t *testing.T) {
	_, live := listen(t, "127.0.0.1")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := openDescriptors(t)
	for _, tt := range []struct {
		name string
		o    Options
		want error
		says string
	}{
		{"no such interface", Options{Interface: "nosuch0"}, unix.ENODEV, "binding to the interface nosuch0: no such device"},
		{"not an address of ours", Options{LocalAddress: netip.MustParseAddr("192.0.2.77")}, unix.EADDRNOTAVAIL, "binding to the local address 192.0.2.77:0: cannot assign requested address"},
		{"no such namespace", Options{Netns: "/nonexistent/ns"}, fs.ErrNotExist, "opening the network namespace: open /nonexistent/ns: no such file or directory"},
		{"not a namespace", Options{Netns: plain}, ErrNotNetns, "entering the network namespace " + plain + ": not a network namespace"},
		{"a keepalive that the kernel does not take", Options{KeepAlive: KeepAlive{Idle: 1 << 20}}, unix.EINVAL, "setting TCP_KEEPIDLE: invalid argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial([]netip.AddrPort{live, live}, nil, tt.o, soon())
			if c != nil {
				t.Fatalf("connected to %v", c.Remote)
			}
			var failed *Error
			if errors.As(err, &failed) || !errors.Is(err, tt.want) || err.Error() != tt.says {
				t.Errorf("%T says %v, want %s", err, err, tt.says)
			}
			if err := Try(tt.o); !errors.Is(err, tt.want) || err.Error() != tt.says {
				t.Errorf("Try says %v, want %s", err, tt.says)
			}
		})
	}
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func TestFromSocket(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run("a connected socket of "+host, func(t *testing.T) {
			l, addr := listen(t, host)
			mine := mustDial(t, Options{}, addr)
			peer := accept(t, l)
			c, err := FromSocket(mine.File)
			if err != nil {
				t.Fatal(err)
			}
			if c.File != mine.File || c.Remote != addr || c.Local.String() != peer.RemoteAddr().String() {
				t.Errorf("takes %v from %v to %v, want from %v to %v", c.File.Name(), c.Local, c.Remote, peer.RemoteAddr(), addr)
			}
		})
	}
	const notTCP, notConnected = "what was handed over is not a TCP socket", "the socket that was handed over is not connected"
	for _, tt := range []struct {
		name           string
		family, kind   int
		listens, plain bool
		says           string
	}{
		{"a listener", unix.AF_INET, unix.SOCK_STREAM, true, false, notConnected},
		{"an unconnected socket", unix.AF_INET6, unix.SOCK_STREAM, false, false, notConnected},
		{"a UDP socket", unix.AF_INET, unix.SOCK_DGRAM, false, false, notTCP},
		{"a Unix socket", unix.AF_UNIX, unix.SOCK_STREAM, false, false, notTCP},
		{"no socket", 0, 0, false, true, notTCP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Open(os.DevNull)
			if !tt.plain {
				f.Close()
				var fd int
				fd, err = unix.Socket(tt.family, tt.kind|unix.SOCK_CLOEXEC, 0)
				f = os.NewFile(uintptr(fd), "socket")
			}
			if err == nil && tt.listens {
				err = unix.Listen(int(f.Fd()), 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if c, err := FromSocket(f); c != nil || err == nil || err.Error() != tt.says {
				t.Errorf("got %v, %v, want %s", c, err, tt.says)
			}
			if _, err := f.Stat(); err != nil {
				t.Errorf("the file is not the caller's any more: %v", err)
			}
		})
	}
}

func TestZoneNamesAnInterface(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		zone string
		want uint32
		says string
	}{
		{"lo", uint32(lo.Index), ""},
		{"7", 7, ""},
		{"4294967295", 1<<32 - 1, ""},
		{"nosuch0", 0, "zone nosuch0: no such device"},
		{strings.Repeat("x", 16), 0, "zone xxxxxxxxxxxxxxxx: invalid argument"},
	} {
		sa, err := sockaddr(fd, netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(tt.zone), 1))
		if tt.says != "" {
			if err == nil || err.Error() != tt.says {
				t.Errorf("zone %s: %v, want %s", tt.zone, err, tt.says)
			}
			continue
		}
		if err != nil || sa.(*unix.SockaddrInet6).ZoneId != tt.want {
			t.Errorf("zone %s is %+v, %v, want %d", tt.zone, sa, err, tt.want)
		}
	}
}

func TestInNetns(t *testing.T) {
	t.Run("without a path it just runs", func(t *testing.T) {
		want := errors.New("f's own")
		if err := InNetns("", func() error { return want }); err != want {
			t.Errorf("returns %v", err)
		}
	})
	t.Run("f does not run if the file is no namespace", func(t *testing.T) {
		err := InNetns("/nonexistent/ns", func() error { t.Error("ran"); return nil })
		if !isLocal(err) {
			t.Errorf("%v is not a failure of this machine", err)
		}
	})
	t.Run("f runs in our own namespace, or we may not enter it", func(t *testing.T) {
		ran := false
		want := errors.New("f's own")
		err := InNetns("/proc/self/ns/net", func() error { ran = true; return want })
		if entered := errors.Is(err, want); entered != ran || !entered && !errors.Is(err, unix.EPERM) {
			t.Errorf("ran %v, returns %v", ran, err)
		}
	})
}

// A socket that cannot carry a session is refused before sshd gets it. That the
// peer has closed is for sshd to report.
func TestFromSocketRefusesWhatCannotCarryASession(t *testing.T) {
	l, addr := listen(t, "127.0.0.1")
	shut := mustDial(t, Options{}, addr)
	accept(t, l)
	if err := unix.Shutdown(int(shut.File.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if c, err := FromSocket(shut.File); c != nil || err == nil || err.Error() != "the socket that was handed over is shut down" {
		t.Errorf("one that is shut down: got %v, %v", c, err)
	}
	left := mustDial(t, Options{}, addr)
	accept(t, l).Close()
	if _, err := FromSocket(left.File); err != nil {
		t.Errorf("one whose peer has closed: %v", err)
	}

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	self := os.NewFile(uintptr(fd), "socket")
	defer self.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, own); err != nil {
		t.Skipf("this kernel connects no socket to itself: %v", err)
	}
	if c, err := FromSocket(self); c != nil || err == nil || err.Error() != "the socket that was handed over is connected to itself" {
		t.Errorf("one that is connected to itself: got %v, %v", c, err)
	}
}

func TestTheTextOfAnErrorIsBounded(t *testing.T) {
	e := &Error{}
	for i := range 3900 {
		e.Failures = append(e.Failures, Failure{netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666"), uint16(i)), unix.ECONNREFUSED})
	}
	if text := e.Error(); len(text) > 1024 || !strings.Contains(text, "more") || !errors.Is(e, unix.ECONNREFUSED) {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}
