package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/printable"
)

// workers is how many claims are written at a time.
const workers = 32

// settleTime bounds the question to another station: its probe of the device, and the
// way there.
const settleTime = 15 * time.Second

// retryTime is how long a station waits before it tries again to claim a device. Until
// then the device is served all the same.
const retryTime = 2 * time.Second

// task is where a device stands in the queue.
type task int

const (
	queued  task = iota + 1
	running      // a worker has it
	again        // a worker has it, and must look once more
)

// touch has a worker look at a device. The caller holds mu.
func (c *Cluster) touch(id string) {
	switch c.tasks[id] {
	case 0:
		c.tasks[id] = queued
		c.queue = append(c.queue, id)
		c.wakeWorker()
	case running:
		c.tasks[id] = again
	}
}

func (c *Cluster) wakeWorker() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

func (c *Cluster) later(id string) {
	time.AfterFunc(retryTime+rand.N(retryTime), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.touch(id)
	})
}

// settleQueued is a worker.
func (c *Cluster) settleQueued(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.work:
		}
		for ctx.Err() == nil {
			c.mu.Lock()
			if len(c.queue) == 0 {
				c.mu.Unlock()
				break
			}
			id := c.queue[0]
			c.queue = c.queue[1:]
			c.tasks[id] = running
			if len(c.queue) > 0 {
				c.wakeWorker()
			}
			c.mu.Unlock()
			if err := c.settle(ctx, id); err != nil && ctx.Err() == nil {
				c.warn.Warn("a device's claim is not written; temporary, retry", "device", id, "error", err)
				c.later(id)
			}
			c.mu.Lock()
			once := c.tasks[id] == again
			delete(c.tasks, id)
			if once {
				c.touch(id)
			}
			c.mu.Unlock()
		}
	}
}

// look returns what the station should do about a device, and what it knows of it.
func (c *Cluster) look(id string) (action claims.Action, info nmsproto.Device, claim claims.Claim, leased bool) {
	info, known := c.holder.Device(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	claim = c.claimed[id]
	if info.State != nmsproto.Connected || info.Since == nil {
		delete(c.held, id)
	} else if h := c.held[id]; h == nil || !h.Since.Equal(*info.Since) {
		c.held[id] = &claims.Held{Since: *info.Since, Before: claim.Revision}
	}
	action = claims.Decide(c.self(), c.held[id], claim, c.peers.Alive)
	if !known && c.held[id] == nil && claim.Revision != 0 && (action == claims.Release || claim.Device.State != nmsproto.Connected || !c.peers.Alive(claim.Incarnation)) {
		action = forget
	}
	return action, info, claim, c.lease.Valid(c.now())
}

// forget is the action for a claim of a device that is not in the registry any more.
const forget claims.Action = -1

// Removed must be called with the devices that were removed from the registry.
func (c *Cluster) Removed(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.touch(id)
	}
}

