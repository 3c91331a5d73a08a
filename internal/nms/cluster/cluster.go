// Package cluster joins a station to the other stations of its cluster: it keeps the
// station's lease, writes and reads the claims, asks and answers other stations, shows
// every device of the cluster, and publishes events for other systems. The command serve
// runs it. What to do is decided by package claims; the registry is copied by package
// mirror; NATS is package buckets'. It never holds the connection of a device, and a
// station without it works as ever.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/mirror"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/station"
	"callhome/internal/pubsub"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Config is a station's place in its cluster.
type Config struct {
	NATS     buckets.Options // with the station's name
	Address  string          // where other stations reach it
	Version  string
	Registry *registry.Registry
	Dir      string // of the registry
	Peers    Peers
	Log      hclog.Logger
}

// Peers are the other stations.
type Peers interface {
	// Open opens a session with a device at the station that holds it.
	Open(ctx context.Context, p peering.Peer, device string, who peering.Caller) (*peering.Session, error)
	// Detail returns a device with its history at another station.
	Detail(ctx context.Context, p peering.Peer, device string) (nmsproto.DeviceDetail, error)
	// Settle has the holder decide about the connection of a device that called here.
	Settle(ctx context.Context, p peering.Peer, device string) (kept bool, cause string, err error)
}

// Holder is the station itself.
type Holder interface {
	Changes() (ids <-chan string, cancel func())
	Devices() []nmsproto.Device
	Device(id string) (nmsproto.Device, bool)
	Unknown() []nmsproto.Unknown
	Load() (sessions, unauthenticated int)
	Connect(ctx context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error)
	End(id string, since time.Time, cause string)
	RegistryRead(registry.Change, error)
}

// Cluster is a station's view of its cluster. Its methods may be called by several
// goroutines.
type Cluster struct {
	config Config
	holder Holder // set by Attach, as is follow
	follow func() pubsub.Source[nmsproto.Event]
	conn   *buckets.Conn
	mirror *mirror.Mirror
	now    func() claims.Instant
	begun  time.Time
	warn   *ratelimit.Warnings
	// changed passes the ids of devices whose state in the cluster has changed.
	changed pubsub.Hub[string]
	work    chan struct{} // has a value when the queue has a device

	stations, claims, callers *buckets.Bucket // set by join

	mu       sync.Mutex // guards the fields that follow; no request to NATS is made with it
	problem  error      // why the station is not part of the cluster now
	lease    claims.Lease
	peers    *claims.Peers
	sent     map[uint64]claims.Instant // the last own heartbeats, by number
	beats    uint64
	echo     claims.Instant            // of the last own heartbeat that came back; 0 once all is known up to it
	known    map[string]heartbeat      // stations
	allKnown bool                      // once the heartbeats were read from NATS
	heard    map[string]claims.Instant // when the last heartbeat of a station was received
	claimed  map[string]claims.Claim
	snapshot map[string]bool // ids since the claims' watch began anew; nil once it is complete
	living   map[string]bool // incarnations that have claims, and whether they are alive
	held     map[string]*claims.Held
	queue    []string
	tasks    map[string]task
	unknown  map[string][]nmsproto.Unknown // by station
	relayed  uint64                        // sessions with devices of other stations
	lines    map[string]*line              // to other stations, by address
	texts    map[string]string             // of claims, each once
}

// New returns a station's view of its cluster, of which nothing is known yet. An error is
// one of the configuration: NATS may be away.
func New(c Config) (*Cluster, error) {
	conn, err := buckets.Connect(c.NATS, c.Log)
	if err != nil {
		return nil, err
	}
	out := &Cluster{
		config: c, conn: conn, now: sinceBoot, begun: time.Now().UTC(), warn: ratelimit.NewWarnings(c.Log), work: make(chan struct{}, 1),
		problem: errors.New("the station has not reached NATS since its start"),
		lease:   claims.Lease{Process: fmt.Sprintf("%s/%016x", c.NATS.Name, rand.Uint64())}, peers: claims.NewPeers(time.Hour),
		sent: make(map[uint64]claims.Instant), known: make(map[string]heartbeat), heard: make(map[string]claims.Instant), claimed: make(map[string]claims.Claim), living: make(map[string]bool),
		held: make(map[string]*claims.Held), tasks: make(map[string]task), unknown: make(map[string][]nmsproto.Unknown),
		lines: make(map[string]*line), texts: make(map[string]string),
	}
	// A station that is lost changes each of its devices.
	out.changed.Backlog = func() int { return pubsub.Backlog + 2*c.Registry.Len() }
	out.mirror, err = mirror.New(c.Dir, c.Registry, func(change registry.Change, err error) { out.holder.RegistryRead(change, err) }, c.Log)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return out, nil
}

// sinceBoot is a clock that no program can set, and that goes on while the machine is suspended.
func sinceBoot() claims.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return claims.Instant(t.Nano())
}

func (c *Cluster) name() string { return c.config.NATS.Name }

// Editor changes the cluster's registry.
func (c *Cluster) Editor() *mirror.Mirror { return c.mirror }

