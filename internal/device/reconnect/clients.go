// Package reconnect keeps the standing connections: one goroutine for each
// configured NETCONF client carries out what package schedule decides. Package
// rollout passes it the configuration and the changes of network and clock; the
// manager makes its call homes. It never decides when to call and is never in the
// data path. Sessions continue without it, and at the start it takes them over.
package reconnect

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/wake"

	"github.com/hashicorp/go-hclog"
)

// Manager makes the call homes and publishes the events (manager.Manager).
type Manager interface {
	Keep(*settings.Call, session.Owner) (Session, error)
	Kept() []Session
	Publish(proto.Event)
}

// Session is what the package uses of a *session.Session, which documents the
// methods.
type Session interface {
	Info() proto.SessionInfo
	Stats() *proto.Stats
	Owner() session.Owner
	Await(context.Context, proto.State) (proto.SessionInfo, error)
	Done() <-chan struct{}
	EndSoon(proto.End, string)
	Ending() bool
}

// Options are the files of Clients.
type Options struct {
	// Dir is the directory of the endpoints' files (config.Endpoint.Call).
	Dir string
	// Last and Slots are the files of the saved state. Last outlives a boot, Slots
	// does not. Neither is needed to start.
	Last, Slots string
}

// Clients keeps the standing connections of one configuration at a time.
type Clients struct {
	manager Manager
	opt     Options
	log     hclog.Logger
	saved   *savedState

	// applying is held while a configuration is applied, which waits for
	// goroutines; it is locked before mu. It guards base and closed, and the fields
	// that mu guards are written only under both.
	applying sync.Mutex
	base     settings.Call
	closed   bool

	mu     sync.Mutex // guards the fields that follow; held for look-ups only
	byName map[string]*client
	order  []string // names, in the configuration's order
}

// New returns Clients without a client; Apply adds them. Saved state that cannot be
// read is logged.
func New(m Manager, o Options, log hclog.Logger) *Clients {
	return &Clients{manager: m, opt: o, log: log, saved: loadSavedState(o.Last, o.Slots, log), byName: make(map[string]*client)}
}

// Apply keeps the connections of c from now on, and those of no other. A client
// that is unchanged, base included, continues as it is. Sessions of removed or
// changed clients and endpoints are ended.
func (cs *Clients) Apply(c *config.Config, base *settings.Call) {
	cs.applying.Lock()
	defer cs.applying.Unlock()
	if cs.closed {
		return
	}
	baseChanged := fingerprint(cs.base) != fingerprint(*base)
	cs.base = *base
	wanted := make(map[string]config.Client)
	var order []string
	for _, conf := range c.Clients {
		wanted[conf.Name] = conf
		order = append(order, conf.Name)
	}
	next := make(map[string]*client)
	for name, running := range cs.byName {
		if conf, ok := wanted[name]; ok && running.conf.Equal(conf) && !baseChanged {
			next[name] = running
			continue
		}
		running.stop()
	}
	left := sessionsByClient(cs.manager.Kept())
	for _, name := range order {
		if next[name] == nil { // else its session continues
			next[name] = cs.start(wanted[name], left[name], cs.byName[name])
		}
		delete(left, name)
	}
	for _, s := range slices.Concat(slices.Collect(maps.Values(left))...) {
		s.EndSoon(proto.EndKilled, "its client was removed from the configuration")
	}
	cs.saved.keepOnly(order)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.byName, cs.order = next, order
}

// Network wakes all clients because an address or a link came back.
func (cs *Clients) Network() { cs.each(func(c *client) { wake.Up(c.network) }) }

// ClockSet wakes all clients because the wall clock was set.
func (cs *Clients) ClockSet() { cs.each(func(c *client) { wake.Up(c.clock) }) }

func (cs *Clients) each(f func(*client)) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.byName {
		f(c)
	}
}

// Restart makes clients call now that wait for their next attempt or have been given
// up: all, or the one of that name. It returns their names. A client that has a call
// home, is disabled, or is periodic and not due continues as it is.
func (cs *Clients) Restart(name string) ([]string, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if name != "" && cs.byName[name] == nil {
		return nil, fmt.Errorf("restarting the call home of client %q: the configuration has no such client", name)
	}
	names := []string{} // [] in JSON, not null
	for _, n := range cs.order {
		c := cs.byName[n]
		state := c.Status().State
		if c.conf.Enabled && (name == "" || n == name) && (state == proto.ClientWaiting || state == proto.ClientStopped) {
			wake.Up(c.restart)
			names = append(names, n)
		}
	}
	return names, nil
}

// Call calls the client of that name now, also a periodic one that is not due, and
// returns its session: that of a call home or connection there is already. Errors are
// *proto.Error, or the cause of the end of ctx.
func (cs *Clients) Call(ctx context.Context, name string) (Session, error) {
	fail := func(code proto.Code, why string) (Session, error) {
		return nil, proto.NewError(code, fmt.Sprintf("calling client %q: %s", name, why))
	}
	cs.mu.Lock()
	c := cs.byName[name]
	cs.mu.Unlock()
	switch {
	case c == nil:
		return fail(proto.CodeNoExists, "the configuration has no such client; callhome-mgr status lists them")
	case !c.conf.Enabled:
		return fail(proto.CodeUnavailable, "it is disabled in the configuration")
	}
	answer := make(chan Session, 1)
	select {
	case c.demands <- answer:
	case <-c.ctx.Done():
		return fail(proto.CodeBusy, "the configuration is being replaced; temporary, retry")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	made := <-answer
	if made == nil {
		why := "no call home was started"
		if last := c.Status().LastError; last != nil {
			why = last.Message
		}
		return fail(proto.CodeUnavailable, why)
	}
	return made, nil
}

// Status returns the status of all clients, in the configuration's order.
func (cs *Clients) Status() []proto.ClientStatus {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := make([]proto.ClientStatus, 0, len(cs.order))
	for _, name := range cs.order {
		out = append(out, cs.byName[name].Status())
	}
	return out
}

// Close stops all clients and writes the saved state. The sessions continue.
func (cs *Clients) Close() {
	cs.applying.Lock()
	defer cs.applying.Unlock()
	was := cs.closed
	cs.closed = true
	for _, c := range cs.byName {
		c.stop()
	}
	if !was {
		cs.saved.close()
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

// owner identifies the endpoint that a session belongs to. It leaves the daemon's
// own settings out, so that a session continues when only those change.
func owner(e *config.Endpoint) session.Owner {
	return session.Owner{Client: e.Client, Endpoint: e.Name, Config: fingerprint(e)}
}

// event returns an event about a client, or about the configuration.
func event(name string, of *proto.ClientStatus, text string) proto.Event {
	return proto.Event{Time: time.Now().UTC(), Event: name, Client: of, Text: text}
}

// Applied publishes that a configuration with n clients is in force, and what of it
// is left aside.
func (cs *Clients) Applied(n int, warnings []string) {
	text := fmt.Sprintf("clients: %d", n)
	if len(warnings) > 0 {
		text += "; left aside: " + strings.Join(warnings, "; ")
	}
	cs.manager.Publish(event(proto.EventConfigApplied, nil, text))
}

// Refused publishes that a configuration was refused, and why.
func (cs *Clients) Refused(why string) {
	cs.manager.Publish(event(proto.EventConfigRefused, nil, why))
}