// settle makes claim and connection of a device agree. An error is temporary.
func (c *Cluster) settle(ctx context.Context, id string) error {
	for ctx.Err() == nil {
		action, info, claim, leased := c.look(id)
		switch action {
		case claims.Nothing:
			return nil
		case claims.End:
			c.holder.End(id, *info.Since, fmt.Sprintf("the device is connected to station %s by now", claim.Station))
			continue
		case claims.Ask:
			if !leased {
				return nil // keepLease touches it
			}
			kept, err := c.ask(ctx, id, claim)
			if err != nil {
				return err
			}
			if kept {
				c.holder.End(id, *info.Since, fmt.Sprintf("%s is connected already, to station %s", id, claim.Station))
				continue
			}
		case forget:
			if !leased {
				return nil
			}
			return c.drop(ctx, id, claim.Revision)
		default:
			if !leased {
				return nil
			}
		}
		if err := c.write(ctx, id, info, claim.Revision); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// line is the way to another station. When that has lost its power, no question gets an
// answer for seconds: a fleet of its devices that calls here must not wait for each.
type line struct {
	asking chan struct{} // has a value for each question under way
	down   time.Time     // until then no question is asked
	why    error
}

const (
	maxAsking = 64              // questions under way to one station
	askTurn   = time.Second     // a further one waits so long for its turn
	downTime  = 3 * time.Second // how long a station counts as out of reach
)

// lineTo returns the way to a station, or why it is out of reach now.
func (c *Cluster) lineTo(address string) (*line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines[address]
	if l == nil {
		l = &line{asking: make(chan struct{}, maxAsking)}
		c.lines[address] = l
	}
	if time.Now().Before(l.down) {
		return nil, l.why
	}
	return l, nil
}

// ask asks the station of a claim whether its connection of the device is alive.
func (c *Cluster) ask(ctx context.Context, id string, claim claims.Claim) (kept bool, err error) {
	l, err := c.lineTo(claim.Address)
	if err != nil {
		return false, err
	}
	select {
	case l.asking <- struct{}{}:
	case <-time.After(askTurn):
		return false, fmt.Errorf("station %s has not answered %d questions yet", claim.Station, maxAsking)
	}
	defer func() { <-l.asking }()
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	kept, cause, err := c.config.Peers.Settle(ctx, peering.Peer{Station: claim.Station, Address: claim.Address}, id)
	if err != nil {
		c.mu.Lock()
		l.down, l.why = time.Now().Add(downTime), err
		c.mu.Unlock()
		return false, err
	}
	c.config.Log.Info("the device called here while another station had it", "device", id, "station", claim.Station, "kept", kept, "cause", printable.Line(cause))
	return kept, nil
}

// write writes the device's state as this station's claim. A claim that another station
// has written meanwhile is read, and is no error.
func (c *Cluster) write(ctx context.Context, id string, info nmsproto.Device, expected uint64) error {
	c.mu.Lock()
	self := c.self()
	c.mu.Unlock()
	info.ID, info.Labels, info.Sessions, info.Station = id, nil, 0, self.Station
	if info.State != nmsproto.Connected {
		info.State = nmsproto.Lost
	}
	claim := claims.Claim{Station: self.Station, Incarnation: self.Incarnation, Address: self.Address, Device: info}
	revision, err := c.claims.Put(ctx, buckets.KeyOf(id), mustJSON(claim), expected)
	switch {
	case err == nil:
		claim.Revision = revision
	case errors.Is(err, buckets.ErrConflict):
		v, err := c.claims.Get(ctx, buckets.KeyOf(id))
		if err != nil {
			return err
		}
		claim = parseClaim(v)
	default:
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if claim.Revision == 0 || claim.Revision > c.claimed[id].Revision {
		c.note(id, claim)
	}
	return nil
}

// drop deletes a claim. Of one that was written meanwhile the watch knows.
func (c *Cluster) drop(ctx context.Context, id string, expected uint64) error {
	if err := c.claims.Delete(ctx, buckets.KeyOf(id), expected); err != nil && !errors.Is(err, buckets.ErrConflict) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claimed[id].Revision == expected {
		delete(c.claimed, id)
	}
	return nil
}

// maxTexts bounds them.
const maxTexts = 4096

// followHolder follows the changes of the devices of this station.
func (c *Cluster) followHolder(ctx context.Context) {
	for ctx.Err() == nil {
		changes, cancel := c.holder.Changes()
		stop := context.AfterFunc(ctx, cancel)
		n := 0
		for _, d := range c.holder.Devices() {
			if d.State == nmsproto.Connected {
				c.touched(d.ID)
			}
		}
		c.mu.Lock()
		for id := range c.held { // one that is lost by now
			c.touch(id)
		}
		c.mu.Unlock()
		for id := range changes {
			n++
			c.touched(id)
		}
		stop()
		if n == 0 {
			return // the station has stopped
		}
	}
}

// touched is called with a device of this station whose state has changed.
func (c *Cluster) touched(id string) {
	c.changed.Publish(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch(id)
}

// Believes reports whether this station may believe that it holds a device, and no other
// station may.
func (c *Cluster) Believes(id string) bool {
	info, _ := c.holder.Device(id)
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[id]
	return h != nil && info.State == nmsproto.Connected && info.Since != nil && h.Since.Equal(*info.Since) && c.self().Believes(h, c.claimed[id], c.lease.Valid(now))
}

// Elsewhere implements station.Cluster.
func (c *Cluster) Elsewhere(id string) (holder string) {
	c.mu.Lock()
	claim := c.claimed[id]
	theirs := claims.Decide(c.self(), &claims.Held{Before: claim.Revision}, claim, c.peers.Alive) == claims.Ask
	c.mu.Unlock()
	if !theirs {
		return ""
	}
	kept, err := c.ask(context.Background(), id, claim)
	if err != nil {
		c.warn.Warn("a station cannot be asked about a device that called here; the device is taken", "device", id, "station", claim.Station, "error", err)
	}
	if !kept {
		return ""
	}
	return claim.Station
}
