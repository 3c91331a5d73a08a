// Package sshdlog owns the parsing of the lines that sshd logs at VERBOSE: it
// turns one line of OpenSSH 8.4 to 10.x into its kind and fields. Package
// session uses it. It is pure and never fails: a line that no rule matches is
// Unknown and keeps its text, so a later version's new line breaks nothing.
//
// The exit status cannot replace the log: sshd exits with 255 after an ordinary
// disconnect and with 0 after the client closed without one.
package sshdlog

import (
	"regexp"
	"strconv"
	"strings"
	"sync"

	"callhome/internal/lazyregexp"
)

// Kind is the kind of a line.
type Kind string

// The kinds. After Refused sshd may accept another attempt on the connection.
// Closed ends the session.
const (
	Unknown       Kind = ""
	Connected     Kind = "connected"     // sshd has taken the socket
	Attempted     Kind = "attempted"     // a login was attempted: the key exchange is done
	Refused       Kind = "refused"       // a login was refused
	Authenticated Kind = "authenticated" // user, method and key are known
	Subsystem     Kind = "subsystem"     // the forced command or the subsystem was started
	NoSubsystem   Kind = "no-subsystem"  // the client requested a subsystem that is not configured
	Finished      Kind = "finished"      // the client's channel was closed, the connection may stay open
	Closed        Kind = "closed"        // the connection ended; see Cause
	Broken        Kind = "broken"        // sshd cannot serve: host keys, configuration
)

// Cause is why a connection ended, and which side ended it.
type Cause string

// The causes of Closed.
const (
	ByClient      Cause = "client disconnected"       // SSH_MSG_DISCONNECT
	ClientClosed  Cause = "client closed"             // end of file
	Reset         Cause = "connection reset"          // TCP RST
	Timeout       Cause = "client not responding"     // ClientAlive
	Idle          Cause = "idle"                      // UnusedConnectionTimeout
	LoginTimeout  Cause = "login grace time exceeded" // logged by 8.5 to 9.7
	NoAlgorithm   Cause = "no common algorithm"
	NotSSH        Cause = "client does not speak ssh"
	TooManyTries  Cause = "too many authentication failures"
	NotAuthorized Cause = "client gave up its login"
	Prohibited    Cause = "administratively prohibited"
	Corrupt       Cause = "packet that is not ssh's"
)

// Line is one parsed line. Fields that its kind does not have are empty.
type Line struct {
	Kind  Kind
	Cause Cause
	// Remote and Local are the connection's endpoints as sshd writes them:
	// "::1 port 4334".
	Remote, Local string
	// User is the name that the peer sent: untrusted, also where the login failed.
	User string
	// Method is sshd's name of it: publickey, password, keyboard-interactive/pam.
	Method string
	// KeyType and Fingerprint ("SHA256:...") are those of the user's key or of
	// the key in its certificate.
	KeyType, Fingerprint string
	// Cert is the certificate's key ID, with the serial and its CA's key.
	Cert          string
	Serial        uint64
	CAFingerprint string
	// Code and Reason are the client's own reason code (RFC 4253 section 11.1) and
	// text in SSH_MSG_DISCONNECT: untrusted.
	Code, Reason string
	// Detail is what a Closed line says beside its Cause, as the algorithms that the
	// client offered: untrusted.
	Detail string
	// Preauth says that sshd marked the line as logged before the login.
	Preauth bool
	// Text is the whole line, without sshd's line end and [preauth] mark.
	Text string
}

// rule is one row: a line that begins with prefix and matches pattern (nil
// matches any) is of that kind. Named groups fill the fields.
type rule struct {
	prefix  string
	pattern func() *regexp.Regexp
	kind    Kind
	cause   Cause
}

// peer is an address as sshd writes it: "127.0.0.1 port 4334".
const peer = `\S+ port \d+`

// fatal is the beginning of the line about an unexpected end of a connection.
const fatal = `(?:\w+: )?Connection from (?:(?:authenticating |invalid )?user (?P<user>.*) )?` + peer

func pattern(s string) func() *regexp.Regexp { return lazyregexp.New("^(?:" + s + ")$") }

