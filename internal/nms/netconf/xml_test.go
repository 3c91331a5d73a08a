package netconf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestPrettyChangesWhiteSpaceOnly(t *testing.T) {
	for _, row := range []struct{ name, in, want string }{
		{"nested", `<a><b>1</b><c/></a>`, "<a>\n  <b>1</b>\n  <c/>\n</a>\n"},
		{"other layout", "\n<a>\n<b>1</b>\n\n\t<c></c>\n</a>\n", "<a>\n  <b>1</b>\n  <c></c>\n</a>\n"},
		{"namespaces and attributes as they came",
			`<nc:a  xmlns:nc="urn:x" xmlns='urn:y' nc:z='"'><nc:b xmlns:nc="urn:q"/></nc:a>`,
			"<nc:a  xmlns:nc=\"urn:x\" xmlns='urn:y' nc:z='\"'>\n  <nc:b xmlns:nc=\"urn:q\"/>\n</nc:a>\n"},
		{"a leaf of white space", "<a><b>  </b><c>\n</c></a>", "<a>\n  <b>  </b>\n  <c>\n</c>\n</a>\n"},
		{"escapes and CDATA", "<a><b>&lt;&#10;&amp;</b><c><![CDATA[ ]]></c></a>", "<a>\n  <b>&lt;&#10;&amp;</b>\n  <c><![CDATA[ ]]></c>\n</a>\n"},
		{"mixed content", "<p>hello <b>x</b> world</p>", "<p>hello <b>x</b> world</p>\n"},
		{"declaration and comment", "<?xml version='1.0'?><!-- c --><a><!-- d --></a>", "<?xml version='1.0'?>\n<!-- c -->\n<a><!-- d --></a>\n"},
		{"empty root", "<a/>", "<a/>\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := pretty(row.in)
			if err != nil || got != row.want {
				t.Errorf("%v\n%s\nwant\n%s", err, got, row.want)
			}
		})
	}
	// What cannot be read is copied as it came.
	for in, want := range map[string]string{"<a><b></a>": "<a>\n  <b></a>\n", "<a>": "<a>\n", "no <xml": "no <xml\n", "<a> t \x01 <b/>": "<a> t \x01 <b/>\n"} {
		if got, err := pretty(in); err == nil || got != want {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}

func pretty(in string) (string, error) {
	var out strings.Builder
	err := Pretty(&out, []byte(in))
	return out.String(), err
}

// Deeply nested elements do not fill the memory.
func TestPrettyOfDeepElements(t *testing.T) {
	nested := func(depth int) string {
		return strings.Repeat("<a>", depth) + strings.Repeat("</a>", depth)
	}
	in := nested(maxDepth)
	got, err := pretty(in)
	if most := 2 * maxDepth * (len("</a>\n") + len(margin)); err != nil || len(got) > most {
		t.Errorf("%d levels became %d bytes, expected at most %d: %v", maxDepth, len(got), most, err)
	}
	if squeezed := strings.NewReplacer(" ", "", "\n", "").Replace(got); squeezed != in {
		t.Error("it has other tokens")
	}
	in = nested(maxDepth + 1)
	if got, err := pretty(in); err == nil || !strings.Contains(err.Error(), "nested deeper than 1000 levels") || len(got) > 2*len(in)+maxDepth*len(margin) {
		t.Errorf("more levels became %d bytes, %v", len(got), err)
	}
}

// Pretty keeps every token except white space between elements.
func FuzzPretty(f *testing.F) {
	for _, s := range []string{"<a><b>1</b><c/></a>", "<a>x<b/>y</a>", "<a xmlns:p='q' p:r=\"s\"><!-- c --><?pi x?> </a>", "<a><![CDATA[ ]]></a>", "<a>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out, err := pretty(in)
		if err != nil {
			return
		}
		if before, after := tokens(t, []byte(in)), tokens(t, []byte(out)); !reflect.DeepEqual(before, after) {
			t.Fatalf("%q\nbecame %q:\n%q\n%q", in, out, before, after)
		}
		again, err := pretty(out)
		if err != nil || again != out {
			t.Fatalf("%q\nand again %q, %v", out, again, err)
		}
	})
}

// tokens returns a document's tokens without the white space between elements.
func tokens(t *testing.T, document []byte) (all []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimSpace(document)))
	text := ""
	flush := func(leaf bool) {
		if text = strings.ReplaceAll(text, "\r", "\n"); leaf || strings.TrimSpace(text) != "" {
			all = append(all, "text "+strings.TrimRight(text, " \n\t"))
		}
		text = ""
	}
	leaf := false
	for {
		from := d.InputOffset()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%q: %v", document, err)
		}
		raw := string(bytes.TrimSpace(document)[from:d.InputOffset()])
		switch token := token.(type) {
		case xml.CharData:
			text += string(token)
			continue
		case xml.StartElement:
			flush(false)
			leaf = true
		case xml.EndElement:
			flush(leaf)
			leaf = false
		default:
			flush(false)
		}
		all = append(all, raw)
	}
}

func TestContentIsWholeElements(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"<a/>", "<a/>"},
		{"\ufeff<?xml version=\"1.0\"?>\n<!-- c -->\n<a><b/></a>\n", "<a><b/></a>"},
		{"<?xml version=\"1.0\"?><a/>\n<b/>", "<a/>\n<b/>"},
		{"<a/>text", ""},
		{"<a/></a>", ""},
		{"<a/></rpc><rpc>", ""},
		{"<a>", ""},
		{"", ""},
		{"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", ""},
	} {
		got, _, err := Content([]byte(row.in))
		if string(got) != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%q: %q, %v; want %q", row.in, got, err, row.want)
		}
	}
}

func TestAnUnfinishedDocumentIsRecognised(t *testing.T) {
	for in, want := range map[string]bool{"": true, "<a>": true, "<a": true, "<a><b/>": true, "<!-- ": true, "<a></b>": false, "x": false, "<a/>": false} {
		if _, _, err := Content([]byte(in)); Unfinished(err) != want {
			t.Errorf("%q: %v", in, err)
		}
	}
}
