// Package registry owns which devices a management station knows: a directory
// with one small JSON file a device, and a list of revoked keys. Its one
// question is which device has the key or certificate that was presented; no
// address, port or name of a connection is ever asked for. It reads the
// directory again when that changes, and where a file is wrong or half written
// the entry that was read from it before stays in force. It opens no connection
// and no credential.
package registry

import (
	"bytes"
	"callhome/internal/printable"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// RevokedFile is the list of revoked keys in the directory: on each line a
// public key or its fingerprint (SHA256:...), or a comment behind #. A revoked
// CA revokes its certificates.
const RevokedFile = "revoked_keys"

// suffix is what an entry's file name has behind the id.
const suffix = ".json"

// maxEntries bounds a registry.
const maxEntries = 1 << 16

// ErrUnknown is Lookup's answer for a key that no entry has.
var ErrUnknown = errors.New("unknown host key")

// Registry is what the directory says. Its methods may be called by several
// goroutines.
type Registry struct {
	dir string

	reading sync.Mutex // held while the directory is read

	mu       sync.Mutex // guards the fields that follow
	entries  map[string]*Entry
	byKey    map[string]string // a key's wire form -> id
	byName   map[caName]string // -> id
	cas      map[string]bool   // wire forms
	revoked  map[string]bool   // fingerprints; nil: the list could not be read yet
	problems map[string]string // file name -> what is wrong with it
}

// caName is a principal of a CA, the latter in wire form.
type caName struct{ ca, principal string }

// Change is what a Reload brought.
type Change struct {
	Added, Changed, Removed []string // ids
	// Problems are files that are wrong now and were not, or otherwise; the
	// names come with what is wrong.
	Problems []Problem
	Revoked  bool // the list of revoked keys is another
}

// Problem is a file that is not in force.
type Problem struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// Any reports whether anything is new.
func (c Change) Any() bool {
	return len(c.Added)+len(c.Changed)+len(c.Removed)+len(c.Problems) > 0 || c.Revoked
}

// Open reads the directory. What is wrong in it is a Problem, not an error;
// where that is the list of revoked keys, Lookup refuses every key until it can
// be read.
func Open(dir string) (*Registry, Change, error) {
	r := &Registry{dir: dir, entries: make(map[string]*Entry)}
	c, err := r.Reload()
	return r, c, err
}

// Reload reads the directory again. On error all stays as it is.
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
		// What was revoked stays so. Of a list that was never read that is
		// everything: whom it means is not known.
		next.problems[RevokedFile] = err.Error()
		if wasRevoked == nil {
			next.problems[RevokedFile] += "; until it is corrected every key counts as revoked"
		}
		revoked = wasRevoked
	}
	fresh := r.readEntries(found, former, next.problems)
	// Who was in force keeps its key against a newcomer that has it too.
	slices.SortStableFunc(fresh, func(a, b *Entry) int { return rank(former, a) - rank(former, b) })
	for _, e := range fresh {
		if err := next.add(e); err != nil {
			next.problems[e.ID+suffix] = err.Error()
			if was := former[e.ID]; was != nil && was != e {
				_ = next.add(was) // where its keys are free
			}
		}
	}
	c := difference(former, next.entries)
	mended := wasRevoked == nil && wasWrong[RevokedFile] != "" && revoked != nil
	c.Revoked = mended || !maps.Equal(wasRevoked, revoked)
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

// readEntries reads the entries in those files. One that cannot be read is a
// problem, and stays as it was.
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
		case errors.Is(err, os.ErrNotExist): // gone since
		default:
			problems[f.Name()] = err.Error()
			if e := former[id]; e != nil {
				fresh = append(fresh, e)
			}
		}
	}
	return fresh
}

// rank puts entries that were in force as they are first.
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

// set is a registry in the making.
type set struct {
	entries  map[string]*Entry
	byKey    map[string]string
	byName   map[caName]string
	cas      map[string]bool
	problems map[string]string
}

// add takes an entry in unless another one has a key or name of it.
func (s *set) add(e *Entry) error {
	if len(s.entries) >= maxEntries {
		return fmt.Errorf("there are %d devices, no more are taken", maxEntries)
	}
	names := e.names()
	for _, k := range e.HostKeys {
		if other := s.byKey[string(k.Marshal())]; other != "" {
			return fmt.Errorf("host key %s is %s's", ssh.FingerprintSHA256(k), other)
		}
	}
	for _, n := range names {
		if other := s.byName[n]; other != "" {
			return fmt.Errorf("principal %q of that CA is %s's", n.principal, other)
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
		return nil, fmt.Errorf("line 1: id %q, the file's name says %q", e.ID, id)
	}
	return e, nil
}

// readSmall reads a regular file that not everybody may write.
func readSmall(path string) ([]byte, error) {
	// A pipe must not hold us up.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
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

// readRevoked reads fingerprints; none where there is no file. One of the
// revoked keys that cannot be read makes the whole list an error: whom it
// means is not known.
func readRevoked(path string) (map[string]bool, error) {
	out := make(map[string]bool)
	f, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(f), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if word, _, _ := strings.Cut(line, " "); strings.HasPrefix(word, "SHA256:") && len(word) == len("SHA256:")+43 {
			out[word] = true
			continue
		}
		k, err := ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w, and no fingerprint", i+1, err)
		}
		out[ssh.FingerprintSHA256(k)] = true
	}
	return out, nil
}

// Entry returns a device's entry, nil where there is none.
func (r *Registry) Entry(id string) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[id]
}

// Entries returns all, by id.
func (r *Registry) Entries() []*Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Entry, 0, len(r.entries))
	for _, id := range slices.Sorted(maps.Keys(r.entries)) {
		out = append(out, r.entries[id])
	}
	return out
}

// Problem is what is wrong with an entry's file, "" where nothing is.
func (r *Registry) Problem(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems[id+suffix]
}

// Problems returns the files that are not in force, by name.
func (r *Registry) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Problem{}
	for _, name := range slices.Sorted(maps.Keys(r.problems)) {
		out = append(out, Problem{name, r.problems[name]})
	}
	return out
}

// Add writes the entry of a new device. Reload takes it in.
func (r *Registry) Add(e *Entry) error {
	text := e.Format()
	if _, err := Parse(text); err != nil {
		return fmt.Errorf("adding device %s: %w", printable.Line(e.ID), err)
	}
	// Whole or not at all, and never over another one.
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

// Remove takes an entry's file away. Reload sees that it is gone.
func (r *Registry) Remove(id string) error {
	if err := CheckID(id); err != nil {
		return fmt.Errorf("removing a device: %w", err)
	}
	if err := os.Remove(filepath.Join(r.dir, id+suffix)); err != nil {
		return fmt.Errorf("removing device %s: %w", id, err)
	}
	return nil
}
