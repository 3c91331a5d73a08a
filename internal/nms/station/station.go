// Package station owns the connections of devices that called home: it accepts
// them, recognises each device by its host key, logs in, holds the connection
// with keepalives, and opens netconf channels on it for whoever asks. The
// control socket and the devices' own sockets call it; cmd/callhome-nms wires
// it. It serves no device's files or credentials to anybody, and no address
// ever decides who a device is.
package station

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"callhome/internal/hub"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
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

// Outcome is what became of a call.
type Outcome string

// The outcomes.
const (
	LoggedIn  Outcome = "logged-in"
	NoRoom    Outcome = "no-room" // a limit, or room made for another
	BadHeader Outcome = "proxy-header"
	NoSSH     Outcome = "no-ssh"    // nothing, or something else
	Stranger  Outcome = "unknown"   // a key that no device has
	Invalid   Outcome = "invalid"   // revoked, or a certificate that is not good
	NoLogin   Outcome = "no-login"  // known, but the login failed
	Second    Outcome = "duplicate" // refused, as another is alive
)

// Outcomes are all of them.
var Outcomes = []Outcome{LoggedIn, NoRoom, BadHeader, NoSSH, Stranger, Invalid, NoLogin, Second}

// Stats is what only grows, and how many of what there are now.
type Stats struct {
	Calls           uint64
	Outcomes        map[Outcome]uint64
	Sessions        uint64 // opened since the start
	SessionsNow     int
	SessionsFailed  uint64
	Unauthenticated int
	Strangers       int
	Sent, Received  uint64 // of sessions that have ended
	Devices         map[nmsproto.State]int
}

// Station is the set of devices. Its methods may be called by several
// goroutines.
type Station struct {
	config Config
	hub    hub.Hub[nmsproto.Event]
	// Timed, if set before the first call, is told how long a login took.
	Timed func(time.Duration)
	wg    sync.WaitGroup

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
	held *held // nil where it is not connected
	seen nmsproto.Device
}

