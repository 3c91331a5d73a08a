package station

import (
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

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
	defer s.mu.Unlock()
	d := s.deviceOf(h.id)
	if s.stopping {
		return nil, false
	}
	if d.held != old {
		return d.held, false
	}
	since := h.since
	plain, certificate := plainKey(h.key)
	d.held = h
	d.seen = nmsproto.Device{
		State: nmsproto.Connected, Since: &since, Address: h.address.String(), Software: printable.Line(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate, User: h.conn.User(), Calls: d.seen.Calls + 1,
		LastError: d.seen.LastError, ErrorTime: d.seen.ErrorTime,
	}
	s.stats.Outcomes[LoggedIn]++
	event := nmsproto.Event{Event: nmsproto.EventUp, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: certificate}
	if old != nil {
		event.Event, event.Cause = nmsproto.EventReplaced, "the connection from "+old.address.String()+" was given up"
	}
	s.tellLocked(event)
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
		Event: nmsproto.EventDuplicate, Device: h.id, Address: h.address.String(), Software: printable.Line(string(h.conn.ServerVersion())),
		HostKey: ssh.FingerprintSHA256(plain), Certificate: certificate, Cause: cause,
	})
}

// unseat says that h has ended, unless another one has its place.
func (s *Station) unseat(h *held) {
	now, cause := time.Now().UTC(), h.why()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[h.id]
	if d.held != h {
		return
	}
	d.held = nil
	d.seen.State, d.seen.Since = nmsproto.Lost, &now
	d.seen.LastError, d.seen.ErrorTime = cause, &now
	s.tellLocked(nmsproto.Event{Event: nmsproto.EventDown, Device: h.id, Address: d.seen.Address, Software: d.seen.Software, HostKey: d.seen.HostKey, Certificate: d.seen.Certificate, Cause: cause})
}
