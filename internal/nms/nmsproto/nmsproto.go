// Package nmsproto owns the API of callhome-nms serve on its Unix socket: the methods
// and types of JSON-RPC 2.0, as package proto does for callhome-mgr. The station, its
// API clients and hooks use it; the commands print the types unchanged with --json. It
// has types and constants only.
//
//	API client                               callhome-nms serve
//	  {"method":"devices"}\n                   ──▶
//	  ◀──  {"result":{"devices":[…],…}}\n
//
//	  {"method":"connect","params":{"device":"edge7"}}\n  + 1 socket   ──▶
//	  NETCONF ◀══ on the socket, relayed to a channel of edge7 ══▶
//	  ◀──  {"result":{"exit-status":0,…}}\n    when the channel has ended
package nmsproto

import (
	"encoding/json"
	"time"
)

// DefaultSocket is the default path of the socket.
const DefaultSocket = "/run/callhome-nms/nms.sock"

// The methods.
const (
	MethodDevices   = "devices"   // nothing -> DeviceList
	MethodDevice    = "device"    // DeviceParams -> DeviceDetail
	MethodHistory   = "history"   // nothing -> History
	MethodAdopt     = "adopt"     // AdoptParams -> Adopted
	MethodRemove    = "remove"    // RemoveParams -> Nothing
	MethodRevoke    = "revoke"    // RevokeParams -> Revoked
	MethodUnrevoke  = "unrevoke"  // UnrevokeParams -> Unrevoked
	MethodForget    = "forget"    // ForgetParams -> Nothing
	MethodImport    = "import"    // ImportParams -> Imported
	MethodExport    = "export"    // ExportParams -> Exported
	MethodConnect   = "connect"   // ConnectParams and a socket -> ConnectResult, at the end
	MethodSubscribe = "subscribe" // SubscribeParams -> EventList, then events
	MethodStatus    = "status"    // nothing -> Status
	MethodReload    = "reload"    // nothing -> Nothing
	MethodDrain     = "drain"     // DrainParams -> Drain, at once
)

// State is the state of a device.
type State string

// The states, since the station started.
const (
	NeverSeen State = "never-seen"
	Connected State = "connected"
	Lost      State = "lost" // was connected
)

// States are all states.
var States = []State{NeverSeen, Connected, Lost}

// Device is one entry of the registry, with its state.
type Device struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Station is the station of the cluster that has the connection, or had it last;
	// "" without a cluster.
	Station string            `json:"station,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Since is when the state began; nil for a device that was never seen.
	Since *time.Time `json:"since,omitempty"`
	// The next five members are of the present or last connection.
	Address     string `json:"address,omitempty"`
	Software    string `json:"software,omitempty"` // its SSH version
	HostKey     string `json:"host-key,omitempty"` // fingerprint
	Certificate string `json:"certificate,omitempty"`
	User        string `json:"user,omitempty"`

	Sessions int    `json:"sessions"` // open now
	Calls    uint64 `json:"calls"`    // logins since the start
	// LastError is why its last failed call home failed, or its connection ended. A
	// login clears it.
	LastError string     `json:"last-error,omitempty"`
	ErrorTime *time.Time `json:"error-time,omitempty"`
}

// DeviceParams name a device.
type DeviceParams struct {
	Device string `json:"device"`
}

// DeviceDetail is a device with its history at this station since the station's
// start.
type DeviceDetail struct {
	Device
	// RoundTrip is the time from the last keepalive to its answer, 0 before the first.
	RoundTrip time.Duration `json:"round-trip-ns,omitempty"`
	// HostKeys and CAs are the fingerprints in the device's entry.
	HostKeys   []string        `json:"host-keys"`
	CAs        []string        `json:"cas"`
	History    []Record        `json:"history"`     // the newest first
	SessionLog []SessionRecord `json:"session-log"` // sessions that have ended, the newest first
	// HistoryError says why the part of another station is missing, which has the device.
	HistoryError string `json:"history-error,omitempty"`
}

// Record is an event of a device. Equal events in a row are one record.
type Record struct {
	Time        time.Time `json:"time"`  // of the last one
	First       time.Time `json:"first"` // of the first one
	Times       int       `json:"times"`
	Event       string    `json:"event"`
	Address     string    `json:"address,omitempty"`
	Software    string    `json:"software,omitempty"`
	HostKey     string    `json:"host-key,omitempty"` // fingerprint
	Certificate string    `json:"certificate,omitempty"`
	Cause       string    `json:"cause,omitempty"`
}

// SessionRecord is a session that has ended.
type SessionRecord struct {
	Begin    time.Time `json:"begin"`
	End      time.Time `json:"end"`
	Sent     uint64    `json:"bytes-sent"` // to the device
	Received uint64    `json:"bytes-received"`
	Error    string    `json:"error,omitempty"`
}

// History is how many logins, losses and refused calls there were.
type History struct {
	End     time.Time `json:"end"`     // of the last minute, which has not ended
	Minutes []Count   `json:"minutes"` // of the last hour, the oldest first
	// Quarters are of the last day, each from a full quarter of an hour on, the oldest
	// first. The last one has not ended.
	Quarters []Count `json:"quarters"`
}

// Count is how many there were in a time.
type Count struct {
	Logins  int `json:"logins"`
	Losses  int `json:"losses"`
	Refused int `json:"refused"`
}

// Unknown is an unknown device that called home.
type Unknown struct {
	HostKey     string    `json:"host-key"` // fingerprint
	Key         string    `json:"key"`      // as in a .pub file
	Certificate string    `json:"certificate,omitempty"`
	Address     string    `json:"address"` // of the last call
	Software    string    `json:"software"`
	Station     string    `json:"station,omitempty"` // of the cluster, that it called
	Calls       uint64    `json:"calls"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
	// Pause is the time between its last two calls of that station, 0 after the first one.
	Pause time.Duration `json:"pause-ns,omitempty"`
}

