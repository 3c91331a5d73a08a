package config

import (
	"fmt"
	"strings"
	"unicode"
)

// walker holds a document against the schema. It notes every fault and goes on,
// gives each leaf its value, and puts in what has a default.
type walker struct {
	errs Errors
	more int // faults that are only counted
}

// maxFaults is how many are told: whoever has so many has another file than
// meant, and a document of a few megabytes can have a million.
const maxFaults = 1000

func (w *walker) fail(path string, line int, format string, args ...any) {
	if len(w.errs) == maxFaults {
		w.more++
		return
	}
	w.errs = append(w.errs, Error{path, line, fmt.Sprintf(format, args...)})
}

// node checks n, at path, against r.
func (w *walker) node(n *node, r *row, path string) {
	n.path = path
	switch r.kind {
	case refused:
		w.fail(path, n.line, "%s", r.why)
	case leaf:
		w.leaf(n, r)
	case leafList:
		w.leafList(n, r)
	case list:
		w.list(n, r)
	default:
		if n.kind != isObject {
			w.fail(path, n.line, "%v", wrongKind(n, "an object"))
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
		w.fail(n.path, n.line, "%v", wrongKind(n, "an array of values"))
		return
	}
	first := make(map[string]int)
	for i, item := range n.items {
		item.path = fmt.Sprintf("%s[%d]", n.path, i+1)
		w.leaf(item, r)
		if line, twice := first[item.text]; twice && item.value != nil {
			w.fail(item.path, item.line, "%s stands in line %d already", quote(item.text), line)
			continue
		}
		first[item.text] = item.line
	}
}

func (w *walker) list(n *node, r *row) {
	if n.kind != isArray {
		w.fail(n.path, n.line, "%v", wrongKind(n, "an array of entries"))
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
				w.fail(path, k.line, "there is an entry of this name in line %d already", line)
			} else {
				first[k.text] = k.line
			}
		}
		item.path = path
		if item.kind != isObject {
			w.fail(path, item.line, "%v", wrongKind(item, "an object"))
			continue
		}
		w.members(item, r.in)
	}
}

// predicate writes a key as an instance-identifier has it, on one line.
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

// members checks what an object has, and what it lacks.
func (w *walker) members(n *node, rows []row) {
	seen := make(map[string]int)
	before := len(w.errs)
	for _, m := range n.members {
		path := n.path + "/" + pathName(m.name)
		if line, twice := seen[m.name]; twice {
			w.fail(path, m.line, "this member stands in line %d already", line)
			continue
		}
		seen[m.name] = m.line
		r := find(rows, m.name)
		if r == nil {
			n.odd = true
			w.fail(path, m.line, "%s", unknown(rows, m.name))
			continue
		}
		// A fault of what it is, not of what it holds, is in the member's line.
		if r.kind == refused {
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

// find returns the row of that name, also inside a choice.
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

// unknown says what is wrong with a member that no row has.
func unknown(rows []row, name string) string {
	if strings.HasPrefix(name, "@") {
		return "metadata (RFC 7952) is not taken: leave it out"
	}
	_, bare, qualified := strings.Cut(name, ":")
	if qualified && find(rows, bare) != nil {
		return "here the name stands without its module, as " + bare + " (RFC 7951 section 4)"
	}
	for _, r := range flat(rows) {
		if _, b, ok := strings.Cut(r.name, ":"); ok && b == name {
			return "here the name needs its module, as " + r.name + " (RFC 7951 section 4)"
		}
	}
	var known []string
	for _, r := range flat(rows) {
		if r.kind != refused {
			known = append(known, r.name)
		}
	}
	if len(known) == 0 {
		return "there is no such node; nothing stands here"
	}
	return "there is no such node; known here: " + strings.Join(known, ", ")
}

// flat returns the rows with those of a choice in its place.
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

// absent looks after a row that the object may not have: what is mandatory is
// missed, what has a default is put in.
func (w *walker) absent(n *node, r *row) {
	if r.kind == choice {
		w.choose(n, r)
		return
	}
	if n.child(r.name) != nil {
		return
	}
	path := n.path + "/" + r.name
	put := func(v *node) {
		v.line = n.line
		n.members = append(n.members, member{r.name, n.line, v})
		w.node(v, r, path)
	}
	switch {
	case r.kind == container && (needed(r) || hasDefaults(r)):
		put(&node{kind: isObject})
	case r.kind == leaf && r.def != "":
		v, err := read([]byte(r.def))
		if err != nil {
			panic("BUG: the default of " + r.name + ": " + err.Message)
		}
		put(v)
	case r.must:
		w.fail(path, n.line, "%s is missing", r.name)
	}
}

// choose holds a choice to one case.
func (w *walker) choose(n *node, r *row) {
	var taken []string
	for _, c := range r.in {
		if n.child(c.name) != nil {
			taken = append(taken, c.name)
		}
	}
	switch {
	case len(taken) > 1:
		w.fail(n.path, n.line, "%s exclude each other", strings.Join(taken, " and "))
	case len(taken) == 0 && r.must && !n.odd: // what is odd was meant to be one
		var cases []string
		for _, c := range r.in {
			if c.kind != refused {
				cases = append(cases, c.name)
			}
		}
		w.fail(n.path, n.line, "%s is missing", strings.Join(cases, " or "))
	}
}

// needed reports whether a container that is not there misses something:
// without presence it is there as soon as its parent is.
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

// pathName is a member's name as a path shows it: a word from outside.
func pathName(name string) string {
	if len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '[' }) {
		return quote(name)
	}
	return name
}
