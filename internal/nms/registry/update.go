package registry

import (
	"iter"
	"maps"
	"os"
	"slices"
	"strings"

	"callhome/internal/wake"

	"golang.org/x/crypto/ssh"
)

// Change is what was found to be new.
type Change struct {
	Added, Changed, Removed []string // ids
	// Problems are the files whose error is new or another one.
	Problems []Problem
	Revoked  bool // the list of revoked keys has changed

	ids, keys, revoked map[string]bool // of Concerns; keys and revoked are fingerprints
	names              map[caName]bool
	certificates       bool // devices may be known by certificates
}

// Any reports whether anything is new.
func (c Change) Any() bool {
	return len(c.Added)+len(c.Changed)+len(c.Removed)+len(c.Problems) > 0 || c.Revoked
}

// Devices returns the ids of the devices that the change can concern, or all where any
// can: then Concerns says which.
func (c Change) Devices(all iter.Seq[string]) iter.Seq[string] {
	if len(c.revoked) > 0 || c.certificates && len(c.keys)+len(c.names) > 0 {
		return all
	}
	return maps.Keys(c.ids)
}

// Concerns reports whether Lookup may return something else than before for a key that
// was that device's; fingerprint is that of the key, or of the certificate's.
func (c Change) Concerns(id, fingerprint string, key ssh.PublicKey) bool {
	if c.ids[id] || c.keys[fingerprint] || c.revoked[fingerprint] {
		return true
	}
	cert, isCert := key.(*ssh.Certificate)
	if !isCert || len(c.names)+len(c.revoked) == 0 {
		return false
	}
	ca := string(cert.SignatureKey.Marshal())
	return slices.ContainsFunc(cert.ValidPrincipals, func(p string) bool { return c.names[caName{ca, p}] }) ||
		c.revoked[ssh.FingerprintSHA256(cert.SignatureKey)]
}

// Keys returns the fingerprints of the keys that an entry has got, or that were
// revoked: they are not unknown any more.
func (c Change) Keys() []string {
	return slices.AppendSeq(slices.Collect(maps.Keys(c.keys)), maps.Keys(c.revoked))
}

// update reads the files of those names, or only those that have changed, and brings
// them in force. Other names are passed over. On error nothing has changed. The caller
// holds reading.
func (r *Registry) update(names []string, all bool) (Change, error) {
	found := make(map[string]*file) // nil for one that is gone
	gone, unread := false, false
	for _, name := range names {
		_, done := found[name]
		if _, isEntry := idOf(name); done || !isEntry && name != RevokedFile {
			continue
		}
		was := r.files[name]
		if !all && !r.changed(name, was) {
			continue
		}
		f := r.look(name, was)
		found[name] = f
		gone = gone || f == nil
		unread = unread || f != nil && f.unread != ""
	}
	// Files that are gone with their directory were not removed by an operator.
	if _, err := os.Stat(r.dir); gone && err != nil {
		return Change{}, r.lose("reading", err)
	}
	if unread {
		wake.Up(r.unread)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.apply(found), nil
}

// apply brings files in force. The caller holds reading and mu.
func (r *Registry) apply(found map[string]*file) (c Change) {
	c.certificates = len(r.cas) > 0
	problems, entries := make(map[string]string), make(map[string]*Entry) // before
	note := func(id string) {
		if _, noted := entries[id]; !noted {
			entries[id], problems[id+suffix] = r.entries[id], r.problems[id+suffix]
		}
	}
	for id := range r.waiting {
		note(id)
	}
	var renewed []string
	freed := false // an entry in force may leave its keys to one that waits
	for name, f := range found {
		was := r.files[name]
		if f == nil {
			delete(r.files, name)
		} else {
			r.files[name] = f
		}
		if name == RevokedFile {
			problems[name] = r.problems[name]
			c.Revoked, c.revoked = r.applyRevoked(f)
			continue
		}
		id, _ := idOf(name)
		note(id)
		in := r.entries[id]
		if f != nil && f.entry != nil && in != nil && f.entry.sum == in.sum {
			f.entry = in // it was invalid in between
		}
		switch {
		case f == nil:
			delete(r.waiting, id)
			freed = freed || in != nil
			r.drop(in)
		case f.entry == nil:
			delete(r.waiting, id) // the entry in force stays
		case f.entry == in:
			delete(r.waiting, id)
		case was == nil || f.entry != was.entry || was.unread != "":
			r.waiting[id] = true
			renewed = append(renewed, id)
			freed = freed || in != nil
		}
		if p := f.problemText(); p != "" || !r.waiting[id] {
			r.setProblem(name, p)
		}
	}
	if freed {
		r.settle(renewed, slices.Collect(maps.Keys(r.waiting)))
	} else {
		r.settle(renewed, renewed)
	}
	c.note(entries, r.entries)
	c.certificates = c.certificates || len(r.cas) > 0
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		if p := r.problems[name]; p != "" && p != problems[name] {
			c.Problems = append(c.Problems, Problem{name, p})
		}
	}
	return c
}

