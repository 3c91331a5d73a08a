package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"callhome/internal/cmdline"
	"callhome/internal/daemon"
	"callhome/internal/device/api"
	"callhome/internal/device/manager"
	"callhome/internal/device/reconnect"
	"callhome/internal/device/rollout"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/logging"
	"callhome/internal/proto"
	"callhome/internal/rpc"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

const defaultConfig = "/etc/callhome/callhome.json"

func configurationFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "read the standing connections from `FILE`, an ietf-netconf-server document", EnvVars: []string{"CALLHOME_CONFIG"}},
		&cli.BoolFlag{Name: "follow-config", Usage: "read the configuration again when its file is replaced"},
		&cli.StringFlag{Name: "clients-dir", Value: "/run/callhome/clients", Usage: "write the configuration's keys for sshd below `DIR`"},
		&cli.StringFlag{Name: "data-dir", Value: "/var/lib/callhome", Usage: "keep what must outlive a boot, the endpoints connected to last, in `DIR`"},
	}
}

// newRollout returns what keeps the document's connections with calls of m.
func newRollout(c *cli.Context, m *manager.Manager, log hclog.Logger) *rollout.Rollout {
	clients := reconnect.New(callMaker{m}, reconnect.Options{
		Dir:   c.String("clients-dir"),
		Last:  filepath.Join(c.String("data-dir"), "last-connected.json"),
		Slots: filepath.Join(c.String("state-dir"), "slots.json"),
	}, log)
	return rollout.New(rollout.Options{File: c.String("config"), Explicit: c.IsSet("config"), Dir: c.String("clients-dir")}, clients, log)
}

// callMaker is the manager as package reconnect uses it.
type callMaker struct{ *manager.Manager }

func (c callMaker) Keep(call *settings.Call, owner session.Owner) (reconnect.Session, error) {
	made, err := c.Manager.Keep(call, owner)
	if err != nil {
		return nil, err // not made, which is a nil of another type
	}
	return made, nil
}

func (c callMaker) Kept() []reconnect.Session {
	var out []reconnect.Session
	for _, s := range c.Manager.Kept() {
		out = append(out, s)
	}
	return out
}

func runFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "ssh-call-home-executable", Usage: "let `PROGRAM` make the call homes, as ConfD's sshCallHomeExecutable", EnvVars: []string{"CALLHOME_SSH_CALL_HOME_EXECUTABLE"}},
		&cli.StringFlag{Name: "state-dir", Value: "/run/callhome/sessions", Usage: "keep the sessions' state and logs in `DIR`, on tmpfs"},
		&cli.Uint64Flag{Name: "state-size", Value: 16 << 20, Usage: "mount a tmpfs of at most `BYTES` there; 0 to leave DIR as it is"},
		&cli.StringFlag{Name: "group", Value: "callhome", Usage: "let members of `GROUP` call every method"},
		&cli.StringFlag{Name: "read-group", Usage: "let members of `GROUP` call the read-only methods"},
		&cli.StringFlag{Name: "log-file", Usage: "log to `FILE` instead of stderr; reopen_logs opens it again"},
	}, configurationFlags(), cmdline.LogFlags(), []cli.Flag{metricsFlag()}, cmdline.HookFlags(defaultHookEvents))
}

// backend is the API's Backend: the manager, and what only the process can do.
type backend struct {
	*manager.Manager
	rollout  *rollout.Rollout
	c        *cli.Context
	log      *logging.Logger
	stop     chan struct{}
	stopOnce sync.Once
}

// runDaemon is callhome-mgr run: it serves until a signal or the method
// shutdown stops it. Sessions continue without it.
func runDaemon(c *cli.Context) error {
	// The hook and the executable must not inherit descriptors of the process that
	// started the daemon, nor systemd's socket.
	if err := sshdexec.SweepDescriptors(); err != nil {
		return err
	}
	log, err := logging.New(logging.Options{Name: "callhome-mgr", Format: c.String("log-format"), Level: c.String("log-level"), Syslog: c.Bool("syslog"), File: c.String("log-file")})
	if err != nil {
		return err
	}
	config, err := loadConfig(c)
	if err != nil {
		return err
	}
	if file := c.String("config"); c.IsSet("config") {
		if _, err := os.Stat(file); err != nil {
			return sysexits.New(sysexits.NoInput, "", fmt.Errorf("looking for the configuration: %w", err))
		}
	}
	access, err := rpc.AccessOf(c.String("group"), c.String("read-group"), log)
	if err != nil {
		return err
	}
	listener, err := listen(c.String("socket"))
	if err != nil {
		return err
	}
	defer listener.Close()
	m, err := newManager(c, config, log)
	if err != nil {
		return err
	}
	conf := newRollout(c, m, log)
	d := &backend{Manager: m, rollout: conf, c: c, log: log, stop: make(chan struct{})}
	w, err := follow(c, d, log)
	if err != nil {
		return err
	}
	defer w.End()
	w.Follow("client hooks", func() {}, conf.Handle)
	if err := m.Restore(); err != nil {
		log.Warn("some sessions could not be restored as they were", "error", err)
	}
	// Faults are published as an event, which is logged. Existing sessions need
	// this daemon in any case.
	_ = conf.Apply(config.Call)
	defer conf.Close()
	if err := conf.Watch(w.Context(), c.Bool("follow-config"), func() { _ = d.Reload() }); err != nil {
		return err
	}
	go d.awaitEnd(listener)
	go daemon.Watchdog(c.Context, log, func() { _ = m.Status() })
	daemon.Notify(log, sddaemon.SdNotifyReady)
	log.Info("ready", "version", version, "socket", c.String("socket"), "sessions", len(m.Sessions()))
	err = api.NewServer(d, access, log).Serve(listener)
	m.Close() // after the last answer, so all events until then are published
	log.Info("stopped", "sessions-left-running", len(m.Sessions()))
	return err
}

