package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/daemon"
	"callhome/internal/logging"
	"callhome/internal/nms/control"
	"callhome/internal/nms/devsock"
	"callhome/internal/nms/listen"
	"callhome/internal/nms/metrics"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
	"callhome/internal/pubsub"
	"callhome/internal/ratelimit"
	"callhome/internal/rpc"
	"callhome/internal/sysexits"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func serveCommand() *cli.Command {
	d := station.Defaults()
	return &cli.Command{Name: "serve", Usage: "run the daemon that holds the connections of many devices", Action: serve, Flags: slices.Concat([]cli.Flag{
		&cli.StringSliceFlag{Name: "listen", Usage: "accept call homes on `ADDRESS`, ADDRESS:PORT or :PORT; repeatable; without it on every address, port 4334"},
		&cli.StringSliceFlag{Name: "proxy-from", Usage: "require the PROXY header from the load balancers in `NETWORK`, and use its address; repeatable"},
		&cli.StringFlag{Name: "registry", Value: "/etc/callhome-nms/devices", Usage: "read the registry in `DIR`, one file per device"},
		socketFlag(),
		&cli.StringFlag{Name: "device-sockets", Value: "/run/callhome-nms/devices", Usage: "keep a device socket, with plain NETCONF, in `DIR` for each connected device; empty for none"},
		&cli.StringFlag{Name: "group", Value: "callhome-nms", Usage: "let members of `GROUP` use and adopt devices"},
		&cli.StringFlag{Name: "read-group", Usage: "let members of `GROUP` list devices and events"},
		&cli.StringFlag{Name: "user", Usage: "log in as `USER` where a device's entry names no user"},
		&cli.StringFlag{Name: "key-file", Usage: "log in with the private key in `FILE`, and the certificate beside it"},
		&cli.StringFlag{Name: "password-file", Usage: "log in with the password in `FILE`"},
		cmdline.ChoiceFlag("duplicate", string(d.Duplicate), "take `ACTION` refuse or replace on a duplicate, a second live connection of one device", string(registry.Refuse), string(registry.Replace)),
		&cli.IntFlag{Name: "max-unauthenticated", Value: d.MaxUnauthenticated, Usage: "hold at most `NUMBER` unauthenticated connections"},
		&cli.IntFlag{Name: "max-per-source", Value: d.MaxPerSource, Usage: "hold at most `NUMBER` unauthenticated connections from one address"},
		&cli.BoolFlag{Name: "old-key-exchange", Usage: "also offer diffie-hellman-group14-sha256, for devices that have no curve25519; it takes up to 20 times the processor time"},
		cmdline.DurationFlag("login-time", d.LoginTime, "close a connection that has not logged in after `TIME`"),
		cmdline.DurationFlag("keepalive", d.KeepaliveEvery, "send a keepalive to each device every `TIME`"),
		cmdline.DurationFlag("keepalive-time", d.KeepaliveTime, "close a connection whose keepalive has no answer after `TIME`"),
		cmdline.DurationFlag("probe-time", d.ProbeTime, "when a connected device calls again, close its old connection unless it answers within `TIME`"),
	}, clusterFlags(), cmdline.LogFlags(), []cli.Flag{cmdline.MetricsFlag()}, cmdline.HookFlags(defaultHookEvents))}
}

func socketFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", Value: nmsproto.DefaultSocket, EnvVars: []string{"CALLHOME_NMS_SOCKET"}, Usage: "call the daemon at `SOCKET`"}
}

// backend is the control.Backend: the station, and what only the process knows.
type backend struct {
	*station.Station
	cluster   *member // nil without one
	registry  *registry.Registry
	calls     *listen.Listener
	listening []string
	group     string // may call every method; "" for root alone
	begun     time.Time
	log       *logging.Logger

	descriptors sync.Mutex // guards the next two
	demand      demand
	short       bool // the limit of descriptors does not suffice
}

