package station

import (
	"context"
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"
	"callhome/internal/proto"
)

// Connect opens a netconf channel to a device and relays between it and sock, which
// it owns, until one of them ends or ctx does. Errors are *proto.Error.
func (s *Station) Connect(ctx context.Context, id string, sock Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	if s.config.Registry.Entry(id) == nil {
		return nmsproto.ConnectResult{}, s.failed(noDevice(id))
	}
	s.mu.Lock()
	var h *connection
	seen := "it has not called home since the station started"
	if d := s.devices[id]; d != nil {
		h = d.connection
		if d.seen.LastError != "" {
			seen = d.seen.LastError
		}
	}
	s.mu.Unlock()
	if h == nil {
		return nmsproto.ConnectResult{}, s.failed(proto.StageError(proto.StageSession, fmt.Sprintf("device %s is not connected: %s", id, seen), proto.ErrorData{Reason: seen}))
	}
	c, err := h.open(ctx)
	if err != nil {
		return nmsproto.ConnectResult{}, s.failed(err)
	}
	h.sessions.Add(1)
	s.mu.Lock()
	s.stats.Sessions++
	s.stats.SessionsNow++
	s.mu.Unlock()
	begin := time.Now().UTC()
	out := relay(c, sock, ctx.Done())
	h.sessions.Add(-1)
	s.mu.Lock()
	s.stats.SessionsNow--
	s.stats.Sent += out.Sent
	s.stats.Received += out.Received
	s.history.session(id, nmsproto.SessionRecord{Begin: begin, End: time.Now().UTC(), Sent: out.Sent, Received: out.Received, Error: ended(out)})
	s.mu.Unlock()
	if out.ExitStatus != nil || out.Signal != "" || ctx.Err() != nil {
		return out, nil
	}
	// A channel may end just before its connection does.
	select {
	case <-h.done:
		why := h.why()
		return out, proto.StageError(proto.StageSession, fmt.Sprintf("the connection of %s ended: %s", id, why), proto.ErrorData{Address: h.address.String(), Reason: why})
	case <-time.After(afterChannel):
		return out, nil
	}
}

// ended returns what is wrong with the end of a session, "" for an orderly one.
func ended(r nmsproto.ConnectResult) string {
	switch {
	case r.Signal != "":
		return "the subsystem was ended by SIG" + printable.Line(r.Signal)
	case r.ExitStatus != nil && *r.ExitStatus != 0:
		return fmt.Sprintf("the subsystem ended with status %d", *r.ExitStatus)
	}
	return ""
}

// afterChannel is how long after a channel ended without an exit status its
// connection may end for the same cause.
const afterChannel = 100 * time.Millisecond

func (s *Station) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.SessionsFailed++
	return err
}
