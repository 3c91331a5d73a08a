package station

import "callhome/internal/nms/nmsproto"

// Outcome is what became of a call.
type Outcome string

// The outcomes.
const (
	LoggedIn  Outcome = "logged-in"
	NoRoom    Outcome = "no-room" // a limit, or room made for another
	BadHeader Outcome = "proxy-header"
	NoSSH     Outcome = "no-ssh"    // nothing, or something else
	Unknown   Outcome = "unknown"   // a key that no device has
	Invalid   Outcome = "invalid"   // revoked, or a certificate that is not good
	NoLogin   Outcome = "no-login"  // known, but the login failed
	Second    Outcome = "duplicate" // refused, as another is alive
)

// Outcomes are all of them.
var Outcomes = []Outcome{LoggedIn, NoRoom, BadHeader, NoSSH, Unknown, Invalid, NoLogin, Second}

// Stats is what only grows, and how many of what there are now.
type Stats struct {
	Calls           uint64
	Outcomes        map[Outcome]uint64
	Sessions        uint64 // opened since the start
	SessionsNow     int
	SessionsFailed  uint64
	Unauthenticated int
	Unknown         int
	Sent, Received  uint64 // of sessions that have ended
	Devices         map[nmsproto.State]int
}

// Stats returns a copy.
func (s *Station) Stats() Stats {
	devices := s.Devices()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Outcomes = make(map[Outcome]uint64)
	for _, o := range Outcomes {
		out.Outcomes[o] = s.stats.Outcomes[o]
	}
	out.Unauthenticated, out.Unknown = len(s.unauthenticated.pending), len(s.unknown)
	out.Devices = make(map[nmsproto.State]int)
	for _, state := range nmsproto.States {
		out.Devices[state] = 0
	}
	for _, d := range devices {
		out.Devices[d.State]++
	}
	return out
}
