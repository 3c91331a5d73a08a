package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// zone is how name servers answer: by server, family and name in full. Without a
// row a server drops the query.
type zone map[string]reply

type reply struct {
	after time.Duration
	addrs string // separated by spaces
	err   error
}

var (
	noName   = &net.DNSError{Err: "no such host", IsNotFound: true}
	servfail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

func (z zone) ask(ctx context.Context, server string, of family, fqdn string) ([]netip.Addr, error) {
	r, ok := z[server+" "+string(of)+" "+fqdn]
	if !ok {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
	}
	select {
	case <-time.After(r.after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return addrs(r.addrs), r.err
}

func addrs(list string) []netip.Addr {
	var out []netip.Addr
	for a := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

const ms = time.Millisecond

func TestEachFamilyAndServerIsAskedByItself(t *testing.T) {
	one, two := resolvConf{servers: []string{"a"}, ndots: 1}, resolvConf{servers: []string{"a", "b"}, ndots: 1}
	search := func(c resolvConf) resolvConf { c.search = []string{"x.", "y."}; return c }
	const v4, v6 = "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name        string
		conf        resolvConf
		zone        zone
		first, late string
		took        time.Duration
		err         string
	}{
		{name: "both", conf: one, zone: zone{"a ip4 n.": {3 * ms, v4, nil}, "a ip6 n.": {4 * ms, v6, nil}}, first: v6 + " " + v4, took: 4 * ms},
		{name: "AAAA is dropped", conf: one, zone: zone{"a ip4 n.": {3 * ms, v4, nil}}, first: v4, took: 53 * ms},
		{name: "A is dropped", conf: one, zone: zone{"a ip6 n.": {3 * ms, v6, nil}}, first: v6, took: 3 * ms},
		{name: "AAAA comes late", conf: one, zone: zone{"a ip4 n.": {3 * ms, v4, nil}, "a ip6 n.": {400 * ms, v6, nil}}, first: v4, late: v6, took: 53 * ms},
		{name: "A comes late", conf: one, zone: zone{"a ip4 n.": {90 * ms, v4, nil}, "a ip6 n.": {3 * ms, v6, nil}}, first: v6, late: v4, took: 3 * ms},
		{name: "no such name for AAAA only", conf: one, zone: zone{"a ip4 n.": {3 * ms, v4, nil}, "a ip6 n.": {2 * ms, "", noName}}, first: v4, took: 3 * ms},
		{name: "no such name for A only, and AAAA is slow", conf: one, zone: zone{"a ip4 n.": {3 * ms, "", noName}, "a ip6 n.": {2000 * ms, v6, nil}}, first: v6, took: 2000 * ms},
		{name: "a server that fails for AAAA", conf: one, zone: zone{"a ip4 n.": {3 * ms, v4, nil}, "a ip6 n.": {2 * ms, "", servfail}}, first: v4, took: 3 * ms},
		{name: "no such name", conf: one, zone: zone{"a ip4 n.": {3 * ms, "", noName}, "a ip6 n.": {2 * ms, "", noName}}, took: 3 * ms, err: "no such host"},
		{name: "no answer", conf: one, zone: zone{}, took: 5000 * ms, err: "no answer from the name servers in time"},
		{name: "one family unknown, one unanswered", conf: one, zone: zone{"a ip4 n.": {3 * ms, "", noName}}, took: 5000 * ms, err: "IPv4: no such host; IPv6: no answer from the name servers in time"},
		{name: "the first server is dead", conf: two, zone: zone{"b ip4 n.": {3 * ms, v4, nil}, "b ip6 n.": {4 * ms, v6, nil}}, first: v6 + " " + v4, took: 504 * ms},
		{name: "the second server is dead", conf: two, zone: zone{"a ip4 n.": {3 * ms, v4, nil}, "a ip6 n.": {4 * ms, v6, nil}}, first: v6 + " " + v4, took: 4 * ms},
		{name: "the first server refuses", conf: two, zone: zone{"a ip4 n.": {ms, "", servfail}, "a ip6 n.": {ms, "", servfail}, "b ip4 n.": {3 * ms, v4, nil}, "b ip6 n.": {3 * ms, "", noName}}, first: v4, took: 4 * ms},
		{name: "the first server is dead, and the second drops AAAA", conf: two, zone: zone{"b ip4 n.": {3 * ms, v4, nil}}, first: v4, took: 553 * ms},
		{name: "the first server is slow", conf: two, zone: zone{"a ip4 n.": {900 * ms, v4, nil}, "a ip6 n.": {900 * ms, "", noName}, "b ip4 n.": {3 * ms, "", noName}, "b ip6 n.": {3 * ms, "", noName}}, first: v4, took: 900 * ms},
		{name: "the first server is dead, and the second knows no such name", conf: two, zone: zone{"b ip4 n.": {3 * ms, "", noName}, "b ip6 n.": {3 * ms, "", noName}}, took: 1000 * ms, err: "no such host"},
		{name: "the first domain", conf: search(one), zone: zone{"a ip4 n.x.": {3 * ms, v4, nil}, "a ip6 n.x.": {3 * ms, "", noName}}, first: v4, took: 3 * ms},
		{name: "families are not mixed from two domains", conf: search(one), zone: zone{"a ip4 n.x.": {3 * ms, v4, nil}, "a ip6 n.x.": {3 * ms, "", noName}, "a ip6 n.y.": {3 * ms, "2001:db8::bad", nil}}, first: v4, took: 3 * ms},
		{name: "the last domain, with a dead server", conf: search(two), zone: zone{"b ip4 n.x.": {0, "", noName}, "b ip6 n.x.": {0, "", noName}, "b ip4 n.y.": {3 * ms, v4, nil}, "b ip6 n.y.": {3 * ms, "", noName}}, first: v4, took: 1553 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				l := lookup{tt.conf, tt.zone.ask, func(a netip.Addr) netip.Addr { return a }}
				began := time.Now()
				first, late, err := l.name(ctx, "n")
				if took := time.Since(began); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if tt.err != "" {
					if err == nil || err.Error() != tt.err {
						t.Errorf("got %v, %v, want %s", first, err, tt.err)
					}
					return
				}
				if err != nil || !slices.Equal(first, addrs(tt.first)) {
					t.Fatalf("got %v, %v, want %s", first, err, tt.first)
				}
				more := <-late
				if !slices.Equal(more, addrs(tt.late)) {
					t.Errorf("late are %v, want %s", more, tt.late)
				}
				if _, open := <-late; open {
					t.Error("more addresses come after the late ones")
				}
			})
		})
	}
}

