//go:build integration

package clients

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// probe is json.c: the C client's reader and writer, under the sanitizers.
type probe struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startProbe(t *testing.T) *probe {
	t.Helper()
	cmd := exec.Command(os.Getenv(insideEnv) + "/json")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var words strings.Builder
	cmd.Stderr = &words
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("json.c: %v\n%s", err, words.String())
		}
	})
	return &probe{t, in, bufio.NewReader(out)}
}

func (p *probe) ask(op byte, data string) string {
	p.t.Helper()
	head := binary.BigEndian.AppendUint32([]byte{op}, uint32(len(data)))
	if _, err := p.in.Write(append(head, data...)); err != nil {
		p.t.Fatalf("%c %q: %v", op, data, err)
	}
	var n [4]byte
	if _, err := io.ReadFull(p.out, n[:]); err != nil {
		p.t.Fatalf("%c %q: %v", op, data, err)
	}
	back := make([]byte, binary.BigEndian.Uint32(n[:]))
	if _, err := io.ReadFull(p.out, back); err != nil {
		p.t.Fatalf("%c %q: %v", op, data, err)
	}
	return string(back)
}

// maxDepth is the C client's MAX_DEPTH.
const maxDepth = 32

// valid is what RFC 8259 says of a text, Go being the judge.
func valid(s string) bool {
	return utf8.ValidString(s) && json.Valid([]byte(s)) && depth(s) <= maxDepth
}

// depth is how deep the brackets of a valid text are nested.
func depth(s string) (deepest int) {
	d, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			d++
			deepest = max(deepest, d)
		case !quoted && (c == '}' || c == ']'):
			d--
		}
	}
	return deepest
}

var texts = []string{
	``, ` `, `{}`, `[]`, `{ }`, `[ ]`, ` {} `, `{}{}`, `[}`, `{]`, `[1,]`, `[,1]`, `[1 2]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`,
	`{"a":1,"b":[2,{"c":null}]}`, `{a:1}`, `{'a':1}`, `{"a":1}x`, `{1:2}`, `{"a"::1}`, `[[]`, `[]]`, `{`, `[`, `"`, `}`, `]`, `,`, `:`,
	`true`, `false`, `null`, `tru`, `nulll`, `True`, `nan`, `Infinity`, `-`, `+1`, `01`, `-0`, `0.`, `.5`, `1e`, `1e+`, `1E-2`, `1.5e3`, `-1.0`, `1.`, `00`, `- 1`, `0x1`, `9223372036854775808`,
	`""`, `"a"`, `"a`, `"\"`, `"\\"`, `"\x"`, `"\u"`, `"\u12"`, `"\u123g"`, `"\u0000"`, `"\ud800"`, `"\udc00"`, `"\ud83d\ude42"`, `"\ud83dx"`, `"\ud83d\n"`, `"\ud83d\u0041"`, `"\ud83d\ud83d\ude42"`, `"\b\f\n\r\t\/"`,
	"\"\x00\"", "\"\n\"", "\"\x1f\"", "\"\x7f\"", "\"é漢🙂\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xe0\x80\xaf\"", "\"\xf0\x80\x80\xaf\"", "\"\xe0\xa0\x80\xf0\x90\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\xef\xbb\xbf{}", "{\"\xff\":1}", "\v1", "1\x00",
	strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat("[", 100000),
	strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), strings.Repeat(`{"a":[`, 50000),
	`{"jsonrpc":"2.0","id":1,"result":{"sessions":[{"session":1,"opaque":"\u0001\"\\","stats":{"rtt-ns":-5.0e1}}]}}`,
}

