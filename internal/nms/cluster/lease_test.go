package cluster

import (
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"

	"github.com/hashicorp/go-hclog"
)

// withoutNATS returns the view of a station a that reaches no NATS.
func withoutNATS(t *testing.T) *Cluster {
	t.Helper()
	dir := t.TempDir()
	r, _, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{NATS: buckets.Options{URLs: []string{"nats://127.0.0.1:1"}, Name: "a"}, Registry: r, Dir: dir, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.conn.Close)
	return c
}

// TestAWatchThatCatchesUpBuriesNoLivingStation: after a stall it shows the last heartbeat
// of each station in their order, and those before are gone. This station's own may be
// older than another's, and is then no proof that the other was silent.
func TestAWatchThatCatchesUpBuriesNoLivingStation(t *testing.T) {
	c := withoutNATS(t)
	var now claims.Instant
	c.now = func() claims.Instant { return now }
	c.lease.Length, c.peers = 10*time.Second, claims.NewPeers(10*time.Second)
	c.note("device", claims.Claim{Station: "b", Incarnation: "b/1.0", Revision: 1, Device: nmsproto.Device{State: nmsproto.Connected}})
	w := &stationsWatch{c}
	shown := func(station, incarnation string, beat, pending uint64) {
		w.Value(station, buckets.Value{Data: mustJSON(heartbeat{Station: nmsproto.Station{Name: station}, Incarnation: incarnation, Beat: beat}), Pending: pending})
	}
	own := func(beat uint64, sent claims.Instant, pending uint64) {
		c.sent[beat] = sent
		shown("a", c.lease.Incarnation(), beat, pending)
	}
	if !c.Knows("b") {
		t.Fatal("a station that has not reached NATS refuses the others")
	}
	w.Begin(time.Time{})
	own(1, 0, 0)
	shown("b", "b/1.0", 1, 0)
	w.Complete()
	if !c.Knows("b") || c.Knows("operator") {
		t.Fatal("b is a station, and operator is none")
	}
	now = 15 * time.Second // the watch has stalled
	own(5, 12*time.Second, 1)
	if !c.peers.Alive("b/1.0") {
		t.Fatal("b is dead before its heartbeat was shown")
	}
	shown("b", "b/1.0", 6, 0)
	if !c.peers.Alive("b/1.0") || !c.living["b/1.0"] {
		t.Fatal("b is dead, and its heartbeat was shown")
	}
	w.Value("evil", buckets.Value{Data: mustJSON(heartbeat{Station: nmsproto.Station{Name: "evil"}, Incarnation: "b/1.0", Beat: 1, Over: true})})
	if !c.peers.Alive("b/1.0") {
		t.Fatal("another station's heartbeat has ended the incarnation of b")
	}
	shown("b", "b/1.1", 7, 0)
	shown("b", "b/1.0", 6, 0)
	if !c.peers.Alive("b/1.1") || c.peers.Alive("b/1.0") {
		t.Fatal("an older heartbeat, of a server that is behind, has ended the present incarnation")
	}
	c.note("device", claims.Claim{Station: "b", Incarnation: "b/1.1", Revision: 2, Device: nmsproto.Device{State: nmsproto.Connected}})
	now = 30 * time.Second
	own(9, 28*time.Second, 0)
	if c.peers.Alive("b/1.1") || c.living["b/1.1"] {
		t.Fatal("b lives after 13 s of silence")
	}
}

// TestALastHeartbeatEndsWhatTheClaimsNamed: a station that ends has a new incarnation in its
// last heartbeat, and the watch may show that one alone. The former one is known by claims.
func TestALastHeartbeatEndsWhatTheClaimsNamed(t *testing.T) {
	c := withoutNATS(t)
	claim := func(id, incarnation string) {
		c.note(id, claims.Claim{Station: "b", Incarnation: incarnation, Revision: 1, Device: nmsproto.Device{State: nmsproto.Connected}})
	}
	w := &stationsWatch{c}
	w.Begin(time.Time{})
	claim("before", "b/1.0")
	w.Value("b", buckets.Value{Data: mustJSON(heartbeat{Station: nmsproto.Station{Name: "b"}, Incarnation: "b/1.2", Beat: 2, Over: true})})
	claim("after", "b/1.1") // the watch of claims is behind
	claim("another process", "b/2.0")
	for incarnation, want := range map[string]bool{"b/1.0": false, "b/1.1": false, "b/1.2": false, "b/2.0": true} {
		if c.peers.Alive(incarnation) != want {
			t.Errorf("%s is alive: %v", incarnation, !want)
		}
	}
	if c.living["b/1.0"] || c.living["b/1.1"] {
		t.Errorf("the claims have not fallen: %v", c.living)
	}
}
