package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/logging"
	"callhome/internal/nms/buckets"
	"callhome/internal/nms/cluster"
	"callhome/internal/nms/mirror"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// natsFlags say how NATS is reached.
func natsFlags(usage string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "cluster", Usage: usage},
		&cli.StringFlag{Name: "cluster-credentials", Usage: "log in to NATS with the user's JWT and seed in `FILE`"},
		&cli.StringFlag{Name: "cluster-ca", Usage: "trust NATS servers with a certificate of the CA in `FILE`"},
		&cli.StringFlag{Name: "cluster-cert", Usage: "show NATS the certificate in `FILE`, with --cluster-key"},
		&cli.StringFlag{Name: "cluster-key", Usage: "use the private key in `FILE` for --cluster-cert"},
	}
}

func clusterFlags() []cli.Flag {
	return append(natsFlags("join the cluster of stations whose NATS servers are at `URLS`, nats://HOST[:PORT] with commas between"),
		&cli.StringFlag{Name: "station", Usage: "have the name `NAME` in the cluster (default: the host's)"},
		&cli.StringFlag{Name: "peer-listen", Value: ":" + strconv.Itoa(peering.DefaultPort), Usage: "listen on `ADDRESS` for the other stations of the cluster"},
		&cli.StringFlag{Name: "peer-address", Usage: "be reached by other stations at `HOST:PORT` (default: the host's name and the port of --peer-listen)"},
		&cli.StringFlag{Name: "peer-directory", Value: "/etc/callhome-nms/cluster", Usage: "use the certificate, key and CA in `DIR`, which callhome-nms cluster init makes"},
	)
}

// natsOptions are the options for NATS, whose files exist.
func natsOptions(c *cli.Context, name string) (buckets.Options, error) {
	o := buckets.Options{
		URLs: strings.Split(c.String("cluster"), ","), Credentials: c.String("cluster-credentials"), CA: c.String("cluster-ca"),
		Certificate: c.String("cluster-cert"), Key: c.String("cluster-key"), Name: name,
	}
	for _, text := range o.URLs {
		// The address may have a password, so no message has it.
		if u, err := url.Parse(text); err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls"}, u.Scheme) {
			return o, program.Usage(errors.New("--cluster: expected nats://HOST[:PORT] or tls://HOST[:PORT], with commas between"))
		}
	}
	if (o.Certificate == "") != (o.Key == "") {
		return o, program.Usage(errors.New("--cluster-cert and --cluster-key: expected both or none"))
	}
	for _, file := range []string{o.Credentials, o.CA, o.Certificate, o.Key} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return o, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading what NATS is shown: %w", err))
		}
	}
	return o, nil
}

// bucketsCommand creates what stations write to: their own accounts need not.
func bucketsCommand() *cli.Command {
	return &cli.Command{Name: "buckets", Usage: "create the buckets of a cluster in NATS, or change them", Action: createBuckets, Flags: append(
		natsFlags("create them in the NATS servers at `URLS`, nats://HOST[:PORT] with commas between"),
		&cli.IntFlag{Name: "replicas", Value: 1, Usage: "keep each on `NUMBER` servers: 1, 3 or 5"},
		cmdline.DurationFlag("lease", 10*time.Second, "count a station as dead when it was silent for `TIME`"),
		&cli.IntFlag{Name: "devices", Value: buckets.DefaultDevices, Usage: "reserve space for `NUMBER` devices"},
	)}
}

