//go:build integration

package clients

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// fake is one connection to something in the manager's place that misbehaves.
type fake struct {
	net.Conn
	r *bufio.Reader
}

// receive reads one request.
func (f *fake) receive() string {
	line, _ := f.r.ReadString('\n')
	return line
}

func (f *fake) say(format string, args ...any) { fmt.Fprintf(f, format, args...) }

// hold keeps the connection until the client ends it.
func (f *fake) hold() {
	for {
		if _, err := f.r.ReadByte(); err != nil {
			return
		}
	}
}

// fakeManager answers connections with behave, which has a request waiting. It
// returns its socket.
func fakeManager(t *testing.T, behave func(*fake)) string {
	t.Helper()
	dir, err := os.MkdirTemp(runDir, "f")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				f := &fake{c, bufio.NewReader(c)}
				behave(f)
			}()
		}
	}()
	return dir + "/s"
}

// TestHostileAnswers: whatever comes in place of an answer is an error, in
// time.
func TestHostileAnswers(t *testing.T) {
	const good = `{"jsonrpc":"2.0","id":1,"result":{"session":5}}` + "\n"
	t.Parallel()
	stories := []struct{ name, line, code string }{
		{"garbage", "hello\n", "PROTOCOL"},
		{"nothing in the line", "\n", "PROTOCOL"},
		{"an empty object", "{}\n", "PROTOCOL"},
		{"no object", "5\n", "PROTOCOL"},
		{"a batch", "[" + strings.TrimSpace(good) + "]\n", "PROTOCOL"},
		{"another version", strings.Replace(good, "2.0", "1.0", 1), "PROTOCOL"},
		{"another number", strings.Replace(good, `"id":1`, `"id":2`, 1), "PROTOCOL"},
		{"a number in quotes", strings.Replace(good, `"id":1`, `"id":"1"`, 1), "PROTOCOL"},
		{"a result without a number", strings.Replace(good, `"id":1`, `"id":null`, 1), "PROTOCOL"},
		{"result and error", `{"jsonrpc":"2.0","id":1,"result":{"session":5},"error":{"code":2,"message":"x"}}` + "\n", "PROTOCOL"},
		{"neither", `{"jsonrpc":"2.0","id":1}` + "\n", "PROTOCOL"},
		{"a result that is no object", strings.Replace(good, `{"session":5}`, `[5]`, 1), "PROTOCOL"},
		{"a number out of range", strings.Replace(good, `5`, strings.Repeat("9", 30), 1), "PROTOCOL"},
		{"an error that is no object", `{"jsonrpc":"2.0","id":1,"error":7}` + "\n", "PROTOCOL"},
		{"a byte that is no text", strings.Replace(good, `5`, "5,\"x\":\"\xff\"", 1), "PROTOCOL"},
		{"a control character", strings.Replace(good, `5`, "5,\"x\":\"\x01\"", 1), "PROTOCOL"},
		{"a NUL", strings.Replace(good, `5`, "5\x00", 1), "PROTOCOL"},
		{"more behind it", strings.TrimSpace(good) + " x\n", "PROTOCOL"},
		{"deep nesting", strings.Replace(good, `5`, `5,"x":`+strings.Repeat("[", 100000)+strings.Repeat("]", 100000), 1), "PROTOCOL"},
		{"nesting without an end", strings.Repeat(`{"a":[`, 100000) + "\n", "PROTOCOL"},
		{"an event without a subscription", `{"jsonrpc":"2.0","method":"event","params":{"event":"x","session":{"session":1}}}` + "\n", "PROTOCOL"},
		{"half a line", good[:20], "CLOSED"},
		{"no line", "", "CLOSED"},
	}
	var words []string
	for _, s := range stories {
		socket := fakeManager(t, func(f *fake) {
			f.receive()
			f.say("%s", s.line)
		})
		words = append(words, "connect", socket, "then", "call", "nms", "1", "tcp", "then", "status", "then")
	}
	each(t, func(t *testing.T, c client) {
		answers := c.ask(t, caller{}, words[1], append(slices.Clip(words), "connect", words[1])...)
		for i, s := range stories {
			connected, call, next := answers[3*i], answers[3*i+1], answers[3*i+2]
			connected.want(t, "ok", "1")
			call.command, next.command = s.name, s.name+", then the next call"
			call.want(t, "error", "CALLHOME_ERR_"+s.code, "rpc", "0")
			// The connection is of no use any more, and says so.
			next.want(t, "error", "CALLHOME_ERR_CLOSED")
		}
	})
}

