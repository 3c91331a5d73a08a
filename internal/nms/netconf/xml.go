package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Escape makes text fit to stand in XML as character data or in an attribute.
func Escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}

// Content is a document as it can stand inside another element: without its
// XML declaration and what comes before the first element. There may be several
// elements; first is the name of the first. The error says that the document is
// not whole elements and nothing else.
func Content(document []byte) (content []byte, first xml.Name, err error) {
	document = bytes.TrimPrefix(document, []byte("\ufeff"))
	d := xml.NewDecoder(bytes.NewReader(document))
	depth, start := 0, int64(-1)
	for {
		from := d.InputOffset()
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && start >= 0:
			return bytes.TrimSpace(document[start:]), first, nil
		case err != nil:
			return nil, first, malformed(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if start < 0 {
				start, first = from, token.Name
			}
			depth++
		case xml.EndElement:
			depth--
		case xml.Directive:
			return nil, first, errDoctype
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(token)) > 0 {
				return nil, first, errors.New("there is text outside of the elements")
			}
		}
	}
}

// margin is the indent of the deepest level that has one of its own. Deeper
// elements begin where that does: a device chooses how deep they are, and with
// an indent for each level a small message would fill the memory.
var margin = strings.Repeat("  ", 32)

// maxDepth is how deep elements are laid out. No data model comes near it.
const maxDepth = 1000

// Pretty returns a message with each element on a line of its own. It changes
// white space between elements and nothing else: every tag, with its prefix,
// namespaces and attributes, every text and comment is copied as it came. What
// is no XML, or nested deeper than maxDepth, comes back as it is, with an error.
func Pretty(message []byte) ([]byte, error) {
	message = bytes.TrimSpace(message)
	d := xml.NewDecoder(bytes.NewReader(message))
	p := printer{}
	for {
		from := d.InputOffset()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return append(p.out, '\n'), nil
		}
		if err != nil {
			return message, malformed(err)
		}
		p.token(token, message[from:d.InputOffset()])
		if p.depth > maxDepth {
			return message, fmt.Errorf("laying out a message: its elements are more than %d deep", maxDepth)
		}
	}
}

// printer lays tokens out. What white space means is known only at the next
// tag, so text waits in pending.
type printer struct {
	out     []byte
	depth   int
	pending []byte
	isText  bool // pending is more than white space
	isLeaf  bool // nothing but text since the last start tag
}

func (p *printer) token(token xml.Token, raw []byte) {
	switch token := token.(type) {
	case xml.StartElement:
		p.line()
		p.out = append(p.out, raw...)
		p.depth++
		p.isLeaf = true
	case xml.EndElement:
		p.depth--
		if p.isLeaf { // white space can be a leaf's value
			p.out = append(p.out, p.pending...)
			p.pending, p.isText = nil, false
		} else {
			p.line()
		}
		p.out = append(p.out, raw...)
		p.isLeaf = false
	case xml.CharData:
		p.pending = append(p.pending, raw...)
		p.isText = p.isText || len(bytes.TrimSpace(token)) > 0 || bytes.HasPrefix(raw, []byte("<![CDATA["))
	default: // comments, declarations
		if p.isLeaf {
			p.pending = append(p.pending, raw...)
			p.isText = true
			return
		}
		p.line()
		p.out = append(p.out, raw...)
	}
}

// line begins the next tag: on a new line, or behind text where it stands.
func (p *printer) line() {
	if p.isText {
		p.out = append(p.out, p.pending...)
	} else if len(p.out) > 0 {
		p.out = append(append(p.out, '\n'), margin[:min(2*p.depth, len(margin))]...)
	}
	p.pending, p.isText = nil, false
}
