// Package registry owns a management station's registry: a directory with one small
// JSON file per device, its entry, and a list of revoked keys. Package station looks
// up which entry has a host key or host certificate. The registry reads a file again
// when it has changed; if a file is wrong or half written, the entry that was read
// before stays in force. It never looks at an address, opens a connection or reads a
// credential.
package registry

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/nms/hostkey"
	"callhome/internal/printable"
	"callhome/internal/wake"

	"golang.org/x/crypto/ssh"
)

// suffix follows the id in an entry's file name.
const suffix = ".json"

// temporary begins the names of files that the registry itself writes and renames.
const temporary = ".new-"

// maxEntries bounds a registry.
const maxEntries = 1 << 17

// ErrUnknown is Lookup's error for a key that no entry has.
var ErrUnknown = errors.New("unknown host key")

// Registry has the entries and revoked keys of a directory. Its methods may be
// called by several goroutines.
type Registry struct {
	dir string
	now func() time.Time
	// unread is woken when something could not be read, so that Watch tries again.
	unread chan struct{}
	// retry is Watch's first pause before it tries again.
	retry time.Duration

	// reading is held while the directory is read or changed. It guards the next
	// three fields.
	reading sync.Mutex
	files   map[string]*file // by name
	waiting map[string]bool  // ids whose file is valid and conflicts with another entry
	reads   int              // files read, for tests

	mu       sync.Mutex // guards the fields that follow
	entries  map[string]*Entry
	byKey    map[string]string // a key's fingerprint -> id
	byName   map[caName]string // -> id
	cas      map[string]int    // a CA's wire form -> how many names it has in byName
	revoked  map[string]bool   // fingerprints; nil: the list has never been readable
	problems map[string]string // file name -> error
	lost     string            // why the directory cannot be read
}

// caName is a principal of a CA, the latter in wire form.
type caName struct{ ca, principal string }

// Problem is a file that cannot be used, and why.
type Problem struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// Open reads the directory. A file that cannot be used is a Problem, not an error. If
// it is the list of revoked keys, Lookup refuses every key until the list can be read.
func Open(dir string) (*Registry, Change, error) { return open(dir, time.Now) }

func open(dir string, now func() time.Time) (*Registry, Change, error) {
	r := &Registry{
		dir: dir, now: now, unread: wake.New(), retry: time.Second, files: make(map[string]*file), waiting: make(map[string]bool),
		entries: make(map[string]*Entry), byKey: make(map[string]string), byName: make(map[caName]string), cas: make(map[string]int),
		problems: make(map[string]string),
	}
	c, err := r.Reload()
	return r, c, err
}

// Reload reads the files that have changed. On error the registry stays as it is.
func (r *Registry) Reload() (Change, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	found, err := names(r.dir)
	r.mu.Lock()
	r.lost = ""
	r.mu.Unlock()
	if err != nil {
		return Change{}, r.lose("reading", err)
	}
	look := append(found, RevokedFile)
	for name := range r.files {
		look = append(look, name) // it may be gone
	}
	return r.update(look, false)
}

// lose notes why the directory cannot be read, and has that tried again.
func (r *Registry) lose(what string, err error) error {
	wake.Up(r.unread)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = err.Error()
	return fmt.Errorf("%s the registry: %w", what, err)
}

// Lost returns why the directory cannot be read, "" if it can. All stays in force then.
func (r *Registry) Lost() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// names returns the names in a directory, in any order.
func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// Read reads the files of those names, whether they seem to have changed or not.
func (r *Registry) Read(names ...string) (Change, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.update(names, true)
}

// idOf returns the id of an entry's file, false for another file.
func idOf(name string) (string, bool) {
	id, isEntry := strings.CutSuffix(name, suffix)
	return id, isEntry && !strings.HasPrefix(id, ".")
}

// Entry returns a device's entry, nil if it has no entry.
func (r *Registry) Entry(id string) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[id]
}

// Len returns the number of entries.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

