package buckets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Layout is how the buckets of a cluster are created.
type Layout struct {
	Replicas int           // on how many servers each is
	Lease    time.Duration // how long a station counts as alive without a heartbeat
}

// EventSubject is followed by a dot and the station's name.
const EventSubject = "callhome.events"

// Bounds of what stations write.
const (
	callersTime = time.Hour          // for which an unknown device is remembered
	eventsTime  = 7 * 24 * time.Hour // for which events are kept
	maxEvents   = 1 << 18
	maxEventLog = 256 << 20 // bytes
)

// streams are the configurations of all buckets and of the stream of events. Buckets have
// the form that nats.go gives them, less direct reads, and less rollups: with one a
// station could remove all messages.
func (l Layout) streams() []jetstream.StreamConfig {
	bucket := func(name, text string, ttl time.Duration) jetstream.StreamConfig {
		duplicates := 2 * time.Minute
		if ttl > 0 {
			duplicates = min(duplicates, ttl)
		}
		return jetstream.StreamConfig{
			Name: "KV_" + name, Description: text, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, MaxAge: ttl, Duplicates: duplicates,
			MaxMsgs: -1, MaxBytes: -1, MaxConsumers: -1, MaxMsgSize: -1, DenyDelete: true, Discard: jetstream.DiscardNew,
			Storage: jetstream.FileStorage, Replicas: l.Replicas,
		}
	}
	return []jetstream.StreamConfig{
		bucket(Registry, "callhome-nms: the entries of devices, and the list of revoked keys", 0),
		bucket(Keys, "callhome-nms: which device has a host key, or a principal of a CA", 0),
		bucket(Claims, "callhome-nms: which station holds which device", 0),
		bucket(Stations, "callhome-nms: heartbeats of the stations", l.Lease),
		bucket(Callers, "callhome-nms: unknown devices that called", callersTime),
		{
			Name: Events, Description: "callhome-nms: events of all stations", Subjects: []string{EventSubject + ".>"}, MaxAge: eventsTime, MaxMsgs: maxEvents,
			MaxBytes: maxEventLog, MaxMsgsPerSubject: -1, MaxConsumers: -1, MaxMsgSize: -1, Discard: jetstream.DiscardOld, Duplicates: 2 * time.Minute,
			DenyDelete: true, Storage: jetstream.FileStorage, Replicas: l.Replicas,
		},
	}
}

// Create creates what is missing of the buckets and the stream of events, and gives
// those that exist this layout. It returns their names. The lease is not changed while
// stations run: each reads it once, and one with a shorter lease would count a living
// station with a longer one as dead.
func (c *Conn) Create(ctx context.Context, l Layout) (names []string, err error) {
	if s, err := c.js.Stream(ctx, "KV_"+Stations); err == nil {
		if info := s.CachedInfo(); info.Config.MaxAge != l.Lease && info.State.Msgs > 0 {
			return nil, fmt.Errorf("the lease is %v, and stations run with it: stop them and wait that long to change it", info.Config.MaxAge)
		}
	}
	for _, s := range l.streams() {
		if _, err := c.js.CreateOrUpdateStream(ctx, s); err != nil {
			if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
				err = fmt.Errorf("%w: the servers need `jetstream {}`", err)
			}
			return names, fmt.Errorf("creating the stream %s: %w", s.Name, err)
		}
		names = append(names, s.Name)
	}
	return names, nil
}

// AwaitUp waits until NATS can be used.
func (c *Conn) AwaitUp(ctx context.Context) error {
	for {
		renewed := c.renewal()
		if c.Up() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return c.Up() // with the cause of the last attempt
		case <-renewed:
		}
	}
}
