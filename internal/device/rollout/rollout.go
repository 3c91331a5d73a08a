// Package rollout owns the configuration document in force. It reads and checks the
// document, writes the files for sshd, and passes the clients to package reconnect.
// cmd/callhome-mgr calls it at the start and on reload. A document with a fault
// changes nothing. It never calls home and never decides when to.
//
//	file ─▶ Read ─▶ checked Config ─▶ hooks, files on disk ─▶ reconnect
package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/provision"
	"callhome/internal/device/reconnect"
	"callhome/internal/device/settings"
	"callhome/internal/device/sysevents"
	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// Options are the files of a Rollout.
type Options struct {
	File     string // the document
	Explicit bool   // File was named by the operator and must exist
	Dir      string // of the clients' files for sshd
}

// Rollout is the document in force, with its files, hooks and clients.
type Rollout struct {
	Options
	log     hclog.Logger
	clients *reconnect.Clients

	// applying is held while a document is applied; it is locked before mu. It
	// guards files and current.
	applying sync.Mutex
	files    []config.File
	current  *config.Config

	// mu guards the fields that follow. It is held for look-ups only, so that
	// Status returns while a document is applied.
	mu     sync.Mutex
	status proto.ConfigStatus
	hooks  map[string]*hook.Hook // by client
}

// New returns a rollout to c; Apply puts the document in force.
func New(o Options, c *reconnect.Clients, log hclog.Logger) *Rollout {
	return &Rollout{Options: o, clients: c, log: log, hooks: make(map[string]*hook.Hook)}
}

// Apply reads the document and keeps its connections from then on. base is what a
// call home is made with where the document sets nothing. On an error everything
// stays as it was, and the error is published as an event.
func (r *Rollout) Apply(base *settings.Call) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	next, hooks, files, err := r.prepare(base)
	if err != nil {
		r.refused(err)
		return err
	}
	// A session of the former document may not have read its files yet, so they
	// stay until the next document is applied.
	keep := slices.Concat(files, r.files)
	r.files, r.current = files, next
	warnings := warningsOf(next)
	r.replaceHooks(hooks, next, warnings)
	r.clients.Apply(next, base)
	r.clients.Applied(len(next.Clients), warnings)
	if len(next.Clients) == 0 {
		r.log.Info("no standing connections, call homes are made on request only", "config", r.File)
	}
	if err := provision.Sweep(r.Dir, keep); err != nil {
		r.log.Warn("removing files of former clients failed", "error", err)
	}
	return nil
}

// prepare does everything that can fail, and puts nothing in force.
func (r *Rollout) prepare(base *settings.Call) (*config.Config, map[string]*hook.Hook, []config.File, error) {
	// Where there are clients, a missing file was lost or is being replaced. An
	// operator who wants no clients writes a document without clients.
	needed := r.Explicit || r.current != nil && len(r.current.Clients) > 0
	next, err := Read(r.File, needed, base.Sshd.Sshd)
	if err != nil {
		return nil, nil, nil, err
	}
	hooks, err := r.hooksOf(next)
	if err != nil {
		return nil, nil, nil, err
	}
	var files []config.File
	for _, client := range next.Clients {
		for i := range client.Endpoints {
			files = append(files, client.Endpoints[i].Files(r.Dir)...)
		}
	}
	if len(files) == 0 {
		return next, hooks, nil, nil // then Dir need not exist
	}
	return next, hooks, files, provision.Write(r.Dir, files)
}

// maxWarnings bounds the warnings of a document in status and events.
const maxWarnings = 16

func warningsOf(c *config.Config) []string {
	var out []string
	for i, w := range c.Warnings {
		if i == maxWarnings {
			return append(out, fmt.Sprintf("%d more; callhome-mgr check lists all", len(c.Warnings)-i))
		}
		out = append(out, w.Error())
	}
	return out
}

// maxFaults bounds the faults of a refused document in status and events, in bytes:
// a document can have a fault in each line.
const maxFaults = 8 << 10

func (r *Rollout) refused(err error) {
	text := err.Error()
	if len(text) > maxFaults {
		text = strings.ToValidUTF8(text[:maxFaults], "") + " ... callhome-mgr check lists all faults"
	}
	r.mu.Lock()
	r.status.Error = text
	r.mu.Unlock()
	r.clients.Refused(text)
}

// Refused publishes that the settings beside the document are wrong.
func (r *Rollout) Refused(err error) { r.clients.Refused(err.Error()) }

// Status returns the status of the document in force, and the last error.
func (r *Rollout) Status() proto.ConfigStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Clients returns the configured clients, in the document's order.
func (r *Rollout) Clients() []proto.ClientStatus { return r.clients.Status() }

// Call calls a client now and returns its session (reconnect.Clients.Call).
func (r *Rollout) Call(ctx context.Context, client string) (reconnect.Session, error) {
	return r.clients.Call(ctx, client)
}

// Restart calls waiting and given-up clients now (reconnect.Clients.Restart).
func (r *Rollout) Restart(client string) ([]string, error) { return r.clients.Restart(client) }

// Close stops keeping connections. The sessions continue.
func (r *Rollout) Close() { r.clients.Close() }

// Watch wakes the clients on changes of the network and the clock until ctx ends.
// With follow, it calls reload when the file was replaced.
func (r *Rollout) Watch(ctx context.Context, follow bool, reload func()) error {
	if err := sysevents.Network(ctx.Done(), r.clients.Network); err != nil {
		r.log.Warn("watching the network failed, clients are called late when a link returns", "error", err)
	}
	if err := sysevents.Clock(ctx.Done(), r.clients.ClockSet); err != nil {
		r.log.Warn("watching the clock failed, periodic clients follow a clock step late", "error", err)
	}
	if !follow {
		return nil
	}
	if err := sysevents.File(ctx.Done(), r.File, reload); err != nil {
		return sysexits.New(sysexits.OSErr, "", err)
	}
	return nil
}

// replaceHooks puts the hooks in force, with the new status, and closes the hooks
// that no client uses.
func (r *Rollout) replaceHooks(hooks map[string]*hook.Hook, next *config.Config, warnings []string) {
	now := time.Now().UTC()
	r.mu.Lock()
	old := r.hooks
	r.hooks = hooks
	r.status = proto.ConfigStatus{File: r.File, Applied: &now, Missing: next.Missing, Clients: len(next.Clients), Warnings: warnings}
	r.mu.Unlock()
	for name, h := range old {
		if hooks[name] != h {
			go h.Close()
		}
	}
}
