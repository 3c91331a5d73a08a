package station

import (
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/wire"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

func (s *Station) noteError(id, cause string) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceOf(id)
	d.seen.LastError, d.seen.ErrorTime = cause, &now
	s.forgetRemoved(id)
}

// forgetRemoved drops the state of a device that is not in the registry and not connected
// any more: a registry whose devices come and go would fill the memory. The caller holds mu.
func (s *Station) forgetRemoved(id string) {
	if d := s.devices[id]; s.config.Registry.Entry(id) != nil || d != nil && d.connection != nil {
		return
	}
	delete(s.devices, id)
	delete(s.history.devices, id)
	s.events.forget(id)
}

// deviceOf returns the state of a device, new if need be. The caller holds mu.
func (s *Station) deviceOf(id string) *device {
	d := s.devices[id]
	if d == nil {
		d = &device{budget: newBudget()}
		s.devices[id] = d
	}
	return d
}

// policy returns what the station does with a second connection of a device.
func (s *Station) policy(e *registry.Entry) registry.Duplicate {
	if e.Duplicate != "" {
		return e.Duplicate
	}
	return s.config.Duplicate
}

// holder returns the connection of the device, nil without one, and whether it makes
// another one a duplicate: it answers, and the policy is to refuse.
func (s *Station) holder(e *registry.Entry) (old *connection, holds bool) {
	s.mu.Lock()
	if d := s.devices[e.ID]; d != nil {
		old = d.connection
	}
	s.mu.Unlock()
	return old, old != nil && s.policy(e) == registry.Refuse && old.alive(s.config.ProbeTime)
}

// settle makes h its device's connection. Where the device has one already, the
// policy decides: replace ends the old one; refuse sends it a keepalive, and if it
// answers, h is a duplicate and is ended. A duplicate of a connection from before the
// login is refused before its login; silent is such a connection that did not answer.
func (s *Station) settle(h *connection, e *registry.Entry, silent *connection) bool {
	for {
		old, ok := s.replace(h, nil)
		if ok {
			return true
		}
		if old == nil {
			h.end(s.closing(), wire.NotAvailable)
			return false
		}
		cause := "the device called home again"
		if s.policy(e) == registry.Refuse {
			if old != silent && old.alive(s.config.ProbeTime) {
				h.end(connectedAlready(e.ID), wire.TooManyConnections)
				s.duplicate(h.event(), e.ID, duplicateCause(old, ""))
				return false
			}
			cause += fmt.Sprintf(", and this connection did not answer within %v", s.config.ProbeTime)
		}
		if _, ok := s.replace(h, old); ok {
			old.end(cause, wire.TooManyConnections)
			return true
		}
		// A third connection of the device has replaced old meanwhile.
	}
}

// connectedAlready is what the device of a duplicate gets to know.
func connectedAlready(id string) string { return id + " is connected already" }

// duplicateCause says of which connection another one is a duplicate: of old, or of one
// at the station holder.
func duplicateCause(old *connection, holder string) string {
	if holder != "" {
		return fmt.Sprintf("the device is connected to station %s, and that connection answers; this duplicate is refused", holder)
	}
	return fmt.Sprintf("the device is connected from %s, and that connection answers; this duplicate is refused", old.address)
}

// event returns an event with the fields of a device's connection.
func (h *connection) event() nmsproto.Event {
	plain, certificate := plainKey(h.key)
	return nmsproto.Event{Device: h.id, Address: h.address.String(), Software: printable.Line(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate}
}

// replace makes h the device's connection in place of old, nil where it has no
// connection. If old is not the device's connection, it returns the one that is.
// When the station stops or is being drained it returns nil and false.
func (s *Station) replace(h, old *connection) (*connection, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceOf(h.id)
	if s.stopping || s.drainsAll() {
		return nil, false
	}
	if d.connection != old {
		return d.connection, false
	}
	since := h.since
	plain, certificate := plainKey(h.key)
	d.connection = h
	d.seen = nmsproto.Device{
		State: nmsproto.Connected, Since: &since, Address: h.address.String(), Software: printable.Line(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate, User: h.conn.User(), Calls: d.seen.Calls + 1,
	}
	s.unauthenticated.Remember(h.address.Addr(), time.Now())
	s.stats.Outcomes[LoggedIn]++
	event := nmsproto.Event{Event: nmsproto.EventUp, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: certificate}
	if old != nil {
		event.Event, event.Cause = nmsproto.EventReplaced, "it replaces the connection from "+old.address.String()
	}
	s.events.publish(event)
	return nil, true
}

// duplicate records a duplicate of a device's connection; e has the fields of the
// duplicate.
func (s *Station) duplicate(e nmsproto.Event, id, cause string) {
	s.noteError(id, "a duplicate from "+e.Address+" was refused")
	s.mu.Lock()
	s.stats.Outcomes[Duplicate]++
	s.mu.Unlock()
	e.Event, e.Device, e.Cause = nmsproto.EventDuplicate, id, cause
	s.Publish(e)
}

// lost records that h has ended, unless another connection has replaced it.
func (s *Station) lost(h *connection) {
	now, cause := time.Now().UTC(), h.why()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[h.id]
	if d == nil || d.connection != h { // Settle and End call this, too
		return
	}
	d.connection = nil
	s.unauthenticated.Remember(h.address.Addr(), time.Now())
	d.seen.State, d.seen.Since = nmsproto.Lost, &now
	d.seen.LastError, d.seen.ErrorTime = cause, &now
	s.events.publish(nmsproto.Event{Event: nmsproto.EventDown, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: d.seen.Certificate, Cause: cause})
	s.forgetRemoved(h.id)
}