// TestOddAnswers: what is odd but right is understood.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	stories := []struct{ name, line string }{
		{"space and CR LF", " {\t\"id\" : 1 , \"jsonrpc\" : \"2.0\" , \"result\" : { \"session\" : 5 } }\r\n"},
		{"escaped keys", `{"jsonrpc":"2.0","id":1,"res\u0075lt":{"\u0073ession":5}}` + "\n"},
		{"unknown members", `{"jsonrpc":"2.0","new":[{}],"id":1,"result":{"a":{"session":6},"session":5,"b":[[["session"]]]}}` + "\n"},
		{"an error that is null", `{"jsonrpc":"2.0","id":1,"result":{"session":5},"error":null}` + "\n"},
	}
	var words []string
	for _, s := range stories {
		socket := fakeManager(t, func(f *fake) {
			for f.receive() != "" {
				for i := range len(s.line) {
					f.say("%s", s.line[i:i+1])
				}
			}
		})
		words = append(words, "connect", socket, "then", "call", "nms", "1", "tcp", "then", "call", "nms", "1", "tcp", "then")
	}
	each(t, func(t *testing.T, c client) {
		answers := c.ask(t, caller{env: []string{"ASK_INTERRUPTED=1"}}, words[1], append(slices.Clip(words), "connect", words[1])...)
		for i, s := range stories {
			for _, a := range answers[3*i+1 : 3*i+3] {
				a.command = s.name
				a.want(t, "session", "5")
			}
		}
	})
}

