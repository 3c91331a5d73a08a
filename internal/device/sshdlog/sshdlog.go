// Package sshdlog owns the meaning of the lines that sshd logs at VERBOSE: it
// turns one line of OpenSSH 8.4 to 10.x into what it says of the session. The
// session room calls it. It is pure, and a line that it does not know comes
// back as Unknown with its words: no version's new line can be fatal.
//
// It is the only source there is: sshd's exit status is 255 after an ordinary
// disconnect and 0 after the client just vanished.
package sshdlog

import (
	"regexp"
	"strconv"
	"strings"
)

// Kind is what a line says.
type Kind string

// The kinds. Refused is a login that did not succeed: sshd may go on and hear
// another one. The Closed ones end the session.
const (
	Unknown       Kind = ""
	Connected     Kind = "connected"     // sshd has taken the socket
	Asked         Kind = "asked"         // a login was tried: the key exchange is done
	Refused       Kind = "refused"       // a login was refused
	Authenticated Kind = "authenticated" // user, method and key are known
	Subsystem     Kind = "subsystem"     // the forced command or the subsystem was started
	NoSubsystem   Kind = "no-subsystem"  // the client asked for what is not there
	Finished      Kind = "finished"      // the client's channel was closed, the connection may go on
	Closed        Kind = "closed"        // the connection ended; see Cause
	Broken        Kind = "broken"        // sshd itself cannot go on: keys, configuration
)

// Cause says by whom and why a connection ended.
type Cause string

// The causes of Closed.
const (
	ByClient      Cause = "client disconnected"       // SSH_MSG_DISCONNECT
	ClientGone    Cause = "client closed"             // end of file
	Reset         Cause = "connection reset"          // TCP RST
	Timeout       Cause = "client not responding"     // ClientAlive
	Idle          Cause = "idle"                      // UnusedConnectionTimeout
	LoginTimeout  Cause = "login grace time exceeded" // where a version says so
	NoAlgorithm   Cause = "no common algorithm"
	NotSSH        Cause = "client does not speak ssh"
	TooManyTries  Cause = "too many authentication failures"
	NotAuthorized Cause = "client gave up its login"
	Prohibited    Cause = "administratively prohibited"
	Corrupt       Cause = "packet that is not ssh's"
)

// Line is one line, understood. Fields that its kind has no use for are empty.
type Line struct {
	Kind  Kind
	Cause Cause
	// Remote and Local are the connection's ends, in sshd's words: "::1 port 4334".
	Remote, Local string
	// User is who logs in: data from outside, also where the login failed.
	User string
	// Method is sshd's word: publickey, password, keyboard-interactive/pam.
	Method string
	// KeyType and Fingerprint ("SHA256:...") are those of the user's key or of
	// the key in its certificate.
	KeyType, Fingerprint string
	// Cert is the certificate's key ID, with the serial and its CA's key.
	Cert          string
	Serial        uint64
	CAFingerprint string
	// Preauth says that the line comes from the time before the login.
	Preauth bool
	// Words is the whole line, without sshd's line end and [preauth] mark.
	Words string
}

// rule is one row: a line that begins with prefix and matches pattern (nil:
// any) is of that kind. Named groups fill the fields.
type rule struct {
	prefix  string
	pattern *regexp.Regexp
	kind    Kind
	cause   Cause
}

// The end of an address in sshd's words: "127.0.0.1 port 4334".
const peer = `\S+ port \d+`

// fatal is how the end of a connection begins that sshd did not expect.
const fatal = `(?:\w+: )?Connection from (?:(?:authenticating |invalid )?user (?P<user>.*) )?` + peer

func pattern(s string) *regexp.Regexp { return regexp.MustCompile("^(?:" + s + ")$") }

