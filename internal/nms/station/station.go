// Package station owns the connections of devices that called home: it accepts
// them, identifies each device by its host key, logs in, keeps the connection with
// keepalives, and opens netconf channels on it. The control socket and the device
// sockets call it; cmd/callhome-nms wires it. It never passes on a credential, and
// no address ever decides which device a connection is.
package station

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
)

// Config is how a station behaves.
type Config struct {
	Registry   *registry.Registry
	Credential Credential         // of devices whose entry has none
	Duplicate  registry.Duplicate // of devices whose entry does not say
	// Balancers are the load balancers, whose PROXY header is required and used.
	Balancers []netip.Prefix
	// MaxUnauthenticated and MaxPerSource bound the connections that are not
	// logged in.
	MaxUnauthenticated, MaxPerSource int
	LoginTime                        time.Duration // from accept to login
	KeepaliveEvery                   time.Duration
	KeepaliveTime                    time.Duration // for the answer
	// ProbeTime is how long an old connection has to show that it is alive when
	// its device calls again.
	ProbeTime time.Duration

	// LoggedIn gets how long each login took; nil for no one.
	LoggedIn func(time.Duration)
	// RegistryRead gets what is new in the registry when the station has read it;
	// nil for no one. The station has rechecked its connections by then.
	RegistryRead func(registry.Change, error)
}

// Defaults is a Config without registry and credential.
func Defaults() Config {
	return Config{
		Duplicate: registry.Refuse, MaxUnauthenticated: 1024, MaxPerSource: 64,
		LoginTime: 30 * time.Second, KeepaliveEvery: 30 * time.Second, KeepaliveTime: 15 * time.Second, ProbeTime: 5 * time.Second,
	}
}

// Check refuses what cannot work.
func (c *Config) Check() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"login-time", c.LoginTime}, {"keepalive", c.KeepaliveEvery}, {"keepalive-time", c.KeepaliveTime}, {"probe-time", c.ProbeTime}} {
		if d.value <= 0 {
			return fmt.Errorf("%s %v: expected a time above 0", d.name, d.value)
		}
	}
	if c.MaxUnauthenticated < 1 || c.MaxPerSource < 1 {
		return fmt.Errorf("limits of %d unauthenticated connections and %d from one source: expected at least 1", c.MaxUnauthenticated, c.MaxPerSource)
	}
	if c.Duplicate != registry.Refuse && c.Duplicate != registry.Replace {
		return fmt.Errorf("duplicate %q: expected refuse or replace", c.Duplicate)
	}
	return nil
}

// Station is the set of devices. Its methods may be called by several
// goroutines.
type Station struct {
	config Config
	wg     sync.WaitGroup

	// mu guards the fields that follow, with what they point to. It is held for
	// look-ups and to publish, never while a connection is read or written.
	mu              sync.Mutex
	events          *publisher
	unauthenticated *unauthenticated
	devices         map[string]*device
	unknown         unknownDevices
	stats           Stats
	stopping        bool
}

// device is what is known of one besides its entry.
type device struct {
	connection *connection // nil where it is not connected
	seen       nmsproto.Device
}

// New returns a station.
func New(c Config) (*Station, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &Station{
		config: c, unauthenticated: newUnauthenticated(c.MaxUnauthenticated, c.MaxPerSource), devices: make(map[string]*device),
		unknown: make(unknownDevices), stats: Stats{Outcomes: make(map[Outcome]uint64)},
	}
	s.events = newPublisher(s.mu.Lock, s.mu.Unlock)
	return s, nil
}

// Calls accepts connections.
type Calls interface {
	Accept(context.Context) (*net.TCPConn, error)
}

// Serve accepts connections until ctx ends or accepting fails for good, and then
// ends all of them.
func (s *Station) Serve(ctx context.Context, calls Calls) error {
	defer s.stop()
	for {
		conn, err := calls.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return err
		}
		s.Take(conn)
	}
}