// TestErrorsOnTheWire: each code of the manager's comes to the caller as it is,
// and JSON-RPC's own as what they mean.
func TestErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	type row struct {
		name, line string
		want       []string
	}
	var rows []row
	for code := proto.CodeName; code <= proto.CodeShutdown; code++ {
		rows = append(rows, row{code.String(),
			fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"m\"1","data":{"name":%q,"stage":"ssh","address":"a","reason":"r\n2","retry":true,"session":7}}}`, code, code),
			[]string{"error", code.String(), "code", fmt.Sprint(int(code)), "rpc", fmt.Sprint(int(code)), "message", "m\"1", "stage", "ssh", "address", "a", "reason", "r\n2", "retry", "1", "failed-session", "7"}})
	}
	rows = append(rows,
		row{"invalid parameters", `{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"m","data":"words"}}`, []string{"error", "CALLHOME_ERR_BADTYPE", "rpc", "-32602", "reason", "words", "retry", "0"}},
		row{"no such method", `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"m"}}`, []string{"error", "CALLHOME_ERR_PROTOCOL", "rpc", "-32601", "message", "m"}},
		row{"about the connection", `{"jsonrpc":"2.0","id":null,"error":{"code":8,"message":"m","data":{"retry":false}}}`, []string{"error", "CALLHOME_ERR_ACCESS_DENIED", "rpc", "8", "retry", "0"}},
		row{"about the connection, with 0", `{"jsonrpc":"2.0","id":0,"error":{"code":8,"message":"m"}}`, []string{"error", "CALLHOME_ERR_ACCESS_DENIED"}},
		row{"data of odd types", `{"jsonrpc":"2.0","id":1,"error":{"code":2,"message":"m","data":{"stage":1,"address":[],"reason":{},"retry":"yes","session":"x"}}}`, []string{"error", "CALLHOME_ERR_UNAVAILABLE", "stage", "", "address", "", "reason", "", "retry", "0", "failed-session", "0"}},
		row{"a code from the future", `{"jsonrpc":"2.0","id":1,"error":{"code":42,"message":"m"}}`, []string{"error", "CALLHOME_ERR_UNKNOWN", "code", "42", "rpc", "42"}},
	)
	var words []string
	for _, r := range rows {
		socket := fakeManager(t, func(f *fake) {
			for f.receive() != "" {
				f.say("%s\n", r.line)
			}
		})
		words = append(words, "connect", socket, "then", "status", "then", "reload", "then")
	}
	each(t, func(t *testing.T, c client) {
		answers := c.ask(t, caller{}, words[1], append(slices.Clip(words), "connect", words[1])...)
		for i, r := range rows {
			// The connection is as good for the second as for the first.
			for _, a := range answers[3*i+1 : 3*i+3] {
				a.command = r.name
				a.want(t, r.want...)
			}
		}
	})
}

// TestNoAnswer: a manager that says nothing, or never comes to an end, costs as
// long as the caller allows, and the connection.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for _, s := range []struct {
		name, code string
		behave     func(*fake)
	}{
		{"silence", "TIMEOUT", func(f *fake) { f.hold() }},
		{"drops", "TIMEOUT", func(f *fake) {
			for ; f.Conn != nil; time.Sleep(5 * time.Millisecond) {
				if _, err := f.Write([]byte(" ")); err != nil {
					return
				}
			}
		}},
		{"a line without an end", "PROTOCOL", func(f *fake) {
			for block := []byte(strings.Repeat(" ", 1<<16)); ; {
				if _, err := f.Write(block); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			socket := fakeManager(t, s.behave)
			each(t, func(t *testing.T, c client) {
				env := []string{"ASK_TIMEOUT_MS=500"}
				if s.code == "PROTOCOL" {
					env = []string{"ASK_TIMEOUT_MS=0"} // 64 MiB take their time
				}
				begun := time.Now()
				a := c.ask(t, caller{env: env}, socket, "status", "then", "status")
				a[0].want(t, "error", "CALLHOME_ERR_"+s.code)
				a[1].want(t, "error", "CALLHOME_ERR_CLOSED")
				if took := time.Since(begun); s.code == "TIMEOUT" && took < 450*time.Millisecond {
					t.Errorf("it gave up after %v", took)
				}
			})
		})
	}
}

// TestLargeAnswer: thousands of sessions are read; the caller gets those that
// there is room for, and how many there are.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	for i := range 4096 {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, `{"session":%d,"state":"serving","host":"h","port":1,"opaque":"%s","via":"manager","since":"2026-01-01T00:00:00Z"}`, i+1, strings.Repeat(`\u0001`, 100))
	}
	socket := fakeManager(t, func(f *fake) {
		for f.receive() != "" {
			f.say(`{"jsonrpc":"2.0","id":1,"result":{"sessions":[%s]}}`+"\n", list.String())
		}
	})
	each(t, func(t *testing.T, c client) {
		a := c.ask(t, caller{}, socket, "sessions", "then", "session", "4096", "then", "session", "4097")
		a[0].want(t, "count", "4096")
		if n := len(a[0].all["id"]); n != 64 && n != 4096 || a[0].all["id"][63] != "64" {
			t.Errorf("%d numbers, %v", n, a[0].all["id"][:64])
		}
		a[1].want(t, "session", "4096", "opaque", strings.Repeat("\x01", 100))
		a[2].want(t, "error", "CALLHOME_ERR_NOEXISTS", "rpc", "0")
	})
}

// TestNoManager: connect fails where no manager runs, or where the user may not.
func TestNoManager(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(runDir, "n")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	stale := listenUnix(t, dir+"/stale")
	unix.Close(stale)
	closed := listenUnix(t, dir+"/closed")
	t.Cleanup(func() { unix.Close(closed) })
	if err := os.Chmod(dir+"/closed", 0o600); err != nil {
		t.Fatal(err)
	}
	full := listenUnix(t, dir+"/full")
	t.Cleanup(func() { unix.Close(full) })
	for fill(t, dir+"/full") {
	}
	if err := os.WriteFile(dir+"/file", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		name, path, code, retry string
		who                     caller
	}{
		{"no socket", dir + "/none", "NOMANAGER", "1", caller{}},
		{"a socket without a listener", dir + "/stale", "NOMANAGER", "1", caller{}},
		{"no socket but a file", dir + "/file", "NOMANAGER", "1", caller{}},
		{"not permitted", dir + "/closed", "ACCESS_DENIED", "0", caller{uid: outsider, gid: outsider}},
		{"a path that is too long", dir + "/" + strings.Repeat("x", 120), "BADTYPE", "0", caller{}},
		{"a queue that is full", dir + "/full", "TIMEOUT", "0", caller{env: []string{"ASK_TIMEOUT_MS=300"}}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, c client) {
				a := c.ask(t, s.who, s.path, "status")[0]
				a.want(t, "error", "CALLHOME_ERR_"+s.code, "retry", s.retry, "rpc", "0")
				if len(s.path) < 100 {
					a.contains(t, "message", s.path)
				}
			})
		})
	}
}

func listenUnix(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// fill makes a connection that no program will accept, or returns false when no
// more fit.
func fill(t *testing.T, path string) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return err == nil
}
