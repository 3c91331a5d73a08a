package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/manager"
	"callhome/internal/device/provision"
	"callhome/internal/device/reconnect"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/device/sysevents"
	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

const defaultConfig = "/etc/callhome/callhome.json"

func configurationFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "`FILE` of the standing connections, an ietf-netconf-server document", EnvVars: []string{"CALLHOME_CONFIG"}},
		&cli.BoolFlag{Name: "follow-config", Usage: "read the configuration again whenever its file is replaced"},
		&cli.StringFlag{Name: "clients-dir", Value: "/run/callhome/clients", Usage: "`DIR` for the keys that the configuration has for sshd"},
		&cli.StringFlag{Name: "data-dir", Value: "/var/lib/callhome", Usage: "`DIR` that outlives a boot, for the endpoints connected to last"},
	}
}

// configuration is the document in force and those who keep to it.
type configuration struct {
	file     string
	explicit bool // the file was named and must be there
	dir      string
	log      hclog.Logger
	keeper   *reconnect.Keeper

	applying sync.Mutex // held while one is applied, before mu; guards the next two
	files    []config.File
	current  *config.Config

	mu     sync.Mutex // guards the fields that follow; held for look-ups only
	status proto.ConfigStatus
	hooks  map[string]*hook.Hook // by client
}

func newConfiguration(c *cli.Context, caller reconnect.Caller, log hclog.Logger) *configuration {
	k := reconnect.New(caller, reconnect.Options{
		Dir:   c.String("clients-dir"),
		Last:  filepath.Join(c.String("data-dir"), "last-connected.json"),
		Slots: filepath.Join(c.String("state-dir"), "slots.json"),
	}, log)
	return &configuration{file: c.String("config"), explicit: c.IsSet("config"), dir: c.String("clients-dir"), log: log, keeper: k, hooks: make(map[string]*hook.Hook)}
}

// caller is the manager, as package standing wants it.
type caller struct{ *manager.Manager }

func (c caller) Keep(s *settings.Call, owner session.Owner) (reconnect.Session, error) {
	made, err := c.Manager.Keep(s, owner)
	if err != nil {
		return nil, err // not made, which is a nil of another type
	}
	return made, nil
}

func (c caller) Kept() []reconnect.Session {
	var out []reconnect.Session
	for _, s := range c.Manager.Kept() {
		out = append(out, s)
	}
	return out
}

// apply reads the document and keeps its connections from then on, with base
// for what it does not say. A document with a fault changes nothing.
func (g *configuration) apply(base *settings.Call) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	// A file that is gone while there are clients is being replaced, or was lost:
	// who wants no clients says so in it.
	needed := g.explicit || g.current != nil && len(g.current.Clients) > 0
	next, err := readConfig(g.file, needed, base.Sshd.Sshd)
	var hooks map[string]*hook.Hook
	if err == nil {
		hooks, err = g.hooksOf(next)
	}
	var files []config.File
	if err == nil {
		for _, client := range next.Clients {
			for i := range client.Endpoints {
				files = append(files, client.Endpoints[i].Files(g.dir)...)
			}
		}
	}
	if len(files) > 0 { // without, its directory need not be there
		err = provision.Write(g.dir, files)
	}
	if err != nil {
		g.refused(err)
		return err
	}
	// What sessions of the former configuration have yet to read stays until
	// the next one is applied.
	keep := slices.Concat(files, g.files)
	g.files, g.current = files, next
	now := time.Now().UTC()
	g.mu.Lock()
	old := g.hooks
	g.hooks = hooks
	g.status = proto.ConfigStatus{File: g.file, Applied: &now, Clients: len(next.Clients)}
	g.mu.Unlock()
	for name, h := range old {
		if hooks[name] != h {
			go h.Close()
		}
	}
	g.keeper.Apply(next, base)
	g.keeper.Applied(len(next.Clients))
	if len(next.Clients) == 0 {
		g.log.Info("no client is kept connected, a call home is made when it is asked for", "config", g.file)
	}
	if err := provision.Sweep(g.dir, keep); err != nil {
		g.log.Warn("files that no client has any more could not be removed", "error", err)
	}
	return nil
}

// maxFaults bounds what status and events say of a document that was refused,
// in bytes; a document can have a fault in each line.
const maxFaults = 8 << 10

