package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// editTime bounds a change of the registry: longer than servers elect a leader.
const editTime = 15 * time.Second

// begin returns the buckets for a change, or why there cannot be one now.
func (m *Mirror) begin() (entries, keys *buckets.Bucket, ctx context.Context, cancel func(), err error) {
	m.mu.Lock()
	entries, keys = m.entries, m.keys
	m.mu.Unlock()
	if entries == nil {
		return nil, nil, nil, nil, fmt.Errorf("%w: NATS was not reached since the station's start", registry.ErrNotNow)
	}
	if err := entries.Up(); err != nil {
		return nil, nil, nil, nil, fmt.Errorf("%w: %w", registry.ErrNotNow, err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), editTime)
	return entries, keys, ctx, cancel, nil
}

// marks are the keys of the second bucket that an entry needs: for each host key and for
// each principal of a CA, one that no other entry may have. Each comes with what it is.
func marks(e *registry.Entry) (keys []string, what map[string]string) {
	what = make(map[string]string)
	add := func(kind, text string, data []byte) {
		sum := sha256.Sum256(data)
		key := kind + "." + base64.RawURLEncoding.EncodeToString(sum[:])
		if what[key] == "" {
			keys, what[key] = append(keys, key), text
		}
	}
	for _, k := range e.HostKeys {
		// As in the fingerprint that ssh shows, with - and _ for + and /.
		add("key", "host key "+ssh.FingerprintSHA256(k), k.Marshal())
	}
	for _, ca := range e.CAs {
		for _, p := range e.Principals {
			add("principal", fmt.Sprintf("principal %q of that CA", p), append(append(ca.Marshal(), 0), p...))
		}
	}
	return keys, what
}

// abandoned is how old a mark without its entry must be, so that it is not one of a
// change that another station makes now.
const abandoned = time.Minute

// mark makes the marks of an entry, and returns those that are new. One may be another
// station's, which adds the same device now, so none is removed on error.
func (m *Mirror) mark(ctx context.Context, entries, keys *buckets.Bucket, e *registry.Entry) (fresh map[string]uint64, err error) {
	fresh = make(map[string]uint64)
	all, what := marks(e)
	for _, key := range all {
		revision, err := keys.Put(ctx, key, []byte(e.ID), 0)
		if errors.Is(err, buckets.ErrConflict) {
			revision, err = m.takeMark(ctx, entries, keys, key, what[key], e.ID)
		}
		if err != nil {
			return nil, err
		}
		if revision != 0 {
			fresh[key] = revision
		}
	}
	return fresh, nil
}

// takeMark takes a mark that exists: 0 where it is the entry's already, an error where it
// is that of another entry.
func (m *Mirror) takeMark(ctx context.Context, entries, keys *buckets.Bucket, key, what, id string) (uint64, error) {
	v, err := keys.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	other := string(v.Data)
	if v.Revision != 0 && other == id {
		return 0, nil
	}
	if v.Revision != 0 {
		taken := fmt.Errorf("%s belongs to device %s", what, printable.Line(other))
		has, err := hasMark(ctx, entries, other, key)
		switch {
		case err != nil:
			return 0, err
		case has:
			return 0, taken
		case time.Since(v.Created) < abandoned:
			return 0, fmt.Errorf("%w, which is being changed; temporary, retry", taken)
		}
	}
	return keys.Put(ctx, key, []byte(id), v.Revision)
}

// hasMark reports whether the entry of a device needs a mark.
func hasMark(ctx context.Context, entries *buckets.Bucket, id, mark string) (bool, error) {
	if registry.CheckID(id) != nil {
		return false, nil
	}
	v, err := entries.Get(ctx, buckets.KeyOf(id))
	if err != nil || v.Revision == 0 {
		return false, err
	}
	e, err := registry.Parse(v.Data)
	if err != nil {
		return true, nil // an entry that cannot be read keeps what it may have
	}
	_, what := marks(e)
	return what[mark] != "", nil
}

// unmark removes marks that the entry of a device, which another station has written,
// does not need. One that stays is taken over later.
func unmark(ctx context.Context, entries, keys *buckets.Bucket, id string, all map[string]uint64) {
	for key, revision := range all {
		if has, err := hasMark(ctx, entries, id, key); err == nil && !has {
			_ = keys.Delete(ctx, key, revision)
		}
	}
}

// Add adds an entry to the cluster's registry, and brings it in force at this station.
func (m *Mirror) Add(e *registry.Entry) (registry.Change, error) {
	fail := func(err error) (registry.Change, error) {
		return registry.Change{}, fmt.Errorf("adding device %s: %w", printable.Line(e.ID), err)
	}
	entries, keys, ctx, cancel, err := m.begin()
	if err != nil {
		return fail(err)
	}
	defer cancel()
	text := e.Format()
	if _, err := registry.Parse(text); err != nil {
		return fail(err)
	}
	fresh, err := m.mark(ctx, entries, keys, e)
	if err != nil {
		return fail(err)
	}
	revision, err := entries.Put(ctx, buckets.KeyOf(e.ID), text, 0)
	if err != nil {
		if errors.Is(err, buckets.ErrConflict) {
			err = os.ErrExist
			unmark(ctx, entries, keys, e.ID, fresh)
		} // else the entry may be written yet
		return fail(err)
	}
	return m.own(registry.FileName(e.ID), buckets.Value{Data: text, Revision: revision})
}

