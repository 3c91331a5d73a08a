package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Escape escapes text for XML character data and attributes.
func Escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

// Content returns a document's elements, one or more, for use inside another element:
// without the XML declaration and all else before the first element, whose name is
// first. It returns an error unless the rest is whole elements and nothing else.
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
				return nil, first, errors.New("the document has text outside of its elements")
			}
		}
	}
}

// margin is the deepest indent. Elements that are nested deeper get the same: a device
// chooses the depth, and with an indent for each level a small message would fill the
// memory.
var margin = strings.Repeat("  ", 32)

// maxDepth bounds the nesting that Pretty formats. No data model comes near it.
const maxDepth = 1000

// Pretty returns a message with each element on a line of its own. It changes only white
// space between elements, and copies every tag, text and comment as it came. It returns
// text that is not XML, or is nested deeper than maxDepth, unchanged with an error.
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
			return message, fmt.Errorf("formatting a message: its elements are nested deeper than %d levels", maxDepth)
		}
	}
}

// printer formats tokens. The next tag decides whether white space is text, so text
// waits in pending.
type printer struct {
	out     []byte
	depth   int
	pending []byte
	isText  bool // pending is more than white space
	isLeaf  bool // only text since the last start tag
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
		if p.isLeaf { // a leaf's value may be white space
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

// line begins a new line for the next tag, unless text comes before the tag.
func (p *printer) line() {
	if p.isText {
		p.out = append(p.out, p.pending...)
	} else if len(p.out) > 0 {
		p.out = append(append(p.out, '\n'), margin[:min(2*p.depth, len(margin))]...)
	}
	p.pending, p.isText = nil, false
}