// rules are in the order in which they are tried: the more telling first. A
// user's name is whatever the client sent, and may hold spaces and the words
// of another line; so every pattern anchors it from both sides, greedily.
var rules = []rule{
	{"Connection from ", pattern(`Connection from (?P<remote>` + peer + `) on (?P<local>` + peer + `).*`), Connected, ""},

	{"Accepted key ", nil, Asked, ""},
	{"Accepted certificate ID ", nil, Asked, ""},
	{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2: (?P<type>\S+-CERT) (?P<fp>\S+) ID (?P<cert>.*) \(serial (?P<serial>\d+)\) CA \S+ (?P<ca>\S+)`), Authenticated, ""},
	{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2: (?P<type>\S+) (?P<fp>\S+)`), Authenticated, ""},
	{"Accepted ", pattern(`Accepted (?P<method>\S+) for (?P<user>.*) from (?P<remote>` + peer + `) ssh2`), Authenticated, ""},
	{"Postponed ", nil, Asked, ""},
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
	{"Received disconnect from ", pattern(`Received disconnect from ` + peer + `:\d+: .*`), Closed, ByClient},
	{"Disconnected from ", pattern(`Disconnected from (?:(?:authenticating |invalid )?user (?P<user>.*) )?` + peer), Closed, ByClient},
	{"Disconnecting ", pattern(`Disconnecting (?:(?:authenticating |invalid )user (?P<user>.*) )?` + peer + `: Too many authentication failures.*`), Closed, TooManyTries},
	{"administratively prohibited connection ", nil, Closed, Prohibited},
	{"Unable to negotiate with ", nil, Closed, NoAlgorithm},
	{"banner exchange: ", nil, Closed, NotSSH},
	{"Read error from remote host ", pattern(`Read error from remote host ` + peer + `: Connection reset by peer`), Closed, Reset},
	{"Read error from remote host ", pattern(`Read error from remote host ` + peer + `: (?:Connection timed out|No route to host|Host is unreachable)`), Closed, Timeout},
	{"Connection reset by ", pattern(`Connection reset by (?:(?:authenticating |invalid )user (?P<user>.*) )?` + peer), Closed, Reset},
	{"Connection closed by ", pattern(`Connection closed by (?:authenticating |invalid )user (?P<user>.*) ` + peer), Closed, NotAuthorized},
	{"Connection closed by ", pattern(`Connection closed by ` + peer), Closed, ClientGone},
	{"Closing connection to ", nil, Closed, ClientGone},
	// What sshd gives up on, the name of the function before it or not.
	{"", pattern(fatal + ` timed out`), Closed, Timeout},
	{"", pattern(fatal + `: (?:Connection timed out|No route to host|Host is unreachable)`), Closed, Timeout},
	{"", pattern(fatal + `: (?:Broken pipe|Connection reset by peer)`), Closed, Reset},
	{"", pattern(fatal + `: .*`), Closed, Corrupt},

	{"sshd: no hostkeys available", nil, Broken, ""},
	{"Missing privilege separation directory: ", nil, Broken, ""},
	{"command-line: line 0: Bad configuration option: ", nil, Broken, ""},
}

// rarer holds what says Broken by its end, as its beginning is a file's name.
var rarer = []string{
	"terminating, 1 bad configuration options",
	"must be owned by root and not group or world-writable.",
}

// Parse understands one line, with or without its line end.
func Parse(raw string) Line {
	words := strings.TrimRight(raw, "\r\n")
	words, preauth := strings.CutSuffix(words, " [preauth]")
	line := Line{Preauth: preauth, Words: words}
	for i := range rules {
		r := &rules[i]
		if !strings.HasPrefix(words, r.prefix) {
			continue
		}
		if r.pattern != nil {
			groups := r.pattern.FindStringSubmatch(words)
			if groups == nil {
				continue
			}
			line.fill(r.pattern.SubexpNames(), groups)
		}
		line.Kind, line.Cause = r.kind, r.cause
		return line
	}
	for _, end := range rarer {
		if strings.HasSuffix(words, end) {
			line.Kind = Broken
		}
	}
	return line
}

func (l *Line) fill(names, values []string) {
	to := map[string]*string{"remote": &l.Remote, "local": &l.Local, "method": &l.Method, "user": &l.User, "type": &l.KeyType, "fp": &l.Fingerprint, "cert": &l.Cert, "ca": &l.CAFingerprint}
	for i, name := range names {
		if p := to[name]; p != nil {
			*p = values[i]
		}
		if name == "serial" {
			l.Serial, _ = strconv.ParseUint(values[i], 10, 64)
		}
	}
}
