package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/station"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/rpc"
)

// Changes returns a channel of the ids of devices whose state in the cluster changes from
// now on. It is closed by cancel, when the cluster ends, or when its reader is too slow.
func (c *Cluster) Changes() (ids <-chan string, cancel func()) {
	_, ids, cancel = c.changed.Subscribe()
	return ids, cancel
}

// Devices returns every device of the registry, by id, as the cluster knows it.
func (c *Cluster) Devices() []nmsproto.Device {
	out := c.holder.Devices()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range out {
		out[i] = c.merge(out[i])
	}
	return out
}

// Device returns one device as the cluster knows it; ok is false where the registry has
// no entry for it.
func (c *Cluster) Device(id string) (info nmsproto.Device, ok bool) {
	info, ok = c.holder.Device(id)
	if !ok {
		return info, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.merge(info), true
}

// Share returns how many devices of the cluster are in which state, as far as this
// station counts them: those that it holds or held last, and for the first station by
// name those that no living station holds or held. The sum over all stations is the
// cluster's.
func (c *Cluster) Share() map[nmsproto.State]int {
	out := make(map[nmsproto.State]int)
	for _, s := range nmsproto.States {
		out[s] = 0
	}
	devices := c.Devices()
	c.mu.Lock()
	defer c.mu.Unlock()
	alive, first := make(map[string]bool), ""
	for _, s := range c.stationsNow() {
		if s.Alive {
			alive[s.Name] = true
			if first == "" {
				first = s.Name
			}
		}
	}
	for _, d := range devices {
		if d.Station == c.name() || !alive[d.Station] && (first == c.name() || first == "") {
			out[d.State]++
		}
	}
	return out
}

// merge returns a device with what its claim says, unless it is connected to this
// station. The caller holds mu.
func (c *Cluster) merge(info nmsproto.Device) nmsproto.Device {
	if info.State != nmsproto.NeverSeen {
		info.Station = c.name()
	}
	claim := c.claimed[info.ID]
	their := claim.Device
	if info.State == nmsproto.Connected || claim.Revision == 0 || claim.Station == c.name() && info.State != nmsproto.NeverSeen {
		return info
	}
	if their.State != nmsproto.Connected && info.Since != nil && their.Since != nil && info.Since.After(*their.Since) {
		return info // lost here after it was lost there
	}
	out := their
	out.ID, out.Labels, out.Station, out.Calls = info.ID, info.Labels, printable.Line(claim.Station), info.Calls+their.Calls
	for _, text := range []*string{&out.Address, &out.Software, &out.HostKey, &out.Certificate, &out.User, &out.LastError} {
		*text = printable.Line(*text)
	}
	if out.State == nmsproto.Connected && !c.reachable(claim.Station, claim.Incarnation) {
		out.State, out.Since, out.ErrorTime = nmsproto.Lost, nil, nil
		out.LastError = fmt.Sprintf("station %s, which had it, has ended or does not answer", out.Station)
		if b, ok := c.known[claim.Station]; ok {
			seen := b.Seen
			out.Since, out.ErrorTime = &seen, &seen
		}
	}
	return out
}

// reachable reports whether the claim of an incarnation counts. The caller holds mu.
func (c *Cluster) reachable(name, incarnation string) bool {
	return name != c.name() && c.peers.Alive(incarnation)
}

// Connect opens a netconf channel to a device, at the station that holds it, and relays
// between it and sock, which it owns, until one of them ends or ctx does. Errors are
// *proto.Error.
func (c *Cluster) Connect(ctx context.Context, id string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	var failed error
	for range 2 { // a device may change its station meanwhile
		info, ok := c.holder.Device(id)
		if !ok || info.State == nmsproto.Connected {
			return c.holder.Connect(ctx, id, sock)
		}
		c.mu.Lock()
		claim, merged, ways := c.claimed[id], c.merge(info), c.ways(id)
		c.mu.Unlock()
		if len(ways) == 0 {
			failed = cmp.Or(failed, notConnected(merged))
			break
		}
		for _, p := range ways {
			s, err := c.config.Peers.Open(ctx, p, id, callerOf(ctx))
			if err == nil {
				c.mu.Lock()
				c.relayed++
				c.mu.Unlock()
				return s.Relay(ctx, sock)
			}
			failed = err // the last one is the holder's
		}
		var e *proto.Error
		if !errors.As(failed, &e) || e.Code != proto.CodeUnavailable || !c.moved(ctx, id, claim.Revision) {
			break
		}
	}
	sock.Close()
	return nmsproto.ConnectResult{}, failed
}

// ways are the stations at which a session with a device is tried, in order; none where
// no station has it. The caller holds mu. While the holder is silent, and not yet dead,
// the device may have called another station, whose claim has to wait.
func (c *Cluster) ways(id string) (out []peering.Peer) {
	claim := c.claimed[id]
	if claim.Revision == 0 || claim.Device.State != nmsproto.Connected || !c.reachable(claim.Station, claim.Incarnation) {
		return nil
	}
	if c.silent(claim.Station) {
		for _, s := range c.stationsNow() {
			if s.Alive && s.Name != claim.Station && s.Name != c.name() && !c.silent(s.Name) {
				out = append(out, peering.Peer{Station: s.Name, Address: s.Address})
			}
		}
	}
	return append(out, peering.Peer{Station: claim.Station, Address: claim.Address})
}

// silent reports whether heartbeats of a station are overdue. The caller holds mu.
func (c *Cluster) silent(name string) bool {
	return c.now()-c.heard[name] > c.lease.Length/beatsPerLease*3/2
}

// movedTime is how long a session waits for a device that changes its station.
const movedTime = time.Second

// moved waits a moment for another claim of a device than that revision.
func (c *Cluster) moved(ctx context.Context, id string, revision uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, movedTime)
	defer cancel()
	changes, end := c.Changes()
	defer end()
	for {
		c.mu.Lock()
		other := c.claimed[id].Revision != revision
		c.mu.Unlock()
		if info, _ := c.holder.Device(id); other || info.State == nmsproto.Connected {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-changes:
			if !ok {
				return false
			}
		}
	}
}

