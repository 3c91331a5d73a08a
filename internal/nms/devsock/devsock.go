// Package devsock keeps a device socket, with plain NETCONF, for each connected
// device: DIR/ID.sock exists as long as the device is connected. It owns these
// sockets and decides which peers may use one; the station relays the bytes. The
// command serve runs it. It never reads a byte of a session, and has no SSH.
package devsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"callhome/internal/daemon"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/ratelimit"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
)

// Suffix follows the device's id in a socket's name.
const Suffix = ".sock"

// maxConns bounds the connections to one device socket.
const maxConns = 64

// Station has the devices, and opens the sessions with them.
type Station interface {
	Changes() (ids <-chan string, cancel func())
	Devices() []nmsproto.Device
	Device(id string) (nmsproto.Device, bool)
	Connect(ctx context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error)
}

// Sockets are the device sockets of one directory.
type Sockets struct {
	dir     string
	access  rpc.Access
	station Station
	log     hclog.Logger
	// warnings are rate-limited: every local user can cause them.
	warnings *ratelimit.Warnings
	open     map[string]*net.UnixListener // only Run's goroutine uses it
	wg       sync.WaitGroup
}

// New creates the directory, and removes the sockets that a former process left
// there.
func New(dir string, s Station, a rpc.Access, log hclog.Logger) (*Sockets, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the directory for device sockets: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the directory for device sockets: %w", err)
	}
	for _, f := range files {
		if f.Type() == os.ModeSocket && strings.HasSuffix(f.Name(), Suffix) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("removing a device socket of a former process: %w", err)
			}
		}
	}
	return &Sockets{dir: dir, station: s, access: a, log: log, warnings: ratelimit.NewWarnings(log), open: make(map[string]*net.UnixListener)}, nil
}

// Run opens and closes sockets as devices connect and disconnect, until ctx ends.
func (d *Sockets) Run(ctx context.Context) {
	defer d.warnings.Rest()
	defer d.wg.Wait()
	defer d.closeAll()
	for ctx.Err() == nil {
		changes, cancel := d.station.Changes()
		stop := context.AfterFunc(ctx, cancel)
		connected := make(map[string]bool)
		for _, device := range d.station.Devices() {
			connected[device.ID] = true
			d.sync(ctx, device.ID)
		}
		for id := range d.open {
			if !connected[id] {
				d.sync(ctx, id) // it is not in the registry any more
			}
		}
		n := 0
		for id := range changes {
			n++
			d.sync(ctx, id)
		}
		stop()
		if n == 0 {
			return // the station has stopped
		}
	}
}

// sync opens the socket of a connected device, and closes that of any other.
func (d *Sockets) sync(ctx context.Context, id string) {
	info, _ := d.station.Device(id)
	l := d.open[id]
	switch {
	case info.State == nmsproto.Connected && l == nil:
		path := filepath.Join(d.dir, id+Suffix)
		l, err := listen(path)
		if err != nil {
			d.log.Error("cannot open a device socket", "device", id, "error", err)
			return
		}
		d.open[id] = l
		d.wg.Go(func() { d.serve(ctx, id, l) })
	case info.State != nmsproto.Connected && l != nil:
		l.Close()
		delete(d.open, id)
	}
}

func listen(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Every user may connect: SO_PEERCRED decides who may use the device.
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (d *Sockets) closeAll() {
	for id, l := range d.open {
		l.Close()
		delete(d.open, id)
	}
}

// serve accepts connections until the socket is closed.
func (d *Sockets) serve(ctx context.Context, id string, l *net.UnixListener) {
	places := make(chan struct{}, maxConns)
	for {
		c, err := daemon.Accept(l.AcceptUnix, func(err error) {
			d.warnings.Warn("cannot accept connections to a device socket; temporary, retry", "device", id, "error", err)
		})
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Error("a device socket failed", "device", id, "error", err)
			}
			return
		}
		peer, err := rpc.PeerOf(c)
		if full, _ := d.access.Allows(peer); err != nil || !full {
			d.warnings.Warn("connection refused", "device", id, "peer", peer.String(), "error", err)
			c.Close()
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			d.warnings.Warn("connection refused: too many connections to this device socket", "device", id, "peer", peer.String())
			c.Close()
			continue
		}
		d.wg.Go(func() {
			defer func() { <-places }()
			out, err := d.station.Connect(rpc.WithPeer(ctx, peer), id, c)
			d.log.Info("session ended", "device", id, "peer", peer.String(), "sent", out.Sent, "received", out.Received, "error", err)
		})
	}
}
