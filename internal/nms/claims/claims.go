// Package claims decides which station of a cluster holds a device. It owns what a
// station writes about a device, its claim, when a claim counts, and what a station does
// when claim and connection disagree. Package cluster reads and writes the claims. This
// package has no clock, opens no connection and starts no goroutine.
//
// A station believes that it holds a device while the device is connected to it, its
// claim is written under its present incarnation, and its lease is valid. Two stations
// never believe it at a time:
//
//   - Each claim is written by compare-and-set on the revision of the former one.
//   - A station overwrites a claim of another one only if that has released it, has
//     ended its connection when asked, or is dead.
//   - A station's lease ends a time L after it sent its last heartbeat that was
//     acknowledged; it stops believing a tenth earlier. Others count it dead L after they
//     received that heartbeat, and only if a heartbeat of their own, sent that much later,
//     has come back to them in the same order of messages, with none of that station
//     before it and no message behind it. So neither a slow watch nor a lost server makes
//     a station dead.
//   - A lease that has lapsed is never valid again: the station begins a new incarnation,
//     and writes each of its claims anew.
//
// This needs clocks that run equally fast to a tenth, and servers that keep what they
// have acknowledged.
package claims

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"callhome/internal/nms/nmsproto"
)

// Instant is a time since the machine's boot: no program can set that clock.
type Instant = time.Duration

// Claim is what the bucket of claims has of a device: which station holds it, or held it
// last.
type Claim struct {
	Station     string `json:"station"`
	Incarnation string `json:"incarnation"`
	// Address is where other stations reach the station.
	Address string `json:"address"`
	// Device is Connected with the fields of its connection, or Lost.
	Device nmsproto.Device `json:"device"`

	// Revision is the claim's in its bucket; 0 where the device has no claim.
	Revision uint64 `json:"-"`
}

// Self is the station that decides.
type Self struct {
	Station, Incarnation, Address string
}

// Held is a device that is connected to the deciding station.
type Held struct {
	Since time.Time
	// Before is the revision of the device's claim when the connection began.
	Before uint64
}

// Action is what a station does about a device.
type Action int

// The actions.
const (
	Nothing Action = iota
	Write          // claim the device, in place of the claim
	Release        // record that the device is lost, in place of the claim
	Ask            // ask the claim's station whether its connection is alive; if not, Write
	End            // end the connection: the claim's station has a newer one
)

func (a Action) String() string { return [...]string{"nothing", "write", "release", "ask", "end"}[a] }

// whose says to whom a claim belongs.
type whose int

const (
	vacant  whose = iota // no claim, a released one, or one of a dead station
	mine                 // of this incarnation
	formers              // of a former incarnation of this station
	theirs               // of another station that is not dead
)

// of returns whose a claim is. A former process of this station is over: no other can
// listen at its address.
func (s Self) of(c Claim, alive func(incarnation string) bool) whose {
	switch {
	case c.Revision == 0 || c.Device.State != nmsproto.Connected:
		return vacant
	case c.Station == s.Station && c.Incarnation == s.Incarnation:
		return mine
	case c.Station == s.Station && c.Address == s.Address:
		return formers
	case !alive(c.Incarnation):
		return vacant
	}
	return theirs
}

// table is what a station does about a device that is connected to it, or is not.
var table = [...]struct{ connected, not Action }{
	vacant:  {Write, Nothing},
	mine:    {Nothing, Release},
	formers: {Write, Release},
	theirs:  {Ask, Nothing},
}

// Decide returns what a station does about a device: held is nil where the device is not
// connected to it. alive says of an incarnation whether it may still believe its claims.
func Decide(self Self, held *Held, c Claim, alive func(incarnation string) bool) Action {
	w := self.of(c, alive)
	switch {
	case held == nil:
		return table[w].not
	case w == mine && !sameTime(c.Device.Since, held.Since):
		return Write // a new connection has replaced the one that was claimed
	case w == theirs && c.Revision > held.Before && c.Device.Since != nil && c.Device.Since.After(held.Since):
		// Both the order of the claims and the clocks say that it is newer.
		return End
	}
	return table[w].connected
}

// Believes reports whether a station may believe that it holds a device with that claim:
// one of this very connection. A station that has ended a connection for another station
// must not believe in a new one by the claim of the former.
func (s Self) Believes(held *Held, c Claim, leaseValid bool) bool {
	return leaseValid && held != nil && s.of(c, func(string) bool { return true }) == mine && sameTime(c.Device.Since, held.Since)
}

func sameTime(a *time.Time, b time.Time) bool { return a != nil && a.Equal(b) }

// Lease is a station's right to believe its claims.
type Lease struct {
	Length time.Duration
	// Process is different for each process of a station.
	Process string

	epoch uint64
	sent  Instant // of the last acknowledged heartbeat
	valid bool    // a heartbeat of this epoch was acknowledged
	begun bool    // one of any epoch was
}

// Begun reports whether a heartbeat was ever acknowledged.
func (l *Lease) Begun() bool { return l.begun }

// Incarnation changes each time the lease has lapsed.
func (l *Lease) Incarnation() string { return fmt.Sprintf("%s.%d", l.Process, l.epoch) }

// Later reports whether an incarnation is a later one than another of the same process.
func Later(a, b string) bool {
	p, n, _ := strings.Cut(a, ".")
	q, m, _ := strings.Cut(b, ".")
	later, err := strconv.ParseUint(n, 10, 64)
	earlier, err2 := strconv.ParseUint(m, 10, 64)
	return p == q && err == nil && err2 == nil && later > earlier
}

// Valid reports whether the station may believe its claims now.
func (l *Lease) Valid(now Instant) bool { return l.valid && now < l.sent+l.Length*9/10 }

// Lapse begins a new incarnation if the lease has lapsed, and reports whether it has.
func (l *Lease) Lapse(now Instant) bool {
	if !l.valid || l.Valid(now) {
		return false
	}
	l.epoch, l.valid = l.epoch+1, false
	return true
}

// Fence ends the lease: another process has the station's name.
func (l *Lease) Fence() { l.epoch, l.valid = l.epoch+1, false }

// Acknowledged records that a heartbeat of that incarnation, sent then, was acknowledged.
// It changes nothing where the lease lapsed meanwhile.
func (l *Lease) Acknowledged(incarnation string, sent, now Instant) {
	l.begun = true
	if incarnation != l.Incarnation() || l.Lapse(now) {
		return
	}
	l.sent, l.valid = max(sent, l.sent), true
}
