package printable

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{
		`plain "text"`:    `plain "text"`,
		"a\r\nb":          `a\r\nb`,
		"\x1b[2J\u202e":   `\x1b[2J\u202e`,
		"caf\u00e9":       "caf\u00e9",
		"\xff":            `\xff`,
		`back\slash`:      `back\\slash`,
		"\u009b31m\u007f": `\u009b31m\x7f`,
	} {
		if got := Quoted(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":                "plain text",
		"a\r\nb\tc":                 "a??b?c",
		"\x1b[2J":                   "?[2J",
		"\u202e\xff":                "??",
		strings.Repeat("x", Most):   strings.Repeat("x", Most),
		strings.Repeat("x", Most+1): strings.Repeat("x", Most) + "...",
	} {
		if got := Line(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestSSHErrorHasNoPrefixOfTheLibrary(t *testing.T) {
	for in, want := range map[string]string{
		"ssh: handshake failed: ssh: no common algorithm": "no common algorithm",
		"ssh: handshake failed: EOF":                      "EOF",
		"ssh: no key found":                               "no key found",
		"EOF":                                             "EOF",
	} {
		if got := SSHError(errors.New(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzNothingSteersATerminal(f *testing.F) {
	for _, s := range []string{"", "\x1b[31m", "\u2028\u202e", "\x80\xff", "a\"b\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, out := range []string{Quoted(s), Line(s)} {
			if i := strings.IndexFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q became %q, which is not printable at %d", s, out, i)
			}
		}
		if len(Line(s)) > Most+len("...") {
			t.Errorf("%d bytes", len(Line(s)))
		}
	})
}
