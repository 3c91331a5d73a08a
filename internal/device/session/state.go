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

// step is what a line of sshd's does to a record: the row says when it counts,
// what the session is then, and which event tells of it.
type step struct {
	from  []proto.State // the states it counts in; nil: any
	to    proto.State   // ""; stays
	event string
}

var (
	beforeLogin = []proto.State{proto.StateStarting, proto.StateKeyExchange}
	afterLogin  = []proto.State{proto.StateAuthenticated, proto.StateServing}
)

// steps is the state table: one row a kind of line. Kinds that are not in it
// are told as they are (EventLog).
var steps = map[sshdlog.Kind]step{
	sshdlog.Connected:     {from: []proto.State{proto.StateStarting}, to: proto.StateKeyExchange},
	sshdlog.Asked:         {from: beforeLogin},
	sshdlog.Refused:       {from: beforeLogin, event: proto.EventRefused},
	sshdlog.Authenticated: {from: beforeLogin},
	sshdlog.Subsystem:     {},
	sshdlog.NoSubsystem:   {from: afterLogin, event: proto.EventNoSubsystem},
	sshdlog.Finished:      {from: afterLogin},
	sshdlog.Closed:        {},
	sshdlog.Broken:        {},
}

// apply takes one line in and returns the events to tell, in order. It is pure
// but for r.
func (r *record) apply(l sshdlog.Line) []string {
	s, known := steps[l.Kind]
	if !known && r.State == proto.StateCalling {
		r.LastText = l.Text // of the program that makes the call
	}
	if !known && slices.Contains(beforeLogin, r.State) {
		r.LastLine = printable.Line(l.Text)
	}
	if !known {
		return []string{proto.EventLog}
	}
	if s.from != nil && !slices.Contains(s.from, r.State) {
		if l.Kind == sshdlog.NoSubsystem && r.Claim != nil {
			r.learn(l) // the cause, should the login be proven
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

// exchanged reports whether sshd says such a thing only after a key exchange.
func exchanged(k sshdlog.Kind) bool {
	return k == sshdlog.Asked || k == sshdlog.Refused || k == sshdlog.Authenticated
}

func (r *record) learn(l sshdlog.Line) {
	switch l.Kind {
	case sshdlog.Connected:
		// What the socket says comes first.
		if r.Remote == "" {
			r.Remote, r.Local = addrPort(l.Remote, ""), addrPort(l.Local, "")
		}
	case sshdlog.Authenticated:
		// A claim: the last one counts, of the session's own peer.
		if addrPort(l.Remote, "") == r.Remote {
			r.Claim = &claim{l.User, l.Method, l.Fingerprint, l.Cert}
		}
	case sshdlog.Refused:
		// "Failed publickey" follows what tells why.
		if !strings.HasPrefix(l.Text, "Failed ") || strings.HasPrefix(r.LastText, "Failed ") || r.LastText == "" {
			r.LastText = l.Text
		}
	case sshdlog.Broken:
		r.Broken, r.LastText = true, l.Text
	case sshdlog.NoSubsystem:
		r.NoSubsystem, r.LastText = true, l.Text
	case sshdlog.Subsystem:
		r.Started, r.Graceful = true, false // it may be a further one on the same connection
	case sshdlog.Finished:
		// After the end of the connection sshd says so of any session.
		r.Graceful = r.Graceful || r.Cause == ""
	case sshdlog.Closed:
		// The first one is the reason, what follows its consequence.
		if r.Cause == "" {
			r.Cause = string(l.Cause)
		}
	}
}

// ends names the end that each cause is. A login that was refused is one also
// where the client then just left.
var ends = map[sshdlog.Cause]proto.End{
	sshdlog.ByClient: proto.EndDisconnected, sshdlog.ClientGone: proto.EndClosed, sshdlog.Reset: proto.EndReset,
	sshdlog.Timeout: proto.EndSilent, sshdlog.Idle: proto.EndIdle, sshdlog.LoginTimeout: proto.EndLoginTimeout,
	sshdlog.NoAlgorithm: proto.EndProtocol, sshdlog.NotSSH: proto.EndProtocol, sshdlog.Corrupt: proto.EndProtocol,
	sshdlog.TooManyTries: proto.EndRefused, sshdlog.NotAuthorized: proto.EndRefused, sshdlog.Prohibited: proto.EndRefused,
}

// addrPort turns sshd's "::1 port 4334" into "[::1]:4334", or keeps known.
func addrPort(words, known string) string {
	host, port, ok := strings.Cut(words, " port ")
	n, err := strconv.ParseUint(port, 10, 16)
	addr, err2 := netip.ParseAddr(host)
	if !ok || err != nil || err2 != nil {
		return known
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String()
}

// end closes the record: what had it reached, and why did it end there. exit
// is sshd's exit status, -1 where it is not known; o is the order to end it, if
// there was one. It returns the event to tell.
func (r *record) end(exit int, o order) string {
	reached := r.State
	r.State = proto.StateClosed
	r.Stage = stageOf(reached, r)
	cause := r.causeOf(reached, exit)
	r.End, r.Cause = r.endOf(reached, cause), r.say(reached, cause, exit)
	if o.end != "" {
		r.End, r.Cause = o.end, o.cause
	}
	r.Graceful = slices.Contains(afterLogin, reached) && (r.closedInOrder() || slices.Contains(graceful, r.End))
	if slices.Contains(afterLogin, reached) {
		return proto.EventClosed
	}
	return proto.EventFailed
}

// loggedIn is what a proven login does to a record.
func (r *record) loggedIn(uid int) {
	r.State, r.UID = proto.StateAuthenticated, uid
	if !r.NoSubsystem { // sshd may have refused the subsystem before the login was proven
		r.LastText = ""
	}
	r.User, r.Method, r.Key, r.Cert = r.Claim.User, r.Claim.Method, r.Claim.Key, r.Claim.Cert
	r.Claim = nil
	r.useAuthInfo()
}

// useAuthInfo takes the key of a login from what sshd wrote at the login: a user
// can put a line with another key into the log.
func (r *record) useAuthInfo() {
	if r.Method == "publickey" && r.AuthInfo.Key != "" {
		r.Key, r.Cert = r.AuthInfo.Key, r.AuthInfo.Cert
	}
}

// closedInOrder reports whether the NETCONF session was closed before the
// connection. Where the subsystem's end was watched, that decides: the log's
// "Close session" is there after lost connections too (measured).
func (r *record) closedInOrder() bool {
	if r.Subsystem.PID == 0 {
		return r.Graceful
	}
	return r.Orderly && slices.Contains(clientEnds, r.End)
}

// clientEnds are those by which a NETCONF client can end a connection.
var clientEnds = []proto.End{proto.EndDisconnected, proto.EndClosed, proto.EndReset}

// graceful are the ends that were wanted.
var graceful = []proto.End{proto.EndKilled, proto.EndDisconnected, proto.EndIdle}

// causeOf returns sshd's reason for the end, "" where it gave none.
func (r *record) causeOf(reached proto.State, exit int) sshdlog.Cause {
	if r.Cause == "" && reached == proto.StateKeyExchange && (exit == 1 || exit == 3) {
		// No version but 8.5 to 9.7 says so; 1 is what those before 9.8 exit
		// with, 3 what later ones do.
		return sshdlog.LoginTimeout
	}
	return sshdlog.Cause(r.Cause)
}

func (r *record) endOf(reached proto.State, cause sshdlog.Cause) proto.End {
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

// say tells why the session ended in the clearest words there are.
func (r *record) say(reached proto.State, cause sshdlog.Cause, exit int) string {
	what := "sshd"
	if reached == proto.StateCalling {
		what = "the program that makes the calls"
	}
	switch {
	case cause == "" && r.LastText != "":
		return r.LastText
	case cause == "" && r.LastLine != "" && slices.Contains(beforeLogin, reached):
		return r.LastLine
	case cause == "" && exit < 0:
		return what + " ended without a word"
	case cause == "":
		return what + " ended with status " + strconv.Itoa(exit)
	case r.LastText != "":
		return string(cause) + ": " + r.LastText
	}
	return string(cause)
}

// stageOf names the stage that a session was in.
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