// rules are tried in this order: the more specific first. The client chooses the
// user's name, which may contain spaces and the text of another line; so every
// pattern anchors it on both sides, greedily.
var rules = sync.OnceValue(func() []rule {
	return []rule{
		{"Connection from ", pattern(`Connection from (?P<remote>` + peer + `) on (?P<local>` + peer + `).*`), Connected, ""},

		{"Accepted key ", nil, Attempted, ""},
		{"Accepted certificate ID ", nil, Attempted, ""},
		{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2: (?P<type>\S+-CERT) (?P<fp>\S+) ID (?P<cert>.*) \(serial (?P<serial>\d+)\) CA \S+ (?P<ca>\S+)`), Authenticated, ""},
		{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2: (?P<type>\S+) (?P<fp>\S+)`), Authenticated, ""},
		{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2`), Authenticated, ""},
		{"Postponed ", nil, Attempted, ""},
		{"Failed ", pattern(`Failed (?P<method>\S+) for (?:invalid user )?(?P<user>.*) from ` + peer + ` ssh2(?:: (?P<type>\S+) (?P<fp>\S+).*)?`), Refused, ""},
		{"Invalid user ", pattern(`Invalid user (?P<user>.*) from ` + peer), Refused, ""},
		{"User ", pattern(`User (?P<user>.*) from \S+ not allowed because .*`), Refused, ""},
		{"User ", pattern(`User (?P<user>.*) not allowed because .*`), Refused, ""},
		{"ROOT LOGIN REFUSED ", nil, Refused, ""},
		{"Authentication refused: ", nil, Refused, ""},
		{"Certificate invalid: ", nil, Refused, ""},
		{"Refusing certificate ID ", nil, Refused, ""},
		{"Access denied for user ", pattern(`Access denied for user (?P<user>.*) by PAM account configuration`), Refused, ""},

		{"Starting session: ", pattern(`Starting session: (?:subsystem '.*'|forced-command \(.*\) '.*') for (?P<user>.*) from ` + peer + ` id \d+`), Subsystem, ""},
		{"subsystem request for ", nil, NoSubsystem, ""},

		{"Close session: ", pattern(`Close session: user (?P<user>.*) from ` + peer + ` id \d+`), Finished, ""},

		{"Timeout, client not responding from ", pattern(`Timeout, client not responding from user (?P<user>.*) ` + peer), Closed, Timeout},
		{"terminating inactive connection from ", pattern(`terminating inactive connection from user (?P<user>.*) ` + peer), Closed, Idle},
		{"Timeout before authentication for ", nil, Closed, LoginTimeout},
		{"Received disconnect from ", pattern(`Received disconnect from ` + peer + `:(?P<code>\d+): (?P<reason>.*)`), Closed, ByClient},
		{"Disconnected from ", pattern(`Disconnected from (?:(?:authenticating |invalid )?user (?P<user>.*) )?` + peer), Closed, ByClient},
		{"Disconnecting ", pattern(`Disconnecting (?:(?:authenticating |invalid )user (?P<user>.*) )?` + peer + `: Too many authentication failures.*`), Closed, TooManyTries},
		{"administratively prohibited connection ", nil, Closed, Prohibited},
		{"Unable to negotiate with ", pattern(`Unable to negotiate with ` + peer + `: (?P<detail>.*)`), Closed, NoAlgorithm},
		{"Unable to negotiate with ", nil, Closed, NoAlgorithm},
		{"kex_exchange_identification: client sent invalid ", pattern(`kex_exchange_identification: (?P<detail>.*)`), Closed, NotSSH},
		{"banner exchange: ", pattern(`banner exchange: Connection from ` + peer + `: (?P<detail>.*)`), Closed, NotSSH},
		{"banner exchange: ", nil, Closed, NotSSH},
		{"Read error from remote host ", pattern(`Read error from remote host ` + peer + `: Connection reset by peer`), Closed, Reset},
		{"Read error from remote host ", pattern(`Read error from remote host ` + peer + `: (?:Connection timed out|No route to host|Host is unreachable)`), Closed, Timeout},
		{"Connection reset by ", pattern(`Connection reset by (?:(?:authenticating |invalid )user (?P<user>.*) )?` + peer), Closed, Reset},
		{"Connection closed by ", pattern(`Connection closed by (?:authenticating |invalid )user (?P<user>.*) ` + peer), Closed, NotAuthorized},
		{"Connection closed by ", pattern(`Connection closed by ` + peer), Closed, ClientClosed},
		{"Closing connection to ", nil, Closed, ClientClosed},
		// Errors that end the connection, with or without a function's name first.
		{"", pattern(fatal + ` timed out`), Closed, Timeout},
		{"", pattern(fatal + `: (?:Connection timed out|No route to host|Host is unreachable)`), Closed, Timeout},
		{"", pattern(fatal + `: (?:Broken pipe|Connection reset by peer)`), Closed, Reset},
		{"", pattern(fatal + `: (?P<detail>.*)`), Closed, Corrupt},

		{"sshd: no hostkeys available", nil, Broken, ""},
		{"Missing privilege separation directory: ", nil, Broken, ""},
		{"command-line: line 0: Bad configuration option: ", nil, Broken, ""},
	}
})

// brokenEnds are the ends of Broken lines that begin with a file's name.
var brokenEnds = []string{
	"terminating, 1 bad configuration options",
	"must be owned by root and not group or world-writable.",
}

// Parse parses one line, with or without its line end.
func Parse(raw string) Line {
	text := strings.TrimRight(raw, "\r\n")
	text, preauth := strings.CutSuffix(text, " [preauth]")
	line := Line{Preauth: preauth, Text: text}
	all := rules()
	for i := range all {
		r := &all[i]
		if !strings.HasPrefix(text, r.prefix) {
			continue
		}
		if r.pattern != nil {
			groups := r.pattern().FindStringSubmatch(text)
			if groups == nil {
				continue
			}
			line.fill(r.pattern().SubexpNames(), groups)
		}
		line.Kind, line.Cause = r.kind, r.cause
		return line
	}
	for _, end := range brokenEnds {
		if strings.HasSuffix(text, end) {
			line.Kind = Broken
		}
	}
	return line
}

func (l *Line) fill(names, values []string) {
	to := map[string]*string{"remote": &l.Remote, "local": &l.Local, "method": &l.Method, "user": &l.User, "detail": &l.Detail, "type": &l.KeyType, "fp": &l.Fingerprint, "cert": &l.Cert, "ca": &l.CAFingerprint, "code": &l.Code, "reason": &l.Reason}
	for i, name := range names {
		if p := to[name]; p != nil {
			*p = values[i]
		}
		if name == "serial" {
			l.Serial, _ = strconv.ParseUint(values[i], 10, 64)
		}
	}
}
