//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	nc "callhome/internal/nms/netconf"

	"golang.org/x/crypto/ssh"
)

// replySize is the length of a hostile device's reply, in bytes.
const replySize = 8 << 20

// hostileReply returns replySize bytes of a reply made of begin, many middles and end.
func hostileReply(begin, middle, end string) []byte {
	const root = `<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="1">`
	begin, end = root+begin, end+"</rpc-reply>"
	many := (replySize - len(begin) - len(end)) / len(middle)
	return []byte(begin + strings.Repeat(middle, many) + end)
}

// answers is a NETCONF server that answers the first request with a message, and ends at
// the next one.
func answers(reply []byte) func(ssh.Channel) uint32 {
	return func(ch ssh.Channel) uint32 {
		hello := `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability>` +
			`</capabilities><session-id>7</session-id></hello>`
		if nc.Write(ch, nc.EndOfMessage, []byte(hello)) != nil {
			return 1
		}
		in := nc.NewReader(ch)
		for n := range 3 { // the hello, the request, <close-session>
			if _, err := in.Next(); err != nil || n == 1 && nc.Write(ch, nc.EndOfMessage, reply) != nil {
				return 1
			}
		}
		return 0
	}
}

// peak returns the most memory that a process had so far, in KiB; 0 after its end. The
// kernel's figure at the end would include this process's from before the exec.
func peak(pid int) (kib int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if _, after, found := strings.Cut(string(status), "VmHWM:"); found {
		_, _ = fmt.Sscan(after, &kib)
	}
	return kib
}

// Whatever a device's reply is made of, the console needs at most four times its size in
// memory, above what it needs for a small reply.
func TestAReplyCostsAtMostFourTimesItsSize(t *testing.T) {
	t.Parallel()
	memory := func(reply []byte) (kib int64, p *process) {
		n := newNMS(t)
		s := newStandIns(t, 1, n)
		s.servers[0].Netconf = answers(reply)
		writeFile(t, n.knownHosts, alias+" "+s.keys[0]+"\n", 0o600)
		addr := freeAddr("127.0.0.1")
		p = n.Console(addr, "--timeout", "60s", "--get")
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go s.servers[0].Serve(conn)
		for !p.over(2 * time.Millisecond) {
			kib = max(kib, peak(p.pid))
		}
		return kib, p
	}
	small, p := memory([]byte(`<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="1"><ok/></rpc-reply>`))
	p.MustExit(0)
	for _, row := range []struct {
		name, begin, middle, end string
		exit                     int
	}{
		{"text", "<a>", "x", "</a>", 0},
		{"space", "<a>", " ", "</a>", 0},
		{"a comment", "<!--", "x", "-->", 0},
		{"siblings", "", "<a/>", "", 0},
		{"nested elements", "", "<a>", "", 76},
		{"attributes", "<a", " a=''", "/>", 76},
		{"a long name", "<", "a", "/>", 76},
		{"namespaces", "", "<a xmlns:a='a'/>", "", 0},
		{"errors", "", "<rpc-error/>", "", 65},
		{"an error's message", "<rpc-error><error-message>", "x", "</error-message></rpc-error>", 65},
		{"an error's information", "<rpc-error><error-info>", "<a/>", "</error-info></rpc-error>", 65},
	} {
		kib, p := memory(hostileReply(row.begin, row.middle, row.end))
		p.MustExit(row.exit)
		ratio := float64(kib-small) / (replySize >> 10)
		t.Logf("%s: %.1f times", row.name, ratio)
		if ratio > 4 {
			t.Errorf("%s: %d KiB for a reply of %d, which is %.1f times its size", row.name, kib, replySize>>10, ratio)
		}
	}
}
