package station

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// Remove removes a device's entry, and ends its connection. Errors are *proto.Error.
func (s *Station) Remove(p nmsproto.RemoveParams) error {
	if err := registry.CheckID(p.Device); err != nil {
		return proto.NewError(proto.CodeBadType, err.Error())
	}
	change, err := s.config.Editor.Remove(p.Device)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return noDevice(p.Device)
	case err != nil:
		return notChanged(err, proto.CodeOS)
	}
	s.RegistryRead(change, nil)
	s.Publish(nmsproto.Event{Event: nmsproto.EventRemoved, Device: p.Device})
	return nil
}

// Revoke revokes host keys, and ends the connections of devices with one of them.
// Errors are *proto.Error.
func (s *Station) Revoke(p nmsproto.RevokeParams) (nmsproto.Revoked, error) {
	lines, err := s.keysOf(p.Key)
	if err != nil {
		return nmsproto.Revoked{}, err
	}
	var device string
	if registry.CheckID(p.Key) == nil {
		device = p.Key
	}
	out := nmsproto.Revoked{HostKeys: []string{}}
	for _, line := range lines {
		fingerprint, err := registry.Fingerprint(line)
		if err != nil {
			return nmsproto.Revoked{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("%s, nor a fingerprint or a device", err))
		}
		if !slices.Contains(out.HostKeys, fingerprint) {
			out.HostKeys = append(out.HostKeys, fingerprint)
		}
	}
	out.Devices = s.connectedWith(out.HostKeys)
	change, err := s.config.Editor.Revoke(lines...)
	if err != nil {
		return nmsproto.Revoked{}, notChanged(err, proto.CodeOS)
	}
	s.RegistryRead(change, nil)
	for _, fingerprint := range out.HostKeys {
		s.Publish(nmsproto.Event{Event: nmsproto.EventRevoked, Device: device, HostKey: fingerprint})
	}
	return out, nil
}

// Unrevoke removes one key from the list of revoked keys. Errors are *proto.Error.
func (s *Station) Unrevoke(p nmsproto.UnrevokeParams) (nmsproto.Unrevoked, error) {
	key := strings.TrimSpace(p.Key)
	if registry.CheckID(key) == nil { // which of its keys were revoked for another reason is not known
		return nmsproto.Unrevoked{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("%.80q is no key: name the fingerprint that was revoked, as the device's last error and %s have it", key, registry.RevokedFile))
	}
	fingerprint, err := registry.Fingerprint(key)
	if err != nil {
		return nmsproto.Unrevoked{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("%s, nor a fingerprint", err))
	}
	change, err := s.config.Editor.Unrevoke(fingerprint)
	switch {
	case errors.Is(err, registry.ErrNotRevoked):
		return nmsproto.Unrevoked{}, proto.NewError(proto.CodeNoExists, "no revoked key has the fingerprint "+fingerprint)
	case err != nil:
		return nmsproto.Unrevoked{}, notChanged(err, proto.CodeOS)
	}
	s.RegistryRead(change, nil)
	s.Publish(nmsproto.Event{Event: nmsproto.EventUnrevoked, HostKey: fingerprint})
	return nmsproto.Unrevoked{HostKey: fingerprint}, nil
}

// keysOf returns the lines of the list of revoked keys for a device's id, a key or a
// fingerprint. The keys of a device are those of its entry, and that of its last
// connection: a device with a certificate has no key in its entry.
func (s *Station) keysOf(key string) (lines []string, err error) {
	key = strings.TrimSpace(key)
	if registry.CheckID(key) != nil {
		return []string{key}, nil
	}
	e := s.config.Registry.Entry(key)
	if e == nil {
		return nil, noDevice(key)
	}
	for _, k := range e.HostKeys {
		lines = append(lines, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))+" "+key)
	}
	if last, _ := s.Device(key); last.HostKey != "" {
		lines = append(lines, last.HostKey+" "+key)
	}
	if len(lines) == 0 {
		return nil, proto.NewError(proto.CodeNoExists, fmt.Sprintf("the entry of %s has no host key, and it was not connected since the daemon's start: name its key instead", key))
	}
	return lines, nil
}

// connectedWith returns the devices that are connected with one of those keys, or with
// a certificate by one of them.
func (s *Station) connectedWith(fingerprints []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []string{}
	for id, d := range s.devices {
		if d.connection == nil {
			continue
		}
		plain, _ := plainKey(d.connection.key)
		shown := []ssh.PublicKey{plain}
		if cert, ok := d.connection.key.(*ssh.Certificate); ok {
			shown = append(shown, cert.SignatureKey)
		}
		if slices.ContainsFunc(shown, func(k ssh.PublicKey) bool { return slices.Contains(fingerprints, ssh.FingerprintSHA256(k)) }) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Forget removes an unknown device from the list. If it calls again, it is back on it.
// Errors are *proto.Error.
func (s *Station) Forget(p nmsproto.ForgetParams) error {
	s.mu.Lock()
	called := s.unknown[p.HostKey] != nil
	delete(s.unknown, p.HostKey)
	s.mu.Unlock()
	if called {
		return nil
	}
	if s.config.Cluster != nil {
		if u := s.config.Cluster.Unknown(p.HostKey); u != nil {
			return proto.NewError(proto.CodeNoExists, fmt.Sprintf("%.80s has called station %s: `callhome-nms devices forget` there removes it", p.HostKey, printable.Line(u.Station)))
		}
	}
	return notCalled(p.HostKey)
}

func noDevice(id string) error {
	return proto.NewError(proto.CodeNoExists, fmt.Sprintf("there is no device %.80q", id))
}

func notCalled(hostKey string) error {
	return proto.NewError(proto.CodeNoExists, fmt.Sprintf("no unknown device has called with the host key %.80s", printable.Line(hostKey)))
}
