package config

import (
	"fmt"
	"strings"
	"unicode"
)

// walker checks a document against the schema. It records every fault, sets the
// value of each leaf, and adds nodes that have a default.
type walker struct {
	errs     Errors
	more     int // faults beyond maxFaults
	warnings Errors
	// annotations counts the metadata (RFC 7952) that is skipped; first is the place
	// of the first.
	annotations int
	first       Error
}

// maxFaults bounds the recorded faults: a document of a few megabytes can have a
// million, and is then a different file than intended.
const maxFaults = 1000

func (w *walker) fail(path string, line int, format string, args ...any) {
	if len(w.errs) == maxFaults {
		w.more++
		return
	}
	w.errs = append(w.errs, Error{path, line, fmt.Sprintf(format, args...)})
}

// warn records what is left aside of a document that is accepted.
func (w *walker) warn(path string, line int, text string) {
	if len(w.warnings) < maxFaults {
		w.warnings = append(w.warnings, Error{path, line, text})
	}
}

// node checks n, at path, against r.
func (w *walker) node(n *node, r *row, path string) {
	n.path = path
	switch r.kind {
	case refused:
		w.fail(path, n.line, "%s", r.why)
	case ignored:
		w.warn(path, n.line, r.why)
	case leaf:
		w.leaf(n, r)
	case leafList:
		w.leafList(n, r)
	case list:
		w.list(n, r)
	default:
		if n.kind != isObject {
			w.fail(path, n.line, "%v", wrongKindOnly(n, "an object"))
			n.members = nil
			return
		}
		w.members(n, r.in)
	}
}

func (w *walker) leaf(n *node, r *row) {
	v, err := r.typ(n)
	if err != nil {
		w.fail(n.path, n.line, "%v", err)
		return
	}
	n.value = v
}

func (w *walker) leafList(n *node, r *row) {
	if n.kind != isArray {
		w.fail(n.path, n.line, "%v", wrongKindOnly(n, "an array of values"))
		return
	}
	first := make(map[string]int)
	for i, item := range n.items {
		item.path = fmt.Sprintf("%s[%d]", n.path, i+1)
		w.leaf(item, r)
		if line, twice := first[item.text]; twice && item.value != nil {
			w.fail(item.path, item.line, "duplicate value %s, first in line %d", quote(item.text), line)
			continue
		}
		first[item.text] = item.line
	}
}

func (w *walker) list(n *node, r *row) {
	if n.kind != isArray {
		w.fail(n.path, n.line, "%v", wrongKindOnly(n, "an array of entries"))
		return
	}
	if r.must && len(n.items) == 0 {
		w.fail(n.path, n.line, "at least one entry is needed")
	}
	key := r.in[0].name
	first := make(map[string]int)
	for i, item := range n.items {
		path := fmt.Sprintf("%s[%d]", n.path, i+1)
		k := item.child(key)
		if k != nil && k.kind == isString {
			path = n.path + "[" + key + "=" + predicate(k.text) + "]"
			if line, twice := first[k.text]; twice {
				w.fail(path, k.line, "duplicate name, first in line %d", line)
			} else {
				first[k.text] = k.line
			}
		}
		item.path = path
		if item.kind != isObject {
			w.fail(path, item.line, "%v", wrongKindOnly(item, "an object"))
			continue
		}
		w.members(item, r.in)
	}
}

