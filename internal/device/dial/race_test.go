package dial

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// addrs reads addresses as "A B", all with port 1.
func addrs(list string) []netip.AddrPort {
	var out []netip.AddrPort
	for w := range strings.FieldsSeq(list) {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(w), 1))
	}
	return out
}

func TestInterleave(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"none", "", ""},
		{"one", "192.0.2.1", "192.0.2.1"},
		{"one family keeps its order", "192.0.2.2 192.0.2.1 192.0.2.3", "192.0.2.2 192.0.2.1 192.0.2.3"},
		{"families alternate, the first one's first", "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2", "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"},
		{"IPv4 may be first", "192.0.2.1 2001:db8::1 2001:db8::2", "192.0.2.1 2001:db8::1 2001:db8::2"},
		{"what is left of the longer family follows", "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3", "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3"},
		{"twice is once", "192.0.2.1 2001:db8::1 192.0.2.1", "192.0.2.1 2001:db8::1"},
		{"a mapped address is IPv4", "2001:db8::1 ::ffff:192.0.2.1 192.0.2.1", "2001:db8::1 192.0.2.1"},
		{"zones make addresses differ", "fe80::1%1 fe80::1%2", "fe80::1%1 fe80::1%2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := interleave(addrs(tt.in)); !slices.Equal(got, addrs(tt.want)) {
				t.Errorf("got %v, want %v", got, addrs(tt.want))
			}
		})
	}
	t.Run("ports make addresses differ", func(t *testing.T) {
		a := netip.MustParseAddr("192.0.2.1")
		both := []netip.AddrPort{netip.AddrPortFrom(a, 1), netip.AddrPortFrom(a, 2)}
		if got := interleave(both); !slices.Equal(got, both) {
			t.Errorf("got %v, want %v", got, both)
		}
	})
}

// The square: is there an address waiting, is one under way, and where between
// the start, the delay and the deadline does now stand.
func TestRaceSquare(t *testing.T) {
	start := time.Now()
	deadline := start.Add(time.Second)
	next := start.Add(attemptDelay)
	const anyWait = time.Duration(-1) // not compared
	for _, tt := range []struct {
		name     string
		waiting  string
		inFlight int
		now      time.Duration
		due      bool
		over     bool
		wait     time.Duration
	}{
		{"none under way: the next starts at once", "192.0.2.1", 0, 0, true, false, anyWait},
		{"none under way, later: at once too", "192.0.2.1", 0, attemptDelay, true, false, anyWait},
		{"one under way: the next waits its turn", "192.0.2.1", 1, 0, false, false, attemptDelay},
		{"just before its turn", "192.0.2.1", 1, attemptDelay - 1, false, false, 1},
		{"its turn", "192.0.2.1", 1, attemptDelay, true, false, anyWait},
		{"several under way change nothing", "192.0.2.1", 3, attemptDelay, true, false, anyWait},
		{"none waiting: until the deadline", "", 1, 0, false, false, time.Second},
		{"none waiting, the delay is over: until the deadline", "", 1, attemptDelay, false, false, time.Second - attemptDelay},
		{"none waiting, none under way: over", "", 0, 0, false, true, anyWait},
		{"one under way at the deadline: over", "", 1, time.Second, false, true, anyWait},
		{"one waiting at the deadline: over", "192.0.2.1", 0, time.Second, true, true, anyWait},
		{"just before the deadline", "", 1, time.Second - 1, false, false, 1},
		{"behind the deadline: over", "192.0.2.1", 1, 2 * time.Second, true, true, anyWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &race{waiting: addrs(tt.waiting), next: next, deadline: deadline}
			now := start.Add(tt.now)
			if got := r.over(now, tt.inFlight, false); got != tt.over {
				t.Errorf("over = %v, want %v", got, tt.over)
			}
			if tt.wait != anyWait {
				if got := r.wait(now); got != tt.wait {
					t.Errorf("wait = %v, want %v", got, tt.wait)
				}
			}
			addr, ok := r.due(now, tt.inFlight)
			if ok != tt.due {
				t.Fatalf("due = %v, want %v", ok, tt.due)
			}
			if ok && (addr != addrs(tt.waiting)[0] || len(r.waiting) != 0 || !r.next.Equal(now.Add(attemptDelay))) {
				t.Errorf("due gives %v, leaves %v, next %v after now", addr, r.waiting, r.next.Sub(now))
			}
		})
	}
}

// wait never lasts beyond the deadline, though the next address would be due
// only then.
func TestRaceWaitsNoLongerThanTheDeadline(t *testing.T) {
	now := time.Now()
	r := newRace(addrs("192.0.2.1 192.0.2.2"), netip.Addr{}, now.Add(attemptDelay/2))
	if _, ok := r.due(now, 0); !ok {
		t.Fatal("the first address is not due at the start")
	}
	if got := r.wait(now); got != attemptDelay/2 {
		t.Errorf("wait = %v, want %v", got, attemptDelay/2)
	}
}

