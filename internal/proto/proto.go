// Package proto owns the messages between the project's programs on the
// manager's Unix socket: JSON-RPC 2.0, one message a line. It has types and
// constants only. Every package may import it; it imports none of the project.
// docs/api.md shows an exchange for each method.
//
//	API client                               callhome-mgr
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
// The descriptor is sent with the first byte of the line (SCM_RIGHTS, unix(7)).
package proto

import "time"

// Version is the version of JSON-RPC, a member of every message.
const Version = "2.0"

// DefaultSocket is where callhome-mgr listens.
const DefaultSocket = "/run/callhome/mgr.sock"

// DefaultPort is IANA's netconf-ch-ssh (RFC 8071 section 6).
const DefaultPort = 4334

// MaxLine bounds one message to the manager, in bytes, its newline included.
// An answer may be longer: a list has a few hundred bytes a session.
const MaxLine = 64 << 10

// MaxOpaque bounds OPAQUE, in bytes.
const MaxOpaque = 1024

// The methods. Those that MAAPI has too have MAAPI's names.
const (
	MethodCallHome        = "netconf_ssh_call_home"        // CallParams -> SessionInfo
	MethodCallHomeOpaque  = "netconf_ssh_call_home_opaque" // CallParams -> SessionInfo
	MethodUserSessions    = "get_user_sessions"            // nothing -> SessionList
	MethodKillUserSession = "kill_user_session"            // SessionParams -> SessionInfo
	MethodReloadConfig    = "reload_config"                // nothing -> Nothing
	MethodRestartCallHome = "restart_call_home"            // RestartParams -> RestartResult
	MethodReopenLogs      = "reopen_logs"                  // nothing -> Nothing
	MethodStop            = "stop"                         // nothing -> Nothing
	MethodWaitStart       = "wait_start"                   // nothing -> Status
	MethodStatus          = "call_home_status"             // nothing -> Status
	MethodSubscribe       = "subscribe"                    // nothing -> EventList, then events
	MethodHandover        = "handover"                     // HandoverParams and a socket -> SessionInfo
)

// MethodAdopt is the former name of MethodHandover.
//
// Deprecated: at the station "adopt" registers a device.
const MethodAdopt = "adopt"

// NotifyEvent is the method of the notifications that subscribe starts; their
// parameters are an Event.
const NotifyEvent = "event"

// ReadOnly reports whether a method changes nothing: users with read access may
// call it.
func ReadOnly(method string) bool {
	switch method {
	case MethodUserSessions, MethodWaitStart, MethodStatus, MethodSubscribe:
		return true
	}
	return false
}

// Stage is the progress of a call home, or where it failed.
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

// Stages are all stages, in their order.
var Stages = []Stage{StageName, StageTCP, StageHandover, StageSSH, StageAuth, StageSubsystem, StageSession}

// Wait is the progress of a call home at which the manager answers the request.
type Wait string

// The values of wait. With WaitNone the manager answers when it accepts the call.
const (
	WaitNone    Wait = "none"
	WaitTCP     Wait = "tcp"     // connected, and sshd has sent its first byte
	WaitSSH     Wait = "ssh"     // logged in
	WaitNetconf Wait = "netconf" // the subsystem was started
)

// CallParams request a call home.
type CallParams struct {
	Host string `json:"host,omitempty"`
	// Client is a configured client to call with its own settings, in place of Host,
	// Port and Opaque.
	Client string `json:"client,omitempty"`
	Port   uint16 `json:"port,omitempty" min:"1"` // without it: DefaultPort
	// Opaque is data for the log and for the session's environment.
	Opaque string `json:"opaque,omitempty"`
	Wait   Wait   `json:"wait,omitempty"` // "": WaitTCP, as MAAPI's call does
}

// HandoverParams describe the socket that is sent with them.
type HandoverParams struct {
	// Host and Port are the NETCONF client's as the API client was given them.
	Host   string `json:"host"`
	Port   uint16 `json:"port,omitempty" min:"1"`
	Opaque string `json:"opaque,omitempty"`
}

// RestartParams select the configured clients to call now.
type RestartParams struct {
	Client string `json:"client,omitempty"` // "": all
}

// RestartResult names the clients that are called now.
type RestartResult struct {
	Clients []string `json:"clients"`
}

// SessionParams identify a session.
type SessionParams struct {
	Session int `json:"session"`
}

// State is the state of a session.
type State string

// The states of a session, in their order.
const (
	StateCalling       State = "calling"       // no connection yet
	StateStarting      State = "starting"      // sshd has the socket
	StateKeyExchange   State = "key-exchange"  // sshd and the client exchange keys, then authenticate
	StateAuthenticated State = "authenticated" // the client has logged in
	StateServing       State = "serving"       // the netconf subsystem runs
	StateClosed        State = "closed"
)