// predicate returns a key as in an instance-identifier, on one line.
func predicate(s string) string {
	const most = 128
	if len([]rune(s)) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
	if !strings.Contains(s, "'") {
		return "'" + s + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// members checks the members of an object, and adds or reports missing ones.
func (w *walker) members(n *node, rows []row) {
	seen := make(map[string]int)
	before := len(w.errs)
	for _, m := range n.members {
		path := n.path + "/" + pathName(m.name)
		if strings.HasPrefix(m.name, "@") {
			if w.annotations++; w.annotations == 1 {
				w.first = Error{Path: path, Line: m.line}
			}
			continue
		}
		if line, twice := seen[m.name]; twice {
			w.fail(path, m.line, "duplicate member, first in line %d", line)
			continue
		}
		seen[m.name] = m.line
		r := find(rows, m.name)
		if r == nil {
			n.odd = true
			w.fail(path, m.line, "%s", unknown(rows, m.name))
			continue
		}
		// A refused or ignored member is reported at its own line, not at its value's.
		if r.unused() {
			n.odd = true
			m.value.line = m.line
		}
		w.node(m.value, r, path)
	}
	for i := range rows {
		w.absent(n, &rows[i])
	}
	n.faulty = len(w.errs) > before
}

// find returns the row of that name, inside a choice too.
func find(rows []row, name string) *row {
	for i := range rows {
		r := &rows[i]
		if r.kind == choice {
			if inner := find(r.in, name); inner != nil {
				return inner
			}
		} else if r.name == name {
			return r
		}
	}
	return nil
}

// unknown returns the message for a member that no row has.
func unknown(rows []row, name string) string {
	_, bare, qualified := strings.Cut(name, ":")
	if qualified && find(rows, bare) != nil {
		return "write the name without its module, as " + bare + " (RFC 7951 section 4)"
	}
	for _, r := range flat(rows) {
		if _, b, ok := strings.Cut(r.name, ":"); ok && b == name {
			return "write the name with its module, as " + r.name + " (RFC 7951 section 4)"
		}
	}
	var known []string
	for _, r := range flat(rows) {
		if !r.unused() {
			known = append(known, r.name)
		}
	}
	if len(known) == 0 {
		return "unknown node; none is allowed here"
	}
	return "unknown node; expected one of: " + strings.Join(known, ", ")
}

// flat returns the rows with each choice replaced by its cases.
func flat(rows []row) []row {
	var out []row
	for _, r := range rows {
		if r.kind == choice {
			out = append(out, flat(r.in)...)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// absent handles a row that the object may lack: it adds a node that has a default,
// and reports a mandatory one.
func (w *walker) absent(n *node, r *row) {
	if r.kind == choice {
		w.choose(n, r)
		return
	}
	if n.child(r.name) != nil {
		return
	}
	path := n.path + "/" + r.name
	add := func(v *node) {
		v.line = n.line
		n.members = append(n.members, member{r.name, n.line, v})
		w.node(v, r, path)
	}
	switch {
	case r.kind == container && (needed(r) || hasDefaults(r)):
		add(&node{kind: isObject})
	case r.kind == leaf && r.def != "":
		v, err := read([]byte(r.def))
		if err != nil {
			panic("BUG: the default of " + r.name + ": " + err.Message)
		}
		add(v)
	case r.must:
		w.fail(path, n.line, "%s is missing", r.name)
	}
}

// choose checks that a choice has exactly one case.
func (w *walker) choose(n *node, r *row) {
	var taken []string
	for _, c := range r.in {
		if n.child(c.name) != nil {
			taken = append(taken, c.name)
		}
	}
	switch {
	case len(taken) > 1:
		w.fail(n.path, n.line, "%s cannot be combined", strings.Join(taken, " and "))
	case len(taken) == 0 && r.must && !n.odd: // the unknown member is probably a misspelt case
		var cases []string
		for _, c := range r.in {
			if !c.unused() {
				cases = append(cases, c.name)
			}
		}
		w.fail(n.path, n.line, "%s is missing", strings.Join(cases, " or "))
	}
}

// needed reports whether a missing container has a mandatory node: a container
// without presence exists wherever its parent does.
func needed(r *row) bool {
	for i := range r.in {
		in := &r.in[i]
		if in.must || in.kind == container && needed(in) {
			return true
		}
	}
	return false
}

func hasDefaults(r *row) bool {
	for i := range r.in {
		in := &r.in[i]
		if in.def != "" || in.kind == container && hasDefaults(in) {
			return true
		}
	}
	return false
}

// pathName returns a member's name for a path; the name is untrusted.
func pathName(name string) string {
	if len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '[' }) {
		return quote(name)
	}
	return name
}
