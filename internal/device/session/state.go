package session

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/device/sshdlog"
	"callhome/internal/printable"
	"callhome/internal/proto"
)

// step is the effect of one kind of line on a record: in which states it applies,
// the next state, and the event to publish.
type step struct {
	from  []proto.State // the states it applies in; nil: any
	to    proto.State   // ""; no change
	event string
}

var (
	beforeLogin = []proto.State{proto.StateStarting, proto.StateKeyExchange}
	afterLogin  = []proto.State{proto.StateAuthenticated, proto.StateServing}
)

// steps is the state table: one row per kind of line. A line of a kind that is not
// in it is published as it is (EventLog).
var steps = map[sshdlog.Kind]step{
	sshdlog.Connected:     {from: []proto.State{proto.StateStarting}, to: proto.StateKeyExchange},
	sshdlog.Attempted:     {from: beforeLogin},
	sshdlog.Refused:       {from: beforeLogin, event: proto.EventRefused},
	sshdlog.Authenticated: {from: beforeLogin},
	sshdlog.Subsystem:     {},
	sshdlog.NoSubsystem:   {from: afterLogin, event: proto.EventNoSubsystem},
	sshdlog.Finished:      {from: afterLogin},
	sshdlog.Closed:        {},
	sshdlog.Broken:        {},
}

// apply applies one line to r and returns the events to publish, in order. It
// changes nothing else.
func (r *record) apply(l sshdlog.Line) []string {
	s, known := steps[l.Kind]
	if !known && r.State == proto.StateCalling {
		r.LastText = l.Text // of the executable that makes the call
	}
	if !known && slices.Contains(beforeLogin, r.State) {
		r.LastLine = lastLine(r.LastLine, l.Text, r.State)
	}
	if !known {
		return []string{proto.EventLog}
	}
	if s.from != nil && !slices.Contains(s.from, r.State) {
		if l.Kind == sshdlog.NoSubsystem && len(r.Claims) > 0 {
			r.learn(l) // the cause, if the login is proven later
		}
		return nil
	}
	var events []string
	if !r.KeyExchanged && r.State == proto.StateKeyExchange && exchanged(l.Kind) {
		r.KeyExchanged = true
		events = append(events, proto.EventKeyExchange)
	}
	r.learn(l)
	if s.to != "" {
		r.State = s.to
	}
	if s.event != "" {
		events = append(events, s.event)
	}
	return events
}

// maxStartLines is how many of the lines that sshd logs before it takes the
// connection are its cause: the last one alone says "terminating, 1 bad
// configuration options".
const maxStartLines = 3

// lastLine returns LastLine after an unknown line in state.
func lastLine(before, line string, state proto.State) string {
	line = printable.Line(strings.TrimSpace(line))
	if state != proto.StateStarting || before == "" {
		return line
	}
	lines := append(strings.Split(before, "; "), line)
	return strings.Join(lines[max(0, len(lines)-maxStartLines):], "; ")
}

// exchanged reports whether sshd logs such a line only after a key exchange.
func exchanged(k sshdlog.Kind) bool {
	return k == sshdlog.Attempted || k == sshdlog.Refused || k == sshdlog.Authenticated
}

