package admission

// verdict is what happens to a new connection.
type verdict int

const (
	admit      verdict = iota
	replaceOwn         // admit it in place of another of its source
	replace            // admit it in place of the first that is overdue
	wait               // leave it until a place is free, and accept no other
	refuseFailures
	refuseSource
	refuse      // by a draw
	refuseDraws // without a draw
)

// facts are what a decision rests on.
type facts struct {
	recent    bool // its source logged in lately
	exhausted bool // it has used up its failed attempts
	drawn     bool // it has used up its refusals by a draw

	ofSource, perSource int  // connections of its source, and their limit
	own                 bool // one of these may be evicted

	notRecent, all, total int  // connections of other than recent sources; of all; the limit
	overShare             bool // a network of it has its share of the places
	overdue               bool // a connection is overdue whose place it could take

	bad  float64 // the fraction of the last connections that failed
	coin float64 // drawn from 0 to 1; 1 for a connection that has waited
}

// reserved is how many of all places only recent sources get.
func reserved(total int) int { return total / 8 }

// decide decides about a new connection. Recent sources only have priority: they get
// the reserved places, and no random early drop.
//
// The random early drop is that of sshd's MaxStartups 50:30:100. It applies where more
// than half of the last connections failed, and in full where all failed. So a fleet
// that comes back is not dropped: the kernel's queue holds it while the station
// is full. In an attack the queue would hold the attacker's connections, and devices
// behind them.
func decide(f facts) verdict {
	places := f.total - reserved(f.total) // of other than recent sources
	full := f.all >= f.total || !f.recent && f.notRecent >= places
	drop, undrawn := false, false
	if half := (places + 1) / 2; !f.recent && f.notRecent >= half && f.coin < 1 && f.bad > 0.5 {
		chance := 1.0
		if !full && !f.overShare {
			chance = 0.3 + 0.7*float64(f.notRecent-half)/float64(places-half)
		}
		drop, undrawn = f.drawn || f.coin < chance*(2*f.bad-1), f.drawn
	}
	switch {
	case f.exhausted && !f.recent:
		return refuseFailures
	case f.ofSource >= f.perSource && !f.own:
		return refuseSource
	case f.ofSource >= f.perSource:
		return replaceOwn
	case !full && !drop:
		return admit
	case f.overdue:
		return replace
	case undrawn:
		return refuseDraws
	case drop:
		return refuse
	}
	return wait
}
