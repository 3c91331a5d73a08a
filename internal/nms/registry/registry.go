// Package registry owns a management station's registry: a directory with one small
// JSON file per device, its entry, and a list of revoked keys. Package station looks
// up which entry has a host key or host certificate. The registry reads the directory
// again when that changes; if a file is wrong or half written, the entry that was read
// before stays in force. It never looks at an address, opens a connection or reads a
// credential.
package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"callhome/internal/nms/hostkey"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// suffix follows the id in an entry's file name.
const suffix = ".json"

// maxEntries bounds a registry.
const maxEntries = 1 << 16

// ErrUnknown is Lookup's error for a key that no entry has.
var ErrUnknown = errors.New("unknown host key")

// Registry has the entries and revoked keys of a directory. Its methods may be
// called by several goroutines.
type Registry struct {
	dir string

	reading  sync.Mutex // held while the directory is read
	revoking sync.Mutex // held while Revoke writes the list of revoked keys

	mu       sync.Mutex // guards the fields that follow
	entries  map[string]*Entry
	byKey    map[string]string // a key's wire form -> id
	byName   map[caName]string // -> id
	cas      map[string]bool   // wire forms
	revoked  map[string]bool   // fingerprints; nil: the list has never been readable
	problems map[string]string // file name -> error
}

// caName is a principal of a CA, the latter in wire form.
type caName struct{ ca, principal string }

// Change is what a Reload found to be new.
type Change struct {
	Added, Changed, Removed []string // ids
	// Problems are the files whose error is new or another one.
	Problems []Problem
	Revoked  bool // the list of revoked keys has changed
}

// Problem is a file that cannot be used, and why.
type Problem struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// Any reports whether anything is new.
func (c Change) Any() bool {
	return len(c.Added)+len(c.Changed)+len(c.Removed)+len(c.Problems) > 0 || c.Revoked
}

// Open reads the directory. A file that cannot be used is a Problem, not an error. If
// it is the list of revoked keys, Lookup refuses every key until the list can be read.
func Open(dir string) (*Registry, Change, error) {
	r := &Registry{dir: dir, entries: make(map[string]*Entry)}
	c, err := r.Reload()
	return r, c, err
}

