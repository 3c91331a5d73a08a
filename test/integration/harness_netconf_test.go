//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// netconf is a NETCONF session over the stock ssh's stdin and stdout, in the
// framing of base:1.0: a message ends with ]]>]]> (RFC 6242 section 4.3).
type netconf struct {
	*process
	in, out *os.File
	reader  *bufio.Reader
	asked   int
	ID      string // the session-id that the server gave it
	from    string // at a station, the device's end of the connection
}

const endOfMessage = "]]>]]>"

// Netconf waits for a call home on addr and opens the netconf subsystem.
func (n *nms) Netconf(addr string, options ...string) *netconf {
	n.t.Helper()
	s := n.startNetconf(addr, options...)
	s.AwaitListening(addr)
	return s
}

func (n *nms) startNetconf(addr string, options ...string) *netconf {
	n.t.Helper()
	cmd := n.SshCommand(addr, append(append([]string(nil), options...), "-s", n.user+"@"+alias, "netconf")...)
	return converse(n.t, "ssh", cmd)
}

// converse starts a command that is a NETCONF session on its stdin and stdout.
func converse(t *testing.T, name string, cmd *exec.Cmd) *netconf {
	t.Helper()
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	t.Cleanup(func() { in.Close(); out.Close() })
	cmd.Stdin, cmd.Stdout = stdin, stdout
	return &netconf{process: start(t, name, cmd), in: in, out: out, reader: bufio.NewReader(out)}
}

// Hello exchanges capabilities with the server, which comes first, and waits
// until it has taken ours; nil is a server that forgets no request.
func (s *netconf) Hello(server *netconfd) {
	s.t.Helper()
	hello, err := s.receive("hello", 3*patience)
	if err != nil {
		s.t.Fatal(err)
	}
	contains(s.t, "the server's hello", hello, "urn:ietf:params:netconf:base:1.0")
	s.ID = between(hello, "<session-id>", "</session-id>")
	s.send(`<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>` +
		`<capability>urn:ietf:params:netconf:base:1.0</capability></capabilities></hello>`)
	if server != nil {
		server.AwaitActive(s.ID)
	}
}

// Ask sends one operation and wants a reply, without an error, that holds want.
func (s *netconf) Ask(what, operation, want string) string {
	s.t.Helper()
	s.asked++
	s.send(fmt.Sprintf(`<rpc message-id="%d" xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">%s</rpc>`, s.asked, operation))
	reply, err := s.receive(what, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.Contains(reply, "<rpc-error") || !strings.Contains(reply, want) || !strings.Contains(reply, fmt.Sprintf(`message-id="%d"`, s.asked)) {
		s.t.Fatalf("%s: the reply is not number %d with %q:\n%s", what, s.asked, want, reply)
	}
	return reply
}

// Close ends the session as RFC 6241 section 7.8 has it, and ssh with it.
func (s *netconf) Close() {
	s.t.Helper()
	s.Ask("close-session", "<close-session/>", "<ok")
	s.in.Close()
	s.MustExit(0)
}

func (s *netconf) send(message string) {
	s.t.Helper()
	if _, err := s.in.WriteString(message + endOfMessage); err != nil {
		s.t.Fatalf("sending to the NETCONF server: %v", err)
	}
}

// receive reads one message.
func (s *netconf) receive(what string, limit time.Duration) (string, error) {
	_ = s.out.SetReadDeadline(time.Now().Add(limit))
	var message strings.Builder
	for !strings.HasSuffix(message.String(), endOfMessage) {
		part, err := s.reader.ReadString('>')
		message.WriteString(part)
		if err != nil {
			return "", fmt.Errorf("waiting for the NETCONF server's %s: %w after %q", what, err, message.String())
		}
	}
	return strings.TrimSuffix(message.String(), endOfMessage), nil
}

// between returns what stands between two marks; "" if they are not there.
func between(text, from, to string) string {
	_, rest, _ := strings.Cut(text, from)
	inner, _, ok := strings.Cut(rest, to)
	if !ok {
		return ""
	}
	return inner
}