// States are those of sessions that have not ended, in their order.
var States = []State{StateCalling, StateStarting, StateKeyExchange, StateAuthenticated, StateServing}

// End is how a session ended.
type End string

// The ends.
const (
	EndKilled       End = "killed"              // on request, as kill_user_session
	EndDisconnected End = "client-disconnected" // SSH_MSG_DISCONNECT
	EndClosed       End = "client-closed"       // end of file
	EndReset        End = "connection-reset"
	EndSilent       End = "client-not-responding" // keepalives, or the kernel gave up
	EndIdle         End = "idle"                  // the idle timeout
	EndLoginTimeout End = "login-timeout"
	EndProtocol     End = "protocol-error" // no SSH, no common algorithm, a broken packet
	EndRefused      End = "refused"        // no login succeeded
	EndSshd         End = "sshd-failed"    // sshd could not start or serve
	EndNoConnection End = "no-connection"  // the call got no connection
	EndUnknown      End = "unknown"        // sshd logged no known reason
)

// Ends are all ends.
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
	ViaFound      Via = "found"      // unknown: a later manager found the session without its state file
)

// Vias are all values of via.
var Vias = []Via{ViaManager, ViaExecutable, ViaHandover, ViaFound}

// SessionInfo is the manager's information about one session.
type SessionInfo struct {
	// Session is the session's number. Neither this manager nor a later one uses
	// it again until the device is rebooted.
	Session int       `json:"session"`
	State   State     `json:"state"`
	Host    string    `json:"host"`
	Port    uint16    `json:"port"`
	Opaque  string    `json:"opaque,omitempty"`
	Remote  string    `json:"remote,omitempty"` // address and port of the NETCONF client
	Local   string    `json:"local,omitempty"`
	Since   time.Time `json:"since"`
	PID     int       `json:"pid,omitempty"` // of sshd
	// Client and Endpoint name the configured client and endpoint that the session
	// belongs to; "" for a call home on request.
	Client   string `json:"client,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Via      Via    `json:"via"`
	User     string `json:"user,omitempty"`
	Method   string `json:"method,omitempty"` // publickey, ...
	Key      string `json:"key,omitempty"`    // fingerprint of the user's key
	Cert     string `json:"cert,omitempty"`   // key ID of the user's certificate
	// Stage is the last stage of a closed session, End how it ended, and Cause
	// the same in one sentence, often sshd's log line.
	Stage Stage  `json:"stage,omitempty"`
	End   End    `json:"end,omitempty"`
	Cause string `json:"cause,omitempty"`
	// Graceful says that the session was closed intentionally: by
	// <close-session>, SSH's disconnect, the idle timeout or kill_user_session.
	Graceful bool       `json:"graceful,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Stats    *Stats     `json:"stats,omitempty"`
}

// Stats are the kernel's figures of a session's connection (tcp(7), TCP_INFO).
type Stats struct {
	BytesSent     uint64        `json:"bytes-sent"`
	BytesReceived uint64        `json:"bytes-received"`
	Retransmits   uint32        `json:"retransmits"`
	Unacked       uint32        `json:"unacked"`
	RTT           time.Duration `json:"rtt-ns"`
	// LastData is the time since data was last sent or received.
	LastData time.Duration `json:"last-data-ns"`
	// LastReceived is the time since data was last received.
	LastReceived time.Duration `json:"last-received-ns"`
}

// SessionList lists the sessions that have not ended, by number.
type SessionList struct {
	Sessions []SessionInfo `json:"sessions"`
}

// Status is the state of the manager.
type Status struct {
	Version  string        `json:"version"`
	PID      int           `json:"pid"`
	Since    time.Time     `json:"since"`
	Started  bool          `json:"started"` // sessions of an earlier manager are restored
	Sessions int           `json:"sessions"`
	Calls    uint64        `json:"calls"`  // call homes since the start
	Failed   uint64        `json:"failed"` // of those, ended without a login
	Recent   []SessionInfo `json:"recent"` // sessions that ended last, the newest first
	// Config is the configuration in force, Clients are its clients in its
	// order.
	Config  ConfigStatus   `json:"configuration"`
	Clients []ClientStatus `json:"clients"`
}

// ConfigStatus is the configuration of the standing connections.
type ConfigStatus struct {
	File    string     `json:"file,omitempty"`
	Applied *time.Time `json:"applied,omitempty"`
	// Missing: there was no such file, so no client is configured.
	Missing bool `json:"missing,omitempty"`
	Clients int  `json:"clients"`
	// Warnings are the parts of the applied document that are left aside, an endpoint
	// with TLS among them.
	Warnings []string `json:"warnings,omitempty"`
	// Error is why the document that was read last was refused; the applied one
	// stays in force.
	Error string `json:"error,omitempty"`
}