func serve(c *cli.Context) error {
	log, err := logging.New(logging.Options{Name: "callhome-nms", Format: c.String("log-format"), Level: c.String("log-level"), Syslog: c.Bool("syslog")})
	if err != nil {
		return err
	}
	config, change, err := stationConfig(c)
	if err != nil {
		return err
	}
	access, err := rpc.AccessOf(c.String("group"), c.String("read-group"), log)
	if err != nil {
		return err
	}
	calls, socket, err := openSockets(c)
	if err != nil {
		return err
	}
	defer calls.Close()
	defer socket.Close()
	warnings := ratelimit.NewWarnings(log)
	defer warnings.Rest()
	calls.Temporary = func(err error) { warnings.Warn("cannot accept call homes; temporary, retry", "error", err) }
	calls.Unprepared = func(from netip.AddrPort, err error) {
		warnings.Warn("a call continues without an option of its connection", "address", from, "error", err)
	}
	cluster, err := joinCluster(c, config.Registry, log)
	if err != nil {
		return err
	}
	b, m, err := newBackend(config, cluster, log, calls)
	if err != nil {
		return err
	}
	b.group = access.Group
	f, err := follow(c, b, m)
	if err != nil {
		return err
	}
	defer f.End()
	sockets, err := openDeviceSockets(c, b.see(), access, log)
	if err != nil {
		return err
	}
	b.demand = demand{each: 1, unauthenticated: config.MaxUnauthenticated}
	if sockets != nil {
		b.demand.each = 2
	}
	b.RegistryRead(change, nil)
	b.checkDescriptors()
	daemon.Notify(log, sddaemon.SdNotifyReady)
	log.Info("ready", "version", version, "listening", b.listening, "socket", c.String("socket"), "devices", config.Registry.Len())
	err = b.run(c.Context, socket, access, sockets)
	log.Info("stopped")
	return err
}

// newBackend makes the station, and the metrics that it feeds.
func newBackend(config station.Config, cluster *member, log *logging.Logger, calls *listen.Listener) (*backend, *metrics.Metrics, error) {
	b := &backend{cluster: cluster, registry: config.Registry, calls: calls, begun: time.Now().UTC(), log: log}
	m := metrics.New(b.counted, version)
	limitGarbage()
	storms := newStorms(freeMemory)
	config.LoggedIn = func(took time.Duration) {
		m.LoggedIn(took)
		storms.loggedIn()
	}
	config.RegistryRead, config.Scarce = b.reportRegistry, scarce
	if cluster != nil {
		config.Name, config.Cluster, config.Editor = cluster.name, cluster, cluster.Editor()
	}
	var err error
	if b.Station, err = station.New(config); err != nil {
		return nil, nil, program.Usage(err)
	}
	if cluster != nil {
		cluster.peers = peering.NewServer(cluster.identity, b.Station, cluster.Knows, log.Named("peers"))
		cluster.Attach(b.Station, func() pubsub.Source[nmsproto.Event] { return b.Follow() })
		m.AddCluster(cluster.Figures)
	}
	for _, a := range calls.Addrs() {
		b.listening = append(b.listening, a.String())
	}
	return b, m, nil
}

// run serves until ctx ends.
func (d *backend) run(ctx context.Context, socket *net.UnixListener, access rpc.Access, sockets *devsock.Sockets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 2)
	attempt := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	attempt(func() error { return d.registry.Watch(ctx, d.RegistryRead) })
	attempt(func() error { return control.NewServer(d, access, d.log.Named("control")).Serve(socket) })
	wg.Go(func() { daemon.Watchdog(ctx, d.log, func() { _ = d.Status() }) })
	if sockets != nil {
		wg.Go(func() { sockets.Run(ctx) })
	}
	if d.cluster != nil {
		wg.Go(func() { d.cluster.Run(ctx) })
		wg.Go(func() { watchExpiry(ctx, d.cluster.identity.Expires, d.log) })
		attempt(func() error { return d.cluster.peers.Serve(ctx, d.cluster.listener) })
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				daemon.Notify(d.log, sddaemon.SdNotifyStopping)
				return
			case <-hup:
				_ = d.Reload() // which logs errors
				if d.cluster != nil {
					d.cluster.peers.Recheck()
				}
			}
		}
	})
	err := d.Serve(ctx, d.calls)
	// All sessions have ended with the station, so no peer waits for a result.
	socket.Close()
	cancel()
	wg.Wait()
	select {
	case first := <-failed:
		return errors.Join(err, first)
	default:
		return err
	}
}

