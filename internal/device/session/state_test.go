package session

import (
	"slices"
	"testing"

	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
)

const (
	lineConnected  = `Connection from 192.0.2.1 port 4334 on 192.0.2.9 port 51112 rdomain ""`
	lineFailed     = `Failed publickey for netconf from 192.0.2.1 port 4334 ssh2: ED25519 SHA256:abc`
	lineAccepted   = `Accepted publickey for netconf from 192.0.2.1 port 4334 ssh2: ED25519 SHA256:abc`
	lineSubsystem  = `Starting session: subsystem 'netconf' for netconf from 192.0.2.1 port 4334 id 0`
	lineNoSub      = `subsystem request for nope by user netconf failed, subsystem not found`
	lineDisconnect = `Received disconnect from 192.0.2.1 port 4334:11: disconnected by user`
	lineDuplicate  = `Received disconnect from 192.0.2.1 port 4334:12: edge7 is connected already [preauth]`
	lineGone       = `Connection closed by 192.0.2.1 port 4334`
	lineGaveUp     = `Connection closed by authenticating user netconf 192.0.2.1 port 4334 [preauth]`
	lineFinished   = `Close session: user netconf from 192.0.2.1 port 4334 id 0`
	lineCorrupt    = `ssh_dispatch_run_fatal: Connection from user netconf 192.0.2.1 port 4334: message authentication code incorrect`
	lineTimeout    = `Timeout, client not responding from user netconf 192.0.2.1 port 4334`
	lineUnknown    = `a line of a later version`
)

func started() *record {
	return &record{SessionInfo: proto.SessionInfo{State: proto.StateStarting}}
}

// applyProven applies lines to a record, with the evidence for each claim in them.
func applyProven(r *record, lines ...string) (events []string) {
	for _, l := range lines {
		events = append(events, r.apply(sshdlog.Parse(l))...)
		if slices.Contains(beforeLogin, r.State) && len(r.Claims) > 0 {
			r.loggedIn(r.Claims[0].User, 1000)
			events = append(events, proto.EventAuthenticated)
		}
		if r.State == proto.StateAuthenticated && r.Started {
			r.State = proto.StateServing
			events = append(events, proto.EventSubsystem)
		}
	}
	return events
}

func TestASessionsLinesBecomeEvents(t *testing.T) {
	r := started()
	got := applyProven(r, lineConnected, lineFailed, lineAccepted, lineUnknown, lineSubsystem, lineDisconnect)
	want := []string{proto.EventKeyExchange, proto.EventRefused, proto.EventAuthenticated, proto.EventLog, proto.EventSubsystem}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, expected %v", got, want)
	}
	if r.State != proto.StateServing || r.User != "netconf" || r.Key != "SHA256:abc" || r.Remote != "192.0.2.1:4334" || r.Local != "192.0.2.9:51112" {
		t.Errorf("the record is %+v", r.SessionInfo)
	}
}

