package netconf

import (
	"bufio"
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
func Content(text []byte) (content []byte, first xml.Name, err error) {
	s := newDocument(text)
	text = s.text
	root, err := s.start()
	if err != nil {
		return nil, first, err
	}
	first = root.Name
	begin := bytes.LastIndexByte(text[:s.d.InputOffset()], '<')
	for {
		token, _, err := s.next()
		switch {
		case errors.Is(err, io.EOF):
			return bytes.TrimSpace(text[begin:]), first, nil
		case err != nil:
			return nil, first, err
		}
		if t, ok := token.(xml.CharData); ok && s.depth == 0 && !isSpace(t) {
			return nil, first, errors.New("the document has text outside of its elements")
		}
	}
}

// margin is the deepest indent. Elements that are nested deeper get the same: a device
// chooses the depth, and with an indent for each level a small message would fill the
// memory.
var margin = strings.Repeat("  ", 32)

// Pretty writes a message with each element on a line of its own. It changes only white
// space between elements, and copies every tag, text and comment as it came. From text
// that is not XML or exceeds the limits of a document on it copies the rest unchanged,
// and returns an error. It holds no second copy of the message.
func Pretty(w io.Writer, message []byte) error {
	out := bufio.NewWriter(w)
	s := newDocument(bytes.TrimSpace(message))
	p := printer{out: out}
	for {
		token, raw, err := s.next()
		if err != nil {
			p.write(p.pending)
			p.write(s.text[p.read:])
			p.write([]byte("\n"))
			if errors.Is(err, io.EOF) {
				return out.Flush()
			}
			return errors.Join(fmt.Errorf("formatting a message: %w", err), out.Flush())
		}
		p.token(token, raw)
	}
}

// printer formats tokens. The next tag decides whether white space is text, so text
// waits in pending.
type printer struct {
	out     *bufio.Writer
	read    int // bytes of the tokens so far
	written bool
	depth   int
	pending []byte // a part of the message
	isText  bool   // pending is more than white space
	isLeaf  bool   // only text since the last start tag
}

func (p *printer) token(token xml.Token, raw []byte) {
	p.read += len(raw)
	switch token := token.(type) {
	case xml.StartElement:
		p.line()
		p.write(raw)
		p.depth++
		p.isLeaf = true
	case xml.EndElement:
		p.depth--
		if p.isLeaf { // a leaf's value may be white space
			p.write(p.pending)
			p.pending, p.isText = nil, false
		} else {
			p.line()
		}
		p.write(raw)
		p.isLeaf = false
	case xml.CharData:
		p.wait(raw)
		p.isText = p.isText || !isSpace(token) || bytes.HasPrefix(raw, []byte("<![CDATA["))
	default: // comments, declarations
		if p.isLeaf {
			p.wait(raw)
			p.isText = true
			return
		}
		p.line()
		p.write(raw)
	}
}

// wait adds a token to pending. Tokens follow each other in the message.
func (p *printer) wait(raw []byte) {
	if len(p.pending) == 0 {
		p.pending = raw
		return
	}
	p.pending = p.pending[:len(p.pending)+len(raw)]
}

// line begins a new line for the next tag, unless text comes before the tag.
func (p *printer) line() {
	if p.isText {
		p.write(p.pending)
	} else if p.written {
		p.write([]byte("\n"))
		p.write([]byte(margin[:min(2*p.depth, len(margin))]))
	}
	p.pending, p.isText = nil, false
}

// write writes to out, which keeps the error for Flush.
func (p *printer) write(text []byte) {
	_, _ = p.out.Write(text)
	p.written = p.written || len(text) > 0
}
