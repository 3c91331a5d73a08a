// Package station owns the connections of devices that called home: it accepts
// them, identifies each device by its host key, logs in, keeps the connection with
// keepalives, and opens netconf channels on it. The control socket and the device
// sockets call it; cmd/callhome-nms wires it. It never passes on a credential, and
// no address ever decides which device a connection is.
package station

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"callhome/internal/nms/admission"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/wire"
	"callhome/internal/wake"
)

// Config is how a station behaves.
type Config struct {
	Registry   *registry.Registry
	Credential Credential         // of devices whose entry has none
	Duplicate  registry.Duplicate // of devices whose entry has none
	// Balancers are the trusted load balancers: each of their connections must
	// begin with a PROXY header.
	Balancers []netip.Prefix
	// MaxUnauthenticated and MaxPerSource bound the unauthenticated connections.
	MaxUnauthenticated, MaxPerSource int
	LoginTime                        time.Duration // from accept to login
	// OldKeyExchange is for devices without curve25519. A login takes up to 20 times
	// the processor time (BenchmarkExchange of package handshake).
	OldKeyExchange bool
	KeepaliveEvery time.Duration
	KeepaliveTime  time.Duration // for the answer
	// ProbeTime is how long an old connection has to show that it is alive when
	// its device calls again.
	ProbeTime time.Duration

	// Name is the station's in a cluster, and in its events; "" without one.
	Name string
	// Cluster is the other stations, and Editor changes the registry of all; nil without
	// a cluster.
	Cluster Cluster
	Editor  Editor

	// Scarce, unless nil, reports whether a connection has one of the last file
	// descriptors, which are for other things.
	Scarce func(net.Conn) bool

	// LoggedIn, unless nil, is called with how long each login took.
	LoggedIn func(time.Duration)
	// RegistryRead, unless nil, is called with each change of the registry, after
	// the station has rechecked its connections.
	RegistryRead func(registry.Change, error)
}

// Defaults is a Config without registry and credential.
func Defaults() Config {
	return Config{
		Duplicate: registry.Refuse, MaxUnauthenticated: 1024, MaxPerSource: 64,
		LoginTime: 30 * time.Second, KeepaliveEvery: 30 * time.Second, KeepaliveTime: 15 * time.Second, ProbeTime: 5 * time.Second,
	}
}

// Check returns an error for values that the station cannot work with.
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
	config   Config
	wg       sync.WaitGroup
	refusing chan struct{} // has a value for each connection in refuse
	turns    *turns        // of the connections that have not logged in
	// taking is held from the decision about a connection until it has its place or is
	// refused: one connection waits at a time.
	taking sync.Mutex
	freed  chan struct{} // wakes the one that waits

	// mu guards the fields that follow, with what they point to. It is held for
	// look-ups and to publish, never while a connection is read or written.
	mu              sync.Mutex
	events          *publisher
	history         *history
	unauthenticated *admission.Set
	devices         map[string]*device
	unknown         unknownDevices
	stats           Stats
	stopping        bool
	drain           *drain // nil until Drain
}

// device is the state of one device; the registry has its entry.
type device struct {
	connection *connection // nil while it is not connected
	budget     *budget
	seen       nmsproto.Device
}

// New returns a station.
func New(c Config) (*Station, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &Station{
		config: c, refusing: make(chan struct{}, maxRefusing), turns: newTurns(), freed: wake.New(), devices: make(map[string]*device),
		unauthenticated: admission.New(admission.Limits{Total: c.MaxUnauthenticated, PerSource: c.MaxPerSource}),
		unknown:         make(unknownDevices), stats: Stats{Outcomes: make(map[Outcome]uint64)},
	}
	if s.config.Editor == nil {
		s.config.Editor = c.Registry
	}
	s.history = newHistory(func(id string) bool { return s.config.Registry.Entry(id) != nil })
	s.events = newPublisher(&s.mu, c.Name, s.history.note)
	s.events.hub.Backlog = s.backlog
	s.events.changed.Backlog = s.backlog
	return s, nil
}

// Calls accepts connections. After Close, Accept returns net.ErrClosed.
type Calls interface {
	Accept(context.Context) (*net.TCPConn, error)
	Close() error
}

// Serve accepts connections until ctx ends or accepting fails permanently. Then it
// closes calls and ends all connections, in this order: the kernel refuses a device that
// calls again at once. While the station is being drained, calls may be closed.
func (s *Station) Serve(ctx context.Context, calls Calls) error {
	defer s.stop()
	defer calls.Close()
	for {
		conn, err := calls.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed) && s.isDraining():
			<-ctx.Done()
			return nil
		case err != nil:
			return err
		}
		s.Take(ctx, conn)
	}
}

