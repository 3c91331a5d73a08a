package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxLogged bounds what is logged of a caller's words, in bytes.
const maxLogged = 4 << 10

// escapes are those of JSON that would look like the end of a quoted field, as
// the log puts a backslash before each quote and none before a backslash.
var escapes = strings.NewReplacer(`\\`, `\u005c`, `\"`, `\u0022`)

// asciiJSON returns JSON without a space or a character that a log cannot
// hold; it is JSON still, unless it is cut short.
func asciiJSON(text string) string {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(text)) != nil {
		return ascii(text)
	}
	var b strings.Builder
	for _, r := range escapes.Replace(compact.String()) {
		if r >= ' ' && r < 0x7f {
			b.WriteRune(r)
			continue
		}
		// Outside a JSON string there is nothing of the kind.
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return cut(b.String())
}

// ascii returns text in printable characters on one line; the log puts the
// quotes.
func ascii(text string) string {
	q := strconv.QuoteToASCII(text)
	return cut(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`))
}

func cut(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged] + "..."
	}
	return s
}
