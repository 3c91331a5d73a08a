// Package reconnect keeps the connections that the configuration asks for: one
// goroutine for each NETCONF client, which does what package schedule decides.
// cmd/callhome-mgr gives it the configuration and the news of the network; the
// manager makes its calls. It decides nothing about time and is never in the
// data path. Sessions go on without it, and it finds them again.
package reconnect

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/wake"

	"github.com/hashicorp/go-hclog"
)

// Caller makes the calls: the manager.
type Caller interface {
	Keep(*settings.Call, session.Owner) (Session, error)
	Kept() []Session
	Publish(proto.Event)
}

// Session is one call, as far as it is followed here: *session.Session says
// what each method does.
type Session interface {
	Info() proto.SessionInfo
	Stats() *proto.Stats
	Owner() session.Owner
	Await(context.Context, proto.State) (proto.SessionInfo, error)
	Done() <-chan struct{}
	End(proto.End, string)
}

// Options are what a Keeper works with.
type Options struct {
	// Dir is where the endpoints' files are (config.Endpoint.Call).
	Dir string
	// Last and Slots are the files that remember what was: over a boot, and
	// until one. Neither is needed to start.
	Last, Slots string
}

// Keeper keeps the connections of one configuration at a time.
type Keeper struct {
	caller Caller
	opt    Options
	log    hclog.Logger
	memory *memory

	// applying is held while one configuration takes over from another, which
	// waits for goroutines; before mu. It guards base and closed, and that
	// nobody else writes what mu guards.
	applying sync.Mutex
	base     settings.Call
	closed   bool

	mu      sync.Mutex // guards the fields that follow; held for look-ups only
	clients map[string]*client
	order   []string // names, as the configuration has them
}

// New returns a keeper without clients; Apply gives it some. What it cannot
// remember is logged.
func New(c Caller, o Options, log hclog.Logger) *Keeper {
	return &Keeper{caller: c, opt: o, log: log, memory: recall(o.Last, o.Slots, log), clients: make(map[string]*client)}
}

// Apply keeps the connections of c from now on, and those of no other. Clients
// that are the same as before, base included, notice nothing. Sessions of
// clients or endpoints that are gone or changed are ended.
func (k *Keeper) Apply(c *config.Config, base *settings.Call) {
	k.applying.Lock()
	defer k.applying.Unlock()
	if k.closed {
		return
	}
	baseChanged := fingerprint(k.base) != fingerprint(*base)
	k.base = *base
	wanted := make(map[string]config.Client)
	var order []string
	for _, conf := range c.Clients {
		wanted[conf.Name] = conf
		order = append(order, conf.Name)
	}
	clients := make(map[string]*client)
	for name, running := range k.clients {
		if conf, ok := wanted[name]; ok && running.conf.Equal(conf) && !baseChanged {
			clients[name] = running
			continue
		}
		running.stop()
	}
	left := sessionsByClient(k.caller.Kept())
	for _, name := range order {
		if clients[name] == nil { // else its session goes on
			clients[name] = k.start(wanted[name], left[name], k.clients[name])
		}
		delete(left, name)
	}
	for _, s := range slices.Concat(slices.Collect(maps.Values(left))...) {
		go s.End(proto.EndKilled, "its client is not in the configuration any more")
	}
	k.memory.forget(order)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clients, k.order = clients, order
}

// Network tells all clients that an address or a link came back.
func (k *Keeper) Network() { k.all(func(c *client) { wake.Up(c.network) }) }

// ClockSet tells all clients that the wall clock was set.
func (k *Keeper) ClockSet() { k.all(func(c *client) { wake.Up(c.clock) }) }

func (k *Keeper) all(f func(*client)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clients {
		f(c)
	}
}

// Status returns all clients, in the configuration's order.
func (k *Keeper) Status() []proto.ClientStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]proto.ClientStatus, 0, len(k.order))
	for _, name := range k.order {
		out = append(out, k.clients[name].Status())
	}
	return out
}

// Close ends the keeping. The sessions go on.
func (k *Keeper) Close() {
	k.applying.Lock()
	defer k.applying.Unlock()
	was := k.closed
	k.closed = true
	for _, c := range k.clients {
		c.stop()
	}
	if !was {
		k.memory.close()
	}
}

func sessionsByClient(list []Session) map[string][]Session {
	out := make(map[string][]Session)
	for _, s := range list {
		name := s.Owner().Client
		out[name] = append(out[name], s)
	}
	return out
}

// owner is what a session to an endpoint belongs to. The daemon's own settings
// are not in it: with other ones a running session goes on as it is.
func owner(e *config.Endpoint) session.Owner {
	return session.Owner{Client: e.Client, Endpoint: e.Name, Config: fingerprint(e)}
}

// event returns an event of a client's.
func event(name string, of *proto.ClientStatus, words string) proto.Event {
	return proto.Event{Time: time.Now().UTC(), Event: name, Client: of, Text: words}
}

// Applied tells that a configuration with n clients is in force now.
func (k *Keeper) Applied(n int) {
	k.caller.Publish(event(proto.EventConfigApplied, nil, fmt.Sprintf("%d clients", n)))
}

// Refused tells that a configuration was refused, and why.
func (k *Keeper) Refused(why string) {
	k.caller.Publish(event(proto.EventConfigRefused, nil, why))
}