// A cancelled lookup leaves no goroutine behind.
func TestALookupEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := lookup{resolvConf{servers: []string{"a", "b"}}, zone{"a ip4 n.": {0, "192.0.2.1", nil}}.ask, nil}
		_, late, err := l.name(ctx, "n.")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if more, open := <-late; open {
			t.Errorf("%v came after the end", more)
		}
		synctest.Wait()
	})
}

// The family that answers first has half of the places.
func TestLateAddressesHaveTheirHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many4, many6 []string
		for i := range 20 {
			many4 = append(many4, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
			many6 = append(many6, netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}).String())
		}
		for _, tt := range []struct{ late6, want int }{{20, 8}, {3, 8}, {0, 8}} {
			z := zone{"a ip4 n.": {0, strings.Join(many4, " "), nil}, "a ip6 n.": {time.Second, strings.Join(many6[:tt.late6], " "), nil}}
			first, late, err := (&lookup{resolvConf{servers: []string{"a"}}, z.ask, nil}).name(t.Context(), "n.")
			more := <-late
			if err != nil || len(first) != 8 || len(more) != tt.want {
				t.Errorf("%d late: %d and %d addresses, %v, want 8 and %d", tt.late6, len(first), len(more), err, tt.want)
			}
			if slices.ContainsFunc(more, func(a netip.Addr) bool { return slices.Contains(first, a) }) {
				t.Errorf("%v is in %v too", more, first)
			}
		}
	})
}

func TestWhichFamilyIsFirst(t *testing.T) {
	for _, tt := range []struct{ name, v6, source, want string }{
		{"a global address", "2001:db8::1", "2001:db8::9", "2001:db8::1 192.0.2.1"},
		{"no IPv6 here", "2001:db8::1", "", "192.0.2.1 2001:db8::1"},
		{"only a unique local source", "2001:db8::1", "fd00::9", "192.0.2.1 fd00::1"},
		{"a unique local address", "fd00::1", "fd00::9", "192.0.2.1 fd00::1"},
	} {
		l := lookup{source: func(netip.Addr) netip.Addr { a, _ := netip.ParseAddr(tt.source); return a }}
		got := l.sorted(addrs("192.0.2.1"), addrs(tt.v6))
		if v4First := strings.HasPrefix(tt.want, "192"); got[0].Is4() != v4First {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	for _, tt := range []struct {
		name, text, host string
		names            map[string]string
		servers          string
	}{
		{"nothing", "", "device", map[string]string{"nms": "nms.", "nms.example": "nms.example."}, ""},
		{"the host's domain", "", "device.lab.example", map[string]string{"nms": "nms.lab.example. nms.", "nms.": "nms."}, ""},
		{"a search list", "search a.example b.example.\n", "device.lab.example", map[string]string{"nms": "nms.a.example. nms.b.example. nms.", "nms.x": "nms.x. nms.x.a.example. nms.x.b.example."}, ""},
		{"the last of domain and search", "domain a.example\nsearch b.example\n", "", map[string]string{"nms": "nms.b.example. nms."}, ""},
		{"an empty search list", "search .\n", "device.lab.example", map[string]string{"nms": "nms."}, ""},
		{"ndots", "search a.example\noptions rotate ndots:3\n", "", map[string]string{"nms.x.y": "nms.x.y.a.example. nms.x.y.", "n.m.s.x": "n.m.s.x. n.m.s.x.a.example."}, ""},
		{"comments and servers", "# nameserver 192.0.2.9\nnameserver 192.0.2.1 # the first\n;x\nnameserver 2001:db8::53\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", "", map[string]string{"nms": "nms."}, "192.0.2.1 2001:db8::53 192.0.2.3"},
	} {
		c := readResolvConf(tt.text, tt.host)
		if got := strings.Join(c.servers, " "); got != tt.servers {
			t.Errorf("%s: servers %q, want %q", tt.name, got, tt.servers)
		}
		for name, want := range tt.names {
			if got := strings.Join(c.names(name), " "); got != want {
				t.Errorf("%s: %s is %q, want %q", tt.name, name, got, want)
			}
		}
	}
}

func TestAnErrorKeepsTheFirstCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lookup{resolvConf{servers: []string{"a"}, search: []string{"x."}, ndots: 1}, zone{
			"a ip4 n.x.": {0, "", servfail}, "a ip6 n.x.": {0, "", servfail}, "a ip4 n.": {0, "", noName}, "a ip6 n.": {0, "", noName},
		}.ask, nil}
		_, _, err := l.name(t.Context(), "n")
		if err == nil || err.Error() != "no such host" || !errors.As(err, new(failure)) {
			t.Errorf("got %v", err)
		}
	})
}
