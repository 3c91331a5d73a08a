package resolve

import (
	"context"
	"errors"
	"io/fs"
	"net"
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
			addrs, err := Lookup(name, dial.Options{}, time.Now().Add(10*time.Second))
			if err != nil || len(addrs) == 0 {
				t.Fatalf("got %v, %v", addrs, err)
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
			addrs, err := Lookup(tt.name, dial.Options{}, tt.deadline)
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
			conn, err := query(context.Background(), "udp", server, tt.o)
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
