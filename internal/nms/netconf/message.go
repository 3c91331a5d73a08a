package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
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
	Type     string `xml:"error-type"`
	Tag      string `xml:"error-tag"`
	Severity string `xml:"error-severity"`
	AppTag   string `xml:"error-app-tag"`
	Path     string `xml:"error-path"`
	Message  string `xml:"error-message"`
	Info     struct {
		XML string `xml:",innerxml"`
	} `xml:"error-info"`
}

// Error returns the error as one line of the server's text, unescaped.
func (e Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", orElse(e.Tag, "error"), orElse(e.Type, "unknown type"))
	for _, part := range []struct{ before, text string }{
		{": ", e.Message}, {" at ", e.Path}, {", app-tag ", e.AppTag}, {", info ", e.Info.XML},
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

// root reads up to the root element. It refuses a document type: RFC 6241 section 3
// forbids it, and a peer could define harmful entities in it.
func root(message []byte) (*xml.Decoder, xml.StartElement, error) {
	d := xml.NewDecoder(bytes.NewReader(message))
	for {
		token, err := d.Token()
		if err != nil {
			return nil, xml.StartElement{}, malformed(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			return d, token, nil
		case xml.Directive:
			return nil, xml.StartElement{}, errDoctype
		case xml.CharData:
			if len(bytes.TrimSpace(token)) > 0 {
				return nil, xml.StartElement{}, errors.New("the message does not begin with an element")
			}
		}
	}
}

var errDoctype = errors.New("the message has a document type, which NETCONF forbids")

// malformed keeps the decoder's error, so that Unfinished finds it.
func malformed(err error) error {
	if errors.Is(err, io.EOF) {
		return &noElement{}
	}
	return fmt.Errorf("this is not XML: %w", err)
}

type noElement struct{}

func (*noElement) Error() string { return "this is not XML: there is no element in it" }

// Unfinished reports whether an error of Content only means that more of the document
// must follow. The interactive console reads the next line then.
func Unfinished(err error) bool {
	var none *noElement
	var syntax *xml.SyntaxError
	return errors.As(err, &none) || errors.As(err, &syntax) && syntax.Msg == "unexpected EOF"
}

// rest reads to the end of the message, which must follow the end of its root.
func rest(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return malformed(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			return errors.New("the message has a second root element")
		case xml.CharData:
			if len(bytes.TrimSpace(token)) > 0 {
				return errors.New("the message has text after its root element")
			}
		}
	}
}

// wellFormed returns an error unless the message is one element and nothing else.
func wellFormed(message []byte) error {
	d, _, err := root(message)
	if err != nil {
		return err
	}
	if err := d.Skip(); err != nil {
		return malformed(err)
	}
	return rest(d)
}

// hello is the server's hello.
type hello struct {
	Capabilities []string `xml:"urn:ietf:params:xml:ns:netconf:base:1.0 capabilities>capability"`
	SessionID    string   `xml:"urn:ietf:params:xml:ns:netconf:base:1.0 session-id"`
}

func parseHello(message []byte) (hello, error) {
	var h hello
	d, start, err := root(message)
	if err == nil && kinds[start.Name] != kindHello {
		err = fmt.Errorf("<%s>, expected a hello", quoted(start.Name.Local))
	}
	if err == nil {
		if err = d.DecodeElement(&h, &start); err == nil {
			err = rest(d)
		} else {
			err = malformed(err)
		}
	}
	for i, c := range h.Capabilities {
		h.Capabilities[i] = strings.TrimSpace(c)
	}
	h.SessionID = strings.TrimSpace(h.SessionID)
	return h, err
}

// parseReply parses the errors of a reply, and checks that it is well-formed.
func parseReply(message []byte) (*Reply, error) {
	d, _, err := root(message)
	if err != nil {
		return nil, err
	}
	reply := &Reply{Raw: message}
	for {
		token, err := d.Token()
		if err != nil {
			return nil, malformed(err)
		}
		switch token := token.(type) {
		case xml.EndElement: // the root's: the cases below read those of the children
			return reply, rest(d)
		case xml.StartElement:
			if token.Name != (xml.Name{Space: baseNS, Local: "rpc-error"}) {
				if err := d.Skip(); err != nil {
					return nil, malformed(err)
				}
				continue
			}
			var e Error
			if err := d.DecodeElement(&e, &token); err != nil {
				return nil, malformed(err)
			}
			reply.Errors = append(reply.Errors, e)
		}
	}
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