// Problem is a file of the registry that cannot be used, and why.
type Problem struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// DeviceList is every device by id, the unknown devices, and the registry's problems.
type DeviceList struct {
	Devices  []Device  `json:"devices"`
	Unknown  []Unknown `json:"unknown"`
	Problems []Problem `json:"problems"`
}

// AdoptParams register an unknown device as an entry.
type AdoptParams struct {
	HostKey      string            `json:"host-key"` // fingerprint
	ID           string            `json:"id"`
	User         string            `json:"user,omitempty"`
	KeyFile      string            `json:"key-file,omitempty"`
	PasswordFile string            `json:"password-file,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// Adopted is a device that was registered, and what its calls were like.
type Adopted struct {
	Device
	Called Unknown `json:"called"`
}

// RemoveParams name a device whose entry is to be removed.
type RemoveParams struct {
	Device string `json:"device"`
}

// RevokeParams name host keys to revoke: a device's id for those of the device, or one
// key as in a .pub file, or its fingerprint.
type RevokeParams struct {
	Key string `json:"key"`
}

// Revoked is what was revoked.
type Revoked struct {
	HostKeys []string `json:"host-keys"` // fingerprints
	// Devices are the ids of the devices that were connected with one of the keys.
	// Their connections are ended.
	Devices []string `json:"devices"`
}

// UnrevokeParams name a revoked host key, as in a .pub file, or its fingerprint.
type UnrevokeParams struct {
	Key string `json:"key"`
}

// Unrevoked is the key that is not revoked any more.
type Unrevoked struct {
	HostKey string `json:"host-key"` // fingerprint
}

// ImportParams are entries and revoked keys for the registry of a cluster.
type ImportParams struct {
	Entries []json.RawMessage `json:"entries,omitempty"` // each the object in its file
	Revoked []string          `json:"revoked,omitempty"` // lines of the list of revoked keys
}

// Imported is what became of them.
type Imported struct {
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	// Errors are by the number of the entry in ImportParams.
	Errors map[int]string `json:"errors,omitempty"`
}

// ExportParams name the entry after which the entries are wanted; "" for the first ones.
type ExportParams struct {
	After string `json:"after,omitempty"`
}

// Exported is a part of the registry.
type Exported struct {
	Entries []EntryText `json:"entries"`           // by id
	Revoked []string    `json:"revoked,omitempty"` // fingerprints, with the first part
	More    bool        `json:"more,omitempty"`    // there are further entries
}

// EntryText is an entry as in its file.
type EntryText struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// ForgetParams name an unknown device by the fingerprint of its host key.
type ForgetParams struct {
	HostKey string `json:"host-key"`
}

// DrainParams say how the connections of devices are to be ended. A second call replaces
// those of the first.
type DrainParams struct {
	// DownTo is how many devices may stay; the station goes on accepting call homes. With
	// 0 it accepts none until it is started again.
	DownTo int `json:"down-to,omitempty"`
	Rate   int `json:"rate"` // devices a second, at least 1
	// SessionTime is how long devices with open sessions are left connected after all
	// others were ended.
	SessionTime time.Duration `json:"session-time-ns"`
}

// Drain is how far a drain has come.
type Drain struct {
	DrainParams
	Since time.Time `json:"since"`
	Left  int       `json:"left"`          // devices that are connected still
	Busy  int       `json:"with-sessions"` // of these, those with an open session
}

// ConnectParams name a device.
type ConnectParams struct {
	Device string `json:"device"`
}

// ConnectResult is how a session ended.
type ConnectResult struct {
	// ExitStatus is the subsystem's; nil if the device sent none.
	ExitStatus *int `json:"exit-status,omitempty"`
	// Signal is the signal that ended the subsystem, with its name in RFC 4254.
	Signal string `json:"signal,omitempty"`
	// Stderr is the end of the subsystem's stderr.
	Stderr   string `json:"stderr,omitempty"`
	Sent     uint64 `json:"bytes-sent"` // to the device
	Received uint64 `json:"bytes-received"`
}

// Status is the station's status.
type Status struct {
	Version         string        `json:"version"`
	PID             int           `json:"pid"`
	Since           time.Time     `json:"since"`
	Listening       []string      `json:"listening"`
	Group           string        `json:"group,omitempty"`  // its members may call every method, root always
	Access          Access        `json:"access,omitempty"` // of the caller
	Devices         map[State]int `json:"devices"`
	Sessions        int           `json:"sessions"`
	Unauthenticated int           `json:"unauthenticated"` // connections before their login
	Unknown         int           `json:"unknown"`
	Calls           uint64        `json:"calls"` // connections accepted since the start
	// Station is this station's name in the cluster, and Stations are all of the
	// cluster by name; without a cluster they are absent. ClusterError is why the
	// cluster cannot be reached now.
	Station      string    `json:"station,omitempty"`
	Stations     []Station `json:"stations,omitempty"`
	ClusterError string    `json:"cluster-error,omitempty"`
	Drain        *Drain    `json:"drain,omitempty"` // since the method drain was called
	// RegistryError is why the registry cannot be read; it stays in force as it was.
	RegistryError string `json:"registry-error,omitempty"`
}

// Station is one station of a cluster.
type Station struct {
	Name    string    `json:"name"`
	Address string    `json:"address"` // where other stations reach it
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since"` // its start
	Seen    time.Time `json:"seen"`  // its last heartbeat
	Alive   bool      `json:"alive"` // the last heartbeat is not older than the lease
	// The figures of the last heartbeat.
	Connected       int `json:"connected"` // devices
	Sessions        int `json:"sessions"`
	Unauthenticated int `json:"unauthenticated"`
}