// learn copies the fields of a line into the record.
func (r *record) learn(l sshdlog.Line) {
	switch l.Kind {
	case sshdlog.Connected:
		// The socket's own addresses take precedence.
		if r.Remote == "" {
			r.Remote, r.Local = addrPort(l.Remote, ""), addrPort(l.Local, "")
		}
	case sshdlog.Authenticated:
		// A claim, where it is for the session's own peer.
		c := claim{l.User, l.Method, l.Fingerprint, l.Cert}
		if addrPort(l.Remote, "") != r.Remote || slices.Contains(r.Claims, c) {
			break
		}
		if len(r.Claims) == maxClaims {
			r.Claims, r.ClaimsDropped = r.Claims[1:], true
		}
		r.Claims = append(r.Claims, c)
	case sshdlog.Refused:
		// "Failed publickey" follows the line with the reason, which is kept.
		if !strings.HasPrefix(l.Text, "Failed ") || strings.HasPrefix(r.LastText, "Failed ") || r.LastText == "" {
			r.LastText = l.Text
		}
	case sshdlog.Broken:
		r.Broken, r.LastText = true, l.Text
	case sshdlog.NoSubsystem:
		r.NoSubsystem, r.LastText = true, l.Text
	case sshdlog.Subsystem:
		r.Started, r.Graceful = true, false // possibly another one on the same connection
	case sshdlog.Finished:
		// After the connection's end sshd logs this for every session.
		r.Graceful = r.Graceful || r.Cause == ""
	case sshdlog.Closed:
		// The first one is the reason, later ones are its consequences.
		if r.Cause == "" {
			r.Cause, r.ClientReason = string(l.Cause), printable.Line(l.Reason)
			r.Unintended = l.Code != "" && l.Code != byApplication
			if l.Detail != "" && r.LastText == "" {
				r.LastText = printable.Line(l.Detail)
			}
		}
	}
}

// ends maps each cause to its end. A client that disconnects after a refused login
// ends as refused.
var ends = map[sshdlog.Cause]proto.End{
	sshdlog.ByClient: proto.EndDisconnected, sshdlog.ClientClosed: proto.EndClosed, sshdlog.Reset: proto.EndReset,
	sshdlog.Timeout: proto.EndSilent, sshdlog.Idle: proto.EndIdle, sshdlog.LoginTimeout: proto.EndLoginTimeout,
	sshdlog.NoAlgorithm: proto.EndProtocol, sshdlog.NotSSH: proto.EndProtocol, sshdlog.Corrupt: proto.EndProtocol,
	sshdlog.TooManyTries: proto.EndRefused, sshdlog.NotAuthorized: proto.EndRefused, sshdlog.Prohibited: proto.EndRefused,
}