// Entries returns all entries, sorted by id.
func (r *Registry) Entries() []*Entry {
	r.mu.Lock()
	out := slices.AppendSeq(make([]*Entry, 0, len(r.entries)), maps.Values(r.entries))
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b *Entry) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Problems returns the files that cannot be used, sorted by name, after the directory if
// it cannot be read.
func (r *Registry) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Problem{}
	if r.lost != "" {
		out = append(out, Problem{r.dir, "the registry cannot be read, and stays in force as it was: " + r.lost})
	}
	for _, name := range slices.Sorted(maps.Keys(r.problems)) {
		out = append(out, Problem{name, r.problems[name]})
	}
	return out
}

func (r *Registry) problem(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems[name]
}

// Add writes the file of a new entry and brings it in force. It reads no other file.
// After an error there is no such file.
func (r *Registry) Add(e *Entry) (Change, error) {
	fail := func(err error) (Change, error) {
		return Change{}, fmt.Errorf("adding device %s: %w", printable.Line(e.ID), err)
	}
	text := e.Format()
	if _, err := Parse(text); err != nil {
		return fail(err)
	}
	// link(2) makes the whole file appear at once, and never replaces another.
	f, err := os.CreateTemp(r.dir, temporary)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err != nil {
		return fail(err)
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	name := e.ID + suffix
	if err := os.Link(f.Name(), filepath.Join(r.dir, name)); errors.Is(err, os.ErrExist) {
		return fail(os.ErrExist)
	} else if err != nil {
		return fail(err)
	}
	c, err := r.update([]string{name}, true)
	if problem := r.problem(name); problem != "" {
		err = errors.New(problem)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(filepath.Join(r.dir, name)))
		_, again := r.update([]string{name}, true)
		return fail(errors.Join(err, again))
	}
	if r.Entry(e.ID) == nil {
		return fail(errors.New("its file was removed in the meantime"))
	}
	return c, nil
}

// Remove removes the file and the entry of a device.
func (r *Registry) Remove(id string) (Change, error) {
	if err := CheckID(id); err != nil {
		return Change{}, fmt.Errorf("removing a device: %w", err)
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	if err := os.Remove(filepath.Join(r.dir, id+suffix)); err != nil && (!errors.Is(err, os.ErrNotExist) || r.Entry(id) == nil) {
		return Change{}, fmt.Errorf("removing device %s: %w", id, err)
	}
	return r.update([]string{id + suffix}, true)
}

// Algorithms returns the host key algorithms to offer before it is known which device
// called. A device with several keys shows the first of them. So the list never
// depends on the entries: a new entry must not make another device show another key
// than before, which would be unknown.
func (r *Registry) Algorithms() []string { return hostkey.All() }

// put adds an entry unless another one has one of its keys or names. The caller holds mu.
func (r *Registry) put(e *Entry) error {
	if len(r.entries) >= maxEntries {
		return fmt.Errorf("the registry has its maximum of %d devices", maxEntries)
	}
	keys, names := e.fingerprints(), e.names()
	for _, k := range keys {
		if other := r.byKey[k]; other != "" {
			return fmt.Errorf("host key %s belongs to device %s", k, other)
		}
	}
	for _, n := range names {
		if other := r.byName[n]; other != "" {
			return fmt.Errorf("principal %q of that CA belongs to device %s", n.principal, other)
		}
	}
	r.entries[e.ID] = e
	for _, k := range keys {
		r.byKey[k] = e.ID
	}
	for _, n := range names {
		if r.byName[n] == "" {
			r.byName[n] = e.ID
			r.cas[n.ca]++
		}
	}
	return nil
}

// drop removes an entry; nil is none. The caller holds mu.
func (r *Registry) drop(e *Entry) {
	if e == nil {
		return
	}
	delete(r.entries, e.ID)
	for _, k := range e.fingerprints() {
		delete(r.byKey, k)
	}
	for _, n := range e.names() {
		if r.byName[n] == "" {
			continue // the entry names it twice
		}
		delete(r.byName, n)
		if r.cas[n.ca]--; r.cas[n.ca] == 0 {
			delete(r.cas, n.ca)
		}
	}
}

func (e *Entry) fingerprints() (out []string) {
	for _, k := range e.HostKeys {
		out = append(out, ssh.FingerprintSHA256(k))
	}
	return out
}

func (e *Entry) names() (out []caName) {
	for _, ca := range e.CAs {
		for _, p := range e.Principals {
			out = append(out, caName{string(ca.Marshal()), p})
		}
	}
	return out
}
