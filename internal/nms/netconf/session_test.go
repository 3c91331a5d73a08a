package netconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const helloBoth = `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>` +
	`<capability>urn:ietf:params:netconf:base:1.0</capability><capability> urn:ietf:params:netconf:base:1.1 </capability>` +
	`<capability>urn:x?module=y&amp;revision=z</capability></capabilities><session-id>7</session-id></hello>`

var hello10 = strings.Replace(helloBoth, "base:1.1", "nothing", 1)

// server is the other end of a session, which the test drives message by message.
type server struct {
	t *testing.T
	net.Conn
	r *Reader
}

// open opens a session with a server that sends that hello.
func open(t *testing.T, hello string, o Options) (*Session, *server) {
	t.Helper()
	ours, theirs := net.Pipe()
	s := &server{t, theirs, NewReader(theirs)}
	greeted := make(chan string, 1)
	go func() {
		_ = Write(theirs, EndOfMessage, []byte(hello))
		got, _ := s.r.Next()
		greeted <- string(got)
	}()
	session, err := Open(t.Context(), ours, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); session.Close() })
	got := <-greeted
	for _, v := range o.Versions {
		if !strings.Contains(got, "base:"+string(v)+"<") {
			t.Errorf("the client's hello lacks base:%s: %s", v, got)
		}
	}
	s.r.Framing = session.Framing
	return session, s
}

func (s *server) send(message string) {
	if err := Write(s.Conn, s.r.Framing, []byte(message)); err != nil {
		s.t.Errorf("the server cannot write: %v", err)
	}
}

func (s *server) receive() string {
	message, err := s.r.Next()
	if err != nil {
		s.t.Errorf("the server cannot read: %v", err)
	}
	return string(message)
}

func reply(id int, body string) string {
	return fmt.Sprintf(`<nc:rpc-reply xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%d">%s</nc:rpc-reply>`, id, body)
}

func TestTheHighestCommonFramingIsUsed(t *testing.T) {
	for _, row := range []struct {
		server string
		ours   []Framing
		want   Framing
	}{
		{helloBoth, nil, Chunked},
		{helloBoth, []Framing{EndOfMessage}, EndOfMessage},
		{hello10, []Framing{EndOfMessage, Chunked}, EndOfMessage},
	} {
		session, s := open(t, row.server, Options{Versions: row.ours})
		if session.Framing != row.want || session.ID != "7" || session.Capabilities[2] != "urn:x?module=y&revision=z" {
			t.Errorf("framing %s, session %s, %q", session.Framing, session.ID, session.Capabilities)
		}
		go func() {
			s.receive()
			s.send(reply(1, "<nc:ok/>"))
		}()
		r, err := session.Do(t.Context(), []byte("<get/>"))
		if err != nil || string(r.Raw) != reply(1, "<nc:ok/>") || len(r.Errors) != 0 {
			t.Errorf("%v %v", r, err)
		}
	}
}

func TestAnInvalidHelloIsRefused(t *testing.T) {
	for name, hello := range map[string]string{
		"no session-id":   strings.Replace(helloBoth, "<session-id>7</session-id>", "", 1),
		"session-id zero": strings.Replace(helloBoth, ">7<", ">0<", 1),
		"no base version": strings.ReplaceAll(helloBoth, "netconf:base:1.", "netconf:base:2."),
		"something else":  reply(1, "<nc:ok/>"),
		"no namespace":    strings.Replace(helloBoth, " xmlns=\""+baseNS+"\"", "", 1),
		"no XML":          "login: ",
		"above 1 MiB":     strings.Replace(helloBoth, "<capabilities>", "<capabilities>"+strings.Repeat(" ", maxHello), 1),
		"document type":   "<!DOCTYPE hello>" + helloBoth,
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no base version" {
				hello = strings.ReplaceAll(hello, "xmlns=\"urn:ietf:params:xml:ns:netconf:base:2.0", "xmlns=\""+baseNS)
			}
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			go func() { _ = Write(theirs, EndOfMessage, []byte(hello)) }()
			if _, err := Open(t.Context(), ours, Options{}); err == nil || !strings.HasPrefix(err.Error(), "exchanging hellos: ") {
				t.Errorf("%v", err)
			}
			if _, err := ours.Write([]byte("x")); err == nil {
				t.Error("the connection is still open")
			}
		})
	}
}

func TestASilentServerFailsAtTheTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Open(ctx, ours, Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// Replies get to their requests in any order, with notifications between them, and a
// reply to a cancelled request is dropped.
func TestRepliesGetToTheirRequests(t *testing.T) { synctest.Test(t, repliesAndNotifications) }

func repliesAndNotifications(t *testing.T) {
	notes := make(chan string, 1)
	session, s := open(t, helloBoth, Options{Notification: func(m []byte) { notes <- string(m) }})
	const note = `<notification xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><eventTime>x</eventTime></notification>`

	given, cancel := context.WithCancel(t.Context())
	dropped := make(chan error, 1)
	go func() { _, err := session.Do(given, []byte("<first/>")); dropped <- err }()
	if got := s.receive(); !strings.Contains(got, `message-id="1"`) || !strings.Contains(got, "<first/>") {
		t.Errorf("received %s", got)
	}
	synctest.Wait() // until the request is written
	cancel()
	if err := <-dropped; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	second, third := make(chan *Reply, 1), make(chan *Reply, 1)
	go func() { r, _ := session.Do(t.Context(), []byte("<second/>")); second <- r }()
	s.receive()
	go func() { r, _ := session.Do(t.Context(), []byte("<third/>")); third <- r }()
	s.receive()
	for _, m := range []string{reply(3, "<nc:three/>"), note, reply(1, "<nc:one/>"), reply(2, "<nc:two/>")} {
		s.send(m)
	}
	if r := <-third; !strings.Contains(string(r.Raw), "three") {
		t.Errorf("the third got %s", r.Raw)
	}
	if r := <-second; !strings.Contains(string(r.Raw), "two") {
		t.Errorf("the second got %s", r.Raw)
	}
	if got := <-notes; got != note {
		t.Errorf("noted %s", got)
	}
}

func TestRpcErrorsAreParsed(t *testing.T) {
	session, s := open(t, hello10, Options{})
	go func() {
		s.receive()
		s.send(reply(1, `<nc:rpc-error><nc:error-type>application</nc:error-type><nc:error-tag>data-missing</nc:error-tag>`+
			`<nc:error-severity>error</nc:error-severity><nc:error-path xmlns:y="urn:y">/y:a</nc:error-path>`+
			`<nc:error-message xml:lang="en">it is
			not there</nc:error-message><nc:error-info><y/></nc:error-info></nc:rpc-error>`+
			`<nc:rpc-error><nc:error-severity>warning</nc:error-severity></nc:rpc-error><nc:data><rpc-error/></nc:data>`))
	}()
	r, err := session.Do(t.Context(), []byte("<get/>"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Errors) != 2 || len(r.Failed()) != 1 || r.Errors[0].Error() != "data-missing (application): it is not there at /y:a, info <y/>" {
		t.Errorf("%v", r.Errors)
	}
}

// A message that the server must not send ends the session, and fails the request.
func TestAnInvalidMessageEndsTheSession(t *testing.T) {
	for _, row := range []struct{ name, message, want string }{
		{"a reply without a request", reply(9, "<nc:ok/>"), `a reply with message-id "9", which no request has`},
		{"another root", "<surprise/>", "<surprise>, expected a reply"},
		{"no XML", "\x1b[2J", "not XML"},
		{"no namespace", "<rpc-reply message-id='1'/>", `<rpc-reply> without a namespace, expected it in "urn:ietf:params:xml:ns:netconf:base:1.0"`},
		{"another namespace", "<rpc-reply xmlns='urn:x'/>", `in the namespace "urn:x", expected`},
	} {
		t.Run(row.name, func(t *testing.T) {
			session, s := open(t, helloBoth, Options{})
			go func() { s.receive(); s.send(row.message) }()
			_, err := session.Do(t.Context(), []byte("<get/>"))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v", err)
			}
			<-session.Ended()
		})
	}
	session, s := open(t, helloBoth, Options{})
	go func() { s.receive(); s.Close() }()
	if _, err := session.Do(t.Context(), []byte("<get/>")); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
}

// A reply that cannot be read fails its own request, with the place, and no other.
func TestAMalformedReplyFailsOnlyItsRequest(t *testing.T) {
	deep := strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth)
	for _, row := range []struct{ name, message, want string }{
		{"a second root", reply(1, "<nc:ok/>") + "<x/>", "second root"},
		{"cut short", strings.TrimSuffix(reply(1, "<nc:ok/>"), "</nc:rpc-reply>"), "this is not XML: XML syntax error on line 1: unexpected EOF (byte "},
		{"an illegal character", reply(1, "<a>\x01</a>"), "illegal character code U+0001 (byte "},
		{"an illegal byte", reply(1, "<a>\xe4</a>"), "invalid UTF-8 (byte "},
		{"an illegal byte in its tag", strings.Replace(reply(1, "<nc:ok/>"), " ", " a='\xe4' ", 1), "invalid UTF-8 (byte "},
		{"an illegal byte before it", "\x01" + reply(1, "<nc:ok/>"), "illegal character code U+0001 (byte "},
		{"too deep", reply(1, deep), "its elements are nested deeper than 1000 levels"},
		{"a long tag", reply(1, "<a"+strings.Repeat(" b=''", maxTag/5)+"/>"), "a tag is longer than 65536 bytes, from byte "},
		{"a document type", reply(1, "<nc:ok/>") + "<!DOCTYPE x>", "document type"},
	} {
		t.Run(row.name, func(t *testing.T) {
			session, s := open(t, helloBoth, Options{})
			go func() { s.receive(); s.send(row.message); s.receive(); s.send(reply(2, "<nc:ok/>")) }()
			r, err := session.Do(t.Context(), []byte("<get/>"))
			if err != nil || r.Malformed == nil || !strings.Contains(r.Malformed.Error(), row.want) || string(r.Raw) != row.message {
				t.Errorf("%v, %v", r, err)
			}
			if r, err := session.Do(t.Context(), []byte("<get/>")); err != nil || r.Malformed != nil {
				t.Errorf("the next request: %v, %v", r, err)
			}
		})
	}
}

