// Package proto owns the words that the project's programs say to each other
// over the manager's Unix socket: JSON-RPC 2.0, one message a line. It has
// types and constants only; everybody may import it, it imports nobody.
// docs/api.md shows an exchange for each method.
//
//	caller                                   callhome-mgr
//	  {"method":"netconf_ssh_call_home",…}\n   ──▶
//	  ◀──  {"result":{"session":12,…}}\n   or   {"error":{"code":…}}\n
//
//	callhome-trigger
//	  {"method":"handover",…}\n  + 1 descriptor   ──▶
//	  ◀──  {"result":{"session":13,…}}\n
//
//	  {"method":"subscribe"}\n                 ──▶
//	  ◀──  {"result":{}}\n, then {"method":"event",…}\n for each event
//
// The descriptor rides on the first byte of the line (SCM_RIGHTS, unix(7)).
package proto

import "time"

// Version is JSON-RPC's own, in every message.
const Version = "2.0"

// DefaultSocket is where callhome-mgr listens.
const DefaultSocket = "/run/callhome/mgr.sock"

// DefaultPort is IANA's netconf-ch-ssh (RFC 8071 section 6).
const DefaultPort = 4334

// MaxLine bounds one message to the manager, in bytes, its newline included.
// An answer may be longer: a list has a few hundred bytes a session.
const MaxLine = 64 << 10

// MaxOpaque bounds the opaque word, in bytes.
const MaxOpaque = 1024

// The methods. Those that MAAPI has carry its names.
const (
	MethodCallHome        = "netconf_ssh_call_home"        // CallParams -> SessionInfo
	MethodCallHomeOpaque  = "netconf_ssh_call_home_opaque" // CallParams -> SessionInfo
	MethodUserSessions    = "get_user_sessions"            // nothing -> SessionList
	MethodKillUserSession = "kill_user_session"            // SessionParams -> SessionInfo
	MethodReloadConfig    = "reload_config"                // nothing -> Nothing
	MethodReopenLogs      = "reopen_logs"                  // nothing -> Nothing
	MethodStop            = "stop"                         // nothing -> Nothing
	MethodWaitStart       = "wait_start"                   // nothing -> Status
	MethodStatus          = "call_home_status"             // nothing -> Status
	MethodSubscribe       = "subscribe"                    // nothing -> EventList, then events
	MethodHandover        = "handover"                     // HandoverParams and a socket -> SessionInfo
)

// MethodAdopt is the former name of MethodHandover.
//
// Deprecated: the word is the station's, for registering a device.
const MethodAdopt = "adopt"

// NotifyEvent is the method of the notifications that subscribe starts; their
// parameters are an Event.
const NotifyEvent = "event"

// ReadOnly reports whether a method changes nothing, so that those who may
// only look may call it.
func ReadOnly(method string) bool {
	switch method {
	case MethodUserSessions, MethodWaitStart, MethodStatus, MethodSubscribe:
		return true
	}
	return false
}

// Stage is how far a call home has come, or where it failed.
type Stage string

// The stages, in their order.
const (
	StageName      Stage = "name"           // resolving the host's name
	StageTCP       Stage = "tcp"            // connecting
	StageHandover  Stage = "handover"       // starting sshd on the socket
	StageSSH       Stage = "ssh"            // banner and key exchange
	StageAuth      Stage = "authentication" // logging in
	StageSubsystem Stage = "subsystem"      // starting the netconf subsystem
	StageSession   Stage = "session"        // the session itself
)

// Stages are all of them, in their order.
var Stages = []Stage{StageName, StageTCP, StageHandover, StageSSH, StageAuth, StageSubsystem, StageSession}

// Wait is how far the connection must have come before a call is answered.
type Wait string

// The values of wait. WaitNone answers as soon as the call is accepted.
const (
	WaitNone    Wait = "none"
	WaitTCP     Wait = "tcp"     // connected and handed over
	WaitSSH     Wait = "ssh"     // logged in
	WaitNetconf Wait = "netconf" // the subsystem was started
)

// CallParams ask for a call home.
type CallParams struct {
	Host string `json:"host"`
	Port uint16 `json:"port,omitempty"` // 0: DefaultPort
	// Opaque is data for the log and for the session's environment.
	Opaque string `json:"opaque,omitempty"`
	Wait   Wait   `json:"wait,omitempty"` // "": WaitTCP, as MAAPI's call does
}

// HandoverParams say what is known of the socket that comes with them.
type HandoverParams struct {
	// Host and Port are the NETCONF client as the caller named it.
	Host   string `json:"host"`
	Port   uint16 `json:"port"`
	Opaque string `json:"opaque,omitempty"`
}

// SessionParams name a session.
type SessionParams struct {
	Session int `json:"session"`
}

// State is where a session stands.
type State string

