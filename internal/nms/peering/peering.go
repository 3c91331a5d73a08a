// Package peering owns the streams between the stations of a cluster: a station that
// does not hold a device opens one to the station that does, over TLS 1.3 with a
// certificate at each end. It owns the certificates of stations and how they are made
// too. Package cluster calls it, and says at which address a station is; the command
// `cluster init` makes certificates. It never decides who may use a device: the station
// that the caller is connected to has decided that.
//
// Each request has a TCP connection of its own, so a slow reader delays no other
// session. On it are frames: a byte for the kind, three for the length, the payload.
//
//	station of the caller                          station that holds the device
//	  request {"request":"connect","device":…}       ──▶
//	  ◀──  opened                                    the device's channel is open
//	  data, credit, end  ──▶   ◀──  data, credit, end   NETCONF, each direction with its end
//	  ◀──  result {"result":{"exit-status":0,…}}     or {"error":{…}}, always last
package peering

import (
	"encoding/json"
	"fmt"

	"callhome/internal/lazyregexp"
	"callhome/internal/proto"
)

// DefaultPort is the port that stations listen on for each other.
const DefaultPort = 4337

// Peer is another station, and where it listens: HOST:PORT.
type Peer struct{ Station, Address string }

// Caller is who uses a device at another station, for the log of the one that holds it.
type Caller struct {
	Station string `json:"station"`
	User    string `json:"user,omitempty"`
	UID     uint32 `json:"uid"`
}

// version is the protocol's. A station refuses a request of another one.
const version = 1

// The requests.
const (
	requestConnect = "connect" // a session with a device
	requestDetail  = "detail"  // a device with its history
	requestSettle  = "settle"  // is the connection of a device alive, which called elsewhere?
)

var requests = []string{requestConnect, requestDetail, requestSettle}

// request is the first frame of a connection.
type request struct {
	Version int    `json:"version"`
	Request string `json:"request"`
	Device  string `json:"device"`
	Caller  Caller `json:"caller"`
}

// outcome is the last frame: a result or an error, never both.
type outcome struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *proto.Error    `json:"error,omitempty"`
}

// settled is the result of requestSettle.
type settled struct {
	Kept  bool   `json:"kept"`
	Cause string `json:"cause,omitempty"`
}

var stationForm = lazyregexp.New(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckStation returns an error for text that is not a station's name. A name is one
// label of a DNS name, which a certificate can hold.
func CheckStation(name string) error {
	if !stationForm().MatchString(name) {
		return fmt.Errorf("station %.80q: expected 1 to 63 lower-case letters, digits and dashes, a letter or digit first and last", name)
	}
	return nil
}
