package resolve

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// What resolves without a name server: addresses, and /etc/hosts.
func TestLookup(t *testing.T) {
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		t.Run(name, func(t *testing.T) {
			addrs, late, err := Lookup(t.Context(), name, dial.Options{})
			if err != nil || len(addrs) == 0 {
				t.Fatalf("got %v, %v", addrs, err)
			}
			if more, open := <-late; open {
				t.Errorf("%v came late", more)
			}
			for _, a := range addrs {
				if !a.IsLoopback() {
					t.Errorf("%v is not on the loopback", a)
				}
			}
		})
	}
}

// No query leaves this machine: names under onion are never queried (RFC 7686),
// and no query starts after the deadline.
func TestLookupReportsTheCause(t *testing.T) {
	for _, tt := range []struct {
		name     string
		deadline time.Time
		says     string // at its beginning
	}{
		{"nms.onion", time.Now().Add(10 * time.Second), "name nms.onion does not resolve: "},
		{"nms.invalid", time.Now().Add(-time.Second), "name nms.invalid does not resolve: no answer from the name servers in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithDeadline(t.Context(), tt.deadline)
			defer cancel()
			addrs, _, err := Lookup(ctx, tt.name, dial.Options{})
			if err == nil || sysexits.Code(err) != sysexits.NoHost || !strings.HasPrefix(err.Error(), tt.says) {
				t.Errorf("got %v, exit status %d with %v, want %s", addrs, sysexits.Code(err), err, tt.says)
			}
		})
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"no such name", &net.DNSError{Err: "no such host", Name: "nms", Server: "192.0.2.1:53", IsNotFound: true}, "no such host"},
		{"another resolver's text", &net.DNSError{Err: "dnsquery: DNS name does not exist", Name: "nms", IsNotFound: true}, "no such host"},
		{"a timeout", &net.DNSError{Err: "i/o timeout", Name: "nms", IsTimeout: true}, "no answer from the name servers in time"},
		{"a server's failure", &net.DNSError{Err: "server misbehaving", Name: "nms", Server: "192.0.2.1:53"}, "server misbehaving"},
		{"wrapped", errors.Join(&net.DNSError{IsTimeout: true}), "no answer from the name servers in time"},
		{"not the resolver's", fs.ErrPermission, "permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := reason(tt.err); got != tt.want {
				t.Errorf("says %q, want %q", got, tt.want)
			}
		})
	}
}

// Questions go the way of the connection, or not at all. A UDP socket sends
// nothing when it is connected.
func TestQueryGoesTheConnectionsWay(t *testing.T) {
	const server = "127.0.0.1:53"
	for _, tt := range []struct {
		name string
		o    dial.Options
		want error
	}{
		{"the direct way", dial.Options{}, nil},
		{"an interface that is not there", dial.Options{Interface: "nosuch0"}, unix.ENODEV},
		{"a namespace that is not there", dial.Options{Netns: "/nonexistent/ns"}, fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := connect(context.Background(), "udp", server, tt.o)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != server {
				t.Errorf("asks %s, want %s", got, server)
			}
		})
	}
}

// A name server can answer with thousands of addresses. At most 16 are tried, of
// both families, in the order of the answer.
func TestAddressesAreLimited(t *testing.T) {
	some := func(v4, v6 int) (out []netip.Addr) {
		for i := range v4 {
			out = append(out, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
		}
		for i := range v6 {
			out = append(out, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
		}
		return out
	}
	for _, tt := range []struct{ v4, v6, want4, want6 int }{
		{1, 1, 1, 1}, {16, 0, 16, 0}, {3900, 0, 16, 0}, {0, 17, 0, 16}, {2000, 1900, 8, 8}, {3899, 1, 15, 1}, {2, 3000, 2, 14},
	} {
		all := some(tt.v4, tt.v6)
		got, at := limit(all), 0
		n := map[bool]int{}
		for _, a := range got {
			n[a.Is6()]++
			next := slices.Index(all[at:], a)
			if next < 0 {
				t.Fatalf("%d and %d: %v is out of its order", tt.v4, tt.v6, a)
			}
			at += next + 1
		}
		if n[false] != tt.want4 || n[true] != tt.want6 {
			t.Errorf("of %d and %d: %d and %d, want %d and %d", tt.v4, tt.v6, n[false], n[true], tt.want4, tt.want6)
		}
	}
}