// stop ends every connection and returns when all have ended.
func (s *Station) stop() {
	s.mu.Lock()
	s.stopping = true
	all := s.held()
	s.dismiss()
	s.mu.Unlock()
	for _, h := range all {
		h.end(stopping, wire.NotAvailable)
	}
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events.close()
}

// held returns the connections of devices. The caller holds mu.
func (s *Station) held() (held []*connection) {
	for _, d := range s.devices {
		if d.connection != nil {
			held = append(held, d.connection)
		}
	}
	return held
}

// dismiss ends the unauthenticated connections. The caller holds mu.
func (s *Station) dismiss() {
	for leave := range s.unauthenticated.All() {
		leave()
	}
	wake.Up(s.freed)
}

// Take takes a connection, which the station owns from here on. While there is no place
// for it and none is overdue, it waits: until then the kernel's queue holds the others.
func (s *Station) Take(ctx context.Context, conn net.Conn) {
	c := &call{station: s, from: addrPort(conn.RemoteAddr())}
	c.conn = newPaced(conn, s.turns, c.silent, c.overdue)
	s.mu.Lock()
	s.stats.Calls++
	s.mu.Unlock()
	if s.config.Scarce != nil && s.config.Scarce(conn) {
		s.noDescriptor(c)
		return
	}
	outcome, refused := s.admit(ctx, c)
	if c.place == nil {
		if refused == "" {
			conn.Close()
		} else {
			reason := wire.TooManyConnections
			if outcome == Draining {
				reason = wire.NotAvailable
			}
			s.refuse(conn, wire.Disconnect{Reason: reason, Text: refused})
			s.refused(outcome, nmsproto.Event{Address: c.from.String(), Cause: refused})
		}
		return
	}
	c.conn.setPriority(c.place.Priority())
	s.wg.Go(c.run)
}

// noDescriptor closes a connection that has one of the last descriptors, and one that is
// overdue. A device that calls again can have the latter's place.
func (s *Station) noDescriptor(c *call) {
	s.mu.Lock()
	leave := s.unauthenticated.Evict(time.Now())
	s.mu.Unlock()
	if leave != nil {
		leave()
	}
	c.conn.Close()
	s.refused(OverLimit, nmsproto.Event{Address: c.from.String(), Cause: "no file descriptor is left for it: raise the limit (LimitNOFILE=)"})
}

// maxRefusing bounds the refused connections that get the reason at a time.
// Others are closed at once.
const maxRefusing = 64

// refuse closes a connection that gets no place. The device gets the reason.
func (s *Station) refuse(conn net.Conn, d wire.Disconnect) {
	select {
	case s.refusing <- struct{}{}:
		s.wg.Go(func() {
			wire.RefuseAtOnce(conn, d)
			<-s.refusing
		})
	default:
		conn.Close()
	}
}

// admit gives c a place, or returns why it gets none: "" when the station stops.
func (s *Station) admit(ctx context.Context, c *call) (outcome Outcome, refused string) {
	from := c.from.Addr()
	if s.trusted(from) {
		from = netip.Addr{} // the PROXY header will name the source
	}
	s.taking.Lock()
	defer s.taking.Unlock()
	for coin := rand.Float64(); ; coin = 1 {
		s.mu.Lock()
		if s.stopping || ctx.Err() != nil {
			s.mu.Unlock()
			return "", ""
		}
		if s.drainsAll() {
			s.mu.Unlock()
			return Draining, draining
		}
		a := s.unauthenticated.Enter(from, time.Now(), coin, func() { c.conn.Close() })
		c.place = a.Place
		s.mu.Unlock()
		if a.Place != nil {
			a.Evicted()
		}
		if !a.Wait {
			return OverLimit, a.Refused
		}
		select {
		case <-s.freed:
		case <-ctx.Done():
		}
	}
}

func (s *Station) trusted(a netip.Addr) bool {
	for _, p := range s.config.Balancers {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrPort returns a TCP address with IPv4-mapped IPv6 undone, and the zero value
// for any other address.
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

// Changes returns a channel of the ids of devices whose state changes from now on.
// It is closed by cancel, when the station stops, or when its reader is too slow.
func (s *Station) Changes() (ids <-chan string, cancel func()) {
	_, ids, cancel = s.events.changed.Subscribe()
	return ids, cancel
}
