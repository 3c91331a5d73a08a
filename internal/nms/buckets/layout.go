package buckets

import (
	"cmp"
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
	Devices  int           // for which there is space; 0 for DefaultDevices
}

// DefaultDevices is how many devices the buckets hold where the operator says nothing.
const DefaultDevices = 100_000

// EventSubject is followed by a dot and the station's name.
const EventSubject = "callhome.events"

// Bounds of what stations write: a station's account must not fill the servers' disks.
// The first are bytes for each device, with those that NATS adds to a value.
const (
	entrySpace = 4 << 10 // its entry in the registry
	keysSpace  = 1 << 10 // its host keys
	claimSpace = 2 << 10 // its claim

	maxEntry     = 640 << 10 // the list of revoked keys, up to 512 KiB, and its key
	maxKey       = 1 << 10
	maxClaim     = 16 << 10
	maxHeartbeat = 4 << 10
	maxCallers   = 192 << 10 // a station's list of unknown devices, up to 128 KiB

	// NATS counts what is being written, too: a station that writes its own key as fast
	// as it can must not keep others from writing theirs.
	heartbeatsSpace = 16 << 20
	callersSpace    = 64 << 20

	callersTime = time.Hour          // for which an unknown device is remembered
	eventsTime  = 7 * 24 * time.Hour // for which events are kept
	maxEvents   = 1 << 18
	maxEventLog = 256 << 20 // bytes
)

// streams are the configurations of all buckets and of the stream of events. Buckets have
// the form that nats.go gives them, less direct reads, and less rollups: with one a
// station could remove all messages. A full bucket refuses writes.
func (l Layout) streams() []jetstream.StreamConfig {
	bucket := func(name, text string, ttl time.Duration, space, maxValue int64) jetstream.StreamConfig {
		duplicates := 2 * time.Minute
		if ttl > 0 {
			duplicates = min(duplicates, ttl)
		}
		return jetstream.StreamConfig{
			Name: "KV_" + name, Description: text, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, MaxAge: ttl, Duplicates: duplicates,
			MaxMsgs: -1, MaxBytes: space, MaxConsumers: -1, MaxMsgSize: int32(maxValue), DenyDelete: true, Discard: jetstream.DiscardNew,
			Storage: jetstream.FileStorage, Replicas: l.Replicas,
		}
	}
	devices := int64(cmp.Or(l.Devices, DefaultDevices))
	return []jetstream.StreamConfig{
		bucket(Registry, "callhome-nms: the entries of devices, and the list of revoked keys", 0, devices*entrySpace+2*maxEntry, maxEntry),
		bucket(Keys, "callhome-nms: which device has a host key, or a principal of a CA", 0, devices*keysSpace, maxKey),
		bucket(Claims, "callhome-nms: which station holds which device", 0, devices*claimSpace, maxClaim),
		bucket(Stations, "callhome-nms: heartbeats of the stations", l.Lease, heartbeatsSpace, maxHeartbeat),
		bucket(Callers, "callhome-nms: unknown devices that called", callersTime, callersSpace, maxCallers),
		{
			Name: Events, Description: "callhome-nms: events of all stations", Subjects: []string{EventSubject + ".>"}, MaxAge: eventsTime, MaxMsgs: maxEvents,
			MaxBytes: maxEventLog, MaxMsgsPerSubject: -1, MaxConsumers: -1, MaxMsgSize: -1, Discard: jetstream.DiscardOld, Duplicates: 2 * time.Minute,
			DenyDelete: true, Storage: jetstream.FileStorage, Replicas: l.Replicas,
		},
	}
}

// errStorage is the code of NATS where a stream needs more space than its servers have.
const errStorage = 10047

// Create creates what is missing of the buckets and the stream of events, and gives
// those that exist this layout. It returns their names. The lease is not changed while
// stations run: each reads it once, and one with a shorter lease would count a living
// station with a longer one as dead.
func (c *Conn) Create(ctx context.Context, l Layout) (names []string, err error) {
	all := l.streams()
	for _, s := range all { // before any is changed
		is, err := c.js.Stream(ctx, s.Name)
		if err != nil {
			continue
		}
		switch info := is.CachedInfo(); {
		case s.Name == "KV_"+Stations && info.Config.MaxAge != l.Lease && info.State.Msgs > 0:
			return nil, fmt.Errorf("the lease is %v, and stations run with it: stop them and wait that long to change it", info.Config.MaxAge)
		case s.Discard == jetstream.DiscardNew && info.State.Bytes > uint64(s.MaxBytes):
			return nil, fmt.Errorf("the stream %s has %d bytes by now, and would get space for %d: name more --devices", s.Name, info.State.Bytes, s.MaxBytes)
		}
	}
	for _, s := range all {
		if _, err := c.js.CreateOrUpdateStream(ctx, s); err != nil {
			var api *jetstream.APIError
			switch {
			case errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
				err = fmt.Errorf("%w: the servers need `jetstream {}`", err)
			case errors.As(err, &api) && api.ErrorCode == errStorage:
				err = fmt.Errorf("%w for its %d bytes: name fewer --devices, or give the servers a larger max_file_store", err, s.MaxBytes)
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
