package web

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"
)

func written(n node) string {
	var out bytes.Buffer
	n.write(&out)
	return out.String()
}

func TestElementsAreWritten(t *testing.T) {
	got := written(el("p", class(""), list{class("x"), nil, plain("a<b")}, when(false, plain("no")), el("input", attr("value", ""), attr("name", `"`)), markup("<br>")))
	if want := `<p class="x">a&lt;b<input value="" name="&#34;"><br></p>`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A browser reads back the text that was written, in content and attributes alike.
func FuzzTextIsText(f *testing.F) {
	for _, s := range []string{"", `"><script>`, "'&amp;", "</title><b>", "\x00", "a\r\nb", "&#x3c;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r") {
			t.Skip("a parser changes these")
		}
		z := html.NewTokenizer(strings.NewReader(written(el("p", attr("title", "x"+s), plain("x"+s)))))
		z.Next()
		if start := z.Token(); start.Type != html.StartTagToken || start.Data != "p" || len(start.Attr) != 1 || start.Attr[0].Val != "x"+s {
			t.Fatalf("%q became %v", s, start)
		}
		z.Next()
		if text := z.Token(); text.Type != html.TextToken || text.Data != "x"+s {
			t.Fatalf("%q became %v", s, text)
		}
		z.Next()
		if end := z.Token(); end.Type != html.EndTagToken || end.Data != "p" {
			t.Fatalf("%q is followed by %v", s, end)
		}
	})
}
