package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"
)

// heartbeat is what a station writes to show that it is alive, by its name.
type heartbeat struct {
	nmsproto.Station
	// Incarnation begins with the station's name and a slash: NATS lets a station write
	// its own heartbeat alone, so none can end the incarnation of another.
	Incarnation string `json:"incarnation"`
	Beat        uint64 `json:"beat"` // its number
	Over        bool   `json:"over,omitempty"`
}

// process returns the process of an incarnation.
func process(incarnation string) string {
	p, _, _ := strings.Cut(incarnation, ".")
	return p
}

// beatsPerLease is how many heartbeats a lease allows to be lost, and one more.
const beatsPerLease = 4

// keepLease writes heartbeats until ctx ends. Then it gives up the lease, so that the
// claims fall at once.
func (c *Cluster) keepLease(ctx context.Context) {
	var revision uint64
	every := c.lease.Length / beatsPerLease
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.lease.Fence()
			c.mu.Unlock()
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if _, err := c.beat(final, revision, true); err != nil {
				c.config.Log.Warn("the station's lease was not given up, it expires", "error", err)
			}
			return
		case <-timer.C:
		}
		next, err := c.beat(ctx, revision, false)
		switch {
		case err == nil:
			revision = next
			c.setProblem(nil)
			timer.Reset(every)
		case errors.Is(err, buckets.ErrConflict):
			if revision, err = c.conflict(ctx, revision); err == nil {
				timer.Reset(0)
				continue
			}
			fallthrough
		default:
			if ctx.Err() == nil {
				c.setProblem(err)
				c.warn.Warn("cannot renew the station's lease; temporary, retry", "error", err)
			}
			timer.Reset(every / beatsPerLease)
		}
		c.mu.Lock()
		if c.lease.Lapse(c.now()) {
			c.config.Log.Warn("the station's lease has lapsed: its claims are written anew")
		}
		c.mu.Unlock()
	}
}

// errNameTaken is the error of a station whose name another process has.
var errNameTaken = errors.New("another process has this station's name in the cluster: give one of them another name with --station")

