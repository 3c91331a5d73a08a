// Package mirror owns a cluster's registry: the form that entries and revoked keys have
// in their bucket, changes to them, and the copy in a station's registry directory.
// Package cluster runs it; the station adds, removes and revokes through it. Package
// registry reads the directory, so a station starts from the last copy when NATS is
// away. It never removes a file that did not come from the bucket.
package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/atomicfile"
	"callhome/internal/nms/buckets"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
)

// revokedKey is the key of the list of revoked keys. No device has it: an id begins
// with a letter or digit.
const revokedKey = "/revoked_keys"

// fileOf returns the file for a key, false for a key that this program does not write.
func fileOf(key string) (string, bool) {
	if key == revokedKey {
		return registry.RevokedFile, true
	}
	id := buckets.IDOf(key)
	return registry.FileName(id), registry.CheckID(id) == nil && buckets.KeyOf(id) == key
}

// maxList bounds the list of revoked keys, in bytes. NATS has messages up to 1 MiB.
const maxList = 512 << 10

// Mirror is the copy of a bucket in a directory. Its methods may be called by several
// goroutines.
type Mirror struct {
	dir      string
	registry *registry.Registry
	log      hclog.Logger
	warn     *ratelimit.Warnings // of what each entry of the bucket can cause
	// changed is called with each change of another station that was brought in force.
	changed func(registry.Change, error)

	// mu guards the fields that follow, and is held while files are written.
	mu            sync.Mutex
	entries, keys *buckets.Bucket // nil until NATS was reached
	state         *stateFile
	revisions     map[string]uint64 // of files, as they are written
	snapshot      map[string]buckets.Value
	complete      bool
	foreign       []registry.Problem
	failed        map[string]failure // of files, the changes that could not be written
	retry         *time.Timer
	pause         time.Duration // before retry
	last          time.Time     // of the last change by another station
	flush         *time.Timer
}

// alone is how long after another change one comes that is brought in force by itself.
const alone = 200 * time.Millisecond

// New returns the mirror of the registry in dir. changed is called with each change of
// another station that was brought in force.
func New(dir string, r *registry.Registry, changed func(registry.Change, error), log hclog.Logger) (*Mirror, error) {
	state, err := openState(filepath.Join(dir, stateName))
	if err != nil {
		return nil, fmt.Errorf("reading which files of the registry are copies: %w", err)
	}
	return &Mirror{dir: dir, registry: r, changed: changed, log: log, warn: ratelimit.NewWarnings(log), state: state, revisions: make(map[string]uint64), failed: make(map[string]failure)}, nil
}

// Run copies the bucket until ctx ends. keys has who has which host key.
func (m *Mirror) Run(ctx context.Context, entries, keys *buckets.Bucket) {
	m.mu.Lock()
	m.entries, m.keys = entries, keys
	m.mu.Unlock()
	defer m.warn.Rest()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.retry != nil {
			m.retry.Stop()
		}
	}()
	entries.Watch(ctx, ">", (*entriesWatch)(m))
}

// identify begins the state anew where the bucket is not the one that files came from:
// what it does not have is not removed. The caller holds mu.
func (m *Mirror) identify(created time.Time) {
	identity := created.UTC().Format("2006-01-02T15:04:05.000000000Z")
	if identity == m.state.bucket {
		return
	}
	clear(m.revisions)
	if err := m.state.reset(identity); err != nil {
		m.log.Error("cannot record which files of the registry are copies", "error", err)
	}
}

// entriesWatch is the mirror as a buckets.Watcher.
type entriesWatch Mirror

// Begin implements buckets.Watcher.
func (w *entriesWatch) Begin(created time.Time) {
	m := (*Mirror)(w)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.identify(created)
	m.snapshot, m.complete = make(map[string]buckets.Value), false
}

// Value implements buckets.Watcher.
func (w *entriesWatch) Value(key string, v buckets.Value) {
	m := (*Mirror)(w)
	name, ok := fileOf(key)
	if !ok {
		m.warn.Warn("the bucket of the registry has a key that no device can have", "key", printable.Line(key))
		return
	}
	m.mu.Lock()
	if !m.complete {
		m.snapshot[name] = v
		m.mu.Unlock()
		return
	}
	_, failed := m.failed[name] // and is in force late enough
	one := failed || time.Since(m.last) > alone
	m.last = time.Now()
	written := m.update(name, v, one)
	m.mu.Unlock()
	if !written || !one {
		return // the registry sees the files of many changes, and reads them together
	}
	// It would see this one too, a tenth of a second later.
	if c, err := m.registry.Read(name); err != nil || c.Any() {
		m.changed(c, err)
	}
}

// Complete implements buckets.Watcher.
func (w *entriesWatch) Complete() {
	m := (*Mirror)(w)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.complete {
		return
	}
	m.complete = true
	if v, ok := m.snapshot[registry.RevokedFile]; !ok || v.Deleted {
		if v, ok = m.revoke(v); ok {
			m.snapshot[registry.RevokedFile] = v
		}
	}
	entries := 0
	var behind []string
	for name, v := range m.snapshot {
		if !v.Deleted && name != registry.RevokedFile {
			entries++
		}
		// Since the start, files are written here alone.
		if had, ok := m.revisions[name]; ok && had > v.Revision {
			behind = append(behind, name)
		} else if !ok || had != v.Revision {
			m.apply(name, v, false)
		}
	}
	for _, name := range m.state.names() {
		if _, ok := m.snapshot[name]; !ok && entries > 0 { // an empty bucket is not what an operator wants
			behind = append(behind, name)
		}
	}
	m.applyLeaders(behind)
	m.snapshot = nil
	m.findForeign()
	m.syncAll()
	m.log.Info("the registry is copied from the cluster", "devices", entries, "only-here", len(m.foreign))
}