// A whole race with a dead first address: what is started when, and what the
// error says when all of them fail.
func TestRaceWithDeadAddresses(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	expect := func(r *race, now time.Duration, inFlight int, want string) netip.AddrPort {
		t.Helper()
		addr, ok := r.due(at(now), inFlight)
		if got := addr.Addr().String(); !ok || got != want {
			t.Fatalf("after %v due gives %v, %v, want %s", now, addr, ok, want)
		}
		return addr
	}
	r := newRace(addrs("2001:db8::1 2001:db8::2 192.0.2.1"), netip.Addr{}, at(time.Second))

	first := expect(r, 0, 0, "2001:db8::1")
	if _, ok := r.due(at(attemptDelay-1), 1); ok {
		t.Fatal("the second address starts before the delay is over")
	}
	second := expect(r, attemptDelay, 1, "192.0.2.1")
	// One fails: the third need not wait for its turn, though one is under way.
	r.failed(at(attemptDelay+10*time.Millisecond), second, unix.ECONNREFUSED)
	if got := r.wait(at(attemptDelay + 10*time.Millisecond)); got > 0 {
		t.Errorf("after a failure the next address waits %v", got)
	}
	third := expect(r, attemptDelay+10*time.Millisecond, 1, "2001:db8::2")
	r.failed(at(300*time.Millisecond), third, unix.EHOSTUNREACH)
	if r.over(at(300*time.Millisecond), 1, false) {
		t.Error("over while the first address may still answer")
	}
	r.failed(at(time.Second), first, ErrTimeout)
	if !r.over(at(time.Second), 0, true) {
		t.Error("not over though all addresses failed")
	}
	const want = "192.0.2.1:1: connection refused; [2001:db8::2]:1: no route to host; [2001:db8::1]:1: no answer in time"
	if got := r.err().Error(); got != want {
		t.Errorf("the error says\n%s, want\n%s", got, want)
	}
}

func TestRaceErrorNamesWhatWasNotTried(t *testing.T) {
	r := newRace(addrs("192.0.2.1 192.0.2.2"), netip.Addr{}, time.Now())
	err := r.err()
	if !errors.Is(err, ErrNotTried) || err.Error() != "192.0.2.1:1: not tried before the deadline; 192.0.2.2:1: not tried before the deadline" {
		t.Errorf("says %v", err)
	}
}

func TestRaceLeavesOutTheOtherFamily(t *testing.T) {
	for _, tt := range []struct{ local, waiting, out string }{
		{"192.0.2.9", "192.0.2.1", "2001:db8::1"},
		{"2001:db8::9", "2001:db8::1", "192.0.2.1"},
		{"::ffff:192.0.2.9", "192.0.2.1", "2001:db8::1"},
	} {
		t.Run(tt.local, func(t *testing.T) {
			r := newRace(addrs("2001:db8::1 192.0.2.1"), netip.MustParseAddr(tt.local), time.Time{})
			if !slices.Equal(r.waiting, addrs(tt.waiting)) {
				t.Errorf("tries %v, want %s", r.waiting, tt.waiting)
			}
			if len(r.failures) != 1 || r.failures[0] != (Failure{addrs(tt.out)[0], ErrFamily}) {
				t.Errorf("leaves out %v, want %s", r.failures, tt.out)
			}
		})
	}
}

// Addresses that a name server sends later join the race: their family is next, and
// without another address the race waits for them.
func TestLateAddressesJoinTheRace(t *testing.T) {
	start := time.Now()
	r := newRace(addrs("192.0.2.1 192.0.2.2"), netip.Addr{}, start.Add(time.Second))
	r.due(start, 0)
	r.add(addrs("2001:db8::1 2001:db8::2"))
	if want := addrs("2001:db8::1 192.0.2.2 2001:db8::2"); !slices.Equal(r.waiting, want) {
		t.Errorf("waiting are %v, want %v", r.waiting, want)
	}
	if _, ok := r.due(start.Add(attemptDelay-1), 1); ok {
		t.Error("a late address does not wait its turn")
	}
	r.waiting = nil
	if r.over(start, 0, true) {
		t.Error("over while addresses may follow")
	}
	if !r.over(start, 0, false) {
		t.Error("not over though none can follow")
	}
	only4 := newRace(addrs("192.0.2.1"), netip.MustParseAddr("192.0.2.9"), start.Add(time.Second))
	only4.add(addrs("2001:db8::1"))
	if len(only4.waiting) != 1 || len(only4.failures) != 1 || only4.failures[0].Err != ErrFamily {
		t.Errorf("waiting %v, failures %v, want the late one left out", only4.waiting, only4.failures)
	}
}

func TestErrorUnwrapsEveryCause(t *testing.T) {
	err := &Error{[]Failure{{addrs("192.0.2.1")[0], unix.ECONNREFUSED}, {addrs("192.0.2.2")[0], ErrTimeout}}}
	for _, cause := range []error{unix.ECONNREFUSED, ErrTimeout} {
		if !errors.Is(err, cause) {
			t.Errorf("errors.Is does not find %v", cause)
		}
	}
	if errors.Is(err, ErrNotTried) {
		t.Error("errors.Is finds a cause that no address had")
	}
}
