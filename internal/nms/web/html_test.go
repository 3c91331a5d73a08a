package web

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
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

func TestTextIsShownInItsOrder(t *testing.T) {
	for text, want := range map[string]string{
		"a\tb\nc": "a\tb\nc", "caf\u00e9 \u05d0\u200f": "caf\u00e9 \u05d0\u200f",
		"<a>\u202e\u2066x\u2069</a>": `&lt;a&gt;\u202e\u2066x\u2069&lt;/a&gt;`, "\x1b[2J\x00\u0085": `\x1b[2J\x00\u0085`,
	} {
		if got := written(plain(text)); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestAnAddressIsOneOfThePage(t *testing.T) {
	for address, want := range map[string]bool{
		"/": true, "/devices/a?q=//x": true, `/devices?q=a\b`: true, "#events": true,
		"/\t/evil.example": false, "//evil.example/": false, `/\evil.example`: false, "https://evil.example/": false, "javascript:alert(1)": false, " javascript:alert(1)": false, "devices": false,
	} {
		if got := strings.Contains(written(link(address, "x")), ` href="#"`); got == want {
			t.Errorf("%q: %s", address, written(link(address, "x")))
		}
	}
}

// Text from outside can be the value of an attribute, or content, and nothing else: all
// names of elements and attributes and all markup are constants, and none of them makes
// a browser read text as a script, a style or another document.
func TestNamesAndMarkupAreConstants(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set, calls := token.NewFileSet(), 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if name(n.Type) == "element" || name(n.Type) == "attribute" {
					if file != "html.go" {
						t.Errorf("%v: use el or attr", set.Position(n.Pos()))
					}
				}
			case *ast.CallExpr:
				switch f := name(n.Fun); f {
				case "markup":
					calls++
					if !constant(n.Args[0]) {
						t.Errorf("%v: markup that is no constant", set.Position(n.Pos()))
					}
				case "el", "attr", "aria":
					calls++
					literal, ok := n.Args[0].(*ast.BasicLit)
					if !ok {
						t.Errorf("%v: a name that is no constant", set.Position(n.Pos()))
						return true
					}
					switch called, _ := strconv.Unquote(literal.Value); {
					case f == "attr" && (strings.HasPrefix(called, "on") || forbidden[called]), f == "el" && forbidden[called]:
						t.Errorf("%v: %s", set.Position(n.Pos()), called)
					case f == "el" && called == "script":
						for _, part := range n.Args[1:] {
							if call, ok := part.(*ast.CallExpr); !ok || name(call.Fun) != "attr" {
								t.Errorf("%v: a script with content", set.Position(part.Pos()))
							}
						}
					}
				}
			}
			return true
		})
	}
	if calls < 100 {
		t.Errorf("only %d calls were found", calls)
	}
}

// forbidden are elements and attributes whose text is more than text.
var forbidden = map[string]bool{
	"style": true, "iframe": true, "object": true, "embed": true, "base": true, "noscript": true, "template": true, "xmp": true, "plaintext": true, "noembed": true, "noframes": true,
	"srcdoc": true, "srcset": true, "formaction": true, "ping": true, "xlink:href": true, "target": true, "background": true, "manifest": true,
}

func name(e ast.Expr) string {
	if i, ok := e.(*ast.Ident); ok {
		return i.Name
	}
	return ""
}

// constant reports whether an expression is a constant of this package.
func constant(e ast.Expr) bool {
	if i, ok := e.(*ast.Ident); ok && i.Obj != nil {
		return i.Obj.Kind == ast.Con
	}
	_, ok := e.(*ast.BasicLit)
	return ok
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
		if text := z.Token(); text.Type != html.TextToken || text.Data != "x"+visible(s) {
			t.Fatalf("%q became %v", s, text)
		}
		z.Next()
		if end := z.Token(); end.Type != html.EndTagToken || end.Data != "p" {
			t.Fatalf("%q is followed by %v", s, end)
		}
	})
}