// New returns a station.
func New(c Config) (*Station, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	return &Station{
		config: c, lobby: newLobby(c.MaxUnauthenticated, c.MaxPerSource), devices: make(map[string]*device),
		strangers: make(strangers), quiet: make(map[string]*quiet), stats: Stats{Outcomes: make(map[Outcome]uint64)},
	}, nil
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

// tell publishes an event; some kinds can be caused by anybody at any rate, and
// are told in measure.
func (s *Station) tell(e nmsproto.Event) {
	e.Time = time.Now().UTC()
	if e.Event == nmsproto.EventRefused || e.Event == nmsproto.EventUnknown || e.Event == nmsproto.EventDuplicate {
		s.mu.Lock()
		q := s.quiet[e.Event]
		if q == nil {
			q = new(quiet)
			s.quiet[e.Event] = q
		}
		unsaid, ok := q.tell(e.Time)
		s.mu.Unlock()
		if !ok {
			return
		}
		e.Unsaid = unsaid
	}
	s.hub.Publish(e)
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

// Stats returns a copy.
func (s *Station) Stats() Stats {
	devices := s.Devices()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Outcomes = make(map[Outcome]uint64)
	for _, o := range Outcomes {
		out.Outcomes[o] = s.stats.Outcomes[o]
	}
	out.Unauthenticated, out.Strangers = len(s.lobby.guests), len(s.strangers)
	out.Devices = make(map[nmsproto.State]int)
	for _, state := range nmsproto.States {
		out.Devices[state] = 0
	}
	for _, d := range devices {
		out.Devices[d.State]++
	}
	return out
}

// Adopt makes a device of somebody who called. Errors are *proto.Error.
func (s *Station) Adopt(p nmsproto.AdoptParams) (nmsproto.Device, error) {
	bad := func(err error) (nmsproto.Device, error) {
		return nmsproto.Device{}, proto.NewError(proto.CodeBadType, err.Error())
	}
	if err := registry.CheckID(p.ID); err != nil {
		return bad(err)
	}
	s.mu.Lock()
	u := s.strangers[p.HostKey]
	s.mu.Unlock()
	if u == nil {
		return nmsproto.Device{}, proto.NewError(proto.CodeNoExists, fmt.Sprintf("nobody called with the host key %.80s: `callhome-nms devices` lists who did", printable(p.HostKey)))
	}
	key, err := registry.ParseKey(u.Key)
	if err != nil {
		return bad(err)
	}
	e := &registry.Entry{ID: p.ID, HostKeys: []ssh.PublicKey{key}, User: p.User, KeyFile: p.KeyFile, PasswordFile: p.PasswordFile, Labels: p.Labels}
	if err := s.config.Registry.Add(e); err != nil {
		return bad(err)
	}
	if _, err := s.config.Registry.Reload(); err != nil {
		return nmsproto.Device{}, proto.NewError(proto.CodeOS, err.Error())
	}
	if s.config.Registry.Entry(p.ID) == nil {
		for _, problem := range s.config.Registry.Problems() {
			if problem.File == p.ID+".json" {
				return bad(errors.New(problem.Error))
			}
		}
	}
	s.mu.Lock()
	delete(s.strangers, p.HostKey)
	s.mu.Unlock()
	s.tell(nmsproto.Event{Event: nmsproto.EventAdopted, Device: p.ID, HostKey: p.HostKey, Address: u.Address})
	info, _ := s.Device(p.ID)
	return info, nil
}

// Recheck ends the connections of devices that the registry does not know any
// more, or not by that key, and forgets strangers that it knows now. It is for
// after a change of the registry.
func (s *Station) Recheck() {
	s.mu.Lock()
	var all []*held
	for _, d := range s.devices {
		if d.held != nil {
			all = append(all, d.held)
		}
	}
	known := s.strangers.list()
	s.mu.Unlock()
	for _, h := range all {
		if cause := s.disowned(h); cause != "" {
			h.end(cause)
		}
	}
	for _, u := range known {
		if key, err := registry.ParseKey(u.Key); err == nil {
			if _, err := s.config.Registry.Lookup(key, time.Now()); !errors.Is(err, registry.ErrUnknown) {
				s.mu.Lock()
				delete(s.strangers, u.HostKey)
				s.mu.Unlock()
			}
		}
	}
}

// disowned says why a connection must not go on, "" where it may.
func (s *Station) disowned(h *held) string {
	// A certificate was good at the login; what it says of time is not asked
	// again, as stock ssh does not either.
	now := h.since
	switch e, err := s.config.Registry.Lookup(h.key, now); {
	case errors.Is(err, registry.ErrUnknown):
		return "the registry does not have its key any more"
	case err != nil:
		return err.Error()
	case e.ID != h.id:
		return "its key is " + e.ID + "'s now"
	}
	return ""
}

// Connect opens a netconf channel to a device and joins it to sock, which it
// owns, until one of them ends or ctx does. Errors are *proto.Error.
func (s *Station) Connect(ctx context.Context, id string, sock Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	if s.config.Registry.Entry(id) == nil {
		return nmsproto.ConnectResult{}, s.failed(proto.NewError(proto.CodeNoExists, fmt.Sprintf("there is no device %.80q", id)))
	}
	s.mu.Lock()
	var h *held
	seen := "it has not called yet"
	if d := s.devices[id]; d != nil {
		h = d.held
		if d.seen.LastError != "" {
			seen = d.seen.LastError
		}
	}
	s.mu.Unlock()
	if h == nil {
		return nmsproto.ConnectResult{}, s.failed(proto.StageError(proto.StageSession, fmt.Sprintf("device %s is not connected: %s", id, seen), proto.ErrorData{Reason: seen}))
	}
	c, err := h.open(ctx)
	if err != nil {
		return nmsproto.ConnectResult{}, s.failed(err)
	}
	h.sessions.Add(1)
	s.mu.Lock()
	s.stats.Sessions++
	s.stats.SessionsNow++
	s.mu.Unlock()
	out := join(c, sock, ctx.Done())
	h.sessions.Add(-1)
	s.mu.Lock()
	s.stats.SessionsNow--
	s.stats.Sent += out.Sent
	s.stats.Received += out.Received
	s.mu.Unlock()
	if out.ExitStatus != nil || out.Signal != "" || ctx.Err() != nil {
		return out, nil
	}
	// The channel may be the first to see the end of its connection.
	select {
	case <-h.done:
		why := h.why()
		return out, proto.StageError(proto.StageSession, fmt.Sprintf("the connection of %s ended: %s", id, why), proto.ErrorData{Address: h.address.String(), Reason: why})
	case <-time.After(afterChannel):
		return out, nil
	}
}

// afterChannel is how long after a channel's end without a word its connection
// may be seen to end.
const afterChannel = 100 * time.Millisecond

func (s *Station) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.SessionsFailed++
	return err
}

// plain takes the library's prefixes from an error.
func plain(err error) string {
	return strings.TrimPrefix(err.Error(), "ssh: ")
}