// notConnected is the error for a device that no station has, as that of a station alone.
func notConnected(d nmsproto.Device) error {
	seen := "it has not called home yet"
	if d.LastError != "" {
		seen = d.LastError
	}
	return proto.StageError(proto.StageSession, fmt.Sprintf("device %s is not connected: %s", d.ID, seen), proto.ErrorData{Reason: seen})
}

// callerOf returns who uses a device, for the log of the station that holds it.
func callerOf(ctx context.Context) (who peering.Caller) {
	p, ok := rpc.PeerFrom(ctx)
	if !ok {
		return who
	}
	who.UID = p.UID
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10)); err == nil {
		who.User = u.Username
	}
	return who
}

// Unknown implements station.Cluster.
func (c *Cluster) Unknown(fingerprint string) (out *nmsproto.Unknown) {
	for _, u := range c.others() {
		if u.HostKey != fingerprint {
			continue
		}
		if out != nil {
			u = station.Merge(*out, u)
		}
		out = &u
	}
	return out
}

// others returns the unknown devices that called other stations.
func (c *Cluster) others() (out []nmsproto.Unknown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, list := range c.unknown {
		if name == c.name() {
			continue
		}
		for _, u := range list {
			u.Station = name
			if r := c.config.Registry; r.Owner(u.HostKey) == "" && !r.IsRevoked(u.HostKey) { // else their station will drop it soon
				out = append(out, u)
			}
		}
	}
	return out
}

// Callers returns the unknown devices of all stations, the one that called last first.
// One that called several stations is listed once.
func (c *Cluster) Callers() []nmsproto.Unknown {
	byKey := make(map[string]nmsproto.Unknown)
	own := c.holder.Unknown()
	for i := range own {
		own[i].Station = c.name()
	}
	for _, u := range append(own, c.others()...) {
		if was, ok := byKey[u.HostKey]; ok {
			u = station.Merge(was, u)
		}
		byKey[u.HostKey] = u
	}
	out := []nmsproto.Unknown{}
	for _, u := range byKey {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b nmsproto.Unknown) int {
		if d := b.Last.Compare(a.Last); d != 0 {
			return d
		}
		return compare(a.HostKey, b.HostKey)
	})
	return out
}

// callersEvery is how often changes of the list of unknown devices are written, and
// callersAgain how often it is written without a change: the bucket forgets.
const (
	callersEvery = time.Second
	callersAgain = 20 * time.Minute
)

// publishCallers writes this station's unknown devices until ctx ends.
func (c *Cluster) publishCallers(ctx context.Context) {
	tick := time.NewTicker(callersEvery)
	defer tick.Stop()
	var revision uint64
	written, at := "[]", time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		text := callersText(c.holder.Unknown())
		if text == written && (text == "[]" || time.Since(at) < callersAgain) || c.conn.Up() != nil {
			continue
		}
		next, err := c.callers.Put(ctx, c.name(), []byte(text), revision)
		if err != nil {
			v, read := c.callers.Get(ctx, c.name())
			if read == nil {
				revision = v.Revision // that of a former process, or none by now
				next, err = c.callers.Put(ctx, c.name(), []byte(text), revision)
			}
		}
		if err != nil {
			if ctx.Err() == nil {
				c.warn.Warn("the unknown devices are not written; temporary, retry", "error", err)
			}
			continue
		}
		revision, written, at = next, text, time.Now()
	}
}

// maxCallers bounds the list of unknown devices in the bucket: any peer can call with
// large keys, as often as it likes.
const maxCallers = 128 << 10

// callersText returns the list as it is in the bucket, without those that called longest
// ago where it is too long.
func callersText(list []nmsproto.Unknown) string {
	out := append([]nmsproto.Unknown{}, list...)
	for {
		text := mustJSON(out)
		if len(text) <= maxCallers {
			return string(text)
		}
		out = out[:len(out)*3/4]
	}
}

// callersWatch is the cluster as a buckets.Watcher of unknown devices.
type callersWatch struct{ *Cluster }

// Begin implements buckets.Watcher.
func (w *callersWatch) Begin(time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.unknown)
}

// Value implements buckets.Watcher.
func (w *callersWatch) Value(key string, v buckets.Value) {
	var list []nmsproto.Unknown
	if !v.Deleted && json.Unmarshal(v.Data, &list) != nil {
		return
	}
	for i, u := range list {
		for _, text := range []*string{&u.HostKey, &u.Key, &u.Certificate, &u.Address, &u.Software} {
			*text = printable.Line(*text)
		}
		list[i] = u
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unknown[key] = list
}

// Complete implements buckets.Watcher.
func (w *callersWatch) Complete() {}