// newManager returns the manager of the state directory, which takes the reports
// of helpers.
func newManager(c *cli.Context, config *manager.Config, log hclog.Logger) (*manager.Manager, error) {
	if err := session.PrepareDir(c.String("state-dir"), c.Uint64("state-size")); errors.Is(err, unix.EPERM) {
		// In a container, say: everything works, only the bound is missing.
		log.Warn("the sessions' files are not bounded, set --state-size 0 to leave it at that", "error", err)
	} else if err != nil {
		return nil, err
	}
	m, err := manager.New(version, c.String("state-dir"), config)
	if err != nil {
		return nil, err
	}
	helper := helperBeside()
	if err := m.ServeReports(reportSocket(c.String("socket")), helper); err != nil {
		return nil, err
	}
	if helper == "" {
		log.Warn("no callhome-trigger beside callhome-mgr: the orderly end of a session is not recognised")
	}
	return m, nil
}

// awaitEnd turns signals into what they mean, until one ends the daemon.
func (d *backend) awaitEnd(l *net.UnixListener) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer l.Close()
	defer daemon.Notify(d.log, sddaemon.SdNotifyStopping)
	defer d.Stop()          // so that no call begins whose answer cannot be sent
	defer d.rollout.Close() // it makes calls, too
	for {
		select {
		case <-hup:
			_ = d.Reload() // faults are published as an event, which is logged
		case <-d.c.Context.Done():
			return
		case <-d.stop:
			return
		}
	}
}

// Reload reads the settings again; a wrong one leaves those in force.
func (d *backend) Reload() error {
	config, err := loadConfig(d.c)
	if err != nil {
		d.rollout.Refused(err)
		return proto.NewError(proto.CodeBadConfig, err.Error())
	}
	if err := d.rollout.Apply(config.Call); err != nil {
		return proto.NewError(proto.CodeBadConfig, err.Error())
	}
	d.SetConfig(config)
	return nil
}

// Status returns the manager's own state, with that of the configured clients.
func (d *backend) Status() proto.Status {
	st := d.Manager.Status()
	st.Config, st.Clients = d.rollout.Status(), d.Clients()
	return st
}

// Clients returns those of the configuration.
func (d *backend) Clients() []proto.ClientStatus { return d.rollout.Clients() }

// Call makes a call home to the host, or to the configured client, that p names.
func (d *backend) Call(ctx context.Context, p proto.CallParams) (proto.SessionInfo, error) {
	if p.Client == "" {
		return d.Manager.Call(ctx, p)
	}
	if p.Host != "" || p.Port != 0 || p.Opaque != "" {
		return proto.SessionInfo{}, proto.NewError(proto.CodeBadType, "client given with host, port or opaque: its configuration has them")
	}
	if err := manager.CheckWait(p.Wait); err != nil {
		return proto.SessionInfo{}, err
	}
	made, err := d.rollout.Call(ctx, p.Client)
	if err != nil {
		return proto.SessionInfo{}, err
	}
	return d.Await(ctx, made.Info().Session, p.Wait)
}

// Restart calls clients of the configuration now.
func (d *backend) Restart(client string) ([]string, error) {
	names, err := d.rollout.Restart(client)
	if err != nil {
		return nil, proto.NewError(proto.CodeNoExists, err.Error()+"; callhome-mgr status lists them")
	}
	return names, nil
}

// Reopen opens the log's file again.
func (d *backend) Reopen() error {
	if err := d.log.Reopen(); err != nil {
		return proto.NewError(proto.CodeOS, err.Error())
	}
	return nil
}

// Shutdown ends the daemon after the answer.
func (d *backend) Shutdown() { d.stopOnce.Do(func() { close(d.stop) }) }

// reportSocket is where helpers report, beside the API's socket.
func reportSocket(socket string) string {
	return strings.TrimSuffix(socket, ".sock") + "-subsystem.sock"
}

// helperBeside returns the callhome-trigger that is installed with this program;
// "" where there is none.
func helperBeside() string {
	own, err := os.Executable()
	if err != nil {
		return ""
	}
	helper := filepath.Join(filepath.Dir(own), "callhome-trigger")
	if unix.Access(helper, unix.X_OK) != nil {
		return ""
	}
	return helper
}

// loadConfig reads the trigger's settings, which hold for the daemon too.
func loadConfig(c *cli.Context) (*manager.Config, error) {
	s, _, err := settings.Load(nil, nil, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	program := c.String("ssh-call-home-executable")
	if program != "" && !filepath.IsAbs(program) {
		return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("ssh-call-home-executable %q is not an absolute path", program))
	}
	return &manager.Config{Call: &s.Call, Executable: program}, nil
}

// listen opens the API's socket, or takes the one that systemd passes. Every
// user may connect: SO_PEERCRED decides who may call which method.
func listen(path string) (*net.UnixListener, error) {
	passed, err := daemon.PassedSockets()
	switch {
	case err != nil:
		return nil, err
	case len(passed.TCP) > 0:
		return nil, sysexits.New(sysexits.Config, "correct the socket unit", errors.New("using systemd's sockets: got a TCP socket, expected a Unix socket for the API"))
	case passed.Unix != nil:
		return passed.Unix, nil
	}
	return daemon.ListenUnix(path, "API")
}
