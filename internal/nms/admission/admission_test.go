package admission

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	// Of 1024 places 128 are reserved, and the early drop begins at 448.
	free := facts{perSource: 64, total: 1024, coin: 0.5}
	with := func(change func(*facts)) facts {
		f := free
		change(&f)
		return f
	}
	full := with(func(f *facts) { f.notRecent, f.all = 896, 896 })
	for _, tt := range []struct {
		name   string
		f      facts
		change func(*facts)
		want   verdict
	}{
		{"a free place", free, func(*facts) {}, admit},
		{"failed attempts used up", free, func(f *facts) { f.exhausted = true }, refuseFailures},
		{"… from where a device logged in lately", free, func(f *facts) { f.exhausted, f.recent = true, true }, admit},
		{"the source has too many", free, func(f *facts) { f.ofSource = 64 }, refuseSource},
		{"… also where a device logged in lately", free, func(f *facts) { f.ofSource, f.recent = 64, true }, refuseSource},
		{"… and one of them can go", free, func(f *facts) { f.ofSource, f.own = 64, true }, replaceOwn},
		{"… and another source's is overdue", full, func(f *facts) { f.ofSource, f.overdue = 64, true }, refuseSource},
		{"full", full, func(*facts) {}, wait},
		{"full, with one overdue", full, func(f *facts) { f.overdue = true }, replace},
		{"full, but places are reserved", full, func(f *facts) { f.recent = true }, admit},
		{"full, also the reserved places", full, func(f *facts) { f.recent, f.all = true, 1024 }, wait},
		{"… with one overdue", full, func(f *facts) { f.recent, f.overdue, f.all = true, true, 1024 }, replace},
		{"recent sources have all places", free, func(f *facts) { f.all = 1024 }, wait},
		{"full in an attack", full, func(f *facts) { f.bad = 0.9 }, refuse},
		{"full in an attack, after it has waited", full, func(f *facts) { f.bad, f.coin = 0.9999, 1 }, wait},
		{"full in an attack, with one overdue", full, func(f *facts) { f.bad, f.overdue = 0.9, true }, replace},
		{"full in an attack, where a device logged in lately", full, func(f *facts) { f.bad, f.recent = 0.9, true }, admit},
		{"half full", free, func(f *facts) { f.notRecent, f.bad, f.coin = 448, 1, 0.29 }, refuse},
		{"half full, the other side of the coin", free, func(f *facts) { f.notRecent, f.bad, f.coin = 448, 1, 0.31 }, admit},
		{"half full, and no connection failed", free, func(f *facts) { f.notRecent, f.coin = 448, 0 }, admit},
		{"less than half full", free, func(f *facts) { f.notRecent, f.bad, f.coin = 447, 1, 0 }, admit},
		{"three quarters full", free, func(f *facts) { f.notRecent, f.bad, f.coin = 672, 1, 0.64 }, refuse},
		{"half full, with its share", free, func(f *facts) { f.notRecent, f.bad, f.coin, f.overShare = 448, 1, 0.9, true }, refuse},
		{"full, and half of the connections failed", full, func(f *facts) { f.bad, f.coin = 0.5, 0 }, wait},
		{"half full, with its share, and no connection failed", free, func(f *facts) { f.notRecent, f.coin, f.overShare = 448, 0.1, true }, admit},
		{"half full, its refusals used up", free, func(f *facts) { f.notRecent, f.bad, f.coin, f.drawn = 448, 1, 0.9, true }, refuseDraws},
		{"… with one overdue", free, func(f *facts) { f.notRecent, f.bad, f.drawn, f.overdue = 448, 1, true, true }, replace},
		{"… after it has waited", full, func(f *facts) { f.bad, f.coin, f.drawn = 0.9, 1, true }, wait},
		{"… where a device logged in lately", free, func(f *facts) { f.notRecent, f.bad, f.drawn, f.recent = 448, 1, true, true }, admit},
		{"… and few connections failed", free, func(f *facts) { f.notRecent, f.bad, f.drawn = 448, 0.5, true }, admit},
		{"less than half full, its refusals used up", free, func(f *facts) { f.notRecent, f.bad, f.drawn = 447, 1, true }, admit},
		{"one place in all", with(func(f *facts) { f.total = 1 }), func(f *facts) { f.bad, f.coin = 0.99, 0 }, admit},
	} {
		f := tt.f
		tt.change(&f)
		if got := decide(f); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

// house is a Set with a clock, and records which connections are evicted.
type house struct {
	t *testing.T
	*Set
	now  time.Time
	left []string
	n    int
}

func newHouse(t *testing.T, total, perSource int) *house {
	return &house{t: t, Set: New(Limits{total, perSource}), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// asks asks for a place, with a coin that never drops.
func (h *house) asks(address string) Answer {
	h.n++
	name := fmt.Sprintf("%s#%d", address, h.n)
	a := h.Enter(netip.MustParseAddr(address), h.now, 1, func() { h.left = append(h.left, name) })
	if a.Place != nil {
		a.Evicted()
	}
	return a
}

// enters is asks for a connection that must get a place.
func (h *house) enters(address string, at Stage) *Place {
	h.t.Helper()
	a := h.asks(address)
	if a.Place == nil {
		h.t.Fatalf("%s: no place: %+v", address, a)
	}
	if at != Connected && !h.Reaches(a.Place, at) {
		h.t.Fatalf("%s is not counted", address)
	}
	return a.Place
}

func (h *house) mustLose(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.left, want) {
		h.t.Errorf("evicted: %v, want %v", h.left, want)
	}
}

func (h *house) refuses(address, why string) {
	h.t.Helper()
	if a := h.asks(address); a.Place != nil || a.Wait || a.Refused != why {
		h.t.Errorf("%s: %+v, want %q", address, a, why)
	}
}

func (h *house) mustWait(address string) {
	h.t.Helper()
	if a := h.asks(address); !a.Wait || a.Place != nil {
		h.t.Errorf("%s: %+v", address, a)
	}
}

func TestASourceAboveItsLimitLosesItsOldestSilentConnection(t *testing.T) {
	h := newHouse(t, 100, 3)
	first := h.enters("192.0.2.1", SentVersion)
	silent := []*Place{h.enters("192.0.2.1", Connected), h.enters("192.0.2.1", Connected)}
	h.Silent(h.enters("192.0.2.2", Connected))
	h.refuses("192.0.2.1", refusals[refuseSource]) // they have just connected
	h.Silent(first)                                // it has sent a version
	h.Silent(silent[1])
	h.Silent(silent[0])
	h.Silent(silent[0])
	fresh := h.enters("192.0.2.1", Connected)
	h.mustLose("192.0.2.1#3")
	h.Reaches(silent[0], SentVersion)
	h.Reaches(fresh, SentVersion)
	h.refuses("192.0.2.1", refusals[refuseSource]) // all have sent a version
	h.Overdue(first)
	late := h.enters("192.0.2.1", Connected)
	h.mustLose("192.0.2.1#3", "192.0.2.1#1")
	h.Overdue(late)
	h.enters("192.0.2.1", Connected)
	h.mustLose("192.0.2.1#3", "192.0.2.1#1", "192.0.2.1#8")
}

func TestTheOverdueGoFirst(t *testing.T) {
	h := newHouse(t, 4, 4)
	a := h.enters("192.0.2.1", SentVersion)
	b := h.enters("192.0.3.1", Connected)
	done := h.enters("192.0.4.1", SentVersion)
	for _, p := range []*Place{done, b, a, b} {
		h.Overdue(p)
	}
	if !h.Reaches(done, Exchanged) {
		t.Fatal("it is not counted")
	}
	h.Overdue(done) // it has finished its key exchange: it stays
	h.enters("192.0.5.1", Connected)
	h.mustLose()
	h.enters("192.0.6.1", Connected)
	h.enters("192.0.7.1", Connected)
	h.mustLose("192.0.3.1#2", "192.0.2.1#1")
	h.mustWait("192.0.8.1")
	if h.Reaches(a, Exchanged) || h.Leave(a) || !h.Leave(done) || h.Leave(done) {
		t.Error("counted otherwise")
	}
	h.enters("192.0.8.1", Connected)
}

func TestAnAddressThatLoggedInLatelyHasPriority(t *testing.T) {
	h := newHouse(t, 16, 8)
	h.Remember(netip.MustParseAddr("2001:db8::1"), h.now)
	for n := range 14 {
		h.enters(fmt.Sprintf("10.%d.0.1", n), Connected)
	}
	h.mustWait("10.99.0.1")
	// Its /64 has the same priority, and the places are bounded all the same.
	h.enters("2001:db8::1", Connected)
	h.enters("2001:db8::2", Connected)
	h.mustWait("2001:db8::1")
	h.mustWait("2001:db8:0:1::1")
	h.now = h.now.Add(recentPeriod)
	h.mustWait("2001:db8::1")

	old := newHouse(t, 8, 8)
	old.Remember(netip.MustParseAddr("192.0.2.1"), old.now)
	old.now = old.now.Add(2 * recentPeriod)
	for n := range 7 {
		old.enters(fmt.Sprintf("10.%d.0.1", n), Connected)
	}
	old.mustWait("192.0.2.1")
}

func TestFailedAttemptsAreLimitedByAddress(t *testing.T) {
	for _, tt := range []struct{ name, from, same, free string }{
		{"IPv4", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"},
		{"IPv6", "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const limit = 10
			h := newHouse(t, 1000, 1000)
			fails := func() { h.Failed(netip.MustParseAddr(tt.from), h.now) }
			for range limit {
				h.Leave(h.enters(tt.from, SentVersion))
				fails()
			}
			h.refuses(tt.from, refusals[refuseFailures])
			h.refuses(tt.same, refusals[refuseFailures])
			h.enters(tt.free, Connected)
			// One attempt comes back at a time, and all after a minute.
			h.now = h.now.Add(failureWindow / limit)
			h.enters(tt.same, Connected)
			fails()
			h.refuses(tt.same, refusals[refuseFailures])
			h.now = h.now.Add(2 * failureWindow)
			for range limit {
				h.enters(tt.from, Connected)
			}
		})
	}
}

// Addresses that fail only lower the priority of others in their network, which may be
// devices.
func TestFailedAttemptsOfANetworkLowerItsPriority(t *testing.T) {
	for _, tt := range []struct {
		name        string
		from        func(int) string
		limit       int
		other, free string // in that network, and in another
	}{
		{"a /24", func(n int) string { return fmt.Sprintf("192.0.2.%d", n%16) }, 160, "192.0.2.250", "192.0.3.1"},
		{"a /56", func(n int) string { return fmt.Sprintf("2001:db8:0:%x::1", n%4) }, 40, "2001:db8:0:fe::1", "2001:db8:0:100::1"},
		{"a /48", func(n int) string { return fmt.Sprintf("2001:db8:0:%x00::1", n%16) }, 160, "2001:db8:0:ffff::1", "2001:db8:1::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, 1000, 1000)
			must := func(from string, want Priority) {
				t.Helper()
				p := h.enters(from, Connected)
				if got := p.Priority(); got != want || (p.late != nil) != (want == Suspect) {
					t.Errorf("%s has priority %d, want %d; it goes first: %v", from, got, want, p.late != nil)
				}
				h.Leave(p)
			}
			for n := range tt.limit {
				must(tt.other, Ordinary)
				h.Failed(netip.MustParseAddr(tt.from(n)), h.now)
			}
			h.refuses(tt.from(0), refusals[refuseFailures])
			must(tt.other, Suspect)
			must(tt.free, Ordinary)
			h.now = h.now.Add(2 * failureWindow)
			must(tt.other, Ordinary)
			h.Remember(netip.MustParseAddr(tt.other), h.now)
			for n := range tt.limit {
				h.Failed(netip.MustParseAddr(tt.from(n)), h.now)
			}
			must(tt.other, Recent)
		})
	}
}

// A device behind the same NAT as an attacker still gets in after the first login.
func TestALoginEndsTheRefusalOfItsAddress(t *testing.T) {
	h := newHouse(t, 100, 64)
	from := netip.MustParseAddr("192.0.2.1")
	for range 20 {
		h.Failed(from, h.now)
	}
	h.refuses("192.0.2.1", refusals[refuseFailures])
	h.Remember(from, h.now)
	// The attacker gets no priority with it.
	if p := h.enters("192.0.2.1", Connected); p.Priority() != Ordinary {
		t.Errorf("priority %d", p.Priority())
	}
	h.now = h.now.Add(2 * failureWindow)
	if p := h.enters("192.0.2.1", Connected); p.Priority() != Recent {
		t.Errorf("priority %d", p.Priority())
	}
}

// Where an attack has the places, a source without failures replaces one with.
func TestASourceThatFailedGoesFirst(t *testing.T) {
	h := newHouse(t, 8, 8)
	h.Failed(netip.MustParseAddr("192.0.2.1"), h.now)
	h.enters("192.0.2.1", SentVersion)
	for n := range 6 {
		h.enters(fmt.Sprintf("10.%d.0.1", n), SentVersion)
	}
	h.mustLose()
	h.enters("198.51.100.1", Connected)
	h.mustLose("192.0.2.1#1")
	h.mustWait("198.51.101.1")
}

// While more than half of the places are taken, mostly by peers that fail, a network
// gets no more than its share of them.
func TestANetworkHasItsShare(t *testing.T) {
	for _, tt := range []struct {
		name string
		from func(int) string
	}{
		{"a /24", func(n int) string { return fmt.Sprintf("192.0.2.%d", n%250) }},
		{"a /56", func(n int) string { return fmt.Sprintf("2001:db8:0:%x::1", n%200) }},
		{"a /48", func(n int) string { return fmt.Sprintf("2001:db8:0:%x::1", n%0xffff) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, 1024, 64)
			h.bad = 1
			admitted := func(tries int, from func(int) string) (n int) {
				for i := range tries {
					if h.Enter(netip.MustParseAddr(from(i)), h.now, 0.99, func() {}).Place != nil {
						n++
					}
				}
				return n
			}
			if n := admitted(2000, tt.from); n != 448 {
				t.Errorf("%d connections of the network are admitted, want half of the places", n)
			}
			if n := admitted(100, func(i int) string { return fmt.Sprintf("10.%d.0.1", i) }); n != 100 {
				t.Errorf("of 100 others %d are admitted", n)
			}
		})
	}
}

