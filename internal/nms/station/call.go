package station

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"callhome/internal/nms/handshake"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// call is one connection, from accept to its end.
type call struct {
	station *Station
	conn    net.Conn
	from    netip.AddrPort
	guest   uint64 // in the lobby

	entry *registry.Entry // once it is known
	key   ssh.PublicKey
	err   error // of the registry or the credential
}

func (c *call) run() {
	s := c.station
	begun := time.Now()
	deadline := begun.Add(s.config.LoginTime)
	conn, ok := c.pastBalancer(deadline)
	if !ok {
		return
	}
	login, err := handshake.Do(conn, deadline, handshake.Options{HostKeys: s.config.Registry.Algorithms(), Spoke: func() { _ = c.reached(speaking) }}, c.identify)
	if err == nil && !c.reached(loggedIn) { // another one had the place at this very moment
		login.Close()
		err = net.ErrClosed
	}
	if err != nil {
		evicted := c.leave()
		c.failed(err, evicted)
		return
	}
	h := &held{id: c.entry.ID, conn: login, key: c.key, address: c.from, since: time.Now().UTC(), done: make(chan struct{})}
	if s.Timed != nil {
		s.Timed(time.Since(begun))
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.serve(s.config.KeepaliveEvery, s.config.KeepaliveTime)
	}()
	seated := s.seat(h, c.entry)
	c.leave()
	if seated {
		// The registry may have changed since it was asked.
		if cause := s.disowned(h); cause != "" {
			h.end(cause)
		}
	}
	<-served
	if seated {
		s.unseat(h)
	}
}

// pastBalancer reads the header of a trusted balancer, where the call comes
// from one.
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
		return nil, false // nobody's call
	}
	if err != nil {
		return fail(BadHeader, err.Error())
	}
	c.from = from
	s.mu.Lock()
	ok := s.lobby.move(c.guest, from.Addr())
	s.mu.Unlock()
	if !ok {
		return fail(NoRoom, "too many connections wait for a login")
	}
	return conn, true
}

// reached says how far the call has come, and reports whether it still has its
// place in the lobby.
func (c *call) reached(at stage) bool {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lobby.reaches(c.guest, at)
}

// leave gives the place in the lobby back and reports whether it was taken
// before.
func (c *call) leave() (evicted bool) {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	evicted = s.lobby.guests[c.guest] == nil
	s.lobby.exit(c.guest)
	return evicted
}

// identify is handshake's question.
func (c *call) identify(key ssh.PublicKey) (*handshake.Login, error) {
	s := c.station
	c.key = key
	c.entry, c.err = s.config.Registry.Lookup(key, time.Now())
	if c.err != nil {
		return nil, c.err
	}
	login, err := s.config.Credential.loginFor(c.entry)
	c.err = err
	return login, err
}

// failed tells what became of a call that is not held.
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
	case evicted && c.err == nil:
		e.Cause = "not logged in yet, and another connection needed the place"
		if e.Software == "" {
			e.Cause = "silent, and another connection needed the place"
		}
		s.refused(NoRoom, e)
	case c.entry != nil && c.err == nil:
		e.Cause = "login failed: " + printable.Line(err.Error())
		c.blame(e, NoLogin)
	case c.entry != nil:
		e.Cause = c.err.Error() // the credential
		c.blame(e, NoLogin)
	case errors.Is(c.err, registry.ErrUnknown):
		c.unknown(e)
	case c.err != nil:
		e.Cause = c.err.Error()
		s.refused(Invalid, e)
	default:
		e.Cause = c.noSSH(h)
		s.refused(NoSSH, e)
	}
}

// noSSH says how far a peer came that did not show a host key.
func (c *call) noSSH(h *handshake.Error) string {
	var timeout net.Error
	what := printable.Line(h.Error())
	if errors.As(h, &timeout) && timeout.Timeout() {
		what = fmt.Sprintf("nothing more came within %v", c.station.config.LoginTime)
	}
	if h.Stage == handshake.StageVersion {
		return "no SSH version: " + what
	}
	return "no key exchange: " + what
}

// blame notes a failure at the device whose it is.
func (c *call) blame(e nmsproto.Event, o Outcome) {
	e.Device = c.entry.ID
	c.station.noteError(c.entry.ID, e.Cause)
	c.station.refused(o, e)
}

func (c *call) unknown(e nmsproto.Event) {
	s := c.station
	s.mu.Lock()
	s.stats.Outcomes[Stranger]++
	s.strangers.note(c.key, e.Address, e.Software, time.Now().UTC())
	s.mu.Unlock()
	e.Event, e.Cause = nmsproto.EventUnknown, "no device has this host key"
	s.tell(e)
}