// End, stage and cause follow from the state reached, sshd's lines and, without
// lines, the exit status.
func TestEveryEndHasItsStageAndCause(t *testing.T) {
	tests := []struct {
		name     string
		lines    []string
		exit     int
		killedBy string
		event    string
		stage    proto.Stage
		cause    string
		end      proto.End
		graceful bool
	}{
		{"sshd took no connection", nil, 1, "", proto.EventFailed, proto.StageHandover, "sshd ended with status 1", proto.EndSshd, false},
		{"no host keys", []string{"sshd: no hostkeys available -- exiting."}, 1, "", proto.EventFailed, proto.StageHandover, "sshd: no hostkeys available -- exiting.", proto.EndSshd, false},
		{"the client closed at once", []string{lineConnected, lineGone}, 255, "", proto.EventFailed, proto.StageSSH, "client closed", proto.EndClosed, false},
		{"the client gave up its login", []string{lineConnected, lineFailed, lineGaveUp}, 255, "", proto.EventFailed, proto.StageAuth, "client gave up its login: " + lineFailed, proto.EndRefused, false},
		{"no login, before 9.8", []string{lineConnected}, 1, "", proto.EventFailed, proto.StageSSH, "login grace time exceeded", proto.EndLoginTimeout, false},
		{"no login, from 9.8", []string{lineConnected, lineFailed}, 3, "", proto.EventFailed, proto.StageAuth, "login grace time exceeded: " + lineFailed, proto.EndLoginTimeout, false},
		{"the first reason counts", []string{lineConnected, lineAccepted, lineSubsystem, lineTimeout, "Closing connection to 192.0.2.1 port 4334"}, 255, "", proto.EventClosed, proto.StageSession, "client not responding", proto.EndSilent, false},
		{"an ordinary end has status 255", []string{lineConnected, lineAccepted, lineSubsystem, lineDisconnect}, 255, "", proto.EventClosed, proto.StageSession, "the NETCONF client ended it: disconnected by user", proto.EndDisconnected, true},
		{"no such subsystem", []string{lineConnected, lineAccepted, lineNoSub, lineDisconnect}, 255, "", proto.EventClosed, proto.StageSubsystem, "the NETCONF client ended it: disconnected by user: " + lineNoSub, proto.EndDisconnected, true},
		{"ended by a peer", []string{lineConnected, lineAccepted, lineSubsystem}, -1, "uid 0 pid 7", proto.EventClosed, proto.StageSession, "ended by uid 0 pid 7", proto.EndKilled, true},
		{"the exit status is not known", []string{lineConnected, lineAccepted}, -1, "", proto.EventClosed, proto.StageSubsystem, "sshd ended without logging a reason", proto.EndUnknown, false},
		{"closed by <close-session>, then by the client", []string{lineConnected, lineAccepted, lineSubsystem, lineFinished, lineGone}, 0, "", proto.EventClosed, proto.StageSession, "client closed", proto.EndClosed, true},
		{"the connection closed before its session", []string{lineConnected, lineAccepted, lineSubsystem, lineGone, lineFinished}, 0, "", proto.EventClosed, proto.StageSession, "client closed", proto.EndClosed, false},
		{"one session closed, the next one lost", []string{lineConnected, lineAccepted, lineSubsystem, lineFinished, lineSubsystem, lineGone}, 0, "", proto.EventClosed, proto.StageSession, "client closed", proto.EndClosed, false},
		{"the reason of a refused key", []string{lineConnected, "Authentication refused: bad ownership or modes for directory /run", lineFailed, lineGaveUp}, 255, "", proto.EventFailed, proto.StageAuth, "client gave up its login: Authentication refused: bad ownership or modes for directory /run", proto.EndRefused, false},
		{"a duplicate", []string{lineConnected, lineDuplicate, "Disconnected from 192.0.2.1 port 4334 [preauth]"}, 255, "", proto.EventFailed, proto.StageSSH, "the NETCONF client ended it: edge7 is connected already", proto.EndDisconnected, false},
		{"the client says that it gave up its login", []string{lineConnected, lineFailed, "Received disconnect from 192.0.2.1 port 4334:14: login failed [preauth]"}, 255, "", proto.EventFailed, proto.StageAuth, "the NETCONF client ended it: login failed: " + lineFailed, proto.EndRefused, false},
		{"the station stops", []string{lineConnected, lineAccepted, lineSubsystem, "Received disconnect from 192.0.2.1 port 4334:7: the station is stopping"}, 255, "", proto.EventClosed, proto.StageSession, "the NETCONF client ended it: the station is stopping", proto.EndDisconnected, false},
		{"no text", []string{lineConnected, lineAccepted, "Received disconnect from 192.0.2.1 port 4334:11: "}, 255, "", proto.EventClosed, proto.StageSubsystem, "client disconnected", proto.EndDisconnected, true},
		{"a broken packet", []string{lineConnected, lineAccepted, lineSubsystem, lineCorrupt}, 255, "", proto.EventClosed, proto.StageSession, "packet that is not ssh's: message authentication code incorrect", proto.EndProtocol, false},
		{"no common algorithm", []string{lineConnected, "Unable to negotiate with 192.0.2.1 port 4334: no matching host key type found. Their offer: ssh-dss\x1b [preauth]"}, 255, "", proto.EventFailed, proto.StageSSH, "no common algorithm: no matching host key type found. Their offer: ssh-dss?", proto.EndProtocol, false},
		{"no SSH", []string{lineConnected, `kex_exchange_identification: client sent invalid protocol identifier "GET / HTTP/1.1"`, "banner exchange: Connection from 192.0.2.1 port 4334: invalid format"}, 255, "", proto.EventFailed, proto.StageSSH, `client does not speak ssh: client sent invalid protocol identifier "GET / HTTP/1.1"`, proto.EndProtocol, false},
	}
	for _, tt := range tests {
		r := started()
		applyProven(r, tt.lines...)
		var o order
		if tt.killedBy != "" {
			o = order{proto.EndKilled, "ended by " + tt.killedBy}
		}
		event := r.end(tt.exit, o)
		if r.End != tt.end || r.Graceful != tt.graceful {
			t.Errorf("%s: it ended %s, graceful %v; expected %s, %v", tt.name, r.End, r.Graceful, tt.end, tt.graceful)
		}
		if event != tt.event || r.Stage != tt.stage || r.Cause != tt.cause || r.State != proto.StateClosed {
			t.Errorf("%s: %s at %s because %q, expected %s at %s because %q", tt.name, event, r.Stage, r.Cause, tt.event, tt.stage, tt.cause)
		}
	}
}

// Every kind of line in every state: none moves a session to an earlier state, and
// none changes a closed one.
func TestNoLineMovesASessionBack(t *testing.T) {
	states := append(slices.Clone(proto.States), proto.StateClosed)
	for _, from := range states {
		for kind := range steps {
			r := &record{SessionInfo: proto.SessionInfo{State: from, Cause: "known"}}
			r.apply(sshdlog.Line{Kind: kind})
			if slices.Index(states, r.State) < slices.Index(states, from) {
				t.Errorf("%s in state %s leads back to %s", kind, from, r.State)
			}
			if from == proto.StateClosed && r.State != from {
				t.Errorf("%s changed a closed session: %s", kind, r.State)
			}
		}
	}
}

func TestReachedFollowsTheOrder(t *testing.T) {
	for i, state := range proto.States {
		for j, wanted := range proto.States {
			if got := reached(state, wanted); got != (i >= j) {
				t.Errorf("reached(%s, %s) is %v", state, wanted, got)
			}
		}
	}
}

// sshd may log that it refused the subsystem before the manager proves the login.
func TestARefusedSubsystemIsTheCauseOfAProvenLogin(t *testing.T) {
	r := started()
	read := func(lines ...string) {
		for _, l := range lines {
			r.apply(sshdlog.Parse(l))
		}
	}
	read(lineConnected, lineNoSub)
	if r.NoSubsystem {
		t.Error("the line counts before any login was claimed")
	}
	read(lineAccepted, lineNoSub)
	r.loggedIn("netconf", 1000)
	read(lineDisconnect)
	r.end(255, order{})
	if r.Stage != proto.StageSubsystem || r.Cause != "the NETCONF client ended it: disconnected by user: "+lineNoSub {
		t.Errorf("it ended at %s: %s", r.Stage, r.Cause)
	}
}
