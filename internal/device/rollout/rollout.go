// Package rollout puts a configuration document in force: it reads the document,
// checks it, writes the files that sshd needs, and hands the clients to package
// reconnect. A document with a fault changes nothing. cmd/callhome-mgr calls it
// at the start and on reload. It makes no call home and decides nothing about
// time.
//
//	file ─▶ read ─▶ checked Config ─▶ hooks, files on disk ─▶ reconnect
package rollout

import (
	"context"
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

// Options are what a Rollout works with.
type Options struct {
	File     string // the document
	Explicit bool   // File was named by the operator and must exist
	Dir      string // for the clients' files for sshd
}

// Rollout is the document in force and what follows from it.
type Rollout struct {
	Options
	log     hclog.Logger
	clients *reconnect.Clients

	// applying is held while one document is applied, before mu. It guards
	// files and current.
	applying sync.Mutex
	files    []config.File
	current  *config.Config

	// mu guards the fields that follow, and is held for look-ups only: status
	// is answered while a document is being applied.
	mu     sync.Mutex
	status proto.ConfigStatus
	hooks  map[string]*hook.Hook // by client
}

// New returns a rollout to c; Apply puts the document in force.
func New(o Options, c *reconnect.Clients, log hclog.Logger) *Rollout {
	return &Rollout{Options: o, clients: c, log: log, hooks: make(map[string]*hook.Hook)}
}

// Apply reads the document and keeps its connections from then on. base is how
// a call is made as far as the document does not say. An error has changed
// nothing; it is published as an event, too.
func (r *Rollout) Apply(base *settings.Call) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	next, hooks, files, err := r.prepare(base)
	if err != nil {
		r.refused(err)
		return err
	}
	// Sessions of the former document may not have read their files yet, so
	// those stay until the next document is applied.
	keep := slices.Concat(files, r.files)
	r.files, r.current = files, next
	r.replaceHooks(hooks, len(next.Clients))
	r.clients.Apply(next, base)
	r.clients.Applied(len(next.Clients))
	if len(next.Clients) == 0 {
		r.log.Info("no standing connections, call homes are made on request only", "config", r.File)
	}
	if err := provision.Sweep(r.Dir, keep); err != nil {
		r.log.Warn("cannot remove files of former clients", "error", err)
	}
	return nil
}

// prepare does all that can fail: nothing is in force before it returns.
func (r *Rollout) prepare(base *settings.Call) (*config.Config, map[string]*hook.Hook, []config.File, error) {
	// A missing file while there are clients is being replaced, or was lost: an
	// operator who wants no clients writes a document without any.
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

// maxFaults bounds what status and events say of a refused document, in bytes: a
// document can have a fault in each line.
const maxFaults = 8 << 10

func (r *Rollout) refused(err error) {
	text := err.Error()
	if len(text) > maxFaults {
		text = strings.ToValidUTF8(text[:maxFaults], "") + " ... callhome-mgr check shows all faults"
	}
	r.mu.Lock()
	r.status.Error = text
	r.mu.Unlock()
	r.clients.Refused(text)
}

// Refused records that the settings beside the document are wrong.
func (r *Rollout) Refused(err error) { r.clients.Refused(err.Error()) }

// Status returns what is in force.
func (r *Rollout) Status() proto.ConfigStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Clients returns the configured clients, in the document's order.
func (r *Rollout) Clients() []proto.ClientStatus { return r.clients.Status() }

// Close ends the keeping of connections. The sessions go on.
func (r *Rollout) Close() { r.clients.Close() }

// Watch reacts to the network and the clock until ctx ends and, with follow, to
// a replacement of the file, on which it calls reload.
func (r *Rollout) Watch(ctx context.Context, follow bool, reload func()) error {
	if err := sysevents.Network(ctx.Done(), r.clients.Network); err != nil {
		r.log.Warn("cannot watch the network, clients are not called at once when a link returns", "error", err)
	}
	if err := sysevents.Clock(ctx.Done(), r.clients.ClockSet); err != nil {
		r.log.Warn("cannot watch the clock, periodic clients follow a clock step late", "error", err)
	}
	if !follow {
		return nil
	}
	if err := sysevents.File(ctx.Done(), r.File, reload); err != nil {
		return sysexits.New(sysexits.OSErr, "", err)
	}
	return nil
}

// replaceHooks puts other hooks in force and ends those that no client has any
// more.
func (r *Rollout) replaceHooks(hooks map[string]*hook.Hook, clients int) {
	now := time.Now().UTC()
	r.mu.Lock()
	old := r.hooks
	r.hooks = hooks
	r.status = proto.ConfigStatus{File: r.File, Applied: &now, Clients: clients}
	r.mu.Unlock()
	for name, h := range old {
		if hooks[name] != h {
			go h.Close()
		}
	}
}
