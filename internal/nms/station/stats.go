package station

import "callhome/internal/nms/nmsproto"

// Outcome is how a call home ended, or that it logged in.
type Outcome string

// The outcomes.
const (
	LoggedIn   Outcome = "logged-in"
	OverLimit  Outcome = "over-limit" // over a limit of unauthenticated connections, or evicted
	BadHeader  Outcome = "proxy-header"
	NoSSH      Outcome = "no-ssh"      // no SSH version, or no key exchange
	Unknown    Outcome = "unknown"     // a host key that no entry has
	Invalid    Outcome = "invalid"     // a revoked key, or an invalid certificate
	NoLogin    Outcome = "no-login"    // the login to a known device failed
	OverBudget Outcome = "over-budget" // a device logs in too often
	Duplicate  Outcome = "duplicate"   // refused: the device's other connection is alive
	Draining   Outcome = "draining"    // refused: the station is being drained
)

// Outcomes are all outcomes.
var Outcomes = []Outcome{LoggedIn, OverLimit, BadHeader, NoSSH, Unknown, Invalid, NoLogin, OverBudget, Duplicate, Draining}

// Stats are the station's counters, and its present numbers of sessions,
// unauthenticated connections and devices.
type Stats struct {
	Calls           uint64
	Outcomes        map[Outcome]uint64
	Sessions        uint64 // opened since the start
	SessionsNow     int
	SessionsFailed  uint64
	Unauthenticated int
	Unknown         int
	Sent, Received  uint64 // bytes of sessions that have ended
	Devices         map[nmsproto.State]int
	Drain           *nmsproto.Drain // nil unless the station is being drained
}

// Stats returns a copy.
func (s *Station) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Outcomes = make(map[Outcome]uint64)
	for _, o := range Outcomes {
		out.Outcomes[o] = s.stats.Outcomes[o]
	}
	out.Unauthenticated, out.Unknown = s.unauthenticated.Len(), len(s.unknown)
	out.Drain = s.drained()
	out.Devices = make(map[nmsproto.State]int)
	for _, state := range nmsproto.States {
		out.Devices[state] = 0
	}
	out.Devices[nmsproto.NeverSeen] = s.config.Registry.Len()
	for id, d := range s.devices {
		if d.seen.State != "" && d.seen.State != nmsproto.NeverSeen && s.config.Registry.Entry(id) != nil {
			out.Devices[d.seen.State]++
			out.Devices[nmsproto.NeverSeen]--
		}
	}
	return out
}