// Reload reads the directory again. On error the registry stays as it is.
func (r *Registry) Reload() (Change, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	found, err := os.ReadDir(r.dir)
	if err != nil {
		return Change{}, fmt.Errorf("reading the registry: %w", err)
	}
	r.mu.Lock()
	former, wasWrong, wasRevoked := r.entries, r.problems, r.revoked
	r.mu.Unlock()

	next := &set{entries: make(map[string]*Entry), byKey: make(map[string]string), byName: make(map[caName]string), cas: make(map[string]bool), problems: make(map[string]string)}
	revoked, err := readRevoked(filepath.Join(r.dir, RevokedFile))
	if err != nil {
		// Revoked keys stay revoked. If the list was never read, any key can be one of
		// them, so every key counts as revoked.
		next.problems[RevokedFile] = err.Error()
		if wasRevoked == nil {
			next.problems[RevokedFile] += "; until it is corrected every key counts as revoked"
		}
		revoked = wasRevoked
	}
	fresh := r.readEntries(found, former, next.problems)
	// An entry in force keeps its key against a new entry with the same key.
	slices.SortStableFunc(fresh, func(a, b *Entry) int { return rank(former, a) - rank(former, b) })
	for _, e := range fresh {
		if err := next.add(e); err != nil {
			next.problems[e.ID+suffix] = err.Error()
			if was := former[e.ID]; was != nil && was != e {
				_ = next.add(was) // fails if another entry has one of its keys
			}
		}
	}
	c := difference(former, next.entries)
	corrected := wasRevoked == nil && wasWrong[RevokedFile] != "" && revoked != nil
	c.Revoked = corrected || !maps.Equal(wasRevoked, revoked)
	for _, name := range slices.Sorted(maps.Keys(next.problems)) {
		if wasWrong[name] != next.problems[name] {
			c.Problems = append(c.Problems, Problem{name, next.problems[name]})
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries, r.byKey, r.byName, r.cas = next.entries, next.byKey, next.byName, next.cas
	r.problems, r.revoked = next.problems, revoked
	return c, nil
}

// readEntries reads the entries in those files. A file that cannot be read is a
// problem, and its former entry stays.
func (r *Registry) readEntries(files []os.DirEntry, former map[string]*Entry, problems map[string]string) []*Entry {
	var fresh []*Entry
	for _, f := range files {
		id, isEntry := strings.CutSuffix(f.Name(), suffix)
		if !isEntry || strings.HasPrefix(id, ".") {
			continue
		}
		e, err := r.read(f.Name(), id)
		switch {
		case err == nil:
			fresh = append(fresh, e)
		case errors.Is(err, os.ErrNotExist): // removed since ReadDir
		default:
			problems[f.Name()] = err.Error()
			if e := former[id]; e != nil {
				fresh = append(fresh, e)
			}
		}
	}
	return fresh
}

// rank puts unchanged entries first.
func rank(former map[string]*Entry, e *Entry) int {
	was := former[e.ID]
	if was != nil && bytes.Equal(was.Format(), e.Format()) {
		return 0
	}
	return 1
}

func difference(former, now map[string]*Entry) (c Change) {
	for _, id := range slices.Sorted(maps.Keys(now)) {
		switch was := former[id]; {
		case was == nil:
			c.Added = append(c.Added, id)
		case !bytes.Equal(was.Format(), now[id].Format()):
			c.Changed = append(c.Changed, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(former)) {
		if now[id] == nil {
			c.Removed = append(c.Removed, id)
		}
	}
	return c
}

// set is what Reload builds the next state of the registry in.
type set struct {
	entries  map[string]*Entry
	byKey    map[string]string
	byName   map[caName]string
	cas      map[string]bool
	problems map[string]string
}

// add adds an entry unless another one has one of its keys or names.
func (s *set) add(e *Entry) error {
	if len(s.entries) >= maxEntries {
		return fmt.Errorf("the registry has its maximum of %d devices", maxEntries)
	}
	names := e.names()
	for _, k := range e.HostKeys {
		if other := s.byKey[string(k.Marshal())]; other != "" {
			return fmt.Errorf("host key %s belongs to device %s", ssh.FingerprintSHA256(k), other)
		}
	}
	for _, n := range names {
		if other := s.byName[n]; other != "" {
			return fmt.Errorf("principal %q of that CA belongs to device %s", n.principal, other)
		}
	}
	s.entries[e.ID] = e
	for _, k := range e.HostKeys {
		s.byKey[string(k.Marshal())] = e.ID
	}
	for _, n := range names {
		s.byName[n], s.cas[n.ca] = e.ID, true
	}
	return nil
}

func (e *Entry) names() (out []caName) {
	for _, ca := range e.CAs {
		for _, p := range e.Principals {
			out = append(out, caName{string(ca.Marshal()), p})
		}
	}
	return out
}

// read reads the file of an entry that must have that id.
func (r *Registry) read(name, id string) (*Entry, error) {
	text, err := readSmall(filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	e, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if e.ID != id {
		return nil, fmt.Errorf("line 1: id %q, expected %q as in the file's name", e.ID, id)
	}
	return e, nil
}

// readSmall reads a regular file that is not writable for every user.
func readSmall(path string) ([]byte, error) {
	// Opening a named pipe would block, so the type is checked first.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Mode()&0o002 != 0:
		return nil, errors.New("every user of this machine can write it")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Entry returns a device's entry, nil if it has no entry.
func (r *Registry) Entry(id string) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[id]
}

// Entries returns all entries, sorted by id.
func (r *Registry) Entries() []*Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Entry, 0, len(r.entries))
	for _, id := range slices.Sorted(maps.Keys(r.entries)) {
		out = append(out, r.entries[id])
	}
	return out
}

// Problem returns the error of an entry's file, "" if it has none.
func (r *Registry) Problem(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems[id+suffix]
}

// Problems returns the files that cannot be used, sorted by name.
func (r *Registry) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Problem{}
	for _, name := range slices.Sorted(maps.Keys(r.problems)) {
		out = append(out, Problem{name, r.problems[name]})
	}
	return out
}

// Add writes the file of a new entry, which the next Reload reads.
func (r *Registry) Add(e *Entry) error {
	text := e.Format()
	if _, err := Parse(text); err != nil {
		return fmt.Errorf("adding device %s: %w", printable.Line(e.ID), err)
	}
	// link(2) makes the whole file appear at once, and never replaces another.
	f, err := os.CreateTemp(r.dir, ".new-")
	if err != nil {
		return fmt.Errorf("adding device %s: %w", e.ID, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("adding device %s: %w", e.ID, err)
	}
	if err := os.Link(f.Name(), filepath.Join(r.dir, e.ID+suffix)); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("adding device %s: %w", e.ID, os.ErrExist)
	} else if err != nil {
		return fmt.Errorf("adding device %s: %w", e.ID, err)
	}
	return nil
}

// Remove removes the file of an entry. The next Reload removes the entry.
func (r *Registry) Remove(id string) error {
	if err := CheckID(id); err != nil {
		return fmt.Errorf("removing a device: %w", err)
	}
	if err := os.Remove(filepath.Join(r.dir, id+suffix)); err != nil {
		return fmt.Errorf("removing device %s: %w", id, err)
	}
	return nil
}

// Algorithms returns the host key algorithms to offer before it is known which device
// called. A device with several keys shows the first of them. So the list never
// depends on the entries: a new entry must not make another device show another key
// than before, which would be unknown.
func (r *Registry) Algorithms() []string { return hostkey.All() }
