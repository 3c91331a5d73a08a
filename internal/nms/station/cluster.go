package station

import (
	"context"
	"errors"
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/wire"
	"callhome/internal/proto"
)

// Cluster is what a station asks of the other stations of its cluster.
type Cluster interface {
	// Elsewhere asks the station that holds a device whether its connection answers.
	// holder is the name of that station; "" where none has an answering connection.
	Elsewhere(device string) (holder string)
	// Unknown returns an unknown device that called another station, nil for none.
	Unknown(fingerprint string) *nmsproto.Unknown
}

// Editor changes the registry, and brings the change in force.
type Editor interface {
	Add(*registry.Entry) (registry.Change, error)
	Remove(id string) (registry.Change, error)
	Revoke(lines ...string) (registry.Change, error)
	Unrevoke(fingerprint string) (registry.Change, error)
}

// notChanged is the error of the API for a change of the registry that failed.
func notChanged(err error, code proto.Code) error {
	if errors.Is(err, registry.ErrNotNow) {
		code = proto.CodeBusy
	}
	return proto.NewError(code, err.Error())
}

// elsewhere returns the station that makes a connection of the device a duplicate, ""
// for none. Where the policy is to replace, the other connection is ended after the login.
func (s *Station) elsewhere(e *registry.Entry) string {
	if s.config.Cluster == nil || s.policy(e) != registry.Refuse {
		return ""
	}
	return s.config.Cluster.Elsewhere(e.ID)
}

// Settle decides about the connection of a device that has called another station, as
// settle does at this one: it is kept if it answers and the policy is to refuse;
// otherwise it is ended. Without a connection there is none to keep.
func (s *Station) Settle(_ context.Context, id string) (kept bool, cause string) {
	e := s.config.Registry.Entry(id)
	s.mu.Lock()
	var old *connection
	if d := s.devices[id]; d != nil {
		old = d.connection
	}
	s.mu.Unlock()
	if old == nil {
		return false, id + " is not connected"
	}
	cause = "the device called another station"
	if e != nil && s.policy(e) == registry.Refuse {
		if old.alive(s.config.ProbeTime) {
			return true, fmt.Sprintf("%s is connected from %s, and that connection answers", id, old.address)
		}
		cause += fmt.Sprintf(", and this connection did not answer within %v", s.config.ProbeTime)
	}
	old.end(cause, wire.TooManyConnections)
	s.lost(old)
	return false, old.why()
}

// End ends the connection of a device that began then, as a duplicate.
func (s *Station) End(id string, since time.Time, cause string) {
	s.mu.Lock()
	var h *connection
	if d := s.devices[id]; d != nil {
		h = d.connection
	}
	s.mu.Unlock()
	if h != nil && h.since.Equal(since) {
		h.end(cause, wire.TooManyConnections)
		s.lost(h)
	}
}

// Load returns how many sessions and unauthenticated connections there are.
func (s *Station) Load() (sessions, unauthenticated int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.SessionsNow, s.unauthenticated.Len()
}
