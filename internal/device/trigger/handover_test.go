package trigger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// The session continues after detach returns, and its log begins with the trigger's
// line.
func TestDetachReturnsWhenSshdHasTheSocket(t *testing.T) {
	l, client := listen(t)
	s := call(t, client)
	s.Opaque = "site\n7"
	s.Sshd.Sshd = program(t, `echo SSH-2.0-standin; read line; echo "read $line"; echo output >&2`)
	if err := Run(s, quiet); err != nil {
		t.Fatal(err)
	}
	peer := accept(t, l)
	lines := bufio.NewReader(peer)
	if banner, err := lines.ReadString('\n'); err != nil || banner != "SSH-2.0-standin\n" {
		t.Fatalf("the client reads %q, %v", banner, err)
	}
	if _, err := io.WriteString(peer, "hello\n"); err != nil {
		t.Fatal(err)
	}
	// The end of file comes only if no process but sshd holds the socket.
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "read hello\n" {
		t.Errorf("the client reads %q, %v", rest, err)
	}
	log, err := os.ReadFile(s.SshdLog)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^\S+Z callhome-trigger\[\d+\]: connected to 127\.0\.0\.1:\d+ \(127\.0\.0\.1\) from 127\.0\.0\.1:\d+ opaque "site\\n7"\noutput\n$`)
	if !want.Match(log) {
		t.Errorf("the log has %q", log)
	}
}

// detach ends an sshd that sends nothing within startTime, and the NETCONF client's
// connection is closed.
func TestDetachEndsAnSshdThatSendsNothing(t *testing.T) {
	l, client := listen(t)
	s := call(t, client)
	s.Sshd.Sshd = program(t, "read line")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := Run(s, quiet)
		if took := time.Since(start); took < startTime || took > startTime+time.Second {
			t.Errorf("took %v, want %v", took, startTime)
		}
		want := "sshd took longer than 15s to start and was ended"
		if sysexits.Code(err) != sysexits.OSErr || err.Error() != want || sysexits.Hint(err) != "callhome-trigger --check shows what is missing" {
			t.Errorf("exit status %d with %v; %s", sysexits.Code(err), err, sysexits.Hint(err))
		}
	})
	if rest, err := io.ReadAll(accept(t, l)); err != nil || len(rest) > 0 {
		t.Errorf("the client reads %q, %v", rest, err)
	}
}

func TestAnnounceComesBeforeTheBanner(t *testing.T) {
	for _, tt := range []struct{ name, opaque, want string }{
		{"without opaque", "", ""},
		{"hostile opaque is one line", "a\r\nSSH-2.0-x\"\x00é", "OPAQUE: a%0D%0ASSH-2.0-x%22%00é\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Opaque, s.Announce, s.DeviceID = tt.opaque, true, "dev-1"
			s.Sshd.Sshd = program(t, `echo SSH-2.0-standin`)
			if err := Run(s, quiet); err != nil {
				t.Fatal(err)
			}
			want := "MSG-ID: DEVICE-CONN-INFO\r\nMSG-VER: V1\r\nDEVICE-ID: dev-1\r\n" + tt.want + "SSH-2.0-standin\n"
			if got, err := io.ReadAll(accept(t, l)); err != nil || string(got) != want {
				t.Errorf("the client reads\n%q, %v, want\n%q", got, err, want)
			}
		})
	}
}

// The announcement's bytes are the trigger's: detach waits for bytes after them.
func TestAnnounceDoesNotCountAsSshdsFirstByte(t *testing.T) {
	_, client := listen(t)
	s := call(t, client)
	s.Announce, s.DeviceID = true, "dev-1"
	s.Sshd.Sshd = program(t, `echo output >&2; exit 255`)
	err := Run(s, quiet)
	if err == nil || !strings.HasPrefix(err.Error(), "sshd ended with status 255 before it took the connection to ") {
		t.Errorf("%v", err)
	}
}

// Each log message is one line whatever bytes OPAQUE has, and OPAQUE is quoted once.
func TestRunLogsWhatHappened(t *testing.T) {
	for _, tt := range []struct{ name, opaque, shown, inJSON string }{
		{"none", "", "", ""},
		{"plain text", "site-7", ` opaque="site-7"`, "site-7"},
		{"quotes", `say "x"`, ` opaque="say \"x\""`, `say "x"`},
		{"a line of its own", "x\n[ERROR] callhome: \x1b[31m", ` opaque="x\n[ERROR] callhome: \x1b[31m"`, "x\n[ERROR] callhome: \x1b[31m"},
		{"bytes", "a\xff\u202e", ` opaque="a\xff\u202e"`, "a\ufffd\u202e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, client := listen(t)
			s := call(t, client)
			s.Opaque = tt.opaque
			s.Sshd.Sshd = program(t, `echo SSH-2.0-standin`)
			var text, lines bytes.Buffer
			for out, asJSON := range map[*bytes.Buffer]bool{&text: false, &lines: true} {
				if err := Run(s, hclog.New(&hclog.LoggerOptions{Name: "callhome-trigger", Level: hclog.Info, Output: out, DisableTime: true, JSONFormat: asJSON})); err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(out.String(), "\n"); n != 2 || strings.Contains(out.String(), "\x1b") {
					t.Errorf("logs %d lines\n%q", n, out)
				}
			}
			want := "[INFO]  callhome-trigger: calling home: host=127.0.0.1 port=" + strconv.Itoa(int(client.Port)) + tt.shown + "\n[INFO]  callhome-trigger: connected: remote=127.0.0.1:"
			if !strings.HasPrefix(text.String(), want) {
				t.Errorf("logs\n%s, want\n%s", &text, want)
			}
			var first struct{ Opaque string }
			if err := json.NewDecoder(&lines).Decode(&first); err != nil || first.Opaque != tt.inJSON {
				t.Errorf("logs %q, %v, want %q", first.Opaque, err, tt.inJSON)
			}
		})
	}
}

// An sshd that has sent a byte has taken the socket, also if it exits before the
// next poll because the client disconnected.
func TestDetachAcceptsAnSshdThatEndsAtOnce(t *testing.T) {
	_, client := listen(t)
	s := call(t, client)
	s.Sshd.Sshd = program(t, `echo SSH-2.0-standin; exit 255`)
	for range 20 { // covers both: it still runs, and it has exited
		if err := Run(s, quiet); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSshdGetsTheOptionForItsLog(t *testing.T) {
	for _, tt := range []struct {
		dest  string
		wants bool // -e
	}{{"", true}, {"syslog", false}} {
		t.Run("log "+tt.dest, func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Sshd.Sshd = program(t, `echo "$*"; read line`)
			if tt.dest != "" {
				s.SshdLog = tt.dest
			}
			err := Run(s, quiet)
			if _, none := os.Stat("/dev/log"); none != nil && tt.dest == "syslog" {
				if sysexits.Code(err) != sysexits.OSErr || !strings.HasPrefix(err.Error(), "logging to syslog: ") {
					t.Errorf("without /dev/log: exit status %d with %v", sysexits.Code(err), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			args, err := bufio.NewReader(accept(t, l)).ReadString('\n')
			if err != nil || strings.HasPrefix(args, "-i -e -f ") != tt.wants || !strings.HasPrefix(args, "-i ") {
				t.Errorf("sshd's arguments are %q, %v", args, err)
			}
		})
	}
}
