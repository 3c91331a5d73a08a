package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"

	"callhome/internal/printable"
)

// maxLogged bounds what is logged of one text from a peer, in bytes.
const maxLogged = 4 << 10

// escapes replaces the escapes of JSON that could end a quoted field of the log:
// hclog escapes a quote, but not a backslash before it.
var escapes = strings.NewReplacer(`\\`, `\u005c`, `\"`, `\u0022`)

// asciiJSON returns text as compact JSON in printable ASCII. It stays JSON unless
// it is cut at maxLogged.
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
		// Compact JSON has such characters in strings alone.
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return cut(b.String())
}

// ascii returns text in printable ASCII on one line, without quotes: hclog adds
// them.
func ascii(text string) string {
	return cut(printable.ASCII(text))
}

func cut(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged] + "..."
	}
	return s
}
