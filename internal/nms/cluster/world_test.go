package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/natstest"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/station"
	"callhome/internal/pubsub"

	"github.com/hashicorp/go-hclog"
)

// world is some stations with one NATS server, and the devices that call them.
type world struct {
	t       testing.TB
	servers *natstest.Servers
	lease   time.Duration
	login   func(name, address string) string // adds a user to an address; may be nil

	registered []string // devices that never call, too

	mu       sync.Mutex
	stations map[string]*standIn // by address
	severed  map[[2]string]bool  // pairs of stations that do not reach each other
}

// standIn is a station without SSH.
type standIn struct {
	*Cluster
	world   *world
	name    string
	proxy   *natstest.Proxy
	cancel  context.CancelFunc
	done    chan struct{}
	changes pubsub.Hub[string]
	events  pubsub.Hub[nmsproto.Event]

	mu      sync.Mutex
	dead    bool
	devices map[string]*connection
	lost    map[string]nmsproto.Device
	calls   []nmsproto.Unknown
	removed map[string]bool // from the registry
}

// connection is that of a device.
type connection struct {
	since time.Time
	alive bool // it answers
}

// endless is a lease that ends in no test: await gives up earlier.
const endless = 2 * time.Minute

func newWorld(t testing.TB, servers int, lease time.Duration) *world {
	w := &world{t: t, servers: natstest.Start(t, servers), lease: lease, stations: make(map[string]*standIn), severed: make(map[[2]string]bool)}
	c, err := buckets.Connect(buckets.Options{URLs: w.servers.URLs(), Name: "operator"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AwaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), buckets.Layout{Replicas: servers, Lease: lease}); err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts a station, perhaps again: another process with the same address.
func (w *world) start(name string, i int) *standIn {
	w.t.Helper()
	s := &standIn{
		world: w, name: name, proxy: w.servers.NewProxy(w.t, i), done: make(chan struct{}),
		devices: make(map[string]*connection), lost: make(map[string]nmsproto.Device),
	}
	dir := w.t.TempDir()
	r, _, err := registry.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	address := s.proxy.URL()
	if w.login != nil {
		address = w.login(name, address)
	}
	log := hclog.NewNullLogger()
	if os.Getenv("CALLHOME_TEST_LOG") != "" {
		log = hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Debug, TimeFormat: "05.000"})
	}
	s.Cluster, err = New(Config{
		NATS: buckets.Options{URLs: []string{address}, Name: name}, Address: name + ":1", Version: "test", Registry: r, Dir: dir, Log: log,
		Peers: &link{w, name},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.stations[name+":1"] = s
	w.mu.Unlock()
	s.Attach(s, func() pubsub.Source[nmsproto.Event] { return s.events.Follow() })
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.done)
		s.Run(ctx)
	}()
	w.t.Cleanup(func() {
		s.changes.Close()
		s.events.Close()
		cancel()
		<-s.done
	})
	return s
}

// kill is the end of a process that could not prepare for it.
func (s *standIn) kill() {
	s.conn.Close()
	s.end()
}

// end is the orderly end of a process, which its connections do not outlive.
func (s *standIn) end() {
	s.mu.Lock()
	s.dead = true
	clear(s.devices)
	s.mu.Unlock()
	s.changes.Close()
	s.events.Close()
	s.cancel()
	<-s.done
}

// link is how a station reaches the others.
type link struct {
	world *world
	from  string
}

func (l *link) Open(context.Context, peering.Peer, string, peering.Caller) (*peering.Session, error) {
	return nil, errors.New("not in this test")
}

func (l *link) Detail(_ context.Context, p peering.Peer, device string) (nmsproto.DeviceDetail, error) {
	if p.Station != "b" {
		return nmsproto.DeviceDetail{}, fmt.Errorf("station %s is out of reach", p.Station)
	}
	at := time.Unix(2e9, 0)
	return nmsproto.DeviceDetail{
		Device: nmsproto.Device{ID: device, Sessions: 3}, RoundTrip: time.Millisecond,
		History:    []nmsproto.Record{{Time: at, Event: nmsproto.EventUp, Cause: "\x1b[2J"}},
		SessionLog: []nmsproto.SessionRecord{{Begin: at, Error: "\u202e"}},
	}, nil
}

