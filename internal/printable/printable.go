// Package printable makes text from outside fit for one line of a log, an event or
// a terminal: text of a peer, a device or a document, before a person sees it. Text
// of more than one line, and text that must keep its language, is package console's.
// It is pure.
package printable

import (
	"strconv"
	"strings"
)

// Quoted returns s with all that is not printable as Go escapes it: nothing is
// lost, and nothing can steer a terminal or begin a line.
func Quoted(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// ASCII is Quoted in printable ASCII.
func ASCII(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// SSHError returns the text of an error of golang.org/x/crypto/ssh without the
// library's prefixes. It escapes nothing.
func SSHError(err error) string {
	text := strings.TrimPrefix(err.Error(), "ssh: handshake failed: ")
	return strings.TrimPrefix(text, "ssh: ")
}

// Most is how much Line keeps of a text, in bytes.
const Most = 300

// Line returns s in printable ASCII, cut at Most bytes. It is for text that any
// unauthenticated peer can choose: what such a peer adds to a log is bounded.
func Line(s string) string {
	if len(s) > Most {
		s = s[:Most] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
