package station

import (
	"errors"
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
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
		return nmsproto.Device{}, proto.NewError(proto.CodeNoExists, fmt.Sprintf("nobody called with the host key %.80s: `callhome-nms devices` lists who did", printable(p.HostKey)))
	}
	key, err := registry.ParseKey(u.Key)
	if err != nil {
		return bad(err)
	}
	e := &registry.Entry{ID: p.ID, HostKeys: []ssh.PublicKey{key}, User: p.User, KeyFile: p.KeyFile, PasswordFile: p.PasswordFile, Labels: p.Labels}
	if err := s.config.Registry.Add(e); err != nil {
		return bad(err)
	}
	if _, err := s.config.Registry.Reload(); err != nil {
		return nmsproto.Device{}, proto.NewError(proto.CodeOS, err.Error())
	}
	if s.config.Registry.Entry(p.ID) == nil {
		for _, problem := range s.config.Registry.Problems() {
			if problem.File == p.ID+".json" {
				return bad(errors.New(problem.Error))
			}
		}
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
