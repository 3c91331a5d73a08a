package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"

	"callhome/internal/lazyregexp"
)

// Namespaces of RFC 6241 and RFC 5277.
const (
	baseNS         = "urn:ietf:params:xml:ns:netconf:base:1.0"
	notificationNS = "urn:ietf:params:xml:ns:netconf:notification:1.0"
)

// capabilityBase precedes the version in a capability of the base protocol.
const capabilityBase = "urn:ietf:params:netconf:base:"

// kind is the type of a message, the name of its root element.
type kind string

const (
	kindHello        kind = "hello"
	kindReply        kind = "rpc-reply"
	kindNotification kind = "notification"
)

// kinds are the messages that a server may send.
var kinds = map[xml.Name]kind{
	{Space: baseNS, Local: "hello"}:                kindHello,
	{Space: baseNS, Local: "rpc-reply"}:            kindReply,
	{Space: notificationNS, Local: "notification"}: kindNotification,
}

// Error is one <rpc-error> (RFC 6241 section 4.3). Its fields are text from outside.
type Error struct {
	Type     string
	Tag      string
	Severity string
	AppTag   string
	Path     string
	Message  string
	Info     string // the content of error-info, XML
}

// Error returns the error as one line of the server's text, unescaped.
func (e Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", orElse(e.Tag, "error"), orElse(e.Type, "unknown type"))
	for _, part := range []struct{ before, text string }{
		{": ", e.Message}, {" at ", e.Path}, {", app-tag ", e.AppTag}, {", info ", e.Info},
	} {
		if text := strings.Join(strings.Fields(part.text), " "); text != "" {
			b.WriteString(part.before + text)
		}
	}
	return b.String()
}

// IsWarning reports whether the operation succeeded with a warning.
func (e Error) IsWarning() bool { return strings.TrimSpace(e.Severity) == "warning" }

func orElse(s, otherwise string) string {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return otherwise
}

// Reply is one <rpc-reply>.
type Reply struct {
	Raw    []byte // the message as it came
	Errors []Error
	// Malformed is why the message cannot be read to its end; Errors is empty then.
	Malformed error
}

// Failed returns the errors that are not warnings.
func (r *Reply) Failed() []Error {
	var failed []Error
	for _, e := range r.Errors {
		if !e.IsWarning() {
			failed = append(failed, e)
		}
	}
	return failed
}

// hello is the server's hello.
type hello struct {
	Capabilities []string
	SessionID    string
}

// Paths in a hello.
var (
	capabilityPath = []xml.Name{{Space: baseNS, Local: "capabilities"}, {Space: baseNS, Local: "capability"}}
	sessionIDPath  = []xml.Name{{Space: baseNS, Local: "session-id"}}
)

func parseHello(message []byte) (hello, error) {
	var h hello
	s := newDocument(message)
	root, err := s.start()
	switch {
	case err != nil:
		return h, err
	case kinds[root.Name] != kindHello:
		return h, unexpected(root.Name, "a hello")
	}
	var text []byte
	err = s.walk(func(path []xml.Name, token xml.Token, _ []byte) {
		switch token := token.(type) {
		case xml.StartElement:
			text = nil
		case xml.CharData:
			text = append(text, token...)
		case xml.EndElement:
			switch {
			case slices.Equal(path, capabilityPath):
				h.Capabilities = append(h.Capabilities, string(bytes.TrimSpace(text)))
			case slices.Equal(path, sessionIDPath):
				h.SessionID = string(bytes.TrimSpace(text))
			}
		}
	})
	return h, err
}

// parseReply parses the errors of a reply, and checks that it is well-formed.
func parseReply(message []byte) *Reply {
	s := newDocument(message)
	_, err := s.start()
	var errs errorReader
	if err == nil {
		err = s.walk(errs.visit)
	}
	if err != nil {
		return &Reply{Raw: message, Malformed: err}
	}
	return &Reply{Raw: message, Errors: errs.found}
}

// Limits of the errors of a reply, which a device chooses.
const (
	maxErrors    = 100      // and as many warnings; the rest is left out
	maxErrorText = 64 << 10 // bytes of one child of <rpc-error>; the rest is cut
)

// errorReader collects the errors of a reply. RFC 6241 has <rpc-error> as a child of
// <rpc-reply>; Junos and others put it into elements of their own, such as
// <commit-results>, also in their own namespace.
type errorReader struct {
	found  []Error
	within int    // levels of the element that is read as an error; 0: none
	error  Error  // that element's content
	leaf   bool   // it has had no child
	text   []byte // of the child that is read
	info   []byte // raw content of error-info
}

func (r *errorReader) visit(path []xml.Name, token xml.Token, raw []byte) {
	if r.within == 0 {
		if _, ok := token.(xml.StartElement); ok && holdsError(path) {
			*r = errorReader{found: r.found, within: len(path), leaf: true}
		}
		return
	}
	_, start := token.(xml.StartElement)
	_, end := token.(xml.EndElement)
	switch {
	case end && len(path) == r.within:
		// An element of a data model may have this name, and is no error without content.
		if !r.leaf || path[r.within-1].Space == baseNS {
			r.add()
		}
		r.within = 0
		return
	case start && len(path) == r.within+1:
		r.leaf, r.text, r.info = false, nil, nil
	case end && len(path) == r.within+1:
		r.set(path[r.within].Local)
	default:
		r.info = appendBounded(r.info, raw)
		if text, ok := token.(xml.CharData); ok {
			r.text = appendBounded(r.text, text)
		}
	}
}

