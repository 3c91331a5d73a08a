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
	"time"

	"callhome/internal/daemon"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/ratelimit"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Suffix follows the device's id in a socket's name.
const Suffix = ".sock"

// maxConns bounds the connections to one device socket.
const maxConns = 64

// acceptPause is the time between two tries, in which descriptors may be closed.
const acceptPause = 100 * time.Millisecond

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
	open     *listening
	missing  map[string]bool // devices without a socket for want of a descriptor; only Run's goroutine uses it
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
	open, err := newListening()
	if err != nil {
		return nil, fmt.Errorf("preparing device sockets: %w", err)
	}
	return &Sockets{dir: dir, station: s, access: a, log: log, warnings: ratelimit.NewWarnings(log), open: open, missing: make(map[string]bool)}, nil
}

// Run opens and closes sockets as devices connect and disconnect, until ctx ends.
func (d *Sockets) Run(ctx context.Context) {
	defer d.warnings.Rest()
	defer d.wg.Wait()
	defer d.open.end()
	d.wg.Go(func() {
		d.open.serve(func(s *socket, c *net.UnixConn) { d.accepted(ctx, s, c) }, func(s *socket, err error) {
			d.warnings.Warn("cannot accept connections to a device socket; temporary, retry", "device", s.id, "error", err)
			time.Sleep(acceptPause)
		})
	})
	// Without a change, the station has stopped, or this was slow before the first one.
	for empty := 0; empty < 2 && ctx.Err() == nil; {
		changes, cancel := d.station.Changes()
		stop := context.AfterFunc(ctx, cancel)
		connected := make(map[string]bool)
		for _, device := range d.station.Devices() {
			connected[device.ID] = true
			d.sync(device.ID)
		}
		for _, id := range d.open.ids() {
			if !connected[id] {
				d.sync(id) // it is not in the registry any more
			}
		}
		empty++
		for id := range changes {
			empty = 0
			d.sync(id)
		}
		stop()
	}
}

// sync opens the socket of a connected device, and closes that of any other.
func (d *Sockets) sync(id string) {
	info, _ := d.station.Device(id)
	connected, has := info.State == nmsproto.Connected, d.open.has(id)
	delete(d.missing, id)
	switch {
	case connected && !has:
		d.openOne(id)
	case !connected && has:
		d.open.shut(id)
		for other := range d.missing { // its descriptor is free
			d.sync(other)
			break
		}
	}
}

func (d *Sockets) openOne(id string) {
	switch err := d.open.open(d.dir, id); {
	case errors.Is(err, errKept), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		d.missing[id] = true
		d.warnings.Warn("cannot open a device socket", "device", id, "error", err)
	case err != nil:
		d.log.Error("cannot open a device socket", "device", id, "error", err)
	}
}

// accepted serves a connection, which it owns.
func (d *Sockets) accepted(ctx context.Context, s *socket, c *net.UnixConn) {
	refuse := func(why string, fields ...any) {
		d.warnings.Warn("connection refused"+why, append([]any{"device", s.id}, fields...)...)
		c.Close()
	}
	peer, err := rpc.PeerOf(c)
	full, _ := d.access.Allows(peer)
	switch {
	case err != nil || !full:
		refuse("", "peer", peer.String(), "error", err)
		return
	case daemon.IsKept(c, daemon.Kept):
		refuse(": no file descriptor is left for it", "peer", peer.String())
		return
	case !d.open.enter(s):
		refuse(": too many connections to this device socket", "peer", peer.String())
		return
	}
	d.wg.Go(func() {
		defer d.open.leave(s)
		out, err := d.station.Connect(rpc.WithPeer(ctx, peer), s.id, c)
		d.log.Info("session ended", "device", s.id, "peer", peer.String(), "sent", out.Sent, "received", out.Received, "error", err)
	})
}
