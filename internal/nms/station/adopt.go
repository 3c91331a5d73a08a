package station

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// Adopt makes a device of somebody who called. Errors are *proto.Error.
func (s *Station) Adopt(p nmsproto.AdoptParams) (nmsproto.Device, error) {
	bad := func(err error) (nmsproto.Device, error) {
		return nmsproto.Device{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	if err := registry.CheckID(p.ID); err != nil {
		return bad(err)
	}
	s.mu.Lock()
	u := s.strangers[p.HostKey]
	s.mu.Unlock()
	if u == nil {
		return nmsproto.Device{}, proto.NewError(proto.CodeNoExists, fmt.Sprintf("nobody called with the host key %.80s: `callhome-nms devices` lists who did", printable.Line(p.HostKey)))
	}
	key, err := registry.ParseKey(u.Key)
	if err != nil {
		return bad(err)
	}
	e := &registry.Entry{ID: p.ID, HostKeys: []ssh.PublicKey{key}, User: p.User, KeyFile: p.KeyFile, PasswordFile: p.PasswordFile, Labels: p.Labels}
	r := s.config.Registry
	if err := r.Add(e); err != nil {
		return bad(err)
	}
	change, err := r.Reload()
	if err != nil {
		err = errors.Join(err, r.Remove(p.ID))
		return nmsproto.Device{}, proto.NewError(proto.CodeOS, err.Error())
	}
	problem := r.Problem(p.ID)
	change.Problems = slices.DeleteFunc(change.Problems, func(q registry.Problem) bool { return problem != "" && q.Error == problem })
	// Others may have changed the directory too, and who reads it first is the
	// only one to see what.
	s.Changed(change, nil)
	if problem != "" {
		err := errors.Join(errors.New(problem), r.Remove(p.ID))
		s.Changed(r.Reload())
		return bad(err)
	}
	if r.Entry(p.ID) == nil {
		return bad(fmt.Errorf("the file of %s was removed meanwhile", p.ID))
	}
	s.mu.Lock()
	delete(s.strangers, p.HostKey)
	s.mu.Unlock()
	s.tell(nmsproto.Event{Event: nmsproto.EventAdopted, Device: p.ID, HostKey: p.HostKey, Address: u.Address})
	info, _ := s.Device(p.ID)
	return info, nil
}

// Recheck ends the connections of devices that the registry does not know any
// more, or not by that key, and forgets strangers that it knows now. It is for
// after a change of the registry.
func (s *Station) Recheck() {
	s.mu.Lock()
	var all []*held
	for _, d := range s.devices {
		if d.held != nil {
			all = append(all, d.held)
		}
	}
	known := s.strangers.list()
	s.mu.Unlock()
	for _, h := range all {
		if cause := s.disowned(h); cause != "" {
			h.end(cause)
		}
	}
	for _, u := range known {
		if key, err := registry.ParseKey(u.Key); err == nil {
			if _, err := s.config.Registry.Lookup(key, time.Now()); !errors.Is(err, registry.ErrUnknown) {
				s.mu.Lock()
				delete(s.strangers, u.HostKey)
				s.mu.Unlock()
			}
		}
	}
}

// disowned says why a connection must not go on, "" where it may.
func (s *Station) disowned(h *held) string {
	// A certificate was good at the login; what it says of time is not asked
	// again, as stock ssh does not either.
	now := h.since
	switch e, err := s.config.Registry.Lookup(h.key, now); {
	case errors.Is(err, registry.ErrUnknown):
		return "the registry does not have its key any more"
	case err != nil:
		return err.Error()
	case e.ID != h.id:
		return "its key is " + e.ID + "'s now"
	}
	return ""
}
