package station

import (
	"cmp"
	"errors"
	"fmt"
	"maps"

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
	u := s.caller(p.HostKey)
	if u == nil {
		if owner := s.owner(p.HostKey); owner != "" {
			return nmsproto.Adopted{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("the host key %.80s is that of device %s already", p.HostKey, owner))
		}
		return nmsproto.Adopted{}, notCalled(p.HostKey)
	}
	key, err := registry.ParseKey(u.Key)
	if err != nil {
		return bad(err)
	}
	if ssh.FingerprintSHA256(key) != p.HostKey { // another station wrote both
		return bad(fmt.Errorf("the key of the unknown device %.80s has the fingerprint %s", p.HostKey, ssh.FingerprintSHA256(key)))
	}
	e := &registry.Entry{ID: p.ID, HostKeys: []ssh.PublicKey{key}, User: p.User, KeyFile: p.KeyFile, PasswordFile: p.PasswordFile, Labels: p.Labels}
	change, err := s.config.Editor.Add(e)
	if err != nil {
		return nmsproto.Adopted{}, notChanged(err, proto.CodeBadType)
	}
	s.RegistryRead(change, nil)
	s.mu.Lock()
	delete(s.unknown, p.HostKey)
	s.mu.Unlock()
	s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted, Device: p.ID, HostKey: p.HostKey, Address: u.Address})
	info, _ := s.Device(p.ID)
	return nmsproto.Adopted{Device: info, Called: *u}, nil
}

// caller returns an unknown device that called this station or others of the cluster, nil
// where none has. The key is the one that it has shown here, if it has.
func (s *Station) caller(fingerprint string) *nmsproto.Unknown {
	var own, other *nmsproto.Unknown
	s.mu.Lock()
	if u := s.unknown[fingerprint]; u != nil {
		here := u.Unknown
		here.Station = s.config.Name
		own = &here
	}
	s.mu.Unlock()
	if s.config.Cluster != nil {
		other = s.config.Cluster.Unknown(fingerprint)
	}
	if own == nil || other == nil {
		return cmp.Or(own, other)
	}
	all := Merge(*own, *other)
	all.Key = own.Key
	return &all
}

// owner returns the device that has a key in its entry, or had it at its last login, as
// one with a certificate; "" where there is none.
func (s *Station) owner(fingerprint string) string {
	if id := s.config.Registry.Owner(fingerprint); id != "" || fingerprint == "" {
		return id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, d := range s.devices {
		if d.seen.HostKey == fingerprint {
			return id
		}
	}
	return ""
}

// RegistryRead must be called with each change of the registry: it rechecks the
// connections that the change concerns, and passes it to Config.RegistryRead.
func (s *Station) RegistryRead(c registry.Change, err error) {
	if err == nil {
		s.recheck(c)
		s.mu.Lock()
		for _, id := range c.Removed {
			s.forgetRemoved(id)
		}
		s.mu.Unlock()
	}
	if s.config.RegistryRead != nil {
		s.config.RegistryRead(c, err)
	}
}

// recheck ends the connections whose host key is not that device's any more, and
// removes unknown devices that have an entry now.
func (s *Station) recheck(c registry.Change) {
	s.mu.Lock()
	var concerned []*connection
	for id := range c.Devices(maps.Keys(s.devices)) {
		if d := s.devices[id]; d != nil && d.connection != nil && c.Concerns(id, d.seen.HostKey, d.connection.key) {
			concerned = append(concerned, d.connection)
		}
	}
	for _, k := range c.Keys() {
		delete(s.unknown, k)
	}
	s.mu.Unlock()
	for _, h := range concerned {
		if cause := s.disowned(h); cause != "" {
			h.end(cause, wire.HostKeyNotVerified)
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
