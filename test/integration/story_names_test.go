//go:build integration

package integration

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A name server that misbehaves for one family, or a dead one beside a live one, does
// not keep the device away from a station that has an address. Not parallel: the
// stories share one resolv.conf.
func TestNameServersThatMisbehave(t *testing.T) {
	before := readFile(t, "/etc/resolv.conf")
	t.Cleanup(func() { writeFile(t, "/etc/resolv.conf", before, 0o644) })
	nameServer(t, "127.0.0.1:53")
	silent, err := net.ListenPacket("udp", "127.0.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	const alive, dead = "nameserver 127.0.0.1\n", "nameserver 127.0.0.2\n"
	for _, tt := range []struct {
		name, host, servers string
		within              time.Duration
	}{
		{"both families", "both.example", alive, time.Second},
		{"AAAA is dropped", "drop6.example", alive, time.Second},
		{"A is dropped", "drop4.example", alive, time.Second},
		{"AAAA comes when IPv4 has failed", "late6.example", alive, 2 * time.Second},
		{"no such name for AAAA", "nx6.example", alive, time.Second},
		{"AAAA cannot be answered", "fail6.example", alive, time.Second},
		{"a truncated answer", "truncated.example", alive, time.Second},
		{"the first name server is dead", "both.example", dead + alive, 2 * time.Second},
		{"the second name server is dead", "both.example", alive + dead, time.Second},
		{"the first name server is dead, AAAA is dropped", "drop6.example", dead + alive, 2 * time.Second},
		{"a search list, a dead name server", "drop6", dead + alive + "search other.example example\n", 4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writeFile(t, "/etc/resolv.conf", tt.servers, 0o644)
			at := ":0"
			if tt.host == "late6.example" {
				at = "[::1]:0" // IPv4 refuses at once
			}
			nms := listen(t, at)
			_, port := splitAddr(t, nms.Addr())
			device := newDevice(t, "/bin/true")
			// A busy machine can take longer for one call, but not for each.
			for try := 1; ; try++ {
				began := time.Now()
				start(t, "callhome-trigger", device.Command([]string{tt.host, port}))
				nms.Accept().Banner()
				took := time.Since(began)
				t.Logf("from the start to sshd's banner: %v", took.Round(time.Millisecond))
				if took <= tt.within {
					break
				}
				if try == 10 {
					t.Fatalf("%d calls took more than %v each", try, tt.within)
				}
			}
		})
	}
	for _, tt := range []struct{ name, host, servers, says string }{
		{"a loop of CNAMEs", "loop.example", alive, "no such host"},
		{"a truncated answer, and no TCP", "truncated.example", "nameserver 127.0.0.3\n", "connection refused"},
		{"only dead name servers", "both.example", dead, "no answer from the name servers in time"},
		{"no such name, beside a dead name server", "nx.example", dead + alive, "no such host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.servers, "127.0.0.3") {
				serveUDP(t, "127.0.0.3:53")
			}
			writeFile(t, "/etc/resolv.conf", tt.servers, 0o644)
			call := newDevice(t, "/bin/true").Call(tt.host+":4334", "--connect-timeout", "3s")
			call.MustExit(68)
			oneLine(t, call.Stderr(), "name "+tt.host+" does not resolve: ", tt.says)
		})
	}
}

// nameServer answers for the names above on UDP and TCP.
func nameServer(t *testing.T, addr string) {
	t.Helper()
	serveUDP(t, addr)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			query := make([]byte, 1500)
			if n, err := c.Read(query); err == nil && n > 2 {
				if reply, _ := dnsReply(query[2:n], true); reply != nil {
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
				}
			}
			c.Close()
		}
	}()
}

func serveUDP(t *testing.T, addr string) {
	t.Helper()
	server, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for query := make([]byte, 1500); ; {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			if reply, after := dnsReply(query[:n], false); reply != nil {
				time.AfterFunc(after, func() { _, _ = server.WriteTo(reply, from) })
			}
		}
	}()
}

// dnsReply returns what the name server sends, and after how long; nil drops the query.
func dnsReply(query []byte, tcp bool) ([]byte, time.Duration) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, 0
	}
	q, err := p.Question()
	if err != nil {
		return nil, 0
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	answer := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: body})
	}
	v6 := q.Type == dnsmessage.TypeAAAA
	address := func() {
		if v6 {
			answer(&dnsmessage.AAAAResource{AAAA: [16]byte{15: 1}})
		} else {
			answer(&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}})
		}
	}
	var after time.Duration
	switch name := q.Name.String(); {
	case name == "both.example.":
		address()
	case name == "drop6.example." && v6, name == "drop4.example." && !v6:
		return nil, 0
	case name == "drop6.example.", name == "drop4.example.":
		address()
	case name == "late6.example." && v6:
		after = 500 * time.Millisecond
		address()
	case name == "late6.example.":
		address()
	case name == "fail6.example." && v6:
		m.RCode = dnsmessage.RCodeServerFailure
	case name == "nx6.example." && !v6, name == "fail6.example.":
		address()
	case name == "truncated.example.":
		if m.Truncated = !tcp; tcp {
			address()
		}
	case name == "loop.example.":
		answer(&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("pool.example.")})
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("pool.example."), Class: q.Class, TTL: 1}, Body: &dnsmessage.CNAMEResource{CNAME: q.Name}})
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		return nil, 0
	}
	return out, after
}