func createBuckets(c *cli.Context) error {
	if c.String("cluster") == "" || c.NArg() > 0 {
		return program.Usage(errors.New("expected --cluster and no argument"))
	}
	if c.Duration("lease") < time.Second || c.Int("replicas") < 1 || c.Int("replicas") > 5 || c.Int("devices") < 1 {
		return program.Usage(errors.New("expected a --lease of 1s or more, 1 to 5 --replicas, and --devices above 0"))
	}
	options, err := natsOptions(c, "operator")
	if err != nil {
		return err
	}
	log, err := logging.New(logging.Options{Name: "callhome-nms", Level: "error"})
	if err != nil {
		return err
	}
	conn, err := buckets.Connect(options, log)
	if err != nil {
		return unusable(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	if err := conn.AwaitUp(ctx); err != nil {
		return sysexits.New(sysexits.Unavailable, "", err)
	}
	names, err := conn.Create(ctx, buckets.Layout{Replicas: c.Int("replicas"), Lease: c.Duration("lease"), Devices: c.Int("devices")})
	for _, n := range names {
		fmt.Println(n)
	}
	return err
}

// member is the station's part in a cluster.
type member struct {
	*cluster.Cluster
	identity *peering.Identity
	listener net.Listener
	peers    *peering.Server
	name     string
}

// expiresSoon is how long before the expiry of its certificate a station warns, daily.
const expiresSoon = 30 * 24 * time.Hour

// watchExpiry warns of a certificate that expires soon, or has expired, until ctx ends.
func watchExpiry(ctx context.Context, expires func() time.Time, log hclog.Logger) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		switch left := time.Until(expires()); {
		case left <= 0:
			log.Error("the station's certificate has expired, and other stations refuse it: callhome-nms cluster init --renew makes another", "expired", day(expires()))
		case left < expiresSoon:
			log.Warn("the station's certificate expires soon: callhome-nms cluster init --renew makes another", "expires", day(expires()))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// aloneWith refuses options of a cluster without --cluster: the station would be alone.
func aloneWith(c *cli.Context) error {
	for _, f := range clusterFlags() {
		if name := f.Names()[0]; c.IsSet(name) {
			return program.Usage(fmt.Errorf("--%s: expected --cluster too, without it the station has no cluster", name))
		}
	}
	return nil
}

// unusable is the error for files that a station needs for its cluster.
func unusable(err error) error {
	var file *os.PathError
	if errors.As(err, &file) {
		return sysexits.New(sysexits.NoInput, "", err)
	}
	return sysexits.New(sysexits.Config, "", err)
}

// joinCluster prepares what the command line says about a cluster; nil without one. The
// caller runs it.
func joinCluster(c *cli.Context, r *registry.Registry, log *logging.Logger) (*member, error) {
	if !c.IsSet("cluster") {
		return nil, aloneWith(c)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	m := &member{name: cmp.Or(c.String("station"), label)}
	options, err := natsOptions(c, m.name)
	if err != nil {
		return nil, err
	}
	if err := peering.CheckNames(m.name, nil); err != nil {
		return nil, program.Usage(fmt.Errorf("--station: %w", err))
	}
	if address := c.String("peer-address"); address != "" {
		if h, port, err := net.SplitHostPort(address); err != nil || h == "" || !isPort(port) {
			return nil, program.Usage(fmt.Errorf("--peer-address %q: expected HOST:PORT", address))
		}
	}
	warnings := ratelimit.NewWarnings(log)
	m.identity, err = peering.Load(m.name, c.String("peer-directory"), func(err error) {
		warnings.Warn("the station's certificate cannot be renewed; the former one is used", "error", err)
	})
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "callhome-nms cluster init makes the files of --peer-directory", err)
	}
	if m.listener, err = peering.Listen(c.Context, c.String("peer-listen")); err != nil {
		return nil, sysexits.New(sysexits.Unavailable, "free the address, or name another with --peer-listen", fmt.Errorf("listening for other stations: %w", err))
	}
	_, port, err := net.SplitHostPort(m.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.String("registry"))
	if err != nil {
		return nil, err
	}
	m.Cluster, err = cluster.New(cluster.Config{
		NATS: options, Address: cmp.Or(c.String("peer-address"), net.JoinHostPort(host, port)), Version: version,
		Registry: r, Dir: dir, Peers: peering.NewClient(m.identity), Log: log.Named("cluster"),
	})
	if err != nil {
		m.listener.Close()
		return nil, unusable(err)
	}
	return m, nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// view is how devices are seen and used: by a station alone, or by its cluster.
type view interface {
	Changes() (ids <-chan string, cancel func())
	Devices() []nmsproto.Device
	Device(id string) (nmsproto.Device, bool)
	Connect(ctx context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error)
}

// see returns the view of the cluster, or of the station alone.
func (d *backend) see() view {
	if d.cluster != nil {
		return d.cluster
	}
	return d.Station
}

// Connect opens a session with a device, wherever it is connected.
func (d *backend) Connect(ctx context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	return d.see().Connect(ctx, id, sock)
}

// DetailFor is a device as the cluster knows it, with its history at this station and at
// the one that has it.
func (d *backend) DetailFor(ctx context.Context, id string) (nmsproto.DeviceDetail, error) {
	out, err := d.Station.Detail(id)
	if err != nil {
		return out, err
	}
	out.Device, _ = d.see().Device(id)
	if d.cluster != nil {
		d.cluster.AddHistory(ctx, &out)
	}
	return out, nil
}

// counted is what the metrics show.
func (d *backend) counted() station.Stats {
	s := d.Stats()
	if d.cluster != nil {
		s.Devices = d.cluster.Share()
	}
	return s
}

// status adds what the cluster knows.
func (m *member) status(s *nmsproto.Status, devices []nmsproto.Device) {
	s.Station, s.Stations = m.name, m.Stations()
	s.Devices = make(map[nmsproto.State]int)
	for _, state := range nmsproto.States {
		s.Devices[state] = 0
	}
	for _, info := range devices {
		s.Devices[info.State]++
	}
	s.Unknown = len(m.Callers())
	if err := m.Problem(); err != nil {
		s.ClusterError = err.Error()
	}
}

// Import adds entries and revoked keys to the registry of the cluster.
func (d *backend) Import(p nmsproto.ImportParams, root bool) (out nmsproto.Imported, err error) {
	switch {
	case !root:
		return out, proto.NewError(proto.CodeAccessDenied, "import needs root: an entry may name a file with a credential")
	case d.cluster == nil:
		return out, proto.NewError(proto.CodeUnavailable, "the station has no cluster: its registry is its directory, put the files there")
	}
	out.Errors = make(map[int]string)
	var mu sync.Mutex // guards out and away
	var away error    // NATS is
	var wg sync.WaitGroup
	places := make(chan struct{}, importing)
	for i, text := range p.Entries {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			e, err := registry.Parse(text)
			var o mirror.Outcome
			if err == nil {
				o, err = d.cluster.Editor().Import(e)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, registry.ErrNotNow):
				away = err
			case err != nil:
				out.Errors[i] = err.Error()
			case o == mirror.Added:
				out.Added++
			case o == mirror.Changed:
				out.Changed++
			default:
				out.Unchanged++
			}
		})
	}
	wg.Wait()
	if len(p.Revoked) > 0 && away == nil {
		change, err := d.cluster.Editor().Revoke(p.Revoked...)
		switch {
		case errors.Is(err, registry.ErrNotNow):
			away = err
		case err != nil:
			return out, proto.NewError(proto.CodeOS, err.Error())
		default:
			d.RegistryRead(change, nil)
		}
	}
	if away != nil {
		return out, proto.NewError(proto.CodeBusy, away.Error())
	}
	return out, nil
}

// importing is how many entries are written at a time.
const importing = 16

// exportPart bounds the entries of one answer.
const exportPart = 500

// Export is a part of the registry. A copy without its revoked keys would be none.
func (d *backend) Export(p nmsproto.ExportParams) (out nmsproto.Exported, err error) {
	out.Entries = []nmsproto.EntryText{}
	if p.After == "" {
		if out.Revoked = d.registry.Revoked(); out.Revoked == nil {
			return out, proto.NewError(proto.CodeOS, registry.RevokedFile+" cannot be read, so which keys are revoked is not known: `callhome-nms devices` says why")
		}
	}
	for _, e := range d.registry.Entries() {
		switch {
		case e.ID <= p.After:
		case len(out.Entries) == exportPart:
			out.More = true
			return out, nil
		default:
			out.Entries = append(out.Entries, nmsproto.EntryText{ID: e.ID, Text: string(e.Format())})
		}
	}
	return out, nil
}
