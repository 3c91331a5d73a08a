package netconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReaderDelimitsMessages(t *testing.T) {
	for _, row := range []struct {
		name    string
		framing Framing
		stream  string
		want    []string
		end     error // nil: any but the end of the stream
	}{
		{"two messages", EndOfMessage, "<a/>]]>]]>\n<b/>]]>]]>", []string{"<a/>", "\n<b/>"}, io.EOF},
		{"white space at the end", EndOfMessage, "<a/>]]>]]>\r\n", []string{"<a/>"}, io.EOF},
		{"half a mark in the text", EndOfMessage, "a]]>]]]>]]>", []string{"a]]>]"}, io.EOF},
		{"the mark broken off", EndOfMessage, "<a/>]]>]]", nil, io.ErrUnexpectedEOF},
		{"nothing", EndOfMessage, "", nil, io.EOF},
		{"an empty message", EndOfMessage, "]]>]]>", []string{""}, io.EOF},
		{"too long", EndOfMessage, strings.Repeat("x", 101) + "]]>]]>", nil, ErrTooLong},
		{"just not too long", EndOfMessage, strings.Repeat("x", 100) + "]]>]]>", []string{strings.Repeat("x", 100)}, io.EOF},
		{"an end that never comes", EndOfMessage, strings.Repeat("x", 1<<17), nil, ErrTooLong},

		{"one chunk", Chunked, "\n#4\n<a/>\n##\n", []string{"<a/>"}, io.EOF},
		{"several chunks, two messages", Chunked, "\n#1\n<\n#3\na/>\n##\n\n#4\n<b/>\n##\n", []string{"<a/>", "<b/>"}, io.EOF},
		{"a chunk that looks like the end", Chunked, "\n#4\n\n##\n\n##\n", []string{"\n##\n"}, io.EOF},
		{"nothing", Chunked, "", nil, io.EOF},
		{"line ends between messages", Chunked, "\n\r\n\n#4\n<a/>\n##\n\n\n#4\n<b/>\n##\n\r\n", []string{"<a/>", "<b/>"}, io.EOF},
		{"no chunk", Chunked, "\n##\n", nil, nil},
		{"length 0", Chunked, "\n#0\n\n##\n", nil, nil},
		{"leading zero", Chunked, "\n#04\n<a/>\n##\n", nil, nil},
		{"a sign", Chunked, "\n#+4\n<a/>\n##\n", nil, nil},
		{"no length", Chunked, "\n#\n<a/>\n##\n", nil, nil},
		{"a length beyond the standard's", Chunked, "\n#4294967296\n", nil, nil},
		{"a length of many digits", Chunked, "\n#44444444444444\n", nil, nil},
		{"a chunk above the limit", Chunked, "\n#101\n", nil, ErrTooLong},
		{"the longest length there is, which 32 bits would take for -1", Chunked, "\n#4294967295\n<a/>\n##\n", nil, ErrTooLong},
		{"chunks above the limit", Chunked, "\n#60\n" + strings.Repeat("x", 60) + "\n#41\n", nil, ErrTooLong},
		{"carriage returns", Chunked, "\r\n#4\r\n<a/>\r\n##\r\n", nil, nil},
		{"the other framing", Chunked, "<a/>]]>]]>", nil, nil},
		{"the header broken off", Chunked, "\n#4", nil, io.ErrUnexpectedEOF},
		{"the chunk broken off", Chunked, "\n#4\n<a", nil, io.ErrUnexpectedEOF},
		{"the end broken off", Chunked, "\n#4\n<a/>\n#", nil, io.ErrUnexpectedEOF},
		{"the end missing", Chunked, "\n#4\n<a/>", nil, io.ErrUnexpectedEOF},
	} {
		t.Run(string(row.framing)+" "+row.name, func(t *testing.T) {
			for _, r := range []*Reader{NewReader(strings.NewReader(row.stream)), NewReader(iotest.OneByteReader(strings.NewReader(row.stream)))} {
				r.Framing, r.Max = row.framing, 100
				for _, want := range row.want {
					if got, err := r.Next(); err != nil || string(got) != want {
						t.Fatalf("%q, %v; want %q", got, err, want)
					}
				}
				got, err := r.Next()
				if err == nil || row.end != nil && !errors.Is(err, row.end) || row.end == nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
					t.Errorf("at the end %q, %v; want %v", got, err, row.end)
				}
			}
		})
	}
}

// A peer that announces a long chunk and sends a few bytes costs little memory.
func TestAnnouncedLengthAllocatesNothing(t *testing.T) {
	r := NewReader(strings.NewReader("\n#60000000\nx"))
	r.Framing = Chunked
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := r.Next(); err == nil {
			t.Error("a chunk was read that never came")
		}
	})
	if allocated > 100 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestWriteFramesAMessage(t *testing.T) {
	for _, row := range []struct {
		framing Framing
		message string
		want    string
	}{
		{EndOfMessage, "<a/>", "<a/>]]>]]>"},
		{EndOfMessage, "a]]>]]>b", ""},
		{EndOfMessage, "a]]>", ""}, // the reader would find the end three bytes early
		{EndOfMessage, "a]]", "a]]]]>]]>"},
		{EndOfMessage, "", ""},
		{Chunked, "<a/>", "\n#4\n<a/>\n##\n"},
		{Chunked, "a]]>]]>b", "\n#8\na]]>]]>b\n##\n"},
		{Chunked, "", ""},
	} {
		var b bytes.Buffer
		err := Write(&b, row.framing, []byte(row.message))
		if b.String() != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s %q: %q, %v; want %q", row.framing, row.message, b.String(), err, row.want)
		}
	}
}

func fuzzFraming(f *testing.F, framing Framing, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		// Any stream ends, with messages within the limit.
		r := NewReader(bytes.NewReader(stream))
		r.Framing, r.Max = framing, 1000
		for {
			message, err := r.Next()
			if err != nil {
				break
			}
			if len(message) > 1000 {
				t.Fatalf("a message of %d bytes", len(message))
			}
		}
		// A written message is read back unchanged, and nothing follows.
		var wire bytes.Buffer
		if Write(&wire, framing, stream) != nil {
			return
		}
		r = NewReader(&wire)
		r.Framing = framing
		if message, err := r.Next(); err != nil || !bytes.Equal(message, stream) {
			t.Fatalf("%q became %q, %v", stream, message, err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the message: %v", err)
		}
	})
}

func FuzzEndOfMessage(f *testing.F) {
	fuzzFraming(f, EndOfMessage, "<a/>", "<a/>]]>]]>", "]]>]]>]]>]]>", "]]>]]", "")
}

func FuzzChunked(f *testing.F) {
	fuzzFraming(f, Chunked, "<a/>", "\n#4\n<a/>\n##\n", "\n#1\nx\n#2\nyz\n##\n", "\n#4294967295\n", "\n##\n", fmt.Sprintf("\n#%d\n", uint64(1)<<40))
}
