package station

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"callhome/internal/nms/admission"
	"callhome/internal/nms/handshake"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/wire"
	"callhome/internal/printable"
	"callhome/internal/wake"

	"golang.org/x/crypto/ssh"
)

// call is one call home, from accept to its end.
type call struct {
	station *Station
	conn    *paced
	from    netip.AddrPort
	place   *admission.Place // while it is unauthenticated

	entry     *registry.Entry // of the device, once its host key is known
	key       ssh.PublicKey
	budget    *budget     // of the device
	err       error       // of the registry, the budget or the credential
	old       *connection // of the device when it showed its host key
	duplicate bool        // this one is a duplicate of old, or of a connection at holder
	holder    string      // the other station that has the device
}

func (c *call) run() {
	s := c.station
	begun := time.Now()
	deadline := begun.Add(s.config.LoginTime)
	c.conn.await()
	conn, ok := c.pastBalancer(deadline)
	if !ok {
		return
	}
	login, err := handshake.Do(conn, deadline, handshake.Options{
		HostKeys: s.config.Registry.Algorithms(), OldKeyExchange: s.config.OldKeyExchange,
		GotVersion: func() { _ = c.reached(admission.SentVersion) }, Disconnect: c.disconnect,
		Rekey: func() error { return c.budget.spend(rekeys, time.Now()) },
	}, c.user, c.identify)
	c.conn.loggedIn()
	if err != nil {
		evicted := c.leave()
		c.failed(err, evicted)
		return
	}
	h := newConnection(c.entry.ID, login, c.key, c.from, c.budget)
	c.conn.watch(h.idle)
	if s.config.LoggedIn != nil {
		s.config.LoggedIn(time.Since(begun))
	}
	settled := make(chan bool, 1)
	// The connection's own goroutine has a small stack, which this one has not any more.
	s.wg.Go(func() {
		h.serve(s.config.KeepaliveEvery, s.config.KeepaliveTime)
		if <-settled {
			s.lost(h)
		}
	})
	held := s.settle(h, c.entry, c.old)
	c.leave()
	if held {
		// The registry may have changed since the look-up.
		if cause := s.disowned(h); cause != "" {
			h.end(cause, wire.HostKeyNotVerified)
		}
	}
	settled <- held
}

// pastBalancer reads the PROXY header where the connection comes from a
// configured load balancer.
func (c *call) pastBalancer(deadline time.Time) (net.Conn, bool) {
	s := c.station
	if !s.trusted(c.from.Addr()) {
		return c.conn, true
	}
	fail := func(o Outcome, cause string) (net.Conn, bool) {
		c.conn.Close()
		c.leave()
		s.refused(o, nmsproto.Event{Address: c.from.String(), Cause: cause})
		return nil, false
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fail(BadHeader, err.Error())
	}
	conn, from, err := readHeader(c.conn)
	if errors.Is(err, errLocal) {
		c.conn.Close()
		c.leave()
		return nil, false // a health check
	}
	if err != nil {
		return fail(BadHeader, err.Error())
	}
	c.from = from
	s.mu.Lock()
	a := s.unauthenticated.Move(c.place, from.Addr(), time.Now())
	if a.Place != nil {
		c.place = a.Place
	}
	s.mu.Unlock()
	if a.Place == nil {
		return fail(OverLimit, a.Refused)
	}
	a.Evicted()
	c.conn.setPriority(a.Place.Priority())
	return conn, true
}

// reached records how far the connection has come, and reports whether it is still
// counted, that is, not evicted.
func (c *call) reached(at admission.Stage) bool {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unauthenticated.Reaches(c.place, at)
}

// silent records that the peer has sent nothing for silentTime.
func (c *call) silent() {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unauthenticated.Silent(c.place)
}

// overdue records that the peer has kept the station waiting too long.
func (c *call) overdue() {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unauthenticated.Overdue(c.place)
	wake.Up(s.freed)
}

// leave stops counting the connection as unauthenticated, and reports whether it
// was evicted before.
func (c *call) leave() (evicted bool) {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	evicted = !s.unauthenticated.Leave(c.place)
	wake.Up(s.freed)
	return evicted
}

// user returns the user for the device that claims this host key.
func (c *call) user(claimed ssh.PublicKey) string {
	e, err := c.station.config.Registry.Lookup(claimed, time.Now())
	if err != nil {
		return ""
	}
	return c.station.config.Credential.userFor(e)
}

