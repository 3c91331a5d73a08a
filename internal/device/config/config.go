// Package config owns the configuration of the standing connections: what an
// RFC 7951 document of ietf-netconf-server's call-home subtree says, and what
// of it OpenSSH can do. The manager and its command line call it. It takes
// bytes and returns checked values; it opens, runs and writes nothing.
//
//	bytes ─ json.go ─▶ tree ─ schema.go ─▶ checked tree ─ build.go ─▶ Config
//	                                        Endpoint ─ Settings, Files ─▶ sshd
//
// schema.go is the covered part of the models as a table, refusals included.
package config

import (
	"net/netip"
	"reflect"
	"time"

	"callhome/internal/sshdexec"
)

// Features is what the sshd of this machine can do (sshdexec.Probe).
type Features = sshdexec.Features

// Defaults is what a document may leave to this machine.
type Defaults struct {
	// KeyDir holds the host keys that a document names and does not contain
	// (hidden-private-key); "" for DefaultKeyDir.
	KeyDir string
}

// DefaultKeyDir is where every OpenSSH keeps the machine's host keys. An NMS
// knows a device by these, and a copy elsewhere would outlive a key that is
// replaced.
const DefaultKeyDir = "/etc/ssh"

// Config is a document, checked.
type Config struct {
	Clients []Client // in the document's order
}

// Client is one NETCONF client to keep a connection with.
type Client struct {
	Name    string
	Enabled bool
	// Endpoints are where it can be reached, at least one, in the user's order.
	Endpoints []Endpoint
	// Periodic is nil for a persistent connection.
	Periodic  *Periodic
	Reconnect Reconnect
	Backoff   Backoff
	// NoSSHTimer is O-RAN's re-call-home-no-ssh-timer: how long after a call
	// home there must be an SSH login, else the connection is given up and the
	// call home repeated. 0 is off: sshd's own LoginGraceTime remains.
	NoSSHTimer time.Duration
	// MaxCallHomeAttempts is how many call homes in a row may fail, over all
	// endpoints, before no more are made; 0 is no limit.
	MaxCallHomeAttempts int
	// Hook is the absolute path of a program to run on this client's events,
	// "" for none of its own.
	Hook string
}

// Periodic is a connection that is made at times.
type Periodic struct {
	Period time.Duration // whole minutes, at least one
	// Anchor is a time from which whole multiples of Period are counted, in
	// both directions; in UTC, on a full minute. Zero: none was given.
	Anchor time.Time
	// IdleTimeout is after how long without data the session is ended; 0 for
	// never.
	IdleTimeout time.Duration
}

// StartWith is which endpoint a reconnection begins with.
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
	MaxAttempts int           // at one endpoint, before the next one's turn
}

// Backoff is the pause between attempts.
type Backoff struct {
	Initial, Maximum time.Duration
	Jitter           int // percent of the pause, by which it is shorter or longer
}

// Endpoint is everything that one call needs. Fields that the document leaves
// to the daemon are nil, "", or zero.
type Endpoint struct {
	Name string
	// Client is the name of the client that the endpoint belongs to.
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
	// Users are who may log in, and nobody else. Empty: as the daemon's
	// sshd_config says.
	Users []User
	// UserCAs sign user certificates, as authorized_keys(5) lines.
	UserCAs    []string
	Algorithms Algorithms
	// SSH are the keepalives: a client that does not answer Count messages,
	// Interval apart, is gone; nil: the daemon's. ClientAlive is what makes the
	// sshd of this machine keep to them.
	SSH         *KeepAlive
	ClientAlive *sshdexec.KeepAlive
	LoginGrace  time.Duration // the client's NoSSHTimer
	Idle        *Idle         // nil: no idle-timeout, or none that sshd knows

	Subsystem         string
	SSHConnectionPort uint16
	Announce          *bool
	DeviceID          string
}

// KeepAlive is a test for a dead peer: the first probe after Idle without data,
// Count of them, Interval apart. For SSH there is no Idle.
type KeepAlive struct {
	Idle, Interval time.Duration
	Count          int
}

// Proxy is a SOCKS proxy to go through.
type Proxy struct {
	Scheme         string // settings.Proxy has the words
	Host           string
	Port           uint16
	User, Password string
}

// HostKey is a key that the device shows: a file of this machine, or Private.
type HostKey struct {
	Name string
	// Path is the file that has the key, "" where the document has it itself.
	Path string
	// Private is the key as PKCS #8 DER.
	Private []byte
	// Certificate is an OpenSSH host certificate as a public key line, or "".
	Certificate string
}

// User is who may log in, with the authorized_keys(5) lines of the user's keys.
// Without any the user needs a certificate.
type User struct {
	Name string
	Keys []string
}

// Algorithms are in sshd_config(5)'s words and in the order of preference; an
// empty list leaves the choice to sshd.
type Algorithms struct {
	HostKey, Kex, Ciphers, MACs []string
}

// Idle is the periodic connection's idle-timeout where sshd can apply it.
type Idle struct {
	Session, Unused time.Duration
}

// Equal reports whether two clients are the same in everything, so that a
// reload need not touch the client.
func (c Client) Equal(other Client) bool { return reflect.DeepEqual(c, other) }
