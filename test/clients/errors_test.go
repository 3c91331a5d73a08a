//go:build integration

package clients

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"
)

// TestEveryStage: a call home that fails says at which stage, whom it tried,
// why, and whether to try again.
func TestEveryStage(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d := startDaemon(t, nil)
		refusing := refusingPort(t)
		hangsUp := listen(t, func(conn net.Conn) {})
		notSSH := listen(t, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		})
		noAlgorithm := listen(t, badKeyExchange)
		wrongKey := startSSH(t, "wrong_key", "-s", "netop@nms", "netconf")
		noSubsystem := startSSH(t, "user_key", "-N", "netop@nms")

		for _, s := range []struct {
			name          string
			host, port    string
			wait          string
			error, stage  string
			retry, reason string
			during        func()
		}{
			{"name", "nosuch.invalid", "4334", "tcp", "NAME", "name", "1", "nosuch.invalid", nil},
			{"refused", "127.0.0.1", refusing, "tcp", "UNAVAILABLE", "tcp", "1", "connection refused", nil},
			{"hangs up", "127.0.0.1", hangsUp.port, "ssh", "SSH", "ssh", "1", "client", nil},
			{"not ssh", "127.0.0.1", notSSH.port, "ssh", "SSH", "ssh", "1", "client does not speak ssh", nil},
			{"no common algorithm", "127.0.0.1", noAlgorithm.port, "netconf", "SSH", "ssh", "1", "no common algorithm: no matching key exchange method found. Their offer: ", nil},
			{"wrong key", "127.0.0.1", wrongKey.port, "ssh", "AUTH", "authentication", "0", "client", nil},
			{"no subsystem", "127.0.0.1", noSubsystem.port, "netconf", "SUBSYSTEM", "subsystem", "0", "", func() {
				endOnceLoggedIn(t, d, noSubsystem)
			}},
		} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				if s.during != nil {
					s.during()
				}
			}()
			a := c.fails(t, "CALLHOME_ERR_"+s.error, d.socket, "call", s.host, s.port, s.wait)
			<-done
			a.want(t, "stage", s.stage, "retry", s.retry)
			a.contains(t, "reason", s.reason)
			a.contains(t, "address", s.host)
			a.contains(t, "address", s.port)
			a.contains(t, "message", "failed at "+s.stage)
			if a.number(t, "failed-session") == 0 {
				t.Errorf("%s: the session that failed has no number", s.name)
			}
		}
		c.session(t, d.socket, "sessions").want(t, "count", "0")
	})
}

// badKeyExchange offers an algorithm that no sshd has, in the form of RFC 4253
// sections 6 and 7.1.
func badKeyExchange(conn net.Conn) {
	lists := ""
	for _, names := range []string{"none-such", "ssh-ed25519", "none-such", "none-such", "none-such", "none-such", "none", "none", "", ""} {
		lists += string([]byte{0, 0, 0, byte(len(names))}) + names
	}
	payload := "\x14" + strings.Repeat("\x00", 16) + lists + "\x00\x00\x00\x00\x00"
	padding := 8 - (5+len(payload))%8 + 8
	size := 1 + len(payload) + padding
	_, _ = io.WriteString(conn, "SSH-2.0-stub\r\n"+string([]byte{0, 0, byte(size >> 8), byte(size), byte(padding)})+payload+strings.Repeat("\x00", padding))
	_, _ = io.Copy(io.Discard, conn)
}

// endOnceLoggedIn ends an ssh that wants nothing of the session it has. It is
// called beside the story, so it does not end it.
func endOnceLoggedIn(t *testing.T, d *daemon, s *ssh) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(3 * time.Millisecond) {
		log, err := os.ReadFile(d.dir + "/log")
		if err == nil && strings.Contains(string(log), "authenticated:") {
			_ = s.cmd.Process.Kill()
			return
		}
	}
	t.Errorf("no login within %v", patience)
}

// TestHandover: an sshd that is not there, or does not like its configuration,
// is the handover's failure.
func TestHandover(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		n := listen(t, nil)
		missing := startDaemon(t, []string{"CALLHOME_SSHD=/nowhere/sshd"})
		a := c.fails(t, "CALLHOME_ERR_HANDOVER", missing.socket, "call", "127.0.0.1", n.port, "tcp")
		a.want(t, "stage", "handover", "retry", "0")
		a.contains(t, "reason", "/nowhere/sshd")

		config := filepath.Join(missing.dir, "sshd_config")
		if err := os.WriteFile(config, []byte("NoSuchKeyword yes\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		broken := startDaemon(t, []string{"CALLHOME_SSHD_CONFIG=" + config})
		a = c.fails(t, "CALLHOME_ERR_HANDOVER", broken.socket, "call", "127.0.0.1", n.port, "ssh")
		a.want(t, "stage", "handover", "retry", "0")
		a.contains(t, "reason", "bad configuration option")
	})
}

