// Package config owns the configuration document of the standing connections: an
// RFC 7951 instance of ietf-netconf-server's call-home subtree, as far as OpenSSH
// supports it. Package rollout and callhome-mgr's commands call it. It turns bytes
// into checked values, and never opens, runs or writes a file.
//
//	bytes ─ json.go ─▶ tree ─ schema.go ─▶ checked tree ─ build.go ─▶ Config
//	                                        Endpoint ─ Call, Files ─▶ sshd
//
// schema.go has the covered part of the models as a table, with the refused nodes.
package config

import (
	"net/netip"
	"reflect"
	"time"

	"callhome/internal/sshdexec"
)

// Features are the abilities of this machine's sshd (sshdexec.Probe).
type Features = sshdexec.Features

// Defaults are the values of this machine for what a document leaves out.
type Defaults struct {
	// KeyDir has the host keys that a document names without their content
	// (hidden-private-key); "" is DefaultKeyDir.
	KeyDir string
}

// DefaultKeyDir has the machine's host keys in every OpenSSH. A station identifies
// the device by them, and a copy elsewhere would become outdated.
const DefaultKeyDir = "/etc/ssh"

// Config is a checked document.
type Config struct {
	// Missing: there is no document, so there are no clients.
	Missing bool
	Clients []Client // in the document's order
	// Warnings are the parts of the document that are left aside.
	Warnings Errors
}

// Client is one NETCONF client to keep a connection to.
type Client struct {
	Name    string
	Enabled bool
	// Endpoints are its addresses, at least one, in the user's order.
	Endpoints []Endpoint
	// Periodic is nil for a persistent connection.
	Periodic  *Periodic
	Reconnect Reconnect
	Backoff   Backoff
	// NoSSHTimer is O-RAN's re-call-home-no-ssh-timer: a connection without an SSH
	// login for that long is closed, and the call home repeated. 0 is off; sshd's
	// own LoginGraceTime remains.
	NoSSHTimer time.Duration
	// MaxCallHomeAttempts is O-RAN's: how often a failed call home is repeated, over
	// all endpoints, before no more are made; nil: no limit.
	MaxCallHomeAttempts *int
	// Hook is the absolute path of a program that runs on this client's events;
	// "": none.
	Hook string
}

// Periodic has the times of a periodic connection.
type Periodic struct {
	Period time.Duration // whole minutes, at least one
	// Anchor is the time from which multiples of Period count, in both
	// directions; in UTC, on a full minute. Zero: not in the document.
	Anchor time.Time
	// IdleTimeout ends a session without data for that long; 0: never.
	IdleTimeout time.Duration
}

// StartWith selects the endpoint that a reconnection begins with.
type StartWith string

// The values of start-with.
const (
	FirstListed     StartWith = "first-listed"
	LastConnected   StartWith = "last-connected"
	RandomSelection StartWith = "random-selection"
)

// Reconnect is the reconnect-strategy.
type Reconnect struct {
	StartWith   StartWith
	MaxWait     time.Duration // after which an attempt to connect has failed
	MaxAttempts int           // at one endpoint, before the next one
}

// Backoff is the pause between attempts.
type Backoff struct {
	Initial, Maximum time.Duration
	Jitter           int // percent of the pause, by which it is shorter or longer
}

// Endpoint is everything that one call home needs. A field that the document leaves
// to the daemon is nil, "" or zero.
type Endpoint struct {
	Name string
	// Client is the name of the endpoint's client.
	Client string

	Host           string
	Port           uint16
	ConnectTimeout time.Duration // the client's max-wait
	LocalAddress   netip.Addr    // invalid: any
	LocalPort      uint16        // 0: any
	Interface      string        // interface or VRF
	DSCP           *int
	TCP            *KeepAlive    // nil: the daemon's
	UserTimeout    time.Duration // TCP_USER_TIMEOUT; 0: the daemon's
	Proxy          *Proxy        // nil: none

	HostKeys []HostKey // at least one
	// Restricted: only Users may log in; if that list is empty, no user may.
	// Else the daemon's sshd_config decides.
	Restricted bool
	Users      []User
	// UserCAs are the keys that sign user certificates, as authorized_keys(5) lines.
	UserCAs    []string
	Algorithms Algorithms
	// SSH has the keepalives: a client that does not answer Count messages,
	// Interval apart, is dead; nil: the daemon's. ClientAlive has the settings with
	// which this machine's sshd keeps that limit.
	SSH         *KeepAlive
	ClientAlive *sshdexec.KeepAlive
	LoginGrace  time.Duration // the client's NoSSHTimer
	Idle        *Idle         // nil: no idle-timeout, or sshd does not support one

	Subsystem         string
	SSHConnectionPort uint16
	Announce          *bool
	DeviceID          string
}

// KeepAlive sets probes of the peer: the first after Idle without data, then up to
// Count of them, Interval apart. SSH keepalives have no Idle.
type KeepAlive struct {
	Idle, Interval time.Duration
	Count          int
}

// Proxy is the SOCKS proxy of an endpoint.
type Proxy struct {
	Scheme         string // as in settings.Proxy
	Host           string
	Port           uint16
	User, Password string
}

// HostKey is a host key of the device: a file of this machine, or Private.
type HostKey struct {
	Name string
	// Path is the key's file; "" where the document contains the key.
	Path string
	// Private is the key as PKCS #8 DER.
	Private []byte
	// Certificate is an OpenSSH host certificate as a public key line, or "".
	Certificate string
}

// User may log in with the keys, which are authorized_keys(5) lines. Without a key
// the user needs a certificate.
type User struct {
	Name string
	Keys []string
}

// Algorithms have sshd_config(5)'s names, in the order of preference. An empty list
// leaves the choice to sshd.
type Algorithms struct {
	HostKey, Kex, Ciphers, MACs []string
}

// Idle is the idle-timeout of a periodic connection where sshd supports one.
type Idle struct {
	Session, Unused time.Duration
}

// Equal reports whether two clients are identical; then a reload leaves the client's
// connection alone.
func (c Client) Equal(other Client) bool { return reflect.DeepEqual(c, other) }