// An error is an error wherever a server puts it in its reply, and data stays data.
func TestErrorsInsideAReply(t *testing.T) {
	const junos = `xmlns="http://xml.juniper.net/xnm/1.1/xnm"`
	e := func(severity, space string) string {
		return "<rpc-error" + space + "><error-severity>" + severity + "</error-severity><error-message>m</error-message></rpc-error>"
	}
	base := ` xmlns="` + baseNS + `"`
	for _, row := range []struct {
		name, body       string
		errors, warnings int
	}{
		{"child of the reply", e("error", base), 1, 0},
		{"results in the base namespace", "<commit-results" + base + "><routing-engine><name>re0</name>" + e("error", "") + "</routing-engine></commit-results>", 1, 0},
		{"results of a vendor", "<commit-results " + junos + "><routing-engine>" + e("error", "") + e("warning", "") + "</routing-engine></commit-results>", 1, 1},
		{"load results", "<load-configuration-results " + junos + ">" + e("error", "") + "<ok/></load-configuration-results>", 1, 0},
		{"the base namespace in a vendor's results", "<load-configuration-results " + junos + ">" + e("warning", base) + "</load-configuration-results>", 0, 1},
		{"more warnings than are kept, then an error", strings.Repeat(e("warning", base), maxErrors+1) + e("error", base), 1, maxErrors},
		{"no severity", "<rpc-error" + base + "/>", 1, 0},
		{"another vendor's element in results", "<commit-results " + junos + ">" + e("error", ` xmlns="urn:x"`) + "</commit-results>", 0, 0},
		{"a leaf in results", "<commit-results " + junos + "><rpc-error>3</rpc-error></commit-results>", 0, 0},
		{"data of a model", "<nc:data><counters xmlns='urn:x'>" + e("error", "") + "</counters></nc:data>", 0, 0},
		{"the base namespace in data", "<nc:data>" + e("error", base) + "</nc:data>", 0, 0},
		{"data of NMDA", "<data xmlns='urn:ietf:params:xml:ns:yang:ietf-netconf-nmda'>" + e("error", base) + "</data>", 0, 0},
		{"output of an operation", "<counters xmlns='urn:x'>" + e("error", "") + "</counters>", 0, 0},
	} {
		r := parseReply([]byte(reply(1, row.body)))
		if r.Malformed != nil || len(r.Failed()) != row.errors || len(r.Errors)-len(r.Failed()) != row.warnings {
			t.Errorf("%s: %v, %v", row.name, r.Errors, r.Malformed)
		}
	}
}

