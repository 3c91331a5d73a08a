// Package station owns the connections of devices that called home: it accepts
// them, recognises each device by its host key, logs in, holds the connection
// with keepalives, and opens netconf channels on it for whoever asks. The
// control socket and the devices' own sockets call it; cmd/callhome-nms wires
// it. It serves no device's files or credentials to anybody, and no address
// ever decides who a device is.
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
	"callhome/internal/pubsub"
)

// Config is how a station behaves.
type Config struct {
	Registry   *registry.Registry
	Credential Credential         // of devices whose entry has none
	Duplicate  registry.Duplicate // of devices whose entry does not say
	// Balancers are those whose PROXY header is believed, and demanded.
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
		return fmt.Errorf("duplicate %q is none of refuse, replace", c.Duplicate)
	}
	return nil
}

// Station is the set of devices. Its methods may be called by several
// goroutines.
type Station struct {
	config Config
	hub    pubsub.Hub[nmsproto.Event]
	// Timed, if set before the first call, is told how long a login took.
	Timed func(time.Duration)
	// Changed is told what is new in the registry when the station has read it.
	// It has to Recheck, as New's does, and is set before the first call.
	Changed func(registry.Change, error)
	wg      sync.WaitGroup

	mu        sync.Mutex // guards the fields that follow; held for look-ups only
	lobby     *lobby
	devices   map[string]*device
	strangers strangers
	quiet     map[string]*quiet // by event
	stats     Stats
	stopping  bool
}

// device is what is known of one besides its entry.
type device struct {
	held    *held // nil where it is not connected
	seen    nmsproto.Device
	comings coming
	later   *time.Timer // tells the last of comings; nil where none waits
}

// New returns a station.
func New(c Config) (*Station, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &Station{
		config: c, lobby: newLobby(c.MaxUnauthenticated, c.MaxPerSource), devices: make(map[string]*device),
		strangers: make(strangers), quiet: make(map[string]*quiet), stats: Stats{Outcomes: make(map[Outcome]uint64)},
	}
	s.Changed = func(registry.Change, error) { s.Recheck() }
	s.hub.Spare = func(e nmsproto.Event) bool { return anybodys[e.Event] }
	return s, nil
}

// Calls is where calls come from.
type Calls interface {
	Accept(context.Context) (*net.TCPConn, error)
}

// Serve takes calls until ctx ends or accepting fails for good, and then ends
// all connections.
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

// stop ends every connection and returns when they are gone.
func (s *Station) stop() {
	s.mu.Lock()
	s.stopping = true
	var all []*held
	for _, d := range s.devices {
		if d.held != nil {
			all = append(all, d.held)
		}
	}
	for _, g := range s.lobby.guests {
		g.leave()
	}
	s.mu.Unlock()
	for _, h := range all {
		h.end("the station stops")
	}
	s.wg.Wait()
	s.tellLast()
	s.hub.Close()
}

// Take takes a call, which is the station's from here on.
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
			s.refused(NoRoom, nmsproto.Event{Address: from.String(), Cause: "too many connections wait for a login"})
		}
		return
	}
	evicted()
	c := &call{station: s, conn: conn, from: from, guest: id}
	s.wg.Go(c.run)
}

// enter books a call. Those of a balancer are its callers', once the header
// says whose: until then only the total counts. It is called with mu held.
func (s *Station) enter(from netip.AddrPort, conn net.Conn) (uint64, func(), bool) {
	if s.trusted(from.Addr()) {
		// An address that nobody has, one for each connection.
		var n [16]byte
		n[0] = 0xff
		for i := range 8 {
			n[i+1] = byte(s.stats.Calls >> (8 * i))
		}
		return s.lobby.enter(netip.AddrFrom16(n), func() { conn.Close() })
	}
	return s.lobby.enter(from.Addr(), func() { conn.Close() })
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

// tell publishes an event. What anybody, or one device, can cause at any rate is
// told in measure.
func (s *Station) tell(e nmsproto.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(e)
}

// tellLocked is called with mu held, so that a device's events are told in the
// order of what happened to it.
func (s *Station) tellLocked(e nmsproto.Event) {
	now := time.Now() // UTC would take its monotonic reading
	e.Time = now.UTC()
	switch {
	case anybodys[e.Event]:
		q := s.quiet[e.Event]
		if q == nil {
			q = new(quiet)
			s.quiet[e.Event] = q
		}
		var ok bool
		if e.Unsaid, ok = q.tell(now); ok {
			s.hub.Publish(e)
		}
	case comings[e.Event]:
		s.tellComing(e, now)
	default:
		s.hub.Publish(e)
	}
}

// tellComing tells a device's coming or going now, or once it is its turn and
// nothing has followed. It is called with mu held.
func (s *Station) tellComing(e nmsproto.Event, now time.Time) {
	d := s.deviceOf(e.Device)
	told, wait := d.comings.tell(e, now)
	if told != nil {
		s.hub.Publish(*told)
		return
	}
	if d.later == nil {
		d.later = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			d.later = nil
			if last := d.comings.takeLast(); last != nil {
				s.tellComing(*last, time.Now())
			}
		})
	}
}

// tellLast tells what waits for its turn, at the end.
func (s *Station) tellLast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.later != nil {
			d.later.Stop()
			d.later = nil
		}
		if last := d.comings.takeLast(); last != nil {
			last.Unsaid = d.comings.unsaid
			s.hub.Publish(*last)
		}
	}
}

// Tell publishes an event of somebody else's.
func (s *Station) Tell(e nmsproto.Event) { s.tell(e) }

func (s *Station) refused(o Outcome, e nmsproto.Event) {
	s.mu.Lock()
	s.stats.Outcomes[o]++
	s.mu.Unlock()
	e.Event = nmsproto.EventRefused
	s.tell(e)
}

// Subscribe returns what happened last and a channel of what follows.
func (s *Station) Subscribe() ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	return s.hub.Subscribe()
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

// deviceInfo is called with mu held.
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
	if d.held != nil {
		info.Sessions = int(d.held.sessions.Load())
	}
	return info
}

// Strangers returns the unknown keys that called, the latest first.
func (s *Station) Strangers() []nmsproto.Unknown {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strangers.list()
}

// plain takes the library's prefixes from an error.
func plain(err error) string {
	return strings.TrimPrefix(err.Error(), "ssh: ")
}