func (g *configuration) refused(err error) {
	words := err.Error()
	if len(words) > maxFaults {
		words = strings.ToValidUTF8(words[:maxFaults], "") + " ... callhome-mgr check tells the rest"
	}
	g.mu.Lock()
	g.status.Error = words
	g.mu.Unlock()
	g.keeper.Refused(words)
}

// hooksOf starts the hooks of clients that have one of their own, and keeps
// those that stay as they are.
func (g *configuration) hooksOf(next *config.Config) (map[string]*hook.Hook, error) {
	out := make(map[string]*hook.Hook)
	programs := make(map[string]string)
	if g.current != nil {
		for _, c := range g.current.Clients {
			programs[c.Name] = c.Hook
		}
	}
	for _, c := range next.Clients {
		if c.Hook == "" {
			continue
		}
		if h := g.hooks[c.Name]; h != nil && programs[c.Name] == c.Hook {
			out[c.Name] = h
			continue
		}
		h, err := newHook(hook.Config{Program: c.Hook, Known: proto.Events, Events: proto.Events, Timeout: hook.DefaultTimeout}, g.log.Named("hook"))
		if err != nil {
			return nil, fmt.Errorf("hook of the client %q: %w", c.Name, err)
		}
		out[c.Name] = h
	}
	return out, nil
}

// handle hands an event to the hook of its client.
func (g *configuration) handle(e proto.Event) {
	name := e.Session.Client
	if e.Client != nil {
		name = e.Client.Client
	}
	if name == "" || e.Event == proto.EventLog {
		return
	}
	g.mu.Lock()
	h := g.hooks[name]
	g.mu.Unlock()
	if h != nil {
		h.Handle(hookEvent(e))
	}
}

// Status returns what is in force.
func (g *configuration) Status() proto.ConfigStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// watch follows the world until ctx ends: the network, the clock and, with
// follow, the file.
func (g *configuration) watch(ctx context.Context, follow bool, reload func()) error {
	if err := sysevents.Network(ctx.Done(), g.keeper.Network); err != nil {
		g.log.Warn("an address or a link that comes back will not be noticed", "error", err)
	}
	if err := sysevents.Clock(ctx.Done(), g.keeper.ClockSet); err != nil {
		g.log.Warn("a clock that is set will not be noticed", "error", err)
	}
	if !follow {
		return nil
	}
	if err := sysevents.File(ctx.Done(), g.file, reload); err != nil {
		return sysexits.New(sysexits.OSErr, "", err)
	}
	return nil
}

// maxConfig bounds what is read of the document, in bytes; config.Parse has the
// bound of what it takes.
const maxConfig = 8 << 20

// readConfig reads and checks a document. One that is not there and was not
// named is as one without clients.
func readConfig(file string, explicit bool, sshd string) (*config.Config, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) && !explicit {
		return &config.Config{}, nil
	}
	var doc []byte
	if err == nil {
		defer f.Close()
		doc, err = io.ReadAll(io.LimitReader(f, maxConfig+1))
	}
	if err == nil && len(doc) > maxConfig {
		err = fmt.Errorf("%s has more than the %d bytes that are read", file, maxConfig)
	}
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the configuration: %w", err))
	}
	features, err := sshdexec.Probe(sshd)
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	c, faults := config.Parse(doc, features, config.Defaults{})
	err = faults.Err()
	if err == nil {
		err = missing(c)
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("%s is refused whole:\n%w", file, err))
	}
	return c, nil
}

// missing returns what a configuration names that this machine has not: with a
// host key less sshd would not start, or be another device to the client.
func missing(c *config.Config) error {
	var errs []error
	for _, client := range c.Clients {
		at := "/ietf-netconf-server:netconf-server/call-home/netconf-client[name='" + client.Name + "']"
		if client.Hook != "" {
			h := hook.Config{Program: client.Hook, Known: proto.Events, Events: proto.Events, Timeout: hook.DefaultTimeout}
			if err := h.Check(); err != nil {
				errs = append(errs, fmt.Errorf("%s/callhome:hook: %w", at, err))
			}
		}
		for _, e := range client.Endpoints {
			for _, k := range e.HostKeys {
				if k.Path == "" {
					continue
				}
				if _, err := os.Stat(k.Path); err != nil {
					errs = append(errs, fmt.Errorf("%s/endpoints/endpoint[name='%s']: host key %s: %w", at, e.Name, k.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