// addrPort converts sshd's "::1 port 4334" to "[::1]:4334"; on error it returns
// known.
func addrPort(text, known string) string {
	host, port, ok := strings.Cut(text, " port ")
	n, err := strconv.ParseUint(port, 10, 16)
	addr, err2 := netip.ParseAddr(host)
	if !ok || err != nil || err2 != nil {
		return known
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String()
}

// end completes the record with stage, end and cause. exit is sshd's exit status,
// -1 where it is unknown; o is the request to end the session, if any. It returns
// the event to publish.
func (r *record) end(exit int, o order) string {
	reached := r.State
	r.State = proto.StateClosed
	r.Stage = stageOf(reached, r)
	cause := r.causeOf(reached, exit)
	r.End, r.Cause = r.endOf(reached, cause), r.describe(reached, cause, exit)
	if o.end != "" {
		r.End, r.Cause = o.end, o.cause
	}
	intended := slices.Contains(graceful, r.End) && !(r.End == proto.EndDisconnected && r.Unintended)
	r.Graceful = slices.Contains(afterLogin, reached) && (r.closedInOrder() || intended)
	if slices.Contains(afterLogin, reached) {
		return proto.EventClosed
	}
	return proto.EventFailed
}

// silent reports whether sshd has started and logged no line.
func (r *record) silent() bool {
	return r.State == proto.StateStarting && r.Cause == "" && r.LastText == "" && r.LastLine == ""
}

// maxClaims bounds the claims that are kept: sshd writes at most 1023 bytes of each.
const maxClaims = 32

// loggedIn applies a proven login to the record. Of the claims only the user's own
// remain. It reports what chooseClaim reports.
func (r *record) loggedIn(user string, uid int) (agreed bool) {
	r.State, r.User, r.UID = proto.StateAuthenticated, user, uid
	if !r.NoSubsystem { // sshd may have refused the subsystem before the login was proven
		r.LastText = ""
	}
	r.Claims = slices.DeleteFunc(r.Claims, func(c claim) bool { return c.User != user })
	return r.chooseClaim()
}

// chooseClaim sets method, key and certificate of a proven login. The log can have
// several claims, since a user can add lines to it: then the one counts that sshd
// exposed to the helper. Method and key are not known without such a claim, nor where
// the only claim is not what sshd exposed. It reports false where the log has no claim
// of what sshd exposed.
func (r *record) chooseClaim() (agreed bool) {
	exposed := r.AuthInfo != (authInfo{}) && r.ReportUID == r.UID
	fits := slices.DeleteFunc(slices.Clone(r.Claims), func(c claim) bool { return exposed && !r.AuthInfo.shows(c) })
	var chosen claim
	switch {
	case len(r.Claims) == 1 && !r.ClaimsDropped && len(fits) == 1:
		chosen = r.Claims[0]
	case exposed && len(fits) == 1:
		chosen = fits[0]
	}
	r.Method, r.Key, r.Cert = chosen.Method, chosen.Key, chosen.Cert
	return !exposed || len(fits) > 0
}

// closedInOrder reports whether the NETCONF session was closed before the
// connection. The observed end of the subsystem takes precedence: sshd logs "Close
// session" after lost connections too (measured).
func (r *record) closedInOrder() bool {
	if r.Subsystem.PID == 0 {
		return r.Graceful
	}
	return r.Orderly && slices.Contains(clientEnds, r.End)
}

// clientEnds are the ends that a NETCONF client can cause.
var clientEnds = []proto.End{proto.EndDisconnected, proto.EndClosed, proto.EndReset}

// byApplication is the reason code of an intended SSH_MSG_DISCONNECT (RFC 4253 section
// 11.1), such as ssh's own. A station that stops or replaces a connection has another.
const byApplication = "11"

// graceful are the intended ends.
var graceful = []proto.End{proto.EndKilled, proto.EndDisconnected, proto.EndIdle}

// causeOf returns sshd's reason for the end, "" where it logged none.
func (r *record) causeOf(reached proto.State, exit int) sshdlog.Cause {
	if r.Cause == "" && reached == proto.StateKeyExchange && (exit == 1 || exit == 3) {
		// Only 8.5 to 9.7 log this cause. The exit status is 1 before 9.8 and 3
		// from then on.
		return sshdlog.LoginTimeout
	}
	return sshdlog.Cause(r.Cause)
}

func (r *record) endOf(reached proto.State, cause sshdlog.Cause) proto.End {
	if cause == sshdlog.ByClient && reached == proto.StateKeyExchange && r.KeyExchanged {
		return proto.EndRefused // it gave up its login, and said so
	}
	if end, ok := ends[cause]; ok {
		return end
	}
	if r.Broken || reached == proto.StateStarting {
		return proto.EndSshd
	}
	if reached == proto.StateCalling {
		return proto.EndNoConnection
	}
	return proto.EndUnknown
}

// describe returns the most specific description of why the session ended.
func (r *record) describe(reached proto.State, cause sshdlog.Cause, exit int) string {
	what := "sshd"
	if reached == proto.StateCalling {
		what = "the call-home executable"
	}
	switch {
	case cause == "" && r.LastText != "":
		return r.LastText
	case cause == "" && r.LastLine != "" && slices.Contains(beforeLogin, reached):
		return r.LastLine
	case cause == "" && exit < 0:
		return what + " ended without logging a reason"
	case cause == "":
		return what + " ended with status " + strconv.Itoa(exit)
	}
	text := string(cause)
	if r.ClientReason != "" {
		text = "the NETCONF client ended it: " + r.ClientReason
	}
	if r.LastText != "" {
		text += ": " + r.LastText
	}
	return text
}

// stageOf returns the stage of a session in state s.
func stageOf(s proto.State, r *record) proto.Stage {
	switch s {
	case proto.StateCalling:
		return proto.StageTCP
	case proto.StateStarting:
		return proto.StageHandover
	case proto.StateKeyExchange:
		if r.KeyExchanged {
			return proto.StageAuth
		}
		return proto.StageSSH
	case proto.StateAuthenticated:
		return proto.StageSubsystem
	}
	return proto.StageSession
}