// applyLeaders applies what the leader has of files of which the watch has shown less
// than is here: the server of a watch may be behind. The caller holds mu.
func (m *Mirror) applyLeaders(names []string) {
	for _, name := range names {
		key := revokedKey
		if id, isEntry := strings.CutSuffix(name, registry.FileName("")); isEntry {
			key = buckets.KeyOf(id)
		}
		v, err := m.entries.Get(context.Background(), key)
		if err != nil {
			m.log.Error("cannot compare files of the registry with the cluster; they stay until it is copied again", "first", name, "error", err)
			return
		}
		v.Deleted = v.Revision == 0
		m.apply(name, v, false)
	}
}

// revoke adds the revoked keys that this station has and the bucket's list v has not to
// the latter, and returns the list as it is then: a revocation is never lost because a
// station joins. ok is false where the bucket has no list. The caller holds mu.
func (m *Mirror) revoke(v buckets.Value) (list buckets.Value, ok bool) {
	text, err := os.ReadFile(filepath.Join(m.dir, registry.RevokedFile))
	if err != nil { // there is none, or the registry reports it
		return v, v.Revision != 0 && !v.Deleted
	}
	for {
		if v.Deleted {
			v = buckets.Value{}
		}
		merged, err := registry.AddRevoked(v.Data, lines(text)...)
		switch {
		case err != nil:
		case bytes.Equal(merged, v.Data):
			return v, v.Revision != 0
		case len(merged) > maxList:
			err = fmt.Errorf("the list would have %d bytes, the maximum is %d", len(merged), maxList)
		default:
			var revision uint64
			if revision, err = m.entries.Put(context.Background(), revokedKey, merged, v.Revision); err == nil {
				return buckets.Value{Data: merged, Revision: revision}, true
			}
			if errors.Is(err, buckets.ErrConflict) {
				if v, err = m.entries.Get(context.Background(), revokedKey); err == nil {
					continue
				}
			}
		}
		m.warn.Warn("cannot add this station's revoked keys to the cluster's; they stay in force here", "error", err)
		return v, false
	}
}

func lines(text []byte) (out []string) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// update applies a change, unless the file has it already. With sync it is on the disk
// then, otherwise soon, with further ones. The caller holds mu.
func (m *Mirror) update(name string, v buckets.Value, sync bool) (written bool) {
	if v.Revision != 0 && v.Revision <= m.revisions[name] {
		return false
	}
	m.apply(name, v, sync)
	if !sync && m.flush == nil {
		m.flush = time.AfterFunc(time.Second, func() {
			m.mu.Lock()
			m.flush = nil
			m.mu.Unlock()
			m.syncAll()
		})
	}
	return true
}

func (m *Mirror) syncAll() {
	if err := syncDirectory(m.dir); err != nil {
		m.log.Error("cannot write the copy of the registry to the disk", "error", err)
	}
}

// apply writes or removes a file. The caller holds mu.
func (m *Mirror) apply(name string, v buckets.Value, sync bool) {
	path := filepath.Join(m.dir, name)
	var err error
	if name == registry.RevokedFile {
		// No list would accept each key, and one that cannot be read would refuse each.
		if _, err := registry.AddRevoked(v.Data); err != nil || v.Deleted {
			m.warn.Warn("the cluster's list of revoked keys cannot be used; the copy of this station stays in force", "removed", v.Deleted, "error", err)
			m.revisions[name] = v.Revision
			return
		}
		if !m.state.has(name) {
			var ok bool
			if v, ok = m.revoke(v); !ok {
				return
			}
		}
	}
	if v.Deleted {
		if m.state.has(name) {
			if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			err = errors.Join(err, m.state.remove(name))
		}
	} else {
		var text []byte
		if text, err = os.ReadFile(path); err != nil || !bytes.Equal(text, v.Data) {
			// The state comes first: a copy that is not known as one would stay for ever.
			if err = m.state.add(name); err == nil {
				err = atomicfile.Write(path, v.Data, atomicfile.Options{Mode: 0o640, Sync: sync})
			}
		} else {
			err = m.state.add(name)
		}
	}
	if err != nil {
		m.fail(name, v, err)
		return
	}
	delete(m.failed, name)
	m.revisions[name] = v.Revision
}

// findForeign notes the files that the bucket does not have. The caller holds mu.
func (m *Mirror) findForeign() {
	m.foreign = nil
	found, err := os.ReadDir(m.dir)
	if err != nil {
		m.log.Error("cannot read the registry", "error", err)
		return
	}
	for _, f := range found {
		name := f.Name()
		isEntry := strings.HasSuffix(name, registry.FileName("")) && !strings.HasPrefix(name, ".")
		if isEntry && !m.state.has(name) {
			m.foreign = append(m.foreign, registry.Problem{File: name, Error: "only this station has it: `callhome-nms devices import` gives it to the cluster"})
		}
	}
	if len(m.foreign) > 0 {
		m.log.Warn("files of the registry are not the cluster's", "files", len(m.foreign), "first", m.foreign[0].File)
	}
}

// Problems returns the files of the registry that the cluster does not have, and those
// whose copy could not be written.
func (m *Mirror) Problems() []registry.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(slices.Clone(m.foreign), m.failures()...)
}

// own brings a change of this station in force at once, before the watch shows it.
func (m *Mirror) own(name string, v buckets.Value) (registry.Change, error) {
	m.write(name, v, true)
	if err := m.unwritten(name); err != nil {
		return registry.Change{}, err
	}
	return m.registry.Read(name)
}

func (m *Mirror) write(name string, v buckets.Value, sync bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.complete {
		m.update(name, v, sync)
	}
	m.foreign = slices.DeleteFunc(m.foreign, func(p registry.Problem) bool { return p.File == name })
}