// Attach says which station it is, and where its events are. It is called before all
// other methods, save those of station.Cluster while no connection was taken.
func (c *Cluster) Attach(h Holder, follow func() pubsub.Source[nmsproto.Event]) {
	c.holder, c.follow = h, follow
}

// Run takes part in the cluster until ctx ends, and then gives up the station's lease.
func (c *Cluster) Run(ctx context.Context) {
	defer c.conn.Close()
	defer c.warn.Rest()
	defer c.changed.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	// A station without NATS has its own devices' changes too.
	wg.Go(func() { c.followHolder(ctx) })
	entries, keys, ok := c.join(ctx)
	if !ok {
		return
	}
	for _, f := range []func(context.Context){
		func(ctx context.Context) { c.mirror.Run(ctx, entries, keys) },
		func(ctx context.Context) { c.stations.Watch(ctx, "*", &stationsWatch{c}) },
		func(ctx context.Context) { c.claims.Watch(ctx, "*", &claimsWatch{c}) },
		func(ctx context.Context) { c.callers.Watch(ctx, "*", &callersWatch{c}) },
		c.publishCallers, c.publishEvents, c.keepLease,
	} {
		wg.Go(func() { f(ctx) })
	}
	for range workers {
		wg.Go(func() { c.settleQueued(ctx) })
	}
}

// join opens the buckets as soon as there are any.
func (c *Cluster) join(ctx context.Context) (entries, keys *buckets.Bucket, ok bool) {
	for pause := firstJoin; ; pause = c.awaitJoin(ctx, pause) {
		all, err := c.open(ctx)
		if err == nil {
			c.mu.Lock()
			c.problem, c.lease.Length, c.peers = nil, all[0].TTL, claims.NewPeers(all[0].TTL)
			c.mu.Unlock()
			c.stations, c.claims, c.callers = all[0], all[1], all[2]
			return all[3], all[4], true
		}
		if ctx.Err() != nil {
			return nil, nil, false
		}
		c.setProblem(err)
		c.warn.Warn("the station cannot join its cluster; temporary, retry", "error", err)
	}
}

// The pauses between two attempts to join.
const (
	firstJoin = time.Second
	lastJoin  = 30 * time.Second
)

// awaitJoin waits for pause or a connection, and returns the next pause. Servers that are
// back have no leader for some seconds, so the pauses begin anew.
func (c *Cluster) awaitJoin(ctx context.Context, pause time.Duration) time.Duration {
	wait, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	if c.conn.Up() != nil {
		if c.conn.AwaitUp(wait) == nil {
			return firstJoin
		}
	} else {
		<-wait.Done()
	}
	return min(2*pause, lastJoin)
}

func (c *Cluster) open(ctx context.Context) (all []*buckets.Bucket, err error) {
	for _, name := range []string{buckets.Stations, buckets.Claims, buckets.Callers, buckets.Registry, buckets.Keys} {
		b, err := c.conn.Open(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	if all[0].TTL <= 0 {
		return nil, fmt.Errorf("the bucket %s has no TTL, which is the stations' lease", buckets.Stations)
	}
	return all, nil
}

func (c *Cluster) setProblem(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = err
}

// Problem returns why the station is not part of the cluster now, nil if it is.
func (c *Cluster) Problem() error {
	if err := c.conn.Up(); err != nil {
		return err
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem == nil && !c.lease.Valid(now) {
		return errors.New("the station has no lease in the cluster")
	}
	return c.problem
}

// self is the station as it decides now. The caller holds mu.
func (c *Cluster) self() claims.Self {
	return claims.Self{Station: c.name(), Incarnation: c.lease.Incarnation(), Address: c.config.Address}
}

// Figures are for metrics.
type Figures struct {
	Connected   bool // to NATS
	Leased      bool // the station may believe its claims
	Alive       int  // stations, this one too
	Held        int  // devices that are connected to this station
	Unconfirmed int  // of them, those whose claim is not written
	Relayed     uint64
}

// Figures returns how the station stands in its cluster.
func (c *Cluster) Figures() Figures {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	f := Figures{Connected: c.conn.Up() == nil, Leased: c.lease.Valid(now), Held: len(c.held), Relayed: c.relayed}
	self := c.self()
	for id, h := range c.held {
		if !self.Believes(h, c.claimed[id], f.Leased) {
			f.Unconfirmed++
		}
	}
	for _, s := range c.stationsNow() {
		if s.Alive {
			f.Alive++
		}
	}
	return f
}

// Stations returns all stations that were heard of, by name.
func (c *Cluster) Stations() []nmsproto.Station {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stationsNow()
}

// stationsNow is Stations. The caller holds mu.
func (c *Cluster) stationsNow() []nmsproto.Station {
	out := []nmsproto.Station{}
	for name, b := range c.known {
		s := b.Station
		s.Alive = !b.Over && c.peers.Alive(b.Incarnation)
		if name == c.name() {
			s.Alive = c.lease.Valid(c.now())
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b nmsproto.Station) int { return compare(a.Name, b.Name) })
	return out
}

// Knows reports whether a station of that name takes part in the cluster. Each may until
// NATS was reached: a station that starts without NATS holds devices, too.
func (c *Cluster) Knows(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.known[name]
	return ok || !c.allKnown
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// mustJSON encodes types of this program, which cannot fail.
func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
