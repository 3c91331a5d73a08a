package web

import (
	"bytes"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// node is a part of a page. nil is nothing.
type node interface{ write(*bytes.Buffer) }

type (
	// plain is text. Everything that is not a constant of this package is plain or the
	// value of an attribute: both are escaped.
	plain string
	// markup is a constant with HTML.
	markup string
	// list is several nodes.
	list []node
)

type element struct {
	name  string
	parts list // attributes and content
}

type attribute struct{ name, value string }

var (
	// void are the elements without content.
	void = []string{"input", "link", "meta"}
	// addresses are the attributes that a browser, or the script, loads something by.
	addresses = []string{"href", "src", "action", "data-part"}
)

// own reports whether an address is one of the page. Another one could be of a scheme
// such as javascript. Browsers remove line ends and tabs, and take \ for /.
func own(address string) bool {
	path, _, _ := strings.Cut(address, "?")
	if strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c == '\\' }) {
		return false
	}
	return strings.HasPrefix(path, "#") || strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//")
}

func el(name string, parts ...node) node { return &element{name, parts} }
func attr(name, value string) node       { return attribute{name, value} }
func class(name string) node             { return attribute{"class", name} }
func anchor(value string) node           { return attribute{"id", value} }
func aria(name, value string) node       { return attribute{"aria-" + name, value} }
func (p plain) write(out *bytes.Buffer)  { out.WriteString(html.EscapeString(visible(string(p)))) }
func (m markup) write(out *bytes.Buffer) { out.WriteString(string(m)) }
func (attribute) write(*bytes.Buffer)    {} // its element writes it

// visible returns a text with characters that change how others are shown as Go escapes
// them: control characters, and those that turn the direction of text, by which a device
// could have a part of a configuration read in another order.
func visible(s string) string {
	if !strings.ContainsFunc(s, deceives) {
		return s
	}
	var out strings.Builder
	for _, c := range s {
		if deceives(c) {
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		} else {
			out.WriteRune(c)
		}
	}
	return out.String()
}

func deceives(c rune) bool {
	return unicode.IsControl(c) && !strings.ContainsRune("\t\n\r", c) || c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

func (l list) write(out *bytes.Buffer) {
	for _, n := range l {
		if n != nil {
			n.write(out)
		}
	}
}

func (e *element) write(out *bytes.Buffer) {
	out.WriteString("<" + e.name)
	e.parts.attributes(out)
	out.WriteString(">")
	if !slices.Contains(void, e.name) {
		e.parts.write(out)
		out.WriteString("</" + e.name + ">")
	}
}

func (l list) attributes(out *bytes.Buffer) {
	for _, n := range l {
		switch n := n.(type) {
		case attribute:
			if n.value != "" && slices.Contains(addresses, n.name) && !own(n.value) {
				n.value = "#"
			}
			if n.value != "" || n.name == "value" {
				out.WriteString(" " + n.name + `="` + html.EscapeString(n.value) + `"`)
			}
		case list:
			n.attributes(out)
		}
	}
}

// when is a node on a condition.
func when(is bool, n node) node {
	if is {
		return n
	}
	return nil
}

// each is a node for each of all.
func each[T any](all []T, of func(T) node) list {
	var out list
	for _, a := range all {
		out = append(out, of(a))
	}
	return out
}
