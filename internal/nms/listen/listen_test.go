package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

const patience = time.Minute

func open(t *testing.T, addrs ...string) *Listener {
	t.Helper()
	l, err := Open(addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func call(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func accept(t *testing.T, l *Listener) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAnAddressIsCompletedWithTheDefaultPort(t *testing.T) {
	for _, row := range []struct{ addr, network, full string }{
		{"", "tcp", ":4334"},
		{":830", "tcp", ":830"},
		{"192.0.2.1", "tcp4", "192.0.2.1:4334"},
		{"192.0.2.1:1", "tcp4", "192.0.2.1:1"},
		{"0.0.0.0:1", "tcp4", "0.0.0.0:1"},
		{"::", "tcp6", "[::]:4334"},
		{"[::1]:7", "tcp6", "[::1]:7"},
		{"fe80::1%lo", "tcp6", "[fe80::1%lo]:4334"},
		{"nms.example", "", ""},
		{"nms.example:1", "", ""},
		{"192.0.2.1:ssh", "", ""},
		{"192.0.2.1:70000", "", ""},
		{"[::1]", "", ""},
	} {
		network, full, err := parse(row.addr)
		if network != row.network || full != row.full || (err == nil) != (row.full != "") {
			t.Errorf("parse(%q) = %q, %q, %v", row.addr, network, full, err)
		}
	}
}

// Accept returns calls on all addresses, with socket options that stay set when
// another program gets the socket.
func TestAcceptOnSeveralAddresses(t *testing.T) {
	l := open(t, "127.0.0.1:0", "[::1]:0", ":0")
	for i, addr := range l.Addrs() {
		if addr.Addr().IsUnspecified() {
			addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
		}
		from := call(t, addr)
		c := accept(t, l)
		if got, want := addrPort(c.RemoteAddr()), addrPort(from.LocalAddr()); got != want {
			t.Errorf("address %d: a call from %v, want %v", i, got, want)
		}
		for what, option := range map[string]struct{ level, name, want int }{
			"TCP_NODELAY":      {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
			"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 6},
			"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
		} {
			if got := getsockopt(t, c, option.level, option.name); got != option.want {
				t.Errorf("address %d: %s is %d, want %d", i, what, got, option.want)
			}
		}
	}
}

func getsockopt(t *testing.T, c *net.TCPConn, level, name int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var getErr error
	if err := errors.Join(raw.Control(func(fd uintptr) { value, getErr = unix.GetsockoptInt(int(fd), level, name) }), getErr); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestWildcardsOfBothFamiliesShareAPort(t *testing.T) {
	port := open(t, "0.0.0.0:0").Addrs()[0].Port()
	open(t, fmt.Sprintf("[::]:%d", port))
}

func TestACallFromOutsideFromIsRefused(t *testing.T) {
	l := open(t, ":0")
	var err error
	if l.From, err = ParseNets([]string{"127.0.0.2", "192.0.2.77/24"}); err != nil {
		t.Fatal(err)
	}
	refused := make(chan netip.AddrPort, 1)
	l.Refused = func(from netip.AddrPort) { refused <- from }
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.Addrs()[0].Port()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	outside := dial("127.0.0.1")
	inside := dial("127.0.0.2")
	if c := accept(t, l); addrPort(c.RemoteAddr()) != addrPort(inside.LocalAddr()) {
		t.Errorf("a call from %v", c.RemoteAddr())
	}
	if got := <-refused; got != addrPort(outside.LocalAddr()) {
		t.Errorf("%v was refused", got)
	}
	_ = outside.SetDeadline(time.Now().Add(patience))
	if n, err := outside.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the refused connection is open: %d, %v", n, err)
	}
	if got := l.From[1].String(); got != "192.0.2.0/24" {
		t.Errorf("network %s", got)
	}
	for _, value := range []string{"", "any", "192.0.2.1/33", "fe80::1%lo"} {
		if _, err := ParseNets([]string{value}); sysexits.Code(err) != sysexits.Usage {
			t.Errorf("%q is accepted as a network: %v", value, err)
		}
	}
}

func TestAcceptEndsWithItsContextAndWithClose(t *testing.T) {
	l := open(t, "127.0.0.1:0", "[::1]:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with its context cancelled: %v", err)
	}
	waiting := call(t, l.Addrs()[1])
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	_ = waiting.SetDeadline(time.Now().Add(patience))
	if _, err := waiting.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a call that was not accepted is open after Close: %v", err)
	}
}

func TestOpenSaysWhyItFailed(t *testing.T) {
	taken := open(t, "127.0.0.1:0").Addrs()[0].String()
	for _, row := range []struct {
		addrs []string
		code  int
		text  string
	}{
		{[]string{"127.0.0.1:0", taken}, sysexits.Unavailable, "listening on " + taken + ": another program has the port"},
		{[]string{"192.0.2.1:0"}, sysexits.Usage, "not an address of this machine"},
		{[]string{"nowhere"}, sysexits.Usage, "is not an address to listen on"},
	} {
		l, err := Open(row.addrs)
		if err == nil {
			l.Close()
			t.Errorf("%q can be listened on", row.addrs)
		} else if sysexits.Code(err) != row.code || sysexits.Hint(err) == "" || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%q: %v (status %d, hint %q)", row.addrs, err, sysexits.Code(err), sysexits.Hint(err))
		}
	}
}

// newTrial returns a Trial: a call that sends "good" succeeds, a silent one waits for
// its context to end, any other fails.
func newTrial(t *testing.T, limit time.Duration, goOn bool) (Trial[*net.TCPConn], chan string) {
	failures := make(chan string, 2*atOnce)
	return Trial[*net.TCPConn]{
		Limit: limit,
		Try: func(ctx context.Context, conn *net.TCPConn) (*net.TCPConn, error) {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			sent := make([]byte, 4)
			_, err := conn.Read(sent)
			if stop() && string(sent) == "good" {
				return conn, nil
			}
			conn.Close()
			return nil, fmt.Errorf("it sent %q: %w", sent, err)
		},
		Failed: func(from netip.AddrPort, err error) bool {
			failures <- err.Error()
			return goOn
		},
	}, failures
}

func TestTheFirstGoodCallWins(t *testing.T) {
	l := open(t, "127.0.0.1:0")
	trial, failures := newTrial(t, patience, true)
	silent := call(t, l.Addrs()[0])
	if _, err := call(t, l.Addrs()[0]).Write([]byte("bad!")); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-failures // so the bad one is over
		c, err := net.Dial("tcp", l.Addrs()[0].String())
		if err == nil {
			_, _ = c.Write([]byte("good"))
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
		}
	}()
	got, err := First(t.Context(), l, trial)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	_ = silent.SetDeadline(time.Now().Add(patience))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the silent connection is open: %v", err)
	}
}

