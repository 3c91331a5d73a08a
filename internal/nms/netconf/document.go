package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"callhome/internal/lazyregexp"
)

// Limits of a document while it is read. A peer chooses its messages, and the XML
// decoder keeps each open element and all attributes of a tag: 64 MiB of nested elements
// would take gigabytes. No data model comes near these.
const (
	maxDepth = 1000     // elements inside each other
	maxTag   = 64 << 10 // bytes of one tag, with its attributes
)

var (
	// errDoctype: RFC 6241 section 3 forbids a document type, and a peer could define
	// harmful entities in it.
	errDoctype = errors.New("the message has a document type, which NETCONF forbids")
	errDepth   = fmt.Errorf("its elements are nested deeper than %d levels", maxDepth)
	errTag     = fmt.Errorf("a tag is longer than %d bytes", maxTag)
)

// document reads the tokens of a document within the limits.
type document struct {
	text  []byte // in UTF-8; offsets and raw text are of it
	d     *xml.Decoder
	in    *tagReader
	depth int
}

func newDocument(text []byte) *document {
	text = utf8Text(text)
	in := &tagReader{Reader: bytes.NewReader(text)}
	return &document{text: text, d: xml.NewDecoder(in), in: in}
}

// declaration matches an XML declaration up to the name of its encoding.
var declaration = lazyregexp.New(`^(?:\s*<\?xml\s[^>]*?encoding\s*=\s*["'])([A-Za-z0-9._-]+)`)

// utf8Text returns a document in UTF-8 without a byte order mark. RFC 6241 section 3
// demands UTF-8; servers exist that declare US-ASCII or ISO-8859-1, whose characters are
// Unicode's first 128 and 256. A document in another encoding is returned as it is, and
// the decoder refuses it.
func utf8Text(text []byte) []byte {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	at := declaration().FindSubmatchIndex(text)
	if at == nil {
		return text
	}
	rest := text[at[3]:]
	switch strings.ToUpper(string(text[at[2]:at[3]])) {
	case "US-ASCII", "ASCII": // other bytes than ASCII's must be UTF-8 then
	case "ISO-8859-1", "LATIN1", "ISO8859-1":
		if all := bytes.IndexFunc(rest, func(r rune) bool { return r >= utf8.RuneSelf }); all < 0 {
			break
		}
		decoded := make([]byte, 0, len(rest)+len(rest)/8)
		for _, b := range rest {
			decoded = utf8.AppendRune(decoded, rune(b))
		}
		rest = decoded
	default:
		return text
	}
	return slices.Concat(text[:at[2]], []byte("UTF-8"), rest)
}

// tagReader ends with errTag after limit bytes; a limit below 0 means no limit.
type tagReader struct {
	*bytes.Reader
	limit int
}

func (r *tagReader) ReadByte() (byte, error) {
	if r.limit == 0 {
		return 0, errTag
	}
	r.limit--
	return r.Reader.ReadByte()
}

// next returns the next token and its raw text. It returns io.EOF at the end of the
// document, and an error that names the place for text that is not XML.
func (s *document) next() (xml.Token, []byte, error) {
	from := s.d.InputOffset()
	s.in.limit = -1
	if tag := s.text[from:]; len(tag) > 1 && tag[0] == '<' && tag[1] != '!' && tag[1] != '?' {
		s.in.limit = maxTag
	}
	token, err := s.d.Token()
	to := s.d.InputOffset()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil, io.EOF
	case errors.Is(err, errTag):
		return nil, nil, fmt.Errorf("%w, from byte %d", err, from)
	case err != nil:
		return nil, nil, &notXML{err, to}
	}
	switch token.(type) {
	case xml.StartElement:
		if s.depth++; s.depth > maxDepth {
			return nil, nil, errDepth
		}
	case xml.EndElement:
		s.depth--
	case xml.Directive:
		return nil, nil, errDoctype
	}
	return token, s.text[from:to], nil
}

// start reads up to the first element.
func (s *document) start() (xml.StartElement, error) {
	for {
		token, _, err := s.next()
		if errors.Is(err, io.EOF) {
			return xml.StartElement{}, errNoElement
		}
		if err != nil {
			return xml.StartElement{}, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return token, nil
		case xml.CharData:
			if !isSpace(token) {
				return xml.StartElement{}, errors.New("the message does not begin with an element")
			}
		}
	}
}

// walk calls visit with each token inside the root element, and with the names of the
// elements around it: those of a start or an end tag include its own, and the root is
// left out. It returns an error unless the document is one element and nothing else.
func (s *document) walk(visit func(path []xml.Name, token xml.Token, raw []byte)) error {
	var path []xml.Name
	for {
		token, raw, err := s.next()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name)
		case xml.EndElement:
			if s.depth == 0 {
				return s.rest()
			}
		}
		visit(path, token, raw)
		if _, ok := token.(xml.EndElement); ok {
			path = path[:len(path)-1]
		}
	}
}

// rest reads what follows the root element.
func (s *document) rest() error {
	for {
		token, _, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return errors.New("the message has a second root element")
		case xml.CharData:
			if !isSpace(token) {
				return errors.New("the message has text after its root element")
			}
		}
	}
}

// wellFormed returns an error unless the message is one element and nothing else.
func wellFormed(message []byte) error {
	s := newDocument(message)
	if _, err := s.start(); err != nil {
		return err
	}
	return s.walk(func([]xml.Name, xml.Token, []byte) {})
}

// Text returns the text directly in a child of the message's root, and whether the root
// has that child in a message that can be read.
func Text(message []byte, child xml.Name) (string, bool) {
	s := newDocument(message)
	if _, err := s.start(); err != nil {
		return "", false
	}
	var text []byte
	found := false
	err := s.walk(func(path []xml.Name, token xml.Token, _ []byte) {
		if len(path) != 1 || path[0] != child {
			return
		}
		found = true
		if t, ok := token.(xml.CharData); ok {
			text = append(text, t...)
		}
	})
	return string(text), found && err == nil
}

func isSpace(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

// notXML is the decoder's error at an offset of the document.
type notXML struct {
	err error
	at  int64
}

func (e *notXML) Error() string { return fmt.Sprintf("this is not XML: %v (byte %d)", e.err, e.at) }

func (e *notXML) Unwrap() error { return e.err }

var errNoElement = errors.New("this is not XML: there is no element in it")

// Unfinished reports whether an error of Content only means that more of the document
// must follow. The interactive console reads the next line then.
func Unfinished(err error) bool {
	var syntax *xml.SyntaxError
	return errors.Is(err, errNoElement) || errors.As(err, &syntax) && syntax.Msg == "unexpected EOF"
}
