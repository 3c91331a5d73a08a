// Package nmsproto owns what callhome-nms serve and its callers say to each other
// over its Unix socket: JSON-RPC 2.0 as package api has it, with these methods
// and types. It has types and constants only. The commands print them
// unchanged with --json, and hooks read the events.
//
//	caller                                   callhome-nms serve
//	  {"method":"devices"}\n                   ──▶
//	  ◀──  {"result":{"devices":[…],…}}\n
//
//	  {"method":"connect","params":{"device":"edge7"}}\n  + 1 socket   ──▶
//	  NETCONF ◀══ on the socket, joined to a channel of edge7's ══▶
//	  ◀──  {"result":{"exit-status":0,…}}\n    when the channel has ended
package nmsproto

import "time"

// DefaultSocket is where callhome-nms serve is called.
const DefaultSocket = "/run/callhome-nms/nms.sock"

// The methods.
const (
	MethodDevices   = "devices"   // nothing -> DeviceList
	MethodAdopt     = "adopt"     // AdoptParams -> Device
	MethodConnect   = "connect"   // ConnectParams and a socket -> ConnectResult, at the end
	MethodSubscribe = "subscribe" // nothing -> EventList, then events
	MethodStatus    = "status"    // nothing -> Status
	MethodReload    = "reload"    // nothing -> Nothing
)

// State is where a device stands.
type State string

// The states, since the station started.
const (
	NeverSeen State = "never-seen"
	Connected State = "connected"
	Lost      State = "lost" // was connected
)

// States are all of them.
var States = []State{NeverSeen, Connected, Lost}

// Device is one entry of the registry and what became of it.
type Device struct {
	ID     string            `json:"id"`
	State  State             `json:"state"`
	Labels map[string]string `json:"labels,omitempty"`
	// Since is when the state began; nil for a device that was never seen.
	Since *time.Time `json:"since,omitempty"`
	// What follows is of the connection, or of the last one.
	Address     string `json:"address,omitempty"`
	Software    string `json:"software,omitempty"` // its SSH version
	HostKey     string `json:"host-key,omitempty"` // fingerprint
	Certificate string `json:"certificate,omitempty"`
	User        string `json:"user,omitempty"`

	Sessions int    `json:"sessions"` // open now
	Calls    uint64 `json:"calls"`    // logins since the start
	// LastError is why a call of it failed or its connection ended.
	LastError string     `json:"last-error,omitempty"`
	ErrorTime *time.Time `json:"error-time,omitempty"`
}

// Unknown is somebody who called with a key that no device has.
type Unknown struct {
	HostKey     string    `json:"host-key"` // fingerprint
	Key         string    `json:"key"`      // as in a .pub file
	Certificate string    `json:"certificate,omitempty"`
	Address     string    `json:"address"` // of the last call
	Software    string    `json:"software"`
	Calls       uint64    `json:"calls"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
}

// Problem is a file of the registry that is not in force.
type Problem struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// DeviceList is every device by id, who else called, and what is wrong.
type DeviceList struct {
	Devices  []Device  `json:"devices"`
	Unknown  []Unknown `json:"unknown"`
	Problems []Problem `json:"problems"`
}

// AdoptParams make a device of somebody who called.
type AdoptParams struct {
	HostKey      string            `json:"host-key"` // fingerprint
	ID           string            `json:"id"`
	User         string            `json:"user,omitempty"`
	KeyFile      string            `json:"key-file,omitempty"`
	PasswordFile string            `json:"password-file,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// ConnectParams name a device.
type ConnectParams struct {
	Device string `json:"device"`
}

// ConnectResult is how a session ended.
type ConnectResult struct {
	// ExitStatus is the subsystem's; nil where the device did not tell.
	ExitStatus *int `json:"exit-status,omitempty"`
	// Signal is what ended the subsystem, as RFC 4254 names it.
	Signal string `json:"signal,omitempty"`
	// Stderr is the end of what the subsystem said there.
	Stderr   string `json:"stderr,omitempty"`
	Sent     uint64 `json:"bytes-sent"` // to the device
	Received uint64 `json:"bytes-received"`
}

// Status is the station's own.
type Status struct {
	Version         string        `json:"version"`
	PID             int           `json:"pid"`
	Since           time.Time     `json:"since"`
	Listening       []string      `json:"listening"`
	Devices         map[State]int `json:"devices"`
	Sessions        int           `json:"sessions"`
	Unauthenticated int           `json:"unauthenticated"` // connections on their way to a login
	Unknown         int           `json:"unknown"`
	Calls           uint64        `json:"calls"` // connections accepted since the start
}

// Nothing is the result of a method that has none.
type Nothing struct{}

// EventList is what happened last, the newest event at the end.
type EventList struct {
	Events []Event `json:"events"`
}

// Event is something that happened to a device or a caller.
type Event struct {
	Time        time.Time `json:"time"`
	Event       string    `json:"event"`
	Device      string    `json:"device,omitempty"`
	Address     string    `json:"address,omitempty"`
	Software    string    `json:"software,omitempty"`
	HostKey     string    `json:"host-key,omitempty"` // fingerprint
	Certificate string    `json:"certificate,omitempty"`
	Cause       string    `json:"cause,omitempty"`
	// Unsaid is how many events of the kind, or with up, down and replaced of
	// the device, were left out before this one.
	Unsaid int `json:"unsaid,omitempty"`
}

// The events.
const (
	EventUp        = "up"        // a device is logged in and held
	EventDown      = "down"      // it is no more
	EventReplaced  = "replaced"  // its old connection by a newer one
	EventDuplicate = "duplicate" // two live devices have one id
	EventRefused   = "refused"   // a call that came to nothing
	EventUnknown   = "unknown"   // a call with a key that no device has
	EventAdopted   = "adopted"   // an unknown caller became a device
	EventRegistry  = "registry"  // a file of the registry is wrong
)

// Events are all of them.
var Events = []string{EventUp, EventDown, EventReplaced, EventDuplicate, EventRefused, EventUnknown, EventAdopted, EventRegistry}