// add keeps the error that has ended.
func (r *errorReader) add() {
	many := 0
	for _, e := range r.found {
		if e.IsWarning() == r.error.IsWarning() {
			many++
		}
	}
	if many < maxErrors {
		r.found = append(r.found, r.error)
	}
}

func appendBounded(to, text []byte) []byte {
	return append(to, text[:min(len(text), maxErrorText-len(to))]...)
}

// set assigns a child of <rpc-error> that has ended.
func (r *errorReader) set(child string) {
	text := string(r.text)
	switch child {
	case "error-type":
		r.error.Type = text
	case "error-tag":
		r.error.Tag = text
	case "error-severity":
		r.error.Severity = text
	case "error-app-tag":
		r.error.AppTag = text
	case "error-path":
		r.error.Path = text
	case "error-message":
		r.error.Message = text
	case "error-info":
		r.error.Info = string(r.info)
	}
}

// holdsError reports whether an element of a reply is an error: <rpc-error> of the base
// namespace anywhere but in data, or one of a vendor's namespace inside that vendor's
// element for results.
func holdsError(path []xml.Name) bool {
	last := len(path) - 1
	if path[last].Local != "rpc-error" || path[0].Local == "data" {
		return false
	}
	if path[last].Space == baseNS {
		return true
	}
	return slices.ContainsFunc(path[:last], func(n xml.Name) bool {
		return n.Space == path[last].Space && strings.HasSuffix(n.Local, "-results")
	})
}

// attributes matches an attribute of a tag that the decoder has read, and its name.
var attributes = lazyregexp.New(`\s+([^\s=]+)\s*=\s*(?:"[^"]*"|'[^']*')`)

// request returns the message of one operation: in an <rpc>, or an <rpc> with another
// message-id.
func request(operation []byte, id int) ([]byte, error) {
	s := newDocument(operation)
	root, err := s.start()
	if err != nil {
		return nil, err
	}
	var message []byte
	if end := s.d.InputOffset(); isRPC(root.Name) {
		begin := bytes.LastIndexByte(s.text[:end], '<')
		tag := attributes().ReplaceAllFunc(s.text[begin:end], func(a []byte) []byte {
			if string(attributes().FindSubmatch(a)[1]) == "message-id" {
				return nil
			}
			return a
		})
		name := tag[:bytes.IndexAny(tag, " \t\r\n/>")]
		message = fmt.Appendf(nil, `%s message-id="%d"`, name, id)
		if root.Name.Space == "" {
			message = fmt.Appendf(message, ` xmlns="%s"`, baseNS)
		}
		message = slices.Concat(message, tag[len(name):], s.text[end:])
	} else {
		message = fmt.Appendf(nil, `<rpc xmlns="%s" message-id="%d">`, baseNS, id)
		message = append(append(message, s.text...), "</rpc>"...)
	}
	if err := wellFormed(message); err != nil {
		return nil, err
	}
	if OperationName(message) == "" {
		return nil, errors.New("there is no operation in <rpc>")
	}
	return message, nil
}

// OperationName returns the name of the operation that Do would send, "" if there is
// none.
func OperationName(operation []byte) string {
	s := newDocument(operation)
	root, err := s.start()
	if err == nil && isRPC(root.Name) {
		root, err = s.start()
	}
	if err != nil {
		return ""
	}
	return root.Name.Local
}

func isRPC(n xml.Name) bool { return n.Local == "rpc" && (n.Space == baseNS || n.Space == "") }

// Messages returns the messages in a file, which may have been written for other
// programs: with ]]>]]> after each, and with the client's hello, which is left out.
func Messages(text []byte) ([][]byte, error) {
	var all [][]byte
	for i, part := range bytes.Split(text, []byte(endOfMessage)) {
		if i > 0 && isSpace(part) {
			continue
		}
		content, first, err := Content(part)
		if err != nil {
			return nil, err
		}
		if kinds[first] != kindHello {
			all = append(all, content)
		}
	}
	return all, nil
}

// unexpected is the error for a message with another root than expected.
func unexpected(root xml.Name, expected string) error {
	for known := range kinds {
		if known.Local == root.Local {
			space := fmt.Sprintf("in the namespace \"%s\"", quoted(root.Space))
			if root.Space == "" {
				space = "without a namespace"
			}
			return fmt.Errorf("<%s> %s, expected it in %q", root.Local, space, known.Space)
		}
	}
	return fmt.Errorf("<%s>, expected %s", quoted(root.Local), expected)
}

// attribute returns the value of an attribute without a namespace.
func attribute(start xml.StartElement, name string) (string, bool) {
	for _, a := range start.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value, true
		}
	}
	return "", false
}

// quoted bounds text of the peer and makes it printable on one line.
func quoted(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}
