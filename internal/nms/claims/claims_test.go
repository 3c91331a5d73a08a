package claims

import (
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
)

var (
	self = Self{Station: "a", Incarnation: "a1.0", Address: "a:1"}
	t0   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func claim(station, incarnation string, state nmsproto.State, since time.Time, revision uint64) Claim {
	return Claim{Station: station, Incarnation: incarnation, Address: station + ":1", Revision: revision, Device: nmsproto.Device{State: state, Since: &since}}
}

// TestDecisions is the table of what a station does when claim and connection disagree.
func TestDecisions(t *testing.T) {
	held := &Held{Since: t0, Before: 5}
	alive := func(incarnation string) bool { return incarnation != "dead.0" }
	elsewhere := claim("a", "a0.0", nmsproto.Connected, t0, 5)
	elsewhere.Address = "other:1"
	for _, c := range []struct {
		name      string
		claim     Claim
		connected Action
		not       Action
	}{
		{"no claim", Claim{}, Write, Nothing},
		{"released", claim("b", "b1.0", nmsproto.Lost, t0, 5), Write, Nothing},
		{"released by this station", claim("a", "a1.0", nmsproto.Lost, t0, 5), Write, Nothing},
		{"of this incarnation", claim("a", "a1.0", nmsproto.Connected, t0, 5), Nothing, Release},
		{"of this incarnation, for a former connection", claim("a", "a1.0", nmsproto.Connected, t0.Add(-time.Hour), 5), Write, Release},
		{"of a former incarnation", claim("a", "a0.7", nmsproto.Connected, t0, 5), Write, Release},
		{"of another process with this name", elsewhere, Ask, Nothing},
		{"of a dead station", claim("b", "dead.0", nmsproto.Connected, t0, 5), Write, Nothing},
		{"of another station, older", claim("b", "b1.0", nmsproto.Connected, t0.Add(-time.Hour), 5), Ask, Nothing},
		{"of another station, newer", claim("b", "b1.0", nmsproto.Connected, t0.Add(time.Hour), 6), End, Nothing},
		{"of another station, older by the claims, newer by the clock", claim("b", "b1.0", nmsproto.Connected, t0.Add(time.Hour), 5), Ask, Nothing},
		{"of another station, newer by the claims, older by the clock", claim("b", "b1.0", nmsproto.Connected, t0.Add(-time.Hour), 6), Ask, Nothing},
	} {
		if got := Decide(self, held, c.claim, alive); got != c.connected {
			t.Errorf("connected, claim %s: %v, want %v", c.name, got, c.connected)
		}
		if got := Decide(self, nil, c.claim, alive); got != c.not {
			t.Errorf("not connected, claim %s: %v, want %v", c.name, got, c.not)
		}
	}
}

func TestLapsedLeaseIsNeverValidAgain(t *testing.T) {
	l := Lease{Length: 10 * time.Second, Process: "p"}
	first := l.Incarnation()
	if l.Valid(0) || l.Lapse(0) {
		t.Fatal("a lease is valid, or lapses, before its first heartbeat")
	}
	l.Acknowledged(first, 1*time.Second, 2*time.Second)
	if !l.Valid(9*time.Second) || l.Valid(10*time.Second) {
		t.Fatal("a heartbeat sent at 1 s: expected belief until 10 s")
	}
	// Its next heartbeat is acknowledged when the lease has lapsed.
	l.Acknowledged(first, 8*time.Second, 11*time.Second)
	if l.Valid(11*time.Second) || l.Incarnation() == first {
		t.Fatal("a late acknowledgement has made a lapsed lease valid")
	}
	l.Acknowledged(first, 11*time.Second, 12*time.Second)
	if l.Valid(12 * time.Second) {
		t.Fatal("an acknowledgement of the former incarnation counts")
	}
	l.Acknowledged(l.Incarnation(), 11*time.Second, 12*time.Second)
	if !l.Valid(12 * time.Second) {
		t.Fatal("the new incarnation's heartbeat does not count")
	}
}

// TestSilenceNeedsAnEcho: a station is dead when this one's own heartbeat, a lease's time
// later, came back without one of it; a watch that shows nothing proves nothing.
func TestSilenceNeedsAnEcho(t *testing.T) {
	p := NewPeers(10 * time.Second)
	p.Heard("b.0", 1*time.Second)
	if !p.Alive("b.0") || !p.Alive("never") {
		t.Fatal("dead without any echo")
	}
	p.Echo(2 * time.Second)
	p.Echo(11 * time.Second)
	if !p.Alive("b.0") || !p.Alive("never") {
		t.Fatal("dead 9 s after the first echo")
	}
	p.Heard("c.0", 11*time.Second)
	p.Echo(12 * time.Second)
	if p.Alive("b.0") || p.Alive("never") || !p.Alive("c.0") {
		t.Fatal("10 s after the first echo: expected b and never dead, c alive")
	}
	p.Restart()
	if p.Alive("b.0") {
		t.Fatal("a dead incarnation lives again")
	}
	if !p.Alive("another") {
		t.Fatal("dead after the watch began anew, without an echo")
	}
	p.Echo(15 * time.Second)
	p.Echo(40 * time.Second)
	p.Noticed("d.1", 39*time.Second) // its claim came before its first heartbeat
	if !p.Alive("d.1") {
		t.Fatal("an incarnation is dead that was noticed just now")
	}
	p.Echo(49 * time.Second)
	if p.Alive("d.1") {
		t.Fatal("alive though it was never heard for 10 s")
	}
	p.Over("c.0")
	if p.Alive("c.0") {
		t.Fatal("alive after it said that it ends")
	}
}