// conflict returns the revision that the next heartbeat must expect.
func (c *Cluster) conflict(ctx context.Context, expected uint64) (uint64, error) {
	v, err := c.stations.Get(ctx, c.name())
	if err != nil {
		return expected, err
	}
	var b heartbeat
	if v.Revision == 0 || json.Unmarshal(v.Data, &b) != nil || process(b.Incarnation) == c.lease.Process {
		return v.Revision, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lease.Begun() {
		// It has taken the name after this process had it. Only when it is gone, this
		// one takes the name again.
		c.lease.Fence()
		return 0, errNameTaken
	}
	return v.Revision, nil // a former process
}

// beat writes a heartbeat.
func (c *Cluster) beat(ctx context.Context, expected uint64, over bool) (revision uint64, err error) {
	sessions, unauthenticated := c.holder.Load()
	now := c.now()
	c.mu.Lock()
	c.lease.Lapse(now)
	c.beats++
	c.sent[c.beats] = now
	delete(c.sent, c.beats-64)
	b := heartbeat{
		Station: nmsproto.Station{
			Name: c.name(), Address: c.config.Address, Version: c.config.Version, Since: c.begun, Seen: time.Now().UTC(), Alive: true,
			Connected: len(c.held), Sessions: sessions, Unauthenticated: unauthenticated,
		},
		Incarnation: c.lease.Incarnation(), Beat: c.beats, Over: over,
	}
	c.mu.Unlock()
	// While the servers elect a leader a request has no answer, so the next one is soon.
	limited, cancel := context.WithTimeout(ctx, c.lease.Length/(2*beatsPerLease))
	defer cancel()
	revision, err = c.stations.Put(limited, c.name(), mustJSON(b), expected)
	if err != nil || over {
		return expected, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[c.name()] = b
	was := c.lease.Valid(c.now())
	c.lease.Acknowledged(b.Incarnation, now, c.now())
	if !was && c.lease.Valid(c.now()) {
		c.config.Log.Info("the station has its lease", "incarnation", b.Incarnation, "devices", len(c.held))
		for id := range c.held {
			c.touch(id)
		}
	}
	return revision, nil
}

// stationsWatch is the cluster as a buckets.Watcher of heartbeats.
type stationsWatch struct{ *Cluster }

// Begin implements buckets.Watcher.
func (w *stationsWatch) Begin(time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers.Restart()
	w.echo = 0
}

// Complete implements buckets.Watcher.
func (w *stationsWatch) Complete() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allKnown = true
}

// Value implements buckets.Watcher.
func (w *stationsWatch) Value(key string, v buckets.Value) {
	var b heartbeat
	if v.Deleted {
		return
	}
	err := json.Unmarshal(v.Data, &b)
	if err == nil && (b.Name != key || !strings.HasPrefix(b.Incarnation, key+"/")) {
		err = errors.New("its name or incarnation is another station's")
	}
	if err != nil {
		w.warn.Warn("a heartbeat cannot be understood", "station", printable.Line(key), "error", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A watch that has fallen behind shows the last heartbeat of each station, in their
	// order, and not those before: only with the last one all stations have been heard.
	defer func() {
		if w.echo != 0 && v.Pending == 0 {
			w.peers.Echo(w.echo)
			w.echo = 0
			w.bury()
		}
	}()
	former := w.known[key]
	if claims.Later(former.Incarnation, b.Incarnation) {
		return // a watch that begins anew may be that of a server that is behind
	}
	w.known[key], w.heard[key] = b, w.now()
	switch own := key == w.name() && process(b.Incarnation) == w.lease.Process; {
	case own:
		w.echo = max(w.echo, w.sent[b.Beat])
		return
	case b.Over:
		w.peers.Over(b.Incarnation)
		w.config.Log.Info("a station has left the cluster", "station", key)
	default:
		w.peers.Heard(b.Incarnation, w.now())
	}
	if claims.Later(b.Incarnation, former.Incarnation) {
		w.peers.Over(former.Incarnation)
	}
	for incarnation := range w.living { // known by claims: the watch shows the last heartbeat, not each
		if claims.Later(b.Incarnation, incarnation) {
			w.peers.Over(incarnation)
		}
	}
	if former.Incarnation != b.Incarnation || b.Over {
		w.config.Log.Info("a station of the cluster", "station", key, "address", printable.Line(b.Address), "incarnation", printable.Line(b.Incarnation), "devices", b.Connected)
		w.bury()
	}
}

// bury finds the stations that have died since the last call, whose claims fall. The
// caller holds mu.
func (c *Cluster) bury() {
	var dead []string
	for incarnation, was := range c.living {
		if is := c.peers.Alive(incarnation) || process(incarnation) == c.lease.Process; was != is {
			c.living[incarnation] = is
			if !is {
				c.peers.Over(incarnation)
				dead = append(dead, incarnation)
			}
		}
	}
	if len(dead) == 0 {
		return
	}
	fallen := make(map[string]bool)
	for _, incarnation := range dead {
		fallen[incarnation] = true
	}
	n := 0
	for id, claim := range c.claimed {
		if !fallen[claim.Incarnation] || claim.Device.State != nmsproto.Connected {
			continue
		}
		n++
		c.changed.Publish(id)
		if c.held[id] != nil {
			c.touch(id)
		}
	}
	c.config.Log.Warn("claims of a station have fallen", "incarnations", dead, "devices", n)
}

// note records a claim as it is known now. The caller holds mu.
func (c *Cluster) note(id string, claim claims.Claim) {
	c.claimed[id] = claim
	switch {
	case claims.Later(c.known[claim.Station].Incarnation, claim.Incarnation):
		c.peers.Over(claim.Incarnation) // the watch of claims is behind that of heartbeats
	case claim.Incarnation != "":
		c.peers.Noticed(claim.Incarnation, c.now())
	}
	if _, ok := c.living[claim.Incarnation]; !ok {
		c.living[claim.Incarnation] = c.peers.Alive(claim.Incarnation) || process(claim.Incarnation) == c.lease.Process
	}
}
