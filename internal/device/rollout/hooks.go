package rollout

import (
	"fmt"

	"callhome/internal/device/config"
	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/sysexits"
)

// hookConfig returns the configuration of a client's own hook, which runs on all of
// the client's events.
func hookConfig(program string) *hook.Config {
	return &hook.Config{Program: program, Known: proto.Events, Events: proto.Events, Timeout: hook.DefaultTimeout}
}

// hooksOf starts the clients' own hooks, and keeps those that are unchanged.
func (r *Rollout) hooksOf(next *config.Config) (map[string]*hook.Hook, error) {
	out := make(map[string]*hook.Hook)
	programs := make(map[string]string)
	if r.current != nil {
		for _, c := range r.current.Clients {
			programs[c.Name] = c.Hook
		}
	}
	for _, c := range next.Clients {
		if c.Hook == "" {
			continue
		}
		if h := r.hooks[c.Name]; h != nil && programs[c.Name] == c.Hook {
			out[c.Name] = h
			continue
		}
		h, err := hook.New(*hookConfig(c.Hook), r.log.Named("hook"))
		if err != nil {
			return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("starting the hook of the client %q: %w", c.Name, err))
		}
		out[c.Name] = h
	}
	return out, nil
}

// Event converts an event of the manager for package hook.
func Event(e proto.Event) hook.Event {
	return hook.Event{Name: e.Event, About: []any{"session", e.Session.Session}, Value: e}
}

// Handle passes an event to the hook of its client.
func (r *Rollout) Handle(e proto.Event) {
	name := e.Session.Client
	if e.Client != nil {
		name = e.Client.Client
	}
	if name == "" || e.Event == proto.EventLog {
		return
	}
	r.mu.Lock()
	h := r.hooks[name]
	r.mu.Unlock()
	if h != nil {
		h.Handle(Event(e))
	}
}