func TestTheEarlyDropDrawsOnceASecondForASource(t *testing.T) {
	h := newHouse(t, 8, 8)
	h.bad = 0.99
	var attack []*Place
	for n := range 7 {
		attack = append(attack, h.enters(fmt.Sprintf("10.%d.0.1", n), Connected))
	}
	refused := func(n int) (why string) {
		for range n {
			why = h.Enter(netip.MustParseAddr("192.0.2.1"), h.now, 0, func() {}).Refused
		}
		return why
	}
	if why := refused(30); why != refusals[refuse] {
		t.Errorf("got %q", why)
	}
	if why := refused(1); why != refusals[refuseDraws] {
		t.Errorf("got %q", why)
	}
	h.now = h.now.Add(time.Second)
	if why := refused(1); why != refusals[refuse] {
		t.Errorf("after a second %q", why)
	}
	// It decides only about connections that would draw.
	for _, tt := range []struct {
		name   string
		change func()
		want   bool
	}{
		{"in the attack", func() {}, false},
		{"places are free", func() {
			for _, p := range attack[3:] {
				h.Leave(p)
			}
		}, true},
		{"the last connections were devices", func() { h.bad = 0.4 }, true},
		{"a device logged in there", func() { h.bad = 0.99; h.Remember(netip.MustParseAddr("192.0.2.1"), h.now) }, true},
	} {
		tt.change()
		a := h.Enter(netip.MustParseAddr("192.0.2.1"), h.now, 0.99, func() {})
		if (a.Place != nil) != tt.want {
			t.Errorf("%s: %+v", tt.name, a)
		}
	}
	if why := h.Enter(netip.Addr{}, h.now, 0, func() {}).Refused; why != refusals[refuse] { // behind a load balancer
		t.Errorf("without an address %q", why)
	}
}