// stationConfig reads the command line and the registry.
func stationConfig(c *cli.Context) (config station.Config, change registry.Change, err error) {
	config = station.Config{
		Credential:         station.Credential{User: c.String("user"), KeyFile: c.String("key-file"), PasswordFile: c.String("password-file")},
		Duplicate:          registry.Duplicate(c.String("duplicate")),
		MaxUnauthenticated: c.Int("max-unauthenticated"), MaxPerSource: c.Int("max-per-source"),
		OldKeyExchange: c.Bool("old-key-exchange"),
		LoginTime:      c.Duration("login-time"), KeepaliveEvery: c.Duration("keepalive"), KeepaliveTime: c.Duration("keepalive-time"), ProbeTime: c.Duration("probe-time"),
	}
	if config.Credential.KeyFile != "" && config.Credential.PasswordFile != "" {
		return config, change, program.Usage(errors.New("--key-file and --password-file exclude each other"))
	}
	if config.Balancers, err = listen.ParseNets(c.StringSlice("proxy-from")); err != nil {
		return config, change, err
	}
	dir, err := filepath.Abs(c.String("registry"))
	if err == nil {
		config.Registry, change, err = registry.Open(dir)
	}
	if err != nil {
		return config, change, sysexits.New(sysexits.NoInput, "create the directory, or name another with --registry", err)
	}
	return config, change, nil
}

// openSockets opens the listeners for call homes and for the control socket, or
// takes those that systemd passes: TCP and Unix sockets respectively.
func openSockets(c *cli.Context) (*listen.Listener, *net.UnixListener, error) {
	passed, err := daemon.PassedSockets()
	if err != nil {
		return nil, nil, err
	}
	calls, socket := listen.New(passed.TCP...), passed.Unix
	calls.Shared = true
	if len(passed.TCP) == 0 {
		if calls, err = listen.Open(c.StringSlice("listen")); err != nil {
			return nil, nil, err
		}
	}
	if socket == nil {
		if socket, err = daemon.ListenUnix(c.String("socket"), "control"); err != nil {
			calls.Close()
			return nil, nil, err
		}
	}
	return calls, socket, nil
}

func openDeviceSockets(c *cli.Context, s view, access rpc.Access, log *logging.Logger) (*devsock.Sockets, error) {
	if c.String("device-sockets") == "" {
		return nil, nil
	}
	return devsock.New(c.String("device-sockets"), s, access, log.Named("sockets"))
}

// reportRegistry logs and publishes what is new in the registry.
func (d *backend) reportRegistry(c registry.Change, err error) {
	if err != nil {
		d.log.Error("cannot read the registry", "error", err)
		return
	}
	if len(c.Added)+len(c.Changed)+len(c.Removed) > 0 || c.Revoked {
		d.log.Info("registry read", "devices", d.registry.Len(), "added", len(c.Added), "changed", len(c.Changed), "removed", len(c.Removed), "revocations-changed", c.Revoked)
	}
	if len(c.Added) > 0 {
		d.checkDescriptors()
	}
	if d.cluster != nil {
		d.cluster.Removed(c.Removed)
	}
	for _, p := range c.Problems {
		d.Publish(nmsproto.Event{Event: nmsproto.EventRegistry, Cause: p.File + ": " + p.Error})
	}
}

// Reload reads the registry again.
func (d *backend) Reload() error {
	c, err := d.registry.Reload()
	d.RegistryRead(c, err)
	if err != nil {
		return proto.NewError(proto.CodeOS, err.Error())
	}
	return nil
}

// Drain closes the sockets for call homes, so that devices call another station: the
// kernel refuses their calls. Those that systemd has open, too, stay open, and the station
// refuses each call. A drain down to a number of devices refuses none.
func (d *backend) Drain(p nmsproto.DrainParams) (nmsproto.Drain, error) {
	out, err := d.Station.Drain(p)
	if err == nil && !d.calls.Shared && p.DownTo == 0 {
		d.calls.Close()
	}
	return out, err
}

// List is every device, unknown device and problem.
func (d *backend) List() nmsproto.DeviceList {
	out := nmsproto.DeviceList{Devices: d.see().Devices(), Problems: []nmsproto.Problem{}}
	problems := d.registry.Problems()
	if d.cluster == nil {
		out.Unknown = d.Unknown()
	} else {
		out.Unknown = d.cluster.Callers()
		problems = append(problems, d.cluster.Editor().Problems()...)
	}
	for _, p := range problems {
		out.Problems = append(out.Problems, nmsproto.Problem(p))
	}
	return out
}

// Status is the daemon's own.
func (d *backend) Status() nmsproto.Status {
	s := d.Stats()
	out := nmsproto.Status{
		Version: version, PID: os.Getpid(), Since: d.begun, Listening: d.listening, Group: d.group, Devices: s.Devices, Sessions: s.SessionsNow,
		Unauthenticated: s.Unauthenticated, Unknown: s.Unknown, Calls: s.Calls, Drain: s.Drain,
		RegistryError: d.registry.Lost(),
	}
	if d.cluster != nil {
		d.cluster.status(&out, d.see().Devices())
	}
	return out
}

var _ control.Backend = (*backend)(nil)