// Remove removes an entry from the cluster's registry. The error is os.ErrNotExist where
// there is none.
func (m *Mirror) Remove(id string) (registry.Change, error) {
	fail := func(err error) (registry.Change, error) {
		return registry.Change{}, fmt.Errorf("removing device %s: %w", id, err)
	}
	if err := registry.CheckID(id); err != nil {
		return registry.Change{}, fmt.Errorf("removing a device: %w", err)
	}
	entries, keys, ctx, cancel, err := m.begin()
	if err != nil {
		return fail(err)
	}
	defer cancel()
	v, err := entries.Get(ctx, buckets.KeyOf(id))
	switch {
	case err != nil:
		return fail(err)
	case v.Revision == 0:
		// A file that only this station has, or none.
		return m.registry.Remove(id)
	}
	if err := entries.Delete(ctx, buckets.KeyOf(id), v.Revision); err != nil {
		return fail(err)
	}
	if e, err := registry.Parse(v.Data); err == nil {
		unmarkOf(ctx, keys, e, nil)
	}
	// The deletion has a later revision. A watch that is behind may show the entry yet.
	return m.own(registry.FileName(id), buckets.Value{Deleted: true, Revision: v.Revision + 1})
}

// unmarkOf removes the marks of an entry that is gone, less those that keep has.
func unmarkOf(ctx context.Context, keys *buckets.Bucket, e *registry.Entry, keep map[string]string) {
	all, _ := marks(e)
	for _, key := range all {
		if keep[key] != "" {
			continue
		}
		if v, err := keys.Get(ctx, key); err == nil && string(v.Data) == e.ID {
			_ = keys.Delete(ctx, key, v.Revision)
		}
	}
}

// Outcome is what Import did with an entry.
type Outcome int

// The outcomes.
const (
	Unchanged Outcome = iota
	Added
	Changed
)

// Import adds an entry to the cluster's registry, or changes it.
func (m *Mirror) Import(e *registry.Entry) (Outcome, error) {
	text := e.Format()
	fail := func(err error) (Outcome, error) { return 0, fmt.Errorf("importing device %s: %w", e.ID, err) }
	entries, keys, ctx, cancel, err := m.begin()
	if err != nil {
		return fail(err)
	}
	defer cancel()
	v, err := entries.Get(ctx, buckets.KeyOf(e.ID))
	if err != nil {
		return fail(err)
	}
	if v.Revision != 0 && bytes.Equal(v.Data, text) {
		return Unchanged, nil
	}
	fresh, err := m.mark(ctx, entries, keys, e)
	if err != nil {
		return fail(err)
	}
	revision, err := entries.Put(ctx, buckets.KeyOf(e.ID), text, v.Revision)
	if err != nil {
		if errors.Is(err, buckets.ErrConflict) {
			unmark(ctx, entries, keys, e.ID, fresh)
		}
		return fail(err)
	}
	m.write(registry.FileName(e.ID), buckets.Value{Data: text, Revision: revision}, false)
	if v.Revision == 0 {
		return Added, nil
	}
	if was, err := registry.Parse(v.Data); err == nil {
		_, now := marks(e)
		unmarkOf(ctx, keys, was, now)
	}
	return Changed, nil
}

// Revoke adds lines to the cluster's list of revoked keys, less those whose key is on it.
func (m *Mirror) Revoke(add ...string) (registry.Change, error) {
	return m.editRevoked("adding to", func(text []byte) ([]byte, error) { return registry.AddRevoked(text, add...) })
}

// Unrevoke removes a key from the cluster's list of revoked keys. The list stays in the
// bucket even if it is empty, so a station that was away takes it for its own copy, which
// has the key yet. The error is registry.ErrNotRevoked where the list does not have the key.
func (m *Mirror) Unrevoke(fingerprint string) (registry.Change, error) {
	return m.editRevoked("removing from", func(text []byte) ([]byte, error) { return registry.WithoutRevoked(text, fingerprint) })
}

func (m *Mirror) editRevoked(what string, edit func([]byte) ([]byte, error)) (registry.Change, error) {
	fail := func(err error) (registry.Change, error) {
		return registry.Change{}, fmt.Errorf("%s %s: %w", what, registry.RevokedFile, err)
	}
	entries, _, ctx, cancel, err := m.begin()
	if err != nil {
		return fail(err)
	}
	defer cancel()
	for {
		v, err := entries.Get(ctx, revokedKey)
		if err != nil {
			return fail(err)
		}
		text := v.Data
		if v.Revision == 0 { // the list that this station has alone, if there is one
			if text, err = os.ReadFile(filepath.Join(m.dir, registry.RevokedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fail(err)
			}
		}
		text, err = edit(text)
		switch {
		case err != nil:
			return fail(err)
		case len(text) > maxList:
			return fail(fmt.Errorf("it would have %d bytes, the maximum is %d", len(text), maxList))
		case v.Revision != 0 && bytes.Equal(text, v.Data):
			return registry.Change{}, m.unwritten(registry.RevokedFile)
		}
		revision, err := entries.Put(ctx, revokedKey, text, v.Revision)
		if errors.Is(err, buckets.ErrConflict) {
			continue // another station has changed the list
		}
		if err != nil {
			return fail(err)
		}
		return m.own(registry.RevokedFile, buckets.Value{Data: text, Revision: revision})
	}
}