func TestABalancersConnectionCountsForTheDevicesAddress(t *testing.T) {
	h := newHouse(t, 10, 1)
	var unknown netip.Addr
	a, b := h.Enter(unknown, h.now, 1, func() {}), h.Enter(unknown, h.now, 1, func() {})
	device := netip.MustParseAddr("192.0.2.1")
	moved := h.Move(a.Place, device, h.now)
	if moved.Place == nil || h.Len() != 2 || h.Reaches(a.Place, SentVersion) || !h.Reaches(moved.Place, SentVersion) {
		t.Fatalf("moved: %+v, %d are counted", moved, h.Len())
	}
	if again := h.Move(b.Place, device, h.now); again.Place != nil || again.Refused != refusals[refuseSource] {
		t.Errorf("a second: %+v", again)
	}
	if gone := h.Move(a.Place, device, h.now); gone.Place != nil || gone.Refused == "" {
		t.Errorf("one that is not counted: %+v", gone)
	}
	h.Leave(moved.Place)
	if h.Len() != 0 || len(h.groups) != 0 {
		t.Errorf("left: %d, %v", h.Len(), h.groups)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	h := newHouse(t, 10, 1)
	for n := range 4 * maxFailures {
		h.Failed(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), h.now)
		h.Failed(netip.AddrFrom16([16]byte{0x20, 1, byte(n >> 16), byte(n >> 8), byte(n)}), h.now)
	}
	if n := len(h.failures.young) + len(h.failures.old); n > 2*maxFailures {
		t.Errorf("%d networks are remembered", n)
	}
}