func (l *link) Settle(_ context.Context, p peering.Peer, device string) (bool, string, error) {
	l.world.mu.Lock()
	s := l.world.stations[p.Address]
	cut := l.world.severed[[2]string{min(l.from, p.Station), max(l.from, p.Station)}]
	l.world.mu.Unlock()
	if s == nil || cut {
		return false, "", fmt.Errorf("station %s is out of reach", p.Station)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false, "", fmt.Errorf("station %s is down", p.Station)
	}
	c := s.devices[device]
	if c != nil && c.alive {
		return true, "it answers", nil
	}
	if c != nil {
		s.drop(device)
	}
	return false, "it does not answer", nil
}

// drop ends a device's connection. The caller holds mu.
func (s *standIn) drop(id string) {
	now := time.Now().UTC()
	delete(s.devices, id)
	s.lost[id] = nmsproto.Device{State: nmsproto.Lost, Since: &now}
	s.changes.Publish(id)
}

// mustCall is a call home that is taken.
func (s *standIn) mustCall(id string) {
	s.world.t.Helper()
	if !s.call(id) {
		s.world.t.Fatalf("station %s refuses the call of device %s", s.name, id)
	}
}

// call is a call home of a device that gets a connection here unless it has one that
// answers.
func (s *standIn) call(id string) bool {
	if s.Elsewhere(id) != "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.devices[id]; s.dead || c != nil && c.alive {
		return false
	}
	s.devices[id] = &connection{since: time.Now().UTC(), alive: true}
	s.changes.Publish(id)
	return true
}

func (s *standIn) hangUp(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[id] != nil {
		s.drop(id)
	}
}

// vanish is a device that is gone without the station's knowledge.
func (s *standIn) vanish(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.devices[id]; c != nil {
		c.alive = false
	}
}

func (s *standIn) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[id] != nil
}

// The rest implements Holder.

func (s *standIn) Changes() (<-chan string, func()) {
	_, ids, cancel := s.changes.Subscribe()
	return ids, cancel
}

func (s *standIn) Device(id string) (nmsproto.Device, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed[id] {
		return nmsproto.Device{}, false
	}
	return s.device(id), true
}

func (s *standIn) device(id string) nmsproto.Device {
	d := s.lost[id]
	d.ID = id
	if d.State == "" {
		d.State = nmsproto.NeverSeen
	}
	if c := s.devices[id]; c != nil {
		since := c.since
		d = nmsproto.Device{ID: id, State: nmsproto.Connected, Since: &since, Address: "192.0.2.1:1"}
	}
	return d
}

func (s *standIn) Devices() (out []nmsproto.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.AppendSeq(slices.Clone(s.world.registered), maps.Keys(s.devices))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		out = append(out, s.device(id))
	}
	return out
}

func (s *standIn) Unknown() []nmsproto.Unknown {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]nmsproto.Unknown{}, s.calls...)
}

func (s *standIn) RegistryRead(registry.Change, error) {}

func (s *standIn) Load() (sessions, unauthenticated int) { return 0, 0 }

func (s *standIn) Connect(context.Context, string, station.Duplex) (nmsproto.ConnectResult, error) {
	return nmsproto.ConnectResult{}, errors.New("not in this test")
}

func (s *standIn) End(id string, since time.Time, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.devices[id]; c != nil && c.since.Equal(since) {
		s.drop(id)
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// sees says what a station knows of a device's claim, and of another station.
func (s *standIn) sees(id string, other *standIn) string {
	other.Cluster.mu.Lock()
	theirs := other.lease.Incarnation()
	other.Cluster.mu.Unlock()
	s.Cluster.mu.Lock()
	defer s.Cluster.mu.Unlock()
	claim := s.claimed[id]
	return fmt.Sprintf("%s as %s sees claim %d of %s, and %s alive: %v", s.name, s.lease.Incarnation(), claim.Revision, claim.Incarnation, theirs, s.peers.Alive(theirs))
}