// The states of a session, in their order.
const (
	StateCalling       State = "calling"       // no connection yet
	StateStarting      State = "starting"      // sshd has the socket
	StateKeyExchange   State = "key-exchange"  // sshd speaks to the client
	StateAuthenticated State = "authenticated" // the client has logged in
	StateServing       State = "serving"       // the netconf subsystem runs
	StateClosed        State = "closed"
)

// States are all that a session which has not ended can be in, in their order.
var States = []State{StateCalling, StateStarting, StateKeyExchange, StateAuthenticated, StateServing}

// End is how a session ended.
type End string

// The ends.
const (
	EndKilled       End = "killed"              // somebody asked for it
	EndDisconnected End = "client-disconnected" // the client said so (SSH_MSG_DISCONNECT)
	EndClosed       End = "client-closed"       // end of file
	EndReset        End = "connection-reset"
	EndSilent       End = "client-not-responding" // keepalives, or the kernel gave up
	EndIdle         End = "idle"                  // the idle timeout
	EndLoginTimeout End = "login-timeout"
	EndProtocol     End = "protocol-error" // no SSH, no common algorithm, a broken packet
	EndRefused      End = "refused"        // no login that counts
	EndSshd         End = "sshd-failed"    // sshd itself could not go on
	EndNoConnection End = "no-connection"  // there never was one
	EndUnknown      End = "unknown"        // sshd ended without a word that is known
)

// Ends are all of them.
var Ends = []End{
	EndKilled, EndDisconnected, EndClosed, EndReset, EndSilent, EndIdle, EndLoginTimeout, EndProtocol, EndRefused, EndSshd,
	EndNoConnection, EndUnknown,
}

// Via is who made a session's connection and started its sshd.
type Via string

// The values of via.
const (
	ViaManager    Via = "manager"    // callhome-mgr did both
	ViaExecutable Via = "executable" // the program of --ssh-call-home-executable did both
	ViaHandover   Via = "handover"   // another program connected, callhome-mgr started sshd
	ViaFound      Via = "found"      // not known: a later manager found the session without its state file
)

// Vias are all of them.
var Vias = []Via{ViaManager, ViaExecutable, ViaHandover, ViaFound}

// SessionInfo is one session as the manager knows it.
type SessionInfo struct {
	// Session numbers the session. A number is not used twice, also not by the
	// next manager, until the device is booted again.
	Session int       `json:"session"`
	State   State     `json:"state"`
	Host    string    `json:"host"`
	Port    uint16    `json:"port"`
	Opaque  string    `json:"opaque,omitempty"`
	Remote  string    `json:"remote,omitempty"` // address and port of the NETCONF client
	Local   string    `json:"local,omitempty"`
	Since   time.Time `json:"since"`
	PID     int       `json:"pid,omitempty"` // of sshd
	// Client and Endpoint are the names of those in the configuration that the
	// session belongs to; "" where somebody asked for the call.
	Client   string `json:"client,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Via      Via    `json:"via"`
	User     string `json:"user,omitempty"`
	Method   string `json:"method,omitempty"` // publickey, ...
	Key      string `json:"key,omitempty"`    // fingerprint of the user's key
	Cert     string `json:"cert,omitempty"`   // key ID of the user's certificate
	// Stage says where a closed session stood, End how it ended, and Cause
	// the same in sshd's words or ours.
	Stage Stage  `json:"stage,omitempty"`
	End   End    `json:"end,omitempty"`
	Cause string `json:"cause,omitempty"`
	// Graceful says that the session was closed on purpose: by
	// <close-session>, SSH's disconnect, the idle timeout or kill_user_session.
	Graceful bool       `json:"graceful,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Stats    *Stats     `json:"stats,omitempty"`
}

// Stats is what the kernel knows of a session's connection (tcp(7), TCP_INFO).
type Stats struct {
	BytesSent     uint64        `json:"bytes-sent"`
	BytesReceived uint64        `json:"bytes-received"`
	Retransmits   uint32        `json:"retransmits"`
	Unacked       uint32        `json:"unacked"`
	RTT           time.Duration `json:"rtt-ns"`
	// LastData is the time since data last moved in either direction.
	LastData time.Duration `json:"last-data-ns"`
	// LastReceived is the time since data last came.
	LastReceived time.Duration `json:"last-received-ns"`
}

// SessionList is every session that has not ended, by number.
type SessionList struct {
	Sessions []SessionInfo `json:"sessions"`
}

// Status is the manager's own.
type Status struct {
	Version  string        `json:"version"`
	PID      int           `json:"pid"`
	Since    time.Time     `json:"since"`
	Started  bool          `json:"started"` // sessions of a former manager are restored
	Sessions int           `json:"sessions"`
	Calls    uint64        `json:"calls"`  // call homes asked for since the start
	Failed   uint64        `json:"failed"` // of those, not logged in
	Recent   []SessionInfo `json:"recent"` // sessions that ended last, the newest first
	// Config is the configuration in force, Clients are those in it, in its
	// order.
	Config  ConfigStatus   `json:"configuration"`
	Clients []ClientStatus `json:"clients"`
}