// TestBadParameters: a wrong parameter is reported before any host is called,
// and the connection stays.
func TestBadParameters(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d := startDaemon(t, nil)
		words := []string{"status"}
		for _, w := range [][]string{
			{"call", "", "4334", "tcp"},
			{"call", "two words", "4334", "tcp"},
			{"call", "-oProxyCommand=reboot", "4334", "tcp"},
			{"call", "$(reboot)", "4334", "tcp"},
			{"call", "0.0.0.0", "4334", "tcp"},
			{"call", "300.1.2.3", "4334", "tcp"},
			{"call", "a..b", "4334", "tcp"},
			{"call", "h\xff", "4334", "tcp"},
			{"call", strings.Repeat("h", 300), "4334", "tcp"},
			{"call", strings.Repeat("h", 90000), "4334", "tcp"},
			{"call", "127.0.0.1", "65536", "tcp"},
			{"call", "127.0.0.1", "-1", "tcp"},
			{"call", "127.0.0.1", "4334", "forever"},
			{"call", "127.0.0.1", "4334", "tcp", strings.Repeat("o", 1025)},
		} {
			words = append(append(words, "then"), w...)
		}
		answers := c.ask(t, caller{}, d.socket, append(words, "then", "kill", "0", "then", "kill", "-5", "then", "status")...)
		first, last := answers[0], answers[len(answers)-1]
		for _, a := range answers[1 : len(answers)-3] {
			a.want(t, "error", "CALLHOME_ERR_BADTYPE", "stage", "", "retry", "0")
			if a.get("message") == "" {
				t.Errorf("no message in %v", a.all)
			}
		}
		for _, a := range answers[len(answers)-3 : len(answers)-1] {
			a.want(t, "error", "CALLHOME_ERR_NOEXISTS")
		}
		last.want(t, "pid", first.get("pid"), "calls", "0", "sessions", "0")
	})
}

// TestOpaque: whatever text the opaque word is, it arrives as it was given: in
// the answers, and in the arguments of the executable that makes the call.
// What is no text is refused.
func TestOpaque(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		dir, err := os.MkdirTemp(runDir, "x")
		if err != nil {
			t.Fatal(err)
		}
		program := dir + "/program"
		// It keeps its third word, whole, under the name of its second.
		script := "#!/bin/sh\nprintf '%s.' \"$3\" >" + dir + "/new-$2\nmv " + dir + "/new-$2 " + dir + "/$2\nexit 69\n"
		if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		d := startDaemon(t, nil, "--ssh-call-home-executable", program)
		var control strings.Builder
		for b := range 31 {
			control.WriteByte(byte(b + 1))
		}
		texts := []string{
			"plain", `"`, `\`, `\"}}`, "a\nb", "a\r\n{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"stop\"}\r\n", control.String(), "\x7f", "\t", " ", "%41%", "$(reboot) `reboot` ; | & > <",
			"é", "漢字", "🙂", "\u2028\u2029", "\uFEFF", "\U0010FFFF", "a\u0301", "-oProxyCommand=x", "--", "null", strings.Repeat("o", 1024), strings.Repeat("\x01", 1024), strings.Repeat("🙂", 256),
		}
		var words []string
		for i, s := range texts {
			words = append(words, "call", "nms.example", itoa(20000+i), "none", s, "then")
		}
		for _, a := range c.ask(t, caller{}, d.socket, append(words, "status")...)[:len(texts)] {
			if a.number(t, "session") == 0 {
				t.Errorf("no session: %v", a.all)
			}
		}
		for i, s := range texts {
			sandbox.Await(t, patience, "the executable", func() error {
				data, err := os.ReadFile(filepath.Join(dir, itoa(20000+i)))
				if err == nil && string(data) != s+"." {
					t.Errorf("opaque %q arrived as %q", s, data)
				}
				return err
			})
		}
		words = nil
		for _, s := range []string{"\xff", "a\x80", "\xc0\xaf", "\xed\xa0\x80", "\xe2\x82", "ok\xfe"} {
			words = append(words, "call", "nms.example", "4334", "none", s, "then")
		}
		answers := c.ask(t, caller{}, d.socket, append(words, "status")...)
		for _, a := range answers[:len(answers)-1] {
			a.want(t, "error", "CALLHOME_ERR_BADTYPE", "rpc", "0")
			a.contains(t, "message", "UTF-8")
		}
		answers[len(answers)-1].want(t, "calls", itoa(len(texts)))
		// It may replace bytes that were no text: the manager cannot know.
		replaced := c.ask(t, caller{}, d.socket, "call", "nms.example", "4334", "none", "\uFFFD")[0]
		replaced.want(t, "error", "CALLHOME_ERR_BADTYPE")
		replaced.contains(t, "message", "UTF-8")
	})
}

// TestOpaqueComesBack: the manager shows it as it was given.
func TestOpaqueComesBack(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		for i, s := range []string{"\"\\\n\x01\x1f\x7f\t/", "é漢🙂\u2028<&>", strings.Repeat("🙂", 256)} {
			c.session(t, d.socket, "call", "127.0.0.1", n.port, "tcp", s)
			n.awaitBanner(t)
			c.session(t, d.socket, "session", itoa(i+1)).want(t, "opaque", s)
		}
	})
}
