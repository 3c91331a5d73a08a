//go:build integration

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// oddDevice is a device that does what stock sshd does not, in this process.
type oddDevice struct {
	t       *testing.T
	server  sshtest.Server
	before  string // what it sends before its version string
	mptcp   bool
	hostKey string // public key file
}

// newOddDevice makes a device that lets n in, and that n knows.
func newOddDevice(t *testing.T, n *nms) *oddDevice {
	t.Helper()
	user, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey(t, n.key)))
	if err != nil {
		t.Fatal(err)
	}
	host := sshtest.NewSigner(t)
	line := sshtest.Line(host.PublicKey())
	d := &oddDevice{t: t, server: sshtest.Server{Config: sshtest.LetIn(host, user), Netconf: netconfStandIn()}}
	d.hostKey = strings.TrimSuffix(writeFile(t, filepath.Join(tempDir(t), "host.pub"), line+"\n", 0o600), ".pub")
	n.hostKey = d.hostKey + ".pub"
	writeFile(t, n.knownHosts, alias+" "+line+"\n", 0o600)
	return d
}

// Banner makes the device send a banner before the answer to the first request of a
// login, with more bytes than its fields.
func (d *oddDevice) Banner(trailing string) {
	banner := append(ssh.Marshal(struct {
		Text, Language string `sshtype:"53"`
	}{"Welcome\r\n", "en"}), trailing...)
	d.server.Config.NoClientAuth = true
	d.server.Config.NoClientAuthCallback = func(c ssh.ConnMetadata) (*ssh.Permissions, error) {
		if err := wire.Send(c, banner); err != nil {
			return nil, err
		}
		return nil, errors.New("a key is needed")
	}
}

// Call makes one call home.
func (d *oddDevice) Call(addr string) {
	d.t.Helper()
	dialer := net.Dialer{Timeout: patience}
	dialer.SetMultipathTCP(d.mptcp)
	conn, err := dialer.DialContext(d.t.Context(), "tcp", addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, d.before); err != nil {
		d.t.Fatal(err)
	}
	go d.server.Serve(conn)
}

var (
	messageID = regexp.MustCompile(`message-id="([^"]*)"`)
	location  = regexp.MustCompile(`<location>([^<]*)</location>`)
)

// netconfStandIn is a NETCONF server with one leaf, in the framing of base:1.0.
func netconfStandIn() func(ssh.Channel) uint32 {
	return func(c ssh.Channel) uint32 {
		const base = `xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"`
		value, in := "", bufio.NewReader(c)
		_, _ = io.WriteString(c, `<hello `+base+`><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>4</session-id></hello>`+endOfMessage)
		for message := ""; ; {
			part, err := in.ReadString('>')
			if err != nil {
				return 1
			}
			if message += part; !strings.HasSuffix(message, endOfMessage) {
				continue
			}
			if id := messageID.FindStringSubmatch(message); id != nil {
				body := "<ok/>"
				switch {
				case strings.Contains(message, "get-config"):
					body = `<data><system xmlns="urn:ietf:params:xml:ns:yang:ietf-system"><location>` + value + `</location></system></data>`
				case location.MatchString(message):
					value = location.FindStringSubmatch(message)[1]
				}
				fmt.Fprintf(c, `<rpc-reply %s message-id="%s">%s</rpc-reply>%s`, base, id[1], body, endOfMessage)
				if strings.Contains(message, "close-session") {
					time.Sleep(50 * time.Millisecond) // so that the reply is read before the end
					return 0
				}
			}
			message = ""
		}
	}
}