// identify returns the login for the device that has this host key. Package
// handshake calls it during the key exchange.
func (c *call) identify(key ssh.PublicKey) (*handshake.Login, error) {
	s := c.station
	c.key = key
	c.entry, c.err = s.config.Registry.Lookup(key, time.Now())
	if c.err != nil {
		return nil, c.err
	}
	// From here on it is not evicted, and served first.
	if !c.reached(admission.Exchanged) {
		return nil, net.ErrClosed
	}
	c.conn.setPriority(admission.Recent)
	s.mu.Lock()
	c.budget = s.deviceOf(c.entry.ID).budget
	s.mu.Unlock()
	if c.err = c.budget.spend(logins, time.Now()); c.err != nil {
		return nil, c.err
	}
	c.conn.yield() // the first connection may take its time to answer
	if c.old, c.duplicate = s.holder(c.entry); c.duplicate {
		return nil, errDuplicate
	}
	if c.holder = s.elsewhere(c.entry); c.holder != "" {
		c.duplicate = true
		return nil, errDuplicate
	}
	c.conn.await()
	login, err := s.config.Credential.loginFor(c.entry)
	c.err = err
	return login, err
}

// errDuplicate ends the handshake of a duplicate.
var errDuplicate = errors.New("the device is connected already")

// stopping is the cause of the end of each connection when the station stops.
const stopping = "the station is stopping"

// disconnect returns the reason that the device gets for a handshake that failed.
func (c *call) disconnect(err *handshake.Error) wire.Disconnect {
	switch {
	case c.duplicate:
		return wire.Disconnect{Reason: wire.TooManyConnections, Text: connectedAlready(c.entry.ID)}
	case errors.Is(c.err, registry.ErrUnknown):
		return wire.Disconnect{Reason: wire.HostKeyNotVerified, Text: unknownCause}
	case c.entry == nil:
		return wire.Disconnect{Reason: wire.HostKeyNotVerified, Text: c.err.Error()}
	case isOverBudget(c.err):
		return wire.Disconnect{Reason: wire.TooManyConnections, Text: c.err.Error()}
	case c.err != nil:
		return wire.Disconnect{Reason: wire.NotAvailable, Text: "the station cannot read its credential for " + c.entry.ID}
	}
	return wire.Disconnect{Reason: wire.NoMoreAuthMethods, Text: "login failed: " + err.Error()}
}

// failed reports a connection that did not log in.
func (c *call) failed(err error, evicted bool) {
	s := c.station
	e := nmsproto.Event{Address: c.from.String()}
	var h *handshake.Error
	if errors.As(err, &h) {
		e.Software = printable.Line(h.Version)
	}
	if c.key != nil {
		var plain ssh.PublicKey
		plain, e.Certificate = plainKey(c.key)
		e.HostKey = ssh.FingerprintSHA256(plain)
	}
	switch {
	case c.duplicate:
		s.duplicate(e, c.entry.ID, duplicateCause(c.old, c.holder))
	case evicted && c.err == nil:
		e.Cause = "evicted before the login: too many unauthenticated connections"
		if e.Software == "" {
			e.Cause = "evicted before it sent an SSH version: too many unauthenticated connections"
		}
		s.refused(OverLimit, e)
	case c.entry != nil && c.err == nil:
		e.Cause = "login failed: " + printable.Line(err.Error())
		c.deviceFailed(e, NoLogin)
	case isOverBudget(c.err):
		c.attemptFailed()
		s.mu.Lock()
		s.unauthenticated.Forget(c.from.Addr())
		s.mu.Unlock()
		e.Cause = c.err.Error()
		c.deviceFailed(e, OverBudget)
	case c.entry != nil:
		e.Cause = c.err.Error() // the credential
		c.deviceFailed(e, NoLogin)
	case errors.Is(c.err, registry.ErrUnknown):
		c.attemptFailed()
		c.unknown(e)
	case c.err != nil:
		c.attemptFailed()
		e.Cause = c.err.Error()
		s.refused(Invalid, e)
	default:
		c.attemptFailed()
		e.Cause = c.noSSH(h)
		s.refused(NoSSH, e)
	}
}

// attemptFailed counts an attempt of a peer that has shown no key of a device.
func (c *call) attemptFailed() {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unauthenticated.Failed(c.from.Addr(), time.Now())
}

// noSSH returns the cause for a peer that showed no host key.
func (c *call) noSSH(h *handshake.Error) string {
	var timeout net.Error
	what := printable.Line(h.Error())
	if errors.As(h, &timeout) && timeout.Timeout() {
		what = fmt.Sprintf("no further byte came within %v", c.station.config.LoginTime)
	}
	if h.Stage == handshake.StageVersion {
		return "no SSH version: " + what
	}
	return "no key exchange: " + what
}

// deviceFailed records and publishes a failure of a known device.
func (c *call) deviceFailed(e nmsproto.Event, o Outcome) {
	e.Device = c.entry.ID
	c.station.noteError(c.entry.ID, e.Cause)
	c.station.refused(o, e)
}

const unknownCause = "no device has this host key"

func (c *call) unknown(e nmsproto.Event) {
	s := c.station
	s.mu.Lock()
	s.stats.Outcomes[Unknown]++
	s.unknown.note(c.key, e.Address, e.Software, time.Now().UTC())
	s.mu.Unlock()
	e.Event, e.Cause = nmsproto.EventUnknown, unknownCause
	s.Publish(e)
}