// settle brings those in force that wait and conflict with no other entry. An entry in
// force keeps its keys against a new one, unless its own file has been renewed: two
// files can exchange their keys.
func (r *Registry) settle(renewed, waiting []string) {
	former := make(map[string]*Entry)
	for _, id := range renewed {
		former[id] = r.entries[id]
		r.drop(former[id])
	}
	// Those that were in force come first, so that they get their former keys back
	// before new entries can have them.
	slices.SortFunc(waiting, func(a, b string) int {
		if known := former[a] != nil; known != (former[b] != nil) {
			if known {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for progress := true; progress; {
		progress = false
		for _, id := range waiting {
			if !r.waiting[id] {
				continue
			}
			was, isFormer := r.entries[id], former[id]
			r.drop(was)
			err := r.put(r.files[id+suffix].entry)
			if err == nil {
				delete(r.waiting, id)
				r.setProblem(id+suffix, r.files[id+suffix].problemText())
				progress = true
				continue
			}
			r.setProblem(id+suffix, err.Error())
			if was == nil {
				was = isFormer
			}
			if was != nil {
				_ = r.put(was) // fails if another entry has one of its keys
			}
		}
	}
}

// applyRevoked brings the list of revoked keys in force, nil where there is no file. It
// returns whether it has changed, and the fingerprints that are new on it.
func (r *Registry) applyRevoked(f *file) (changed bool, fresh map[string]bool) {
	wrong := r.problems[RevokedFile] != ""
	next, problem := map[string]bool{}, f.problemText()
	if f != nil {
		next = f.revoked
	}
	if next == nil {
		// Revoked keys stay revoked. If the list was never read, any key can be one of
		// them, so every key counts as revoked.
		if r.revoked == nil {
			problem += "; until it is corrected every key counts as revoked"
		}
		r.setProblem(RevokedFile, problem)
		return false, nil
	}
	r.setProblem(RevokedFile, problem)
	was := r.revoked
	r.revoked = next
	fresh = make(map[string]bool)
	for k := range next {
		if !was[k] {
			fresh[k] = true
		}
	}
	return was == nil && wrong || !maps.Equal(was, next), fresh
}

// problemText returns why a file is not in force as it is now.
func (f *file) problemText() string {
	switch {
	case f == nil:
		return ""
	case f.unread != "":
		return f.unread
	}
	return f.problem
}

func (r *Registry) setProblem(name, problem string) {
	if problem == "" {
		delete(r.problems, name)
	} else {
		r.problems[name] = problem
	}
}

// note notes what differs between the entries before, nil for none, and now.
func (c *Change) note(before, now map[string]*Entry) {
	c.ids, c.keys, c.names = make(map[string]bool), make(map[string]bool), make(map[caName]bool)
	for _, id := range slices.Sorted(maps.Keys(before)) {
		was, is := before[id], now[id]
		switch {
		case was == is:
			continue
		case was == nil:
			c.Added = append(c.Added, id)
		case is == nil:
			c.Removed = append(c.Removed, id)
		default:
			c.Changed = append(c.Changed, id)
		}
		c.ids[id] = true
		if is == nil {
			continue
		}
		for _, k := range is.fingerprints() {
			c.keys[k] = true
		}
		for _, n := range is.names() {
			c.names[n] = true
		}
	}
}