func TestFirstEndsWithFailedAndWithItsContext(t *testing.T) {
	l := open(t, "127.0.0.1:0")
	trial, _ := newTrial(t, patience, false)
	if _, err := call(t, l.Addrs()[0]).Write([]byte("bad!")); err != nil {
		t.Fatal(err)
	}
	if _, err := First(t.Context(), l, trial); err == nil || !strings.Contains(err.Error(), `it sent "bad!"`) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := First(ctx, l, trial); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := First(ctx, l, trial); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// More silent peers than are tried at once do not block a device, although none has
// reached its time limit.
func TestSilentPeersDoNotBlockADevice(t *testing.T) {
	l := open(t, "127.0.0.1:0")
	trial, failures := newTrial(t, time.Hour, true)
	done := make(chan error, 1)
	go func() {
		c, err := First(t.Context(), l, trial)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	for range atOnce + 10 {
		call(t, l.Addrs()[0])
	}
	for range 10 {
		<-failures // the oldest
	}
	if _, err := call(t, l.Addrs()[0]).Write([]byte("good")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the good call is blocked")
	}
}

// A listener without a file descriptor left reports it, and accepts again later.
func TestAShortageOfDescriptorsIsReportedAndTemporary(t *testing.T) {
	l := open(t, "127.0.0.1:0")
	passed := make(chan error, 1000)
	l.Temporary = func(err error) { passed <- err }
	accepted := make(chan error, 1)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(l.Addrs()[0].Port()), Addr: [4]byte{127, 0, 0, 1}})
	go func() {
		c, err := l.Accept(t.Context())
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	var reported error
	select {
	case reported = <-passed:
	case <-time.After(patience):
	}
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(reported, unix.EMFILE) {
		t.Errorf("reported %v", reported)
	}
	select {
	case err := <-accepted:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the call is not accepted")
	}
}

// A caller with MPTCP is accepted, and the option that MPTCP lacks is reported.
func TestACallerWithMPTCPIsAccepted(t *testing.T) {
	l := open(t, "127.0.0.1:0")
	reported := make(chan error, 1)
	l.Unprepared = func(_ netip.AddrPort, err error) { reported <- err }
	d := net.Dialer{Timeout: patience}
	d.SetMultipathTCP(true)
	theirs, err := d.DialContext(t.Context(), "tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours := accept(t, l)
	if multipath, err := ours.MultipathTCP(); err != nil || !multipath {
		t.Skipf("this kernel has no MPTCP: %v, %v", multipath, err)
	}
	if _, err := theirs.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := ours.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	select {
	case err := <-reported:
		if !errors.Is(err, unix.ENOPROTOOPT) || !strings.Contains(err.Error(), "TCP_USER_TIMEOUT") {
			t.Errorf("reported %v", err)
		}
	default:
		if got := getsockopt(t, ours, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got == 0 {
			t.Error("TCP_USER_TIMEOUT is not set, and not reported")
		}
	}
}
