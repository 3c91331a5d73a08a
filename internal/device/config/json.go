package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxDocument bounds a document, in bytes. Who reads one need not read more than one
// byte above it: Parse refuses that.
const MaxDocument = 4 << 20

// Converter is the packaged script that converts XML.
const Converter = "/usr/share/callhome/yang/convert"

// maxDepth bounds the nesting. The covered models nest 17 deep.
const maxDepth = 32

// kind is the type of a JSON value.
type kind string

const (
	isObject kind = "an object"
	isArray  kind = "an array"
	isString kind = "a string"
	isNumber kind = "a number"
	isBool   kind = "true or false"
	isNull   kind = "null"
)

// node is one value of the document. The walker sets the fields after the empty
// line.
type node struct {
	kind    kind
	line    int
	text    string   // of a string, a number or a boolean
	members []member // of an object, in order, with duplicates
	items   []*node  // of an array

	path   string // instance-identifier
	odd    bool   // has a member that is unknown or refused
	faulty bool   // has a fault, itself or below
	value  any    // of a leaf without a fault: string, int, bool, []byte, time.Time, netip.Addr
}

type member struct {
	name  string
	line  int
	value *node
}

// child returns the member at that path of names, or nil. n may be nil.
func (n *node) child(names ...string) *node {
	for _, name := range names {
		if n == nil {
			return nil
		}
		n = n.member(name)
	}
	return n
}

func (n *node) member(name string) *node {
	for _, m := range n.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// list returns the entries of the list of that name.
func (n *node) list(name string) []*node {
	if l := n.child(name); l != nil {
		return l.items
	}
	return nil
}

// str, num and is return the value of the leaf of that name, zero where it is missing
// or has a fault.
func (n *node) str(name string) string { return as[string](n.child(name)) }
func (n *node) num(name string) int    { return as[int](n.child(name)) }
func (n *node) is(name string) bool    { return as[bool](n.child(name)) }

func as[T any](n *node) T {
	var zero T
	if n == nil {
		return zero
	}
	v, _ := n.value.(T)
	return v
}

// reader builds the tree and counts the lines.
type reader struct {
	doc  []byte
	dec  *json.Decoder
	at   int // offset up to which lines are counted
	line int
}

// read returns the document as a tree, or the first place that is not JSON.
func read(doc []byte) (*node, *Error) {
	doc = bytes.TrimPrefix(doc, []byte("\ufeff")) // editors on Windows write it (RFC 8259 section 8.1 lets a reader skip it)
	r := &reader{doc: doc, dec: json.NewDecoder(bytes.NewReader(doc)), line: 1}
	r.dec.UseNumber()
	switch {
	case len(doc) > MaxDocument:
		return nil, &Error{"/", 1, fmt.Sprintf("the document has more than the limit of %d bytes", MaxDocument)}
	case !utf8.Valid(doc):
		// encoding/json would replace these bytes silently.
		return nil, &Error{"/", r.lineOf(invalidUTF8(doc)), "this is not UTF-8"}
	case bytes.HasPrefix(bytes.TrimSpace(doc), []byte("<")):
		return nil, &Error{"/", 1, "this is XML, and JSON (RFC 7951) is needed: convert it with " + Converter + " FILE, which needs yanglint"}
	}
	root, err := r.value(0)
	if err == nil {
		if _, more := r.dec.Token(); more != io.EOF {
			err = errors.New("unexpected data after the end of the document")
		}
	}
	if err != nil {
		return nil, &Error{"/", r.lineOf(r.offset(err)), plain(err)}
	}
	return root, nil
}

func invalidUTF8(doc []byte) int {
	for i := 0; i < len(doc); {
		r, size := utf8.DecodeRune(doc[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(doc)
}

// offset is where an error is.
func (r *reader) offset(err error) int {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return int(syntax.Offset)
	case isTruncated(err):
		return len(r.doc)
	}
	return int(r.dec.InputOffset())
}

func isTruncated(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// plain returns the message for an error of the decoder. It quotes a character of JSON's
// own syntax; any other may be one of a secret.
func plain(err error) string {
	if isTruncated(err) {
		return "the document ends too early"
	}
	text := err.Error()
	rest, ok := strings.CutPrefix(text, "invalid character '")
	if i := strings.LastIndex(rest, "' "); ok && i >= 0 && !strings.ContainsAny(rest[:i], `{}[],:/\`) {
		text = "invalid character " + rest[i+len("' "):]
	}
	return "this is not JSON: " + text
}

// lineOf counts from the last offset. Only an error's offset can be smaller.
func (r *reader) lineOf(offset int) int {
	offset = min(offset, len(r.doc))
	if offset < r.at {
		r.at, r.line = 0, 1
	}
	r.line += bytes.Count(r.doc[r.at:offset], []byte("\n"))
	r.at = offset
	return r.line
}

func (r *reader) token() (json.Token, int, error) {
	t, err := r.dec.Token()
	if err != nil {
		return nil, 0, err
	}
	return t, r.lineOf(int(r.dec.InputOffset())), nil
}

func (r *reader) value(depth int) (*node, error) {
	t, line, err := r.token()
	if err != nil {
		return nil, err
	}
	n := &node{line: line}
	switch t := t.(type) {
	case string:
		n.kind, n.text = isString, t
	case json.Number:
		n.kind, n.text = isNumber, string(t)
	case bool:
		n.kind, n.text = isBool, fmt.Sprint(t)
	case nil:
		n.kind = isNull
	case json.Delim:
		if depth == maxDepth {
			return nil, fmt.Errorf("it nests deeper than %d", maxDepth)
		}
		if t == '[' {
			return n, r.array(n, depth+1)
		}
		return n, r.object(n, depth+1)
	}
	return n, nil
}

func (r *reader) array(n *node, depth int) error {
	n.kind = isArray
	for r.dec.More() {
		item, err := r.value(depth)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, _, err := r.token()
	return err
}

func (r *reader) object(n *node, depth int) error {
	n.kind = isObject
	for r.dec.More() {
		key, line, err := r.token()
		if err != nil {
			return err
		}
		value, err := r.value(depth)
		if err != nil {
			return err
		}
		name, _ := key.(string) // the decoder lets nothing else be a key
		n.members = append(n.members, member{name, line, value})
	}
	_, _, err := r.token()
	return err
}
