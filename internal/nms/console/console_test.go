package console

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"callhome/internal/nms/netconf"
	"callhome/internal/sysexits"

	"golang.org/x/term"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// requests parses a command line as `callhome-nms console` does.
func requests(t *testing.T, args ...string) ([]*Request, error) {
	t.Helper()
	var s Script
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range s.Flags() {
		set.Var(f, f.Name, f.Usage)
	}
	if err := set.Parse(Join(args)); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return s.Requests()
}

func must(t *testing.T, args ...string) []*Request {
	t.Helper()
	all, err := requests(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEachOperationIsTheXMLOfItsRFC(t *testing.T) {
	file := write(t, "<?xml version='1.0'?>\n<a xmlns='urn:a'/>")
	two := write(t, "<a xmlns='urn:a'/><b xmlns='urn:b'/>")
	rpc := write(t, "<?xml version='1.0'?>\n<rpc message-id='7'><get/></rpc>\n")
	whole := write(t, "<config><a xmlns='urn:a'/></config>")
	for _, row := range []struct{ args, want string }{
		{"--hello", ""},
		{"--get", "<get></get>"},
		{"--get -x /a:b[c='1'] --ns a=urn:a&b", `<get><filter type="xpath" xmlns:a="urn:a&amp;b" select="/a:b[c=&#39;1&#39;]"/></get>`},
		{"--get --subtree " + two, `<get><filter type="subtree"><a xmlns='urn:a'/><b xmlns='urn:b'/></filter></get>`},
		{"--get --with-defaults trim", `<get><with-defaults xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults">trim</with-defaults></get>`},
		{"--get-config", "<get-config><source><running/></source></get-config>"},
		{"--get-config candidate -x /", `<get-config><source><candidate/></source><filter type="xpath" select="/"/></get-config>`},
		{"--get-config --db startup", "<get-config><source><startup/></source></get-config>"},
		{"--get-config file:///a?b&c", "<get-config><source><url>file:///a?b&amp;c</url></source></get-config>"},
		{"--edit-config " + file, "<edit-config><target><running/></target><config><a xmlns='urn:a'/></config></edit-config>"},
		{"--edit-config " + whole + " --db candidate -t set --error-option stop-on-error --default-operation none",
			"<edit-config><target><candidate/></target><default-operation>none</default-operation><test-option>set</test-option>" +
				"<error-option>stop-on-error</error-option><config><a xmlns='urn:a'/></config></edit-config>"},
		{"--copy-config " + two, "<copy-config><target><running/></target><source><config><a xmlns='urn:a'/><b xmlns='urn:b'/></config></source></copy-config>"},
		{"--copy-config --source running --db startup", "<copy-config><target><startup/></target><source><running/></source></copy-config>"},
		{"--copy-running-to-startup", "<copy-config><target><startup/></target><source><running/></source></copy-config>"},
		{"--delete-config startup", "<delete-config><target><startup/></target></delete-config>"},
		{"--lock", "<lock><target><running/></target></lock>"},
		{"--unlock candidate", "<unlock><target><candidate/></target></unlock>"},
		{"--validate --db candidate", "<validate><source><candidate/></source></validate>"},
		{"--commit", "<commit/>"},
		{"--discard-changes", "<discard-changes/>"},
		{"--kill-session 4294967295", "<kill-session><session-id>4294967295</session-id></kill-session>"},
		{"--close-session", "<close-session/>"},
		{"--get-schema a&b@2026-01-31", `<get-schema xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"><identifier>a&amp;b</identifier><version>2026-01-31</version></get-schema>`},
		{"--create-subscription", `<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"></create-subscription>`},
		{"--create-subscription <x> -x /a --start-time 2026-01-31T12:00:00 --stop-time 2026-01-31T14:00:00+02:00",
			`<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><stream>&lt;x&gt;</stream><filter type="xpath" select="/a"/>` +
				`<startTime>2026-01-31T12:00:00Z</startTime><stopTime>2026-01-31T14:00:00+02:00</stopTime></create-subscription>`},
		{"--establish-subscription", `<establish-subscription xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications"><stream>NETCONF</stream></establish-subscription>`},
		{"--establish-subscription a&b -x /x:y --ns x=urn:x --start-time 2026-01-31T12:00:00 --stop-time 2026-01-31T14:00:00Z",
			`<establish-subscription xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications"><stream>a&amp;b</stream><stream-xpath-filter xmlns:x="urn:x">/x:y</stream-xpath-filter>` +
				`<replay-start-time>2026-01-31T12:00:00Z</replay-start-time><stop-time>2026-01-31T14:00:00Z</stop-time></establish-subscription>`},
		{"--establish-subscription --subtree " + file, `<establish-subscription xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications"><stream>NETCONF</stream>` +
			`<stream-subtree-filter><a xmlns='urn:a'/></stream-subtree-filter></establish-subscription>`},
		{"--rpc " + file, "<a xmlns='urn:a'/>"},
		{"--rpc " + rpc, "<rpc message-id='7'><get/></rpc>"},
	} {
		all, err := requests(t, strings.Fields(row.args)...)
		if err != nil || len(all) != 1 || all[0].xml != row.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", row.args, err, all[0].xml, row.want)
		}
		if row.want != "" && xml.Unmarshal([]byte("<rpc>"+row.want+"</rpc>"), new(struct{})) != nil {
			t.Errorf("%s is not XML", row.want)
		}
	}
	if got := must(t, "--get", "-x", "/a b")[0].xml; !strings.Contains(got, `select="/a b"`) {
		t.Error(got)
	}
}

func TestAModifierAppliesToTheOperationBeforeIt(t *testing.T) {
	all := must(t, "--db", "candidate", "--lock", "--get-config", "running", "--validate", "--db", "startup", "--commit", "--unlock")
	var got []string
	for _, r := range all {
		got = append(got, r.xml)
	}
	want := []string{"<lock><target><candidate/></target></lock>", "<get-config><source><running/></source></get-config>",
		"<validate><source><startup/></source></validate>", "<commit/>", "<unlock><target><candidate/></target></unlock>"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	file, bad := write(t, "<a/>"), write(t, "<a>")
	for args, want := range map[string]string{
		"--commit --db candidate":                     "--commit does not take --db",
		"--db candidate --commit":                     "no operation of the command line takes --db",
		"--commit=now":                                "--commit takes no argument",
		"--get-config running --db running":           "named twice",
		"--get-config <running/>":                     "is not a configuration: expected running",
		"--db a/b --lock":                             "is not a configuration: expected running",
		"--get -x /a --subtree " + file:               "exclude each other",
		"--get --ns a":                                "is not PREFIX=URI",
		"--get --ns <=b":                              "is not PREFIX=URI",
		"--get --with-defaults all":                   "expected one of explicit",
		"--edit-config " + bad:                        "this is not XML",
		"--edit-config /nonexistent/file":             "no such file",
		"--edit-config":                               "needs an argument",
		"--copy-config":                               "expected one of FILE and --source",
		"--copy-config " + file + " --source running": "expected one of FILE and --source",
		"--kill-session x":                            "is not a session-id",
		"--create-subscription --start-time today":    "is not a time such as",
		"--edit-config - --rpc -":                     "one FILE only",
		"--get x":                                     "unexpected argument",
		"--get-config --test-option set":              "does not take --test-option",
	} {
		if _, err := requests(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// server answers each operation with the test's answer for its name, or with <ok/>.
type server struct {
	mu      sync.Mutex
	answers map[string]string
	asked   []string
	conn    net.Conn
}

func meet(t *testing.T, c *Console, answers map[string]string) (*netconf.Session, *server) {
	t.Helper()
	ours, theirs := net.Pipe()
	s := &server{answers: answers, conn: theirs}
	go s.serve()
	session, err := netconf.Open(t.Context(), ours, netconf.Options{Notification: c.Notification, Versions: []netconf.Framing{netconf.EndOfMessage}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); session.Close() })
	return session, s
}

func (s *server) serve() {
	defer s.conn.Close()
	r := netconf.NewReader(s.conn)
	send := func(m string) { _ = netconf.Write(s.conn, netconf.EndOfMessage, []byte(m)) }
	if _, err := r.Next(); err != nil {
		return
	}
	send(`<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>1</session-id></hello>`)
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		var rpc struct {
			ID string `xml:"message-id,attr"`
			Op struct {
				XMLName xml.Name
			} `xml:",any"`
		}
		if xml.Unmarshal(m, &rpc) != nil {
			return
		}
		name := rpc.Op.XMLName.Local
		s.mu.Lock()
		s.asked = append(s.asked, name)
		s.mu.Unlock()
		answer, ok := s.answers[name]
		switch {
		case answer == "end":
			return
		case answer == "silence":
			continue
		case !ok:
			answer = "<ok/>"
		}
		send(`<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="` + rpc.ID + `">` + answer + `</rpc-reply>`)
		if note, ok := s.answers[name+" notes"]; ok {
			send(`<notification xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><eventTime>t</eventTime>` + note + `</notification>`)
		}
		if name == "close-session" {
			return
		}
	}
}

func (s *server) received() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, " ")
}

// output is written by two goroutines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

const data = `<data><a:b  xmlns:a='urn:a'><a:c>1</a:c></a:b></data>`

func TestAReplyIsPrintedInEachStyle(t *testing.T) {
	for style, want := range map[Style]string{
		Pretty: "<rpc-reply xmlns=\"urn:ietf:params:xml:ns:netconf:base:1.0\" message-id=\"1\">\n  <data>\n    <a:b  xmlns:a='urn:a'>\n      <a:c>1</a:c>\n    </a:b>\n  </data>\n</rpc-reply>\n",
		Plain:  "<rpc-reply xmlns=\"urn:ietf:params:xml:ns:netconf:base:1.0\" message-id=\"1\">" + data + "</rpc-reply>\n",
		Raw:    "</hello>\n<rpc-reply xmlns=\"urn:ietf:params:xml:ns:netconf:base:1.0\" message-id=\"1\">" + data + "</rpc-reply>\n",
	} {
		out := &output{}
		c := New(out, style)
		s, server := meet(t, c, map[string]string{"get": data})
		if err := c.Run(t.Context(), s, must(t, "--get")); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want && !(style == Raw && strings.HasSuffix(got, want)) {
			t.Errorf("%s:\n%s\nwant\n%s", style, got, want)
		}
		if server.received() != "get close-session" {
			t.Errorf("the server received %s", server.received())
		}
	}
}

func TestRunStopsAtAnError(t *testing.T) {
	out := &output{}
	c := New(out, Plain)
	var warned []string
	c.PrintHelp = func(w io.Writer) { fmt.Fprintln(w, "the help") }
	c.Warn = func(line string) { warned = append(warned, line) }
	s, server := meet(t, c, map[string]string{
		"lock":     `<rpc-error><error-severity>warning</error-severity><error-tag>careful</error-tag></rpc-error><ok/>`,
		"validate": "<rpc-error><error-type>application</error-type><error-tag>invalid-value</error-tag><error-message>no\u009b2J\n</error-message></rpc-error>",
	})
	err := c.Run(t.Context(), s, must(t, "--lock", "--validate", "--commit"))
	if sysexits.Code(err) != sysexits.DataErr || err.Error() != "validate: the device answered invalid-value (application): no\ufffd2J" {
		t.Errorf("%v (status %d)", err, sysexits.Code(err))
	}
	if server.received() != "lock validate" || len(warned) != 1 || warned[0] != "lock: warning: careful (unknown type)" {
		t.Errorf("received %s, warned %q", server.received(), warned)
	}
	if !strings.Contains(out.String(), "<error-tag>invalid-value") {
		t.Errorf("the reply is not shown:\n%s", out.String())
	}
}

func TestRunReportsWhyTheSessionEnded(t *testing.T) {
	for _, row := range []struct {
		name, answer string
		timeout      time.Duration
		code         int
		text         string
	}{
		{"server ends", "end", 0, sysexits.Unavailable, "get: the server ended the session"},
		{"server silent", "silence", 20 * time.Millisecond, sysexits.Unavailable, "get: the device did not answer in time"},
	} {
		c := New(&output{}, Plain)
		c.Timeout = row.timeout
		s, _ := meet(t, c, map[string]string{"get": row.answer})
		if err := c.Run(t.Context(), s, must(t, "--get")); sysexits.Code(err) != row.code || err.Error() != row.text {
			t.Errorf("%s: %v (status %d)", row.name, err, sysexits.Code(err))
		}
	}
	c := New(&output{}, Plain)
	s, _ := meet(t, c, map[string]string{"get": "silence"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, s, must(t, "--get")); err == nil {
		t.Error("an interrupted request is no error")
	}
}

// Notifications are printed until the server sends the last one, the timeout ends, or
// the user interrupts.
func TestNotificationsArePrintedToTheirEnd(t *testing.T) {
	const complete = `<notificationComplete xmlns="urn:ietf:params:xml:ns:netmod:notification"/>`
	out := &output{}
	c := New(out, Plain)
	s, _ := meet(t, c, map[string]string{"create-subscription notes": complete})
	if err := c.Run(t.Context(), s, must(t, "--create-subscription", "--stop-time", "2026-01-31T14:00:00Z")); err != nil || !strings.Contains(out.String(), complete) {
		t.Errorf("%v\n%s", err, out.String())
	}
	synctest.Test(t, func(t *testing.T) { // where the timeout is longer than a reply takes
		c := New(&output{}, Plain)
		c.Timeout = 20 * time.Millisecond
		s, server := meet(t, c, nil)
		if err := c.Run(t.Context(), s, must(t, "--create-subscription")); err != nil || server.received() != "create-subscription close-session" {
			t.Errorf("%v, received %s", err, server.received())
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	out = &output{}
	c = New(writer(func(p []byte) {
		if _, _ = out.Write(p); strings.Contains(out.String(), "<x/>") {
			cancel() // the user interrupts
		}
	}), Plain)
	s, _ = meet(t, c, map[string]string{"create-subscription notes": "<x/>"})
	// A notification can come before the reply to the subscription.
	if err := c.Run(ctx, s, must(t, "--create-subscription")); err != nil && !strings.Contains(err.Error(), "interrupted") || !strings.Contains(out.String(), "<x/>") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A subscription of RFC 8639 ends with its last notification, also one in a file.
func TestASubscriptionEndsWithItsLastNotification(t *testing.T) {
	for _, last := range []string{"subscription-completed", "subscription-terminated"} {
		note := `<` + last + ` xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications"><id>7</id></` + last + `>`
		file := write(t, `<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><establish-subscription xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications"><stream>a</stream></establish-subscription></rpc>`)
		for _, args := range [][]string{{"--establish-subscription"}, {"--rpc", file}} {
			out := &output{}
			c := New(out, Plain)
			s, server := meet(t, c, map[string]string{"establish-subscription notes": note})
			if err := c.Run(t.Context(), s, must(t, args...)); err != nil || !strings.Contains(out.String(), note) || server.received() != "establish-subscription close-session" {
				t.Errorf("%s: %v, received %s\n%s", args, err, server.received(), out.String())
			}
		}
	}
}

// A file of messages that was written for netconf-console is sent as it is.
func TestAFileOfMessages(t *testing.T) {
	file := write(t, `<?xml version="1.0" encoding="UTF-8"?>
<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities></hello>
]]>]]>
<?xml version="1.0" encoding="UTF-8"?>
<nc:rpc xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="101"><nc:get/></nc:rpc>
]]>]]>
<rpc message-id='x'><lock/></rpc>]]>]]>
<commit/>
`)
	script := &Script{File: file}
	all, err := script.Requests()
	if err != nil {
		t.Fatal(err)
	}
	c := New(&output{}, Plain)
	c.Iterations = 2
	s, server := meet(t, c, nil)
	if err := c.Run(t.Context(), s, all); err != nil || server.received() != "get lock commit get lock commit close-session" {
		t.Errorf("%v, received %s", err, server.received())
	}
	for text, want := range map[string]string{"<rpc>": "this is not XML", "]]>]]>": "this is not XML", "<hello xmlns='urn:ietf:params:xml:ns:netconf:base:1.0'/>": "it has no request"} {
		if _, err := (&Script{File: write(t, text)}).Requests(); sysexits.Code(err) != sysexits.NoInput || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestASchemaIsPrintedAsText(t *testing.T) {
	out := &output{}
	c := New(out, Pretty)
	s, _ := meet(t, c, map[string]string{"get-schema": `<data xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring">module a { description "&lt;x>"; }</data>`})
	if err := c.Run(t.Context(), s, must(t, "--get-schema", "a")); err != nil || out.String() != "module a { description \"<x>\"; }\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWriteErrorEndsTheScript(t *testing.T) {
	c := New(failing{}, Plain)
	s, server := meet(t, c, nil)
	if err := c.Run(t.Context(), s, must(t, "--get", "--commit")); err == nil || server.received() != "get" {
		t.Errorf("%v, received %s", err, server.received())
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestControlCharactersAreReplaced(t *testing.T) {
	for in, want := range map[string]string{
		"a\n\tb":                 "a\n\tb",
		"\x1b[2J\x9b\x07":        "\ufffd[2J\ufffd\ufffd",
		"\u009b2J \u202ex\u2066": "\ufffd2J \ufffdx\ufffd",
		"\u200ea\u200fb\u061cc":  "\ufffda\ufffdb\ufffdc",
		"a\u2028b\u2029c":        "a\ufffdb\ufffdc",
		"ä€":                     "ä€",
		"\u200b\u2027\u202f":     "\u200b\u2027\u202f", // they control nothing
	} {
		if got := Tame(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := Printable(strings.Repeat("ä\n", 1000)); strings.Contains(got, "\n") || len(got) > 1010 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// lines is a terminal of package term that keys are typed at.
type lines struct{ *term.Terminal }

func (l lines) ReadLine(prompt string) (string, error) {
	l.SetPrompt(prompt)
	return l.Terminal.ReadLine()
}

func interact(t *testing.T, keys string, answers map[string]string) (string, string, []string, error) {
	t.Helper()
	out := &output{}
	screen := struct {
		io.Reader
		io.Writer
	}{strings.NewReader(keys), out}
	terminal := term.NewTerminal(screen, "")
	c := New(terminal, Plain)
	var warned []string
	c.PrintHelp = func(w io.Writer) { fmt.Fprintln(w, "the help") }
	c.Warn = func(line string) { warned = append(warned, line) }
	s, server := meet(t, c, answers)
	err := c.Interact(t.Context(), s, must(t, "--hello"), lines{terminal}, "edge7")
	return out.String(), server.received(), warned, err
}

func TestInteractiveModeRunsOneCommandPerLine(t *testing.T) {
	const up, left = "\x1b[A", "\x1b[D"
	for _, row := range []struct{ name, keys, received string }{
		{"end of input", "get\r", "get close-session"},
		{"history", "get-config candidate\r" + up + "\r" + "lock\r" + up + up + "\rquit\r", "get-config get-config lock get-config close-session"},
		{"editing", "git" + left + "\x7fe\rquit\r", "get close-session"},
		{"quoted arguments", "get -x \"/a b\"\rget --xpath '/\"'\rexit\r", "get get close-session"},
		{"close-session", "close-session\rget\r", "close-session"},
		{"XML over lines", "<get>\r<filter/>\r</get>\r<commit/>\rquit\r", "get commit close-session"},
		{"XML given up", "<get>\r\rlock\rquit\r", "lock close-session"},
		{"own close-session", "<close-session/>\rget\r", "close-session"},
		{"after an error", "nonsense\rget -y\rget 'x\rget-config a b\rcommit --db x\r<a></b>\r<rpc/>\rlock\rquit\r", "lock close-session"},
		{"nothing but blanks", " \r\rquit\r", "close-session"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, received, warned, err := interact(t, row.keys, nil)
			if err != nil || received != row.received {
				t.Errorf("%v, received %q, want %q; warned %q\n%s", err, received, row.received, warned, out)
			}
			if !strings.HasPrefix(out, "<hello") || !strings.Contains(out, "edge7> ") {
				t.Errorf("no hello first, or no prompt:\n%s", out)
			}
			if row.name == "after an error" && len(warned) != 7 {
				t.Errorf("warned %q", warned)
			}
		})
	}
	_, received, warned, err := interact(t, "get\rlock\rquit\r", map[string]string{"get": "<rpc-error><error-tag>x</error-tag></rpc-error>"})
	if err != nil || received != "get lock close-session" || len(warned) != 1 {
		t.Errorf("after an rpc-error: %v, received %s, warned %q", err, received, warned)
	}
	if out, _, warned, _ := interact(t, "help\r?\rquit\r", nil); strings.Count(out, "the help") != 2 || len(warned) > 0 {
		t.Errorf("help prints %q, warned %q", out, warned)
	}
	if _, _, _, err := interact(t, "get\rlock\r", map[string]string{"get": "end"}); sysexits.Code(err) != sysexits.Unavailable {
		t.Errorf("when the server ends the session: %v", err)
	}
}

func TestHelpHasEachOperation(t *testing.T) {
	help := Help()
	if len(help) != len(Operations)+2 {
		t.Fatalf("%d lines", len(help))
	}
	for i, o := range Operations {
		if got := help[i]; got[0] != o.Name && !strings.HasPrefix(got[0], o.Name+" ") || !strings.Contains(got[1], strings.Join(o.Takes, ", --")) {
			t.Errorf("%q", got)
		}
	}
}

func TestTabCompletes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.xml", "b.xml", "d/c.xml", "a\x1b[2J.xml"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for line, want := range map[string]string{
		"get-":                           "0 get-config get-schema",
		"q":                              "0 quit",
		"lock ":                          "5 running candidate startup",
		"get-config r":                   "11 running",
		"get-config running ":            "19",
		"get-config running --wi":        "19 --with-defaults",
		"get --with-defaults report-all": "20 report-all report-all-tagged",
		"edit-config x -t set":           "17 set",
		"edit-config x --db c":           "19 candidate",
		"edit-config ":                   "12 a.xml b.xml d/",
		"edit-config d/":                 "12 d/c.xml",
		"edit-config " + dir + "/b":      "12 " + dir + "/b.xml",
		"edit-config nonesuch/":          "12",
		"commit ":                        "7",
		"nonesuch ":                      "9",
		"<get":                           "0",
		"help ":                          "5",
	} {
		begin, words := Complete(line)
		if got := strings.Join(append([]string{fmt.Sprint(begin)}, words...), " "); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// A reply that is not XML is printed as it came, with the place of its fault, and the
// session goes on.
func TestAMalformedReplyIsPrinted(t *testing.T) {
	out, received, warned, err := interact(t, "get\rlock\rquit\r", map[string]string{"get": "<a>\x01</a>"})
	if err != nil || received != "get lock close-session" || !strings.Contains(out, "<a>\x01</a>") {
		t.Errorf("%v, received %q\n%q", err, received, out)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "get: reading the reply: this is not XML: XML syntax error on line 1: illegal character code U+0001 (byte ") {
		t.Errorf("warned %q", warned)
	}
}

// A character that comes in two writes is one character on the terminal.
func TestTamedTextComesInPieces(t *testing.T) {
	const text = "a\u202eä\x1b日本\r\n"
	for cut := range len(text) {
		var b strings.Builder
		w := &safeWriter{w: &b}
		_, _ = io.WriteString(w, text[:cut])
		_, _ = io.WriteString(w, text[cut:])
		if b.String() != Tame(text) {
			t.Errorf("cut at %d it is %q", cut, b.String())
		}
	}
}

// Each line of the interactive mode is one operation, or refused.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"get", "get-config candidate -x '/a'", "get --ns a=urn:a -x /a:b", "lock", "''", "get 'x", "create-subscription <x> --start-time 2026-01-31T12:00:00", "kill-session 1", "--", "help"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseLine(line)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") && !strings.ContainsAny(line, "\n\r\x1b") {
				t.Errorf("%q: the error is %q", line, err)
			}
			return
		}
		// Without a file as argument, of which the user is the author.
		if r.xml != "" && utf8.ValidString(line) && xml.Unmarshal([]byte("<rpc>"+r.xml+"</rpc>"), new(struct{})) != nil {
			t.Errorf("%q becomes %s", line, r.xml)
		}
	})
}