// US-ASCII and ISO-8859-1 are read although RFC 6241 demands UTF-8.
func TestEncodings(t *testing.T) {
	hello := func(encoding, name string) string {
		return `<?xml version="1.0" encoding="` + encoding + `"?>` + strings.Replace(helloBoth, "urn:x?", "urn:"+name+"?", 1)
	}
	for _, row := range []struct{ text, want, err string }{
		{hello("UTF-8", "ä"), "urn:ä?", ""},
		{"\ufeff" + hello("utf-8", "x"), "urn:x?", ""},
		{"\n" + hello("US-ASCII", "x"), "urn:x?", ""},
		{hello("ISO-8859-1", "x"), "urn:x?", ""},
		{hello("iso-8859-1", "\xe4\xfc"), "urn:äü?", ""},
		{hello("ISO-8859-1", "\xc3\xa4"), "urn:Ã¤?", ""},
		{hello("UTF-8", "\xe4"), "", "invalid UTF-8"},
		{hello("EBCDIC", "x"), "", "EBCDIC"},
	} {
		h, err := parseHello([]byte(row.text))
		switch {
		case row.err != "":
			if err == nil || !strings.Contains(err.Error(), row.err) {
				t.Errorf("%.60q: %v", row.text, err)
			}
		case err != nil || len(h.Capabilities) != 3 || !strings.HasPrefix(h.Capabilities[2], row.want):
			t.Errorf("%.60q: %q, %v", row.text, h.Capabilities, err)
		}
	}
	got, err := pretty("<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe4</a>")
	if want := "<?xml version='1.0' encoding='UTF-8'?>\n<a>ä</a>\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// An operation may come in an <rpc>, which gets the session's message-id.
func TestAnRpcIsSentWithTheMessageIDOfTheSession(t *testing.T) {
	const base = "urn:ietf:params:xml:ns:netconf:base:1.0"
	for operation, want := range map[string]string{
		`<get/>`: `<rpc xmlns="` + base + `" message-id="1"><get/></rpc>`,
		`<rpc xmlns="` + base + `" message-id="101"><get/></rpc>`:                                 `<rpc message-id="1" xmlns="` + base + `"><get/></rpc>`,
		`<nc:rpc a=" message-id='x'" message-id = '7' xmlns:nc='` + base + `'><nc:get/></nc:rpc>`: `<nc:rpc message-id="1" a=" message-id='x'" xmlns:nc='` + base + `'><nc:get/></nc:rpc>`,
		"<rpc\n\tmessage-id=\"7\"><get/></rpc>":                                                   `<rpc message-id="1" xmlns="` + base + `"><get/></rpc>`,
		`<rpc xmlns="urn:x"/>`:                                                                    `<rpc xmlns="` + base + `" message-id="1"><rpc xmlns="urn:x"/></rpc>`,
	} {
		got, err := request([]byte(operation), 1)
		if err != nil || string(got) != want {
			t.Errorf("%s\n%s, %v\nwant\n%s", operation, got, err, want)
		}
	}
	for _, operation := range []string{"<rpc/><rpc/>", "<rpc><get></rpc>", "<rpc/>", "<rpc> <!-- x --> </rpc>", "", "<!DOCTYPE x><get/>"} {
		if got, err := request([]byte(operation), 1); err == nil {
			t.Errorf("%s is sent as %s", operation, got)
		}
	}
}

// An operation cannot end its own <rpc> and begin another one.
func TestOperationStaysInItsRpc(t *testing.T) {
	session, _ := open(t, hello10, Options{})
	for _, operation := range []string{`</rpc><rpc xmlns="` + baseNS + `">`, "<get>", "</rpc>]]>]]><rpc>", "<a>]]>]]></a>"} {
		if _, err := session.Do(t.Context(), []byte(operation)); err == nil {
			t.Errorf("%q was sent", operation)
		}
	}
}

// Each message of a server is parsed or refused, and causes no panic.
func FuzzMessages(f *testing.F) {
	for _, s := range []string{helloBoth, reply(1, "<nc:ok/>"), reply(1, "<nc:rpc-error><nc:error-tag>x</nc:error-tag></nc:rpc-error>"), "<!DOCTYPE x><x/>", "<x/><!DOCTYPE x>", "<x/><y/>", "x",
		"<?xml version='1.0' encoding='ISO-8859-1'?><x>\xe4</x>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		whole := wellFormed(message) == nil
		if _, err := parseHello(message); err == nil && !whole {
			t.Errorf("%q is taken for a hello", message)
		}
		if _, _, err := Content(message); whole && err != nil {
			t.Errorf("%q is one element and cannot be content: %v", message, err)
		}
		r := parseReply(message)
		if (r.Malformed == nil) != whole {
			t.Errorf("%q is taken for a reply: %v", message, r.Malformed)
		}
		for _, e := range r.Errors {
			if strings.ContainsAny(e.Error(), "\n\r") {
				t.Errorf("%q is more than a line", e.Error())
			}
		}
	})
}