// ConfigStatus is the configuration of the standing connections.
type ConfigStatus struct {
	File    string     `json:"file,omitempty"`
	Applied *time.Time `json:"applied,omitempty"`
	Clients int        `json:"clients"`
	// Error says why the document was refused that was read last; the one that
	// was applied stays in force.
	Error string `json:"error,omitempty"`
}

// ClientState is where the manager stands with a configured NETCONF client.
type ClientState string

// The states of a client, in the order in which a connection goes through them.
const (
	ClientIdle          ClientState = "idle"        // periodic, and not due
	ClientWaiting       ClientState = "waiting"     // for the next attempt
	ClientDialing       ClientState = "dialing"     // a call has no connection yet
	ClientHandedOver    ClientState = "handed-over" // sshd has the connection
	ClientAuthenticated ClientState = "authenticated"
	ClientServing       ClientState = "serving"
	ClientStopped       ClientState = "stopped"  // max-call-home-attempts have failed
	ClientDisabled      ClientState = "disabled" // the configuration says so
)

// ClientStates are all of them.
var ClientStates = []ClientState{ClientIdle, ClientWaiting, ClientDialing, ClientHandedOver, ClientAuthenticated, ClientServing, ClientStopped, ClientDisabled}

// ClientStatus is one configured NETCONF client: what the manager is doing
// about it, what failed last, and when it will try again.
type ClientStatus struct {
	Client string      `json:"client"`
	State  ClientState `json:"state"`
	Since  time.Time   `json:"since"` // when that state began
	// Endpoint is the one in use or next, Address where its connection goes.
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address,omitempty"`
	Periodic bool   `json:"periodic,omitempty"`
	// Attempts have failed at Endpoint in a row, AttemptsLeft are to be made
	// before the next endpoint's turn; Failures are those at all endpoints
	// since the last login.
	Attempts     int `json:"attempts"`
	AttemptsLeft int `json:"attempts-left"`
	Failures     int `json:"failures"`
	// LastError is why the last attempt or session ended that should not have.
	LastError   *LastError `json:"last-error,omitempty"`
	NextAttempt *time.Time `json:"next-attempt,omitempty"`
	Connections uint64     `json:"connections"` // logins since the manager started
	Session     int        `json:"session,omitempty"`
	User        string     `json:"user,omitempty"`
}

// LastError is a failure in words, and where it was.
type LastError struct {
	Time    time.Time `json:"time"`
	Stage   Stage     `json:"stage"`
	End     End       `json:"end"`
	Message string    `json:"message"`
}

// EventList is what happened last, the newest event at the end.
type EventList struct {
	Events []Event `json:"events"`
}

// Nothing is the result of a method that has none.
type Nothing struct{}

// Event is something that happened to a session.
type Event struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	// Session is the session as it was then; without a number where the event
	// is none of a session's.
	Session SessionInfo `json:"session"`
	// Client is the configured client that the event is about, as it was then.
	Client *ClientStatus `json:"client,omitempty"`
	// Outage is how long a recovered client was not connected.
	Outage time.Duration `json:"outage-ns,omitempty"`
	// Words are sshd's own, where the event is one of its lines.
	Words string `json:"words,omitempty"`
}

// The events.
const (
	EventCalling       = "calling"
	EventConnected     = "connected"     // TCP; sshd has the socket
	EventKeyExchange   = "key-exchange"  // done
	EventRefused       = "login-refused" // the client may try again
	EventAuthenticated = "authenticated"
	EventSubsystem     = "subsystem"
	EventNoSubsystem   = "no-subsystem"
	EventFailed        = "failed" // ended before the login; stage and cause say why
	EventClosed        = "closed" // ended after it
	EventLog           = "log"    // a line of sshd's that says nothing of the above
	EventRestored      = "restored"
	EventTrouble       = "trouble" // of the manager's own with this session; Words say which

	// Of a configured client:
	EventAttemptFailed     = "attempt-failed"
	EventEndpointExhausted = "endpoint-exhausted"      // it failed max-attempts times
	EventAllExhausted      = "all-endpoints-exhausted" // so did each, one after another
	EventGivenUp           = "given-up"                // max-call-home-attempts have failed
	EventLost              = "lost"                    // a connection that somebody had logged in on
	EventRecovered         = "recovered"               // a login after that; see Outage

	// Of the configuration:
	EventConfigApplied = "configuration-applied"
	EventConfigRefused = "configuration-refused" // Words say why
)

// Events are all of them.
var Events = []string{
	EventCalling, EventConnected, EventKeyExchange, EventRefused, EventAuthenticated, EventSubsystem, EventNoSubsystem,
	EventFailed, EventClosed, EventLog, EventRestored, EventTrouble,
	EventAttemptFailed, EventEndpointExhausted, EventAllExhausted, EventGivenUp, EventLost, EventRecovered,
	EventConfigApplied, EventConfigRefused,
}