// ClientState is the state of the standing connection to a configured client.
type ClientState string

// The states of a client, in the order in which a connection goes through them.
const (
	ClientIdle          ClientState = "idle"        // periodic, and not due
	ClientWaiting       ClientState = "waiting"     // for the next attempt
	ClientDialing       ClientState = "dialing"     // the attempt has no connection yet
	ClientHandedOver    ClientState = "handed-over" // sshd has the connection
	ClientAuthenticated ClientState = "authenticated"
	ClientServing       ClientState = "serving"
	ClientStopped       ClientState = "stopped"  // max-call-home-attempts repetitions have failed
	ClientDisabled      ClientState = "disabled" // in the configuration
)

// ClientStates are all states of a client.
var ClientStates = []ClientState{ClientIdle, ClientWaiting, ClientDialing, ClientHandedOver, ClientAuthenticated, ClientServing, ClientStopped, ClientDisabled}

// ClientStatus is one configured NETCONF client: the state of its standing
// connection, the last failure, and the time of the next attempt.
type ClientStatus struct {
	Client string      `json:"client"`
	State  ClientState `json:"state"`
	Since  time.Time   `json:"since"` // when that state began
	// Endpoint is the one in use or next, Address its connection's peer.
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address,omitempty"`
	Periodic bool   `json:"periodic,omitempty"`
	// Attempts counts the consecutive failures at Endpoint, AttemptsLeft the
	// attempts before the next endpoint; Failures counts those at all endpoints
	// since the last login.
	Attempts     int `json:"attempts"`
	AttemptsLeft int `json:"attempts-left"`
	Failures     int `json:"failures"`
	// LastError is the last failed attempt or lost session.
	LastError   *LastError `json:"last-error,omitempty"`
	NextAttempt *time.Time `json:"next-attempt,omitempty"`
	Connections uint64     `json:"connections"` // logins since the manager started
	Session     int        `json:"session,omitempty"`
	User        string     `json:"user,omitempty"`
}

// LastError is a failure: its time, stage, end and message.
type LastError struct {
	Time    time.Time `json:"time"`
	Stage   Stage     `json:"stage"`
	End     End       `json:"end"`
	Message string    `json:"message"`
}

// EventList lists the latest events, the newest last.
type EventList struct {
	Events []Event `json:"events"`
}

// Nothing is the result of a method that returns nothing.
type Nothing struct{}

// Event is what happened to a session, a client or the configuration.
type Event struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	// Session is the session at that time; without a number where the event
	// concerns no session.
	Session SessionInfo `json:"session"`
	// Client is the configured client that the event concerns, at that time.
	Client *ClientStatus `json:"client,omitempty"`
	// Outage is how long a recovered client was not connected.
	Outage time.Duration `json:"outage-ns,omitempty"`
	// Text is sshd's log line where the event is one, else the event's details.
	Text string `json:"words,omitempty"`
}

// The events.
const (
	EventCalling       = "calling"
	EventConnected     = "connected"     // TCP; sshd has the socket
	EventKeyExchange   = "key-exchange"  // done
	EventRefused       = "login-refused" // the client may attempt another login
	EventAuthenticated = "authenticated"
	EventSubsystem     = "subsystem"
	EventNoSubsystem   = "no-subsystem"
	EventFailed        = "failed" // ended before the login; stage and cause say why
	EventClosed        = "closed" // ended after it
	EventLog           = "log"    // any other log line of sshd
	EventRestored      = "restored"
	EventTrouble       = "trouble" // the manager failed at something for this session; see Text

	// Of a configured client:
	EventAttemptFailed     = "attempt-failed"
	EventEndpointExhausted = "endpoint-exhausted"      // it failed max-attempts times
	EventAllExhausted      = "all-endpoints-exhausted" // so did each, one after another
	EventGivenUp           = "given-up"                // max-call-home-attempts have failed
	EventLost              = "lost"                    // a connection ended unintentionally after its login
	EventRecovered         = "recovered"               // a login after that; see Outage

	// Of the configuration:
	EventConfigApplied = "configuration-applied"
	EventConfigRefused = "configuration-refused" // Text is the reason
)

// Events are all events.
var Events = []string{
	EventCalling, EventConnected, EventKeyExchange, EventRefused, EventAuthenticated, EventSubsystem, EventNoSubsystem,
	EventFailed, EventClosed, EventLog, EventRestored, EventTrouble,
	EventAttemptFailed, EventEndpointExhausted, EventAllExhausted, EventGivenUp, EventLost, EventRecovered,
	EventConfigApplied, EventConfigRefused,
}