// Access is what a caller may do.
type Access string

// The kinds of access.
const (
	AccessFull Access = "full" // call every method
	AccessRead Access = "read" // call the methods that change nothing
)

// Nothing is the result of a method without a result.
type Nothing struct{}

// SubscribeParams say which events are wanted first: without After the last ones, else
// those after that sequence number, or a resync where not all are kept.
type SubscribeParams struct {
	After uint64 `json:"after,omitempty"`
}

// EventList is the last events, the newest at the end.
type EventList struct {
	Events []Event `json:"events"`
}

// Event is what happened to a device, a call home or the registry.
type Event struct {
	Time time.Time `json:"time"`
	// Sequence grows by one with each event. A later run of the daemon begins with a
	// higher one: the first is the daemon's start, in microseconds since 1970.
	Sequence    uint64 `json:"sequence,omitempty"`
	Event       string `json:"event"`
	Station     string `json:"station,omitempty"` // of the cluster, where it happened
	Device      string `json:"device,omitempty"`
	Address     string `json:"address,omitempty"`
	Software    string `json:"software,omitempty"`
	HostKey     string `json:"host-key,omitempty"` // fingerprint
	Certificate string `json:"certificate,omitempty"`
	Cause       string `json:"cause,omitempty"`
	// Unsaid is how many events the rate limit dropped before this one: of the same
	// kind, or for up, down and replaced of the same device.
	Unsaid int `json:"unsaid,omitempty"`
	// Missed is how many events before this one the follower does not get, because it
	// was too slow. Without a resync, all of them are of unauthenticated peers.
	Missed uint64 `json:"missed,omitempty"`
	// Resync is set for the events between resync and in-sync. They are the present
	// states of the devices, and have no sequence.
	Resync bool `json:"resync,omitempty"`
}

// The events.
const (
	EventUp        = "up"        // the login to a device is done
	EventDown      = "down"      // a device's connection has ended
	EventReplaced  = "replaced"  // a new connection has replaced a device's old one
	EventDuplicate = "duplicate" // a duplicate was refused
	EventRefused   = "refused"   // a call home failed or was refused
	EventUnknown   = "unknown"   // an unknown device called home
	EventAdopted   = "adopted"   // an unknown device was registered
	EventRemoved   = "removed"   // an operator has removed a device's entry
	EventRevoked   = "revoked"   // an operator has revoked a host key
	EventUnrevoked = "unrevoked" // an operator has undone a revocation
	EventRegistry  = "registry"  // a file of the registry cannot be used
	EventDraining  = "draining"  // the station takes no more call homes, and ends its connections
	EventDrained   = "drained"   // the last of these connections has ended
)

// The events of one follower, and of no other: it was too slow, or asks for events that
// are no longer kept. Between the two come the states of the devices as up and down, of
// each that was connected since the daemon's start.
const (
	EventResync = "resync"  // all that it knows of devices may be wrong
	EventInSync = "in-sync" // each device has its state; the next events follow this one's sequence
)

// Events are all events.
var Events = []string{EventUp, EventDown, EventReplaced, EventDuplicate, EventRefused, EventUnknown, EventAdopted, EventRemoved, EventRevoked, EventUnrevoked, EventRegistry, EventDraining, EventDrained, EventResync, EventInSync}
