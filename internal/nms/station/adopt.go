package station

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/wire"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// mayAdopt decides who may register a device with which credential. Only root may
// name a file: the station would send the password in it to a device of the peer's
// choice. A device learns the password of its login, so where the station's own
// credential is a password, the entry must name another one.
func (c Credential) mayAdopt(p nmsproto.AdoptParams, root bool) error {
	named := p.KeyFile+p.PasswordFile != ""
	switch {
	case named && !root:
		return proto.NewError(proto.CodeAccessDenied, "adopt with a key or password file needs root; without, the station's own credential is used")
	case !named && c.PasswordFile != "":
		return proto.NewError(proto.CodeAccessDenied, "the device would learn the station's own password: name a credential with --key-file or --password-file, as root")
	}
	return nil
}

// Adopt registers an unknown device as an entry; root says whether the peer is
// root. Errors are *proto.Error.
func (s *Station) Adopt(p nmsproto.AdoptParams, root bool) (nmsproto.Adopted, error) {
	if err := s.config.Credential.mayAdopt(p, root); err != nil {
		return nmsproto.Adopted{}, err
	}
	bad := func(err error) (nmsproto.Adopted, error) {
		return nmsproto.Adopted{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	if err := registry.CheckID(p.ID); err != nil {
		return bad(err)
	}
	owner := s.config.Registry.Owner(p.HostKey)
	s.mu.Lock()
	u := s.unknown[p.HostKey]
	for id, d := range s.devices { // one that is known by its certificate
		if owner == "" && d.seen.HostKey == p.HostKey {
			owner = id
		}
	}
	s.mu.Unlock()
	if u == nil && p.HostKey != "" && owner != "" {
		return nmsproto.Adopted{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("the host key %.80s is that of device %s already", p.HostKey, owner))
	}
	if u == nil {
		return nmsproto.Adopted{}, notCalled(p.HostKey)
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
		return nmsproto.Adopted{}, proto.NewError(proto.CodeOS, err.Error())
	}
	problem := r.Problem(p.ID)
	change.Problems = slices.DeleteFunc(change.Problems, func(q registry.Problem) bool { return problem != "" && q.Error == problem })
	// An operator may have changed the directory too, and only the Reload that
	// reads a change first returns it.
	s.RegistryRead(change, nil)
	if problem != "" {
		err := errors.Join(errors.New(problem), r.Remove(p.ID))
		s.RegistryRead(r.Reload())
		return bad(err)
	}
	if r.Entry(p.ID) == nil {
		return bad(fmt.Errorf("the file of %s was removed in the meantime", p.ID))
	}
	s.mu.Lock()
	delete(s.unknown, p.HostKey)
	s.mu.Unlock()
	s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted, Device: p.ID, HostKey: p.HostKey, Address: u.Address})
	info, _ := s.Device(p.ID)
	return nmsproto.Adopted{Device: info, Called: u.Unknown}, nil
}

// RegistryRead must be called after each Reload of the registry: it rechecks the
// connections and passes the change to Config.RegistryRead.
func (s *Station) RegistryRead(c registry.Change, err error) {
	if err == nil {
		s.recheck()
		s.mu.Lock()
		for _, id := range c.Removed {
			delete(s.history.devices, id)
		}
		s.mu.Unlock()
	}
	if s.config.RegistryRead != nil {
		s.config.RegistryRead(c, err)
	}
}

// recheck ends the connections whose host key is not that device's any more, and
// removes unknown devices that have an entry now.
func (s *Station) recheck() {
	s.mu.Lock()
	var all []*connection
	for _, d := range s.devices {
		if d.connection != nil {
			all = append(all, d.connection)
		}
	}
	known := s.unknown.list()
	s.mu.Unlock()
	for _, h := range all {
		if cause := s.disowned(h); cause != "" {
			h.end(cause, wire.HostKeyNotVerified)
		}
	}
	for _, u := range known {
		if key, err := registry.ParseKey(u.Key); err == nil {
			if _, err := s.config.Registry.Lookup(key, time.Now()); !errors.Is(err, registry.ErrUnknown) {
				s.mu.Lock()
				delete(s.unknown, u.HostKey)
				s.mu.Unlock()
			}
		}
	}
}

// disowned returns why a connection must end, "" if it may stay.
func (s *Station) disowned(h *connection) string {
	// A certificate must be valid at the login alone: ssh does not check its
	// times again either.
	now := h.since
	switch e, err := s.config.Registry.Lookup(h.key, now); {
	case errors.Is(err, registry.ErrUnknown):
		return "the registry has no entry with its host key any more"
	case err != nil:
		return err.Error()
	case e.ID != h.id:
		return "its host key belongs to " + e.ID + " now"
	}
	return ""
}