// The attack is peers that send only a version, each from an address of its own, and
// come back as soon as they are closed. Devices arrive from their own addresses, and
// take 100 ms from accept to key exchange.
func TestAnAttackDelaysDevicesByFewSeconds(t *testing.T) {
	const attackers, devices = 1024, 12
	h := newHouse(t, 1024, 64)
	random := rand.New(rand.NewPCG(1, 2))
	type peer struct {
		address     netip.Addr
		device      bool
		place       *Place
		due         time.Time // a device's key exchange; an attacker is overdue
		next, first time.Time // when it calls
	}
	var queue []*peer
	for n := range attackers {
		queue = append(queue, &peer{address: netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), next: h.now})
	}
	for n := range devices {
		start := h.now.Add(time.Second)
		queue = append(queue, &peer{address: netip.AddrFrom4([4]byte{192, 0, byte(n), 1}), device: true, next: start, first: start})
	}
	begun, in, worst := h.now, 0, time.Duration(0)
	for ; h.now.Sub(begun) < 20*time.Second; h.now = h.now.Add(10 * time.Millisecond) {
		blocked := false
		for _, p := range queue {
			switch {
			case p.place != nil && p.device && !h.now.Before(p.due):
				if h.Reaches(p.place, Exchanged) && h.Leave(p.place) {
					in++
					worst = max(worst, h.now.Sub(p.first))
					h.Remember(p.address, h.now)
				}
				p.place, p.next = nil, h.now.Add(time.Hour)
			case p.place != nil && !p.device && !h.now.Before(p.due):
				h.Overdue(p.place)
			case p.place == nil && !blocked && !h.now.Before(p.next):
				a := h.Enter(p.address, h.now, random.Float64(), func() {
					p.place, p.next = nil, h.now.Add(50*time.Millisecond)
				})
				switch {
				case a.Wait:
					blocked = true
				case a.Place == nil && p.device:
					p.next = h.now.Add(2 * time.Second)
				case a.Place == nil:
					p.next = h.now.Add(50 * time.Millisecond)
				default:
					a.Evicted()
					p.place, p.due = a.Place, h.now.Add(2*time.Second+time.Duration(random.Int64N(int64(3*time.Second))))
					if p.device {
						p.due = h.now.Add(100 * time.Millisecond)
					}
				}
			}
		}
		random.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	}
	if in != devices || worst > 6*time.Second {
		t.Errorf("%d of %d devices got in, the last one after %v", in, devices, worst)
	}
}

// Each decision takes the same time, however many connections there are.
func BenchmarkEnter(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 14, 1 << 17} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, now := New(Limits{Total: n, PerSource: 64}), time.Now()
			at := func(i int) netip.Addr {
				return netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
			}
			i := 0
			for ; i < n-n/8; i++ {
				if s.Enter(at(i), now, 1, func() {}).Place == nil {
					b.Fatal("no place")
				}
			}
			for b.Loop() { // full: the first is overdue, and another gets its place
				i++
				for p := range s.places {
					s.Overdue(p)
					break
				}
				now = now.Add(time.Second)
				if s.Enter(at(i), now, 1, func() {}).Place == nil {
					b.Fatal("no place")
				}
			}
		})
	}
}
