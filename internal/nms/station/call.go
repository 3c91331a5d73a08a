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
	login, err := handshake.Do(conn, deadline, handshake.Options{HostKeys: s.config.Registry.Algorithms(), Spoke: c.spoke}, c.identify)
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

func (c *call) spoke() {
	s := c.station
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lobby.speaks(c.guest)
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
		e.Software = printable(h.Version)
	}
	if c.key != nil {
		var plain ssh.PublicKey
		plain, e.Certificate = plainKey(c.key)
		e.HostKey = ssh.FingerprintSHA256(plain)
	}
	switch {
	case c.entry != nil && c.err == nil:
		e.Cause = "login failed: " + printable(err.Error())
		c.blame(e, NoLogin)
	case c.entry != nil:
		e.Cause = c.err.Error() // the credential
		c.blame(e, NoLogin)
	case errors.Is(c.err, registry.ErrUnknown):
		c.unknown(e)
	case c.err != nil:
		e.Cause = c.err.Error()
		s.refused(Invalid, e)
	case evicted:
		e.Cause = "silent, and another connection needed the place"
		s.refused(NoRoom, e)
	default:
		e.Cause = c.noSSH(h)
		s.refused(NoSSH, e)
	}
}

// noSSH says how far a peer came that did not show a host key.
func (c *call) noSSH(h *handshake.Error) string {
	var timeout net.Error
	what := printable(h.Error())
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

func (s *Station) noteError(id, cause string) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceOf(id)
	d.seen.LastError, d.seen.ErrorTime = cause, &now
}

// deviceOf is called with mu held.
func (s *Station) deviceOf(id string) *device {
	d := s.devices[id]
	if d == nil {
		d = new(device)
		s.devices[id] = d
	}
	return d
}

// seat makes h its device's connection. Where there is one already, that is
// asked whether it is alive: if not, or if the policy says so, h takes its
// place; otherwise h is ended.
func (s *Station) seat(h *held, e *registry.Entry) bool {
	policy := e.Duplicate
	if policy == "" {
		policy = s.config.Duplicate
	}
	for {
		old, ok := s.trySeat(h, nil)
		if ok {
			return true
		}
		if old == nil { // the station stops
			h.end("the station stops")
			return false
		}
		cause := "the device called again"
		if policy == registry.Refuse {
			if old.alive(s.config.ProbeTime) {
				s.duplicate(h, old)
				return false
			}
			cause += fmt.Sprintf(", and this connection did not answer within %v", s.config.ProbeTime)
		}
		if _, ok := s.trySeat(h, old); ok {
			old.end(cause)
			return true
		}
		// Another call of the device was quicker.
	}
}

// trySeat gives h the place if old has it (nil: nobody), and otherwise returns
// who does. With nobody there it is refused only when the station stops.
func (s *Station) trySeat(h, old *held) (*held, bool) {
	s.mu.Lock()
	d := s.deviceOf(h.id)
	if s.stopping {
		s.mu.Unlock()
		return nil, false
	}
	if d.held != old {
		now := d.held
		s.mu.Unlock()
		return now, false
	}
	since := h.since
	plain, certificate := plainKey(h.key)
	d.held = h
	d.seen = nmsproto.Device{
		State: nmsproto.Connected, Since: &since, Address: h.address.String(), Software: printable(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate, User: h.conn.User(), Calls: d.seen.Calls + 1,
		LastError: d.seen.LastError, ErrorTime: d.seen.ErrorTime,
	}
	s.stats.Outcomes[LoggedIn]++
	event := nmsproto.Event{Event: nmsproto.EventUp, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: certificate}
	s.mu.Unlock()
	if old != nil {
		event.Event, event.Cause = nmsproto.EventReplaced, "the connection from "+old.address.String()+" was given up"
	}
	s.tell(event)
	return nil, true
}

func (s *Station) duplicate(h, old *held) {
	cause := fmt.Sprintf("the device is connected from %s and alive; this one is refused", old.address)
	h.end(cause)
	s.noteError(h.id, "a second one called from "+h.address.String()+" and was refused")
	s.mu.Lock()
	s.stats.Outcomes[Second]++
	s.mu.Unlock()
	plain, certificate := plainKey(h.key)
	s.tell(nmsproto.Event{
		Event: nmsproto.EventDuplicate, Device: h.id, Address: h.address.String(), Software: printable(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate, Cause: cause,
	})
}

// unseat says that h has ended, unless another one has its place.
func (s *Station) unseat(h *held) {
	now, cause := time.Now().UTC(), h.why()
	s.mu.Lock()
	d := s.devices[h.id]
	if d.held != h {
		s.mu.Unlock()
		return
	}
	d.held = nil
	d.seen.State, d.seen.Since = nmsproto.Lost, &now
	d.seen.LastError, d.seen.ErrorTime = cause, &now
	event := nmsproto.Event{Event: nmsproto.EventDown, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: d.seen.Certificate, Cause: cause}
	s.mu.Unlock()
	s.tell(event)
}