// TestReaderOfJSON compares the C client's verdict on texts, and on what
// becomes of them by accident, with Go's; and so the strings and numbers.
func TestReaderOfJSON(t *testing.T) {
	t.Parallel()
	p := startProbe(t)
	check := func(s string) {
		t.Helper()
		got := p.ask('v', s) == "1"
		if got != valid(s) {
			t.Fatalf("valid(%q) is %v, want %v", s, got, !got)
		}
		v := strings.Trim(s, " \t\r\n")
		switch {
		case !got:
		case v[0] == '"':
			checkString(t, p, v)
		default:
			checkInteger(t, p, v)
		}
	}
	for _, s := range texts {
		check(s)
	}
	rnd := rand.New(rand.NewPCG(3, 8071))
	pieces := []string{`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, `\u`, `\ud83d`, `\ude42`, `e`, `-`, `.`, `0`, `7`, `true`, `null`, ` `, "\n", "\x00", "\xff", "é", "🙂", `"a":`}
	accepted := 0
	for range 15000 {
		s := texts[rnd.IntN(len(texts))]
		if len(s) > 1000 {
			continue
		}
		for range rnd.IntN(4) {
			i := rnd.IntN(len(s) + 1)
			j := min(len(s), i+rnd.IntN(3))
			s = s[:i] + pieces[rnd.IntN(len(pieces))] + s[j:]
		}
		if valid(s) {
			accepted++
		}
		check(s)
	}
	if accepted < 1000 {
		t.Errorf("only %d of the texts were valid, which tries little", accepted)
	}
}

// messages are what a manager says, for TestPythonReader to spoil.
var messages = []string{
	`{"jsonrpc":"2.0","id":1,"result":{"sessions":[{"session":1,"opaque":"\u0001\"\\","stats":{"rtt-ns":50}}]}}`,
	`{"jsonrpc":"2.0","id":1,"error":{"code":6,"message":"x","data":{"stage":"tcp","retry":true,"session":7}}}`,
	`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"x","data":"y"}}`,
	`{"jsonrpc":"2.0","method":"event","params":{"event":"closed","session":{"session":1}}}`,
}

// TestPythonReader: each line that a manager could send is understood or refused.
func TestPythonReader(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(5, 8071))
	pieces := []string{`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\ud83d`, `-`, `1e999`, strings.Repeat("9", 5000), `true`, `null`, `NaN`, "\x00", "\xff", strings.Repeat("[", 100000), `"error":`, `"result":`, `"code":`, `"data":`}
	var lines strings.Builder
	for i := range 5000 {
		s := messages[rnd.IntN(len(messages))]
		if i < len(texts) {
			s = texts[i]
		}
		for range rnd.IntN(4) {
			i := rnd.IntN(len(s) + 1)
			j := min(len(s), i+rnd.IntN(8))
			s = s[:i] + pieces[rnd.IntN(len(pieces))] + s[j:]
		}
		fmt.Fprintf(&lines, "%x\n", s)
	}
	cmd := exec.Command(python(), "-W", "error", "-B", os.Getenv(insideEnv)+"/read.py")
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("read.py: %v\n%.2000s", err, out)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || n < 500 {
		t.Errorf("%s of 5000 lines were understood, which tries little", out)
	}
}

func checkString(t *testing.T, p *probe, s string) {
	t.Helper()
	var want string
	if err := json.Unmarshal([]byte(s), &want); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	want = strings.ReplaceAll(want, "\x00", "\uFFFD")
	if got := p.ask('t', s); got != want {
		t.Fatalf("%q reads as %q, want %q", s, got, want)
	}
	short := ""
	for _, r := range want {
		if len(short)+utf8.RuneLen(r) > 7 {
			break
		}
		short += string(r)
	}
	if got := p.ask('s', s); got != short {
		t.Fatalf("%q is cut to %q, want %q", s, got, short)
	}
}

func checkInteger(t *testing.T, p *probe, s string) {
	t.Helper()
	want, err := strconv.ParseInt(s, 10, 64)
	if err != nil || want > 9223372036854775799 || want < -9223372036854775799 {
		want = 0 // the client refuses what is no integer, and one of the last few
	}
	if got := p.ask('i', s); got != strconv.FormatInt(want, 10) {
		t.Fatalf("%q is the number %s, want %d", s, got, want)
	}
}

// TestWriterOfJSON: whatever bytes a C string has, it is written as ASCII that
// Go reads as the same bytes, or refused because JSON cannot carry it.
func TestWriterOfJSON(t *testing.T) {
	t.Parallel()
	p := startProbe(t)
	rnd := rand.New(rand.NewPCG(4, 8071))
	refused := 0
	check := func(s string) {
		t.Helper()
		got := p.ask('w', s)
		if !utf8.ValidString(s) {
			refused++
			if got != "!" {
				t.Fatalf("%q, which is no UTF-8, is written as %q", s, got)
			}
			return
		}
		var back string
		if err := json.Unmarshal([]byte(got), &back); err != nil || back != s {
			t.Fatalf("%q is written as %q, which reads as %q (%v)", s, got, back, err)
		}
		for _, c := range []byte(got) {
			if c < ' ' || c > '~' {
				t.Fatalf("%q is written as %q, with the byte %#x", s, got, c)
			}
		}
	}
	for c := 1; c < 256; c++ {
		check(string([]byte{byte(c)}))
		check(string(rune(c)))
	}
	for _, r := range []rune{0x7ff, 0x800, 0xd7ff, 0xe000, 0xfffd, 0xffff, 0x10000, 0x1f642, 0x10ffff, 0x2028} {
		check("a" + string(r) + "b")
	}
	for _, s := range []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xe0\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80"} {
		check(s)
	}
	for range 10000 {
		b := make([]byte, rnd.IntN(12))
		for i := range b {
			b[i] = byte(1 + rnd.IntN(255))
			if rnd.IntN(2) == 0 {
				b[i] = "\xc3\xa9\xf0\x9f\x99\x82\xed\xa0\x80a\"\\"[rnd.IntN(12)]
			}
		}
		check(string(b))
	}
	if refused < 1000 {
		t.Errorf("only %d strings were refused, which tries little", refused)
	}
	if got := p.ask('w', strings.Repeat("a", 20<<10)); got != "!" {
		t.Errorf("a string that is longer than a message is written, %d bytes", len(got))
	}
}

// TestNothingLeaks: failures leave no descriptor, and each thread has its own.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	p := startProbe(t)
	socket := fakeManager(t, func(f *fake) { f.say("garbage\n") })
	if got := p.ask('d', socket); got != "0" {
		t.Errorf("%s descriptors are left of 200 calls", got)
	}
	if got := p.ask('e', ""); got != "1" {
		t.Error("a failure in another thread changed this one's")
	}
}
