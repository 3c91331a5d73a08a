package station

import (
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"

	"golang.org/x/crypto/ssh"
)

// Devices returns every device of the registry, by id.
func (s *Station) Devices() []nmsproto.Device {
	entries := s.config.Registry.Entries()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]nmsproto.Device, len(entries))
	for i, e := range entries {
		out[i] = s.deviceInfo(e)
	}
	return out
}

// Device returns one device; ok is false where the registry has no entry for it.
func (s *Station) Device(id string) (info nmsproto.Device, ok bool) {
	e := s.config.Registry.Entry(id)
	if e == nil {
		return info, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deviceInfo(e), true
}

// Detail returns one device with its history. Errors are *proto.Error.
func (s *Station) Detail(id string) (nmsproto.DeviceDetail, error) {
	e := s.config.Registry.Entry(id)
	if e == nil {
		return nmsproto.DeviceDetail{}, noDevice(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := nmsproto.DeviceDetail{Device: s.deviceInfo(e), HostKeys: fingerprints(e.HostKeys), CAs: fingerprints(e.CAs)}
	if d := s.devices[id]; d != nil && d.connection != nil {
		out.RoundTrip = d.connection.conn.Keepalive.RoundTrip()
	}
	s.history.fill(&out)
	return out, nil
}

func fingerprints(keys []ssh.PublicKey) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = ssh.FingerprintSHA256(k)
	}
	return out
}

// History returns how many logins, losses and refused calls there were in the last day.
func (s *Station) History() nmsproto.History {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history.timeline(time.Now())
}

// deviceInfo returns a copy of a device's state. The caller holds mu.
func (s *Station) deviceInfo(e *registry.Entry) nmsproto.Device {
	info := nmsproto.Device{ID: e.ID, State: nmsproto.NeverSeen, Labels: e.Labels}
	d := s.devices[e.ID]
	if d == nil {
		return info
	}
	info = d.seen
	info.ID, info.Labels = e.ID, e.Labels
	if info.State == "" {
		info.State = nmsproto.NeverSeen
	}
	if d.connection != nil {
		info.Sessions = int(d.connection.sessions.Load())
	}
	return info
}

// Unknown returns the unknown devices, the one that called last first.
func (s *Station) Unknown() []nmsproto.Unknown {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown.list()
}