// stop ends every connection and returns when all have ended.
func (s *Station) stop() {
	s.mu.Lock()
	s.stopping = true
	var all []*connection
	for _, d := range s.devices {
		if d.connection != nil {
			all = append(all, d.connection)
		}
	}
	for _, g := range s.unauthenticated.pending {
		g.leave()
	}
	s.mu.Unlock()
	for _, h := range all {
		h.end("the station stops")
	}
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events.close()
}

// Take takes a connection, which the station owns from here on.
func (s *Station) Take(conn net.Conn) {
	from := addrPort(conn.RemoteAddr())
	s.mu.Lock()
	s.stats.Calls++
	stopping := s.stopping
	var id uint64
	evicted, ok := func() {}, false
	if !stopping {
		id, evicted, ok = s.enter(from, conn)
	}
	s.mu.Unlock()
	if !ok {
		conn.Close()
		if !stopping {
			s.refused(NoRoom, nmsproto.Event{Address: from.String(), Cause: "too many unauthenticated connections"})
		}
		return
	}
	evicted()
	c := &call{station: s, conn: conn, from: from, pending: id}
	s.wg.Go(c.run)
}

// enter counts a connection as unauthenticated. One of a load balancer counts for
// its own source once the header names that; until then only the total bounds it.
// The caller holds mu.
func (s *Station) enter(from netip.AddrPort, conn net.Conn) (uint64, func(), bool) {
	if s.trusted(from.Addr()) {
		// An address that no device has, one for each connection.
		var n [16]byte
		n[0] = 0xff
		for i := range 8 {
			n[i+1] = byte(s.stats.Calls >> (8 * i))
		}
		return s.unauthenticated.enter(netip.AddrFrom16(n), func() { conn.Close() })
	}
	return s.unauthenticated.enter(from.Addr(), func() { conn.Close() })
}

func (s *Station) trusted(a netip.Addr) bool {
	for _, p := range s.config.Balancers {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrPort is an address without the IPv4-in-IPv6 form; the zero one for what
// has none.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Publish publishes an event, rate-limited where a peer can cause it at any rate.
func (s *Station) Publish(e nmsproto.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events.publish(e)
}

func (s *Station) refused(o Outcome, e nmsproto.Event) {
	s.mu.Lock()
	s.stats.Outcomes[o]++
	s.mu.Unlock()
	e.Event = nmsproto.EventRefused
	s.Publish(e)
}

// Subscribe returns what happened last and a channel of what follows.
func (s *Station) Subscribe() ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	return s.events.hub.Subscribe()
}

// Devices returns every device of the registry, by id.
func (s *Station) Devices() []nmsproto.Device {
	entries := s.config.Registry.Entries()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]nmsproto.Device, len(entries))
	for i, e := range entries {
		out[i] = s.deviceInfo(e)
	}
	return out
}

// Device returns one; ok is false where the registry has none.
func (s *Station) Device(id string) (info nmsproto.Device, ok bool) {
	e := s.config.Registry.Entry(id)
	if e == nil {
		return info, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deviceInfo(e), true
}

// deviceInfo copies what is known of a device. The caller holds mu.
func (s *Station) deviceInfo(e *registry.Entry) nmsproto.Device {
	info := nmsproto.Device{ID: e.ID, State: nmsproto.NeverSeen, Labels: e.Labels}
	d := s.devices[e.ID]
	if d == nil {
		return info
	}
	info = d.seen
	info.ID, info.Labels = e.ID, e.Labels
	if info.State == "" {
		info.State = nmsproto.NeverSeen
	}
	if d.connection != nil {
		info.Sessions = int(d.connection.sessions.Load())
	}
	return info
}

// Unknown returns the unknown devices, the one that called last first.
func (s *Station) Unknown() []nmsproto.Unknown {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown.list()
}

// plain is an error without the library's prefix.
func plain(err error) string {
	return strings.TrimPrefix(err.Error(), "ssh: ")
}
