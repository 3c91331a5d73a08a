package trigger

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/settings"
	"callhome/internal/sysexits"
)

// asked is what a manager got.
type asked struct {
	line string
	sock *os.File
	err  error
}

// manager plays callhome-mgr for one request: it answers and closes, and keeps
// the socket open that came.
func manager(t *testing.T, answer string) (socket string, got <-chan asked) {
	t.Helper()
	socket = filepath.Join(shortDir(t), "mgr.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests := make(chan asked, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			requests <- asked{err: err}
			return
		}
		defer c.Close()
		buf := make([]byte, proto.MaxLine)
		n, sock, err := fdpass.Recv(c, buf)
		requests <- asked{string(buf[:n]), sock, err}
		_, _ = io.WriteString(c, answer)
	}()
	return socket, requests
}

const taken = `{"jsonrpc":"2.0","id":1,"result":{"session":13,"state":"starting"}}` + "\n"

func TestTheManagerAdoptsTheConnection(t *testing.T) {
	for _, how := range []settings.Handover{settings.HandoverManager, settings.HandoverAuto} {
		t.Run(string(how), func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Handover, s.Opaque = how, "site\n\"7\" é"
			var got <-chan asked
			s.ManagerSocket, got = manager(t, taken)
			if err := Run(s, quiet); err != nil {
				t.Fatal(err)
			}
			request := <-got
			if request.err != nil {
				t.Fatal(request.err)
			}
			defer request.sock.Close()
			line, rest, _ := strings.Cut(request.line, "\n")
			var r proto.Request[proto.AdoptParams]
			if err := json.Unmarshal([]byte(line), &r); err != nil || rest != "" {
				t.Fatalf("the request is %q, %v", request.line, err)
			}
			want := proto.Request[proto.AdoptParams]{Version: "2.0", ID: 1, Method: "adopt", Params: proto.AdoptParams{Host: client.Host, Port: client.Port, Opaque: s.Opaque}}
			if r != want {
				t.Errorf("asks %+v, want %+v", r, want)
			}
			// The descriptor is the connection, and nobody else has it.
			peer := accept(t, l)
			if _, err := io.WriteString(request.sock, "SSH-2.0-x\r\n"); err != nil {
				t.Fatal(err)
			}
			request.sock.Close()
			if got, err := io.ReadAll(peer); err != nil || string(got) != "SSH-2.0-x\r\n" {
				t.Errorf("the client reads %q, %v", got, err)
			}
		})
	}
}

func TestTheManagerDoesNotAdopt(t *testing.T) {
	refusal, err := json.Marshal(proto.Response{Version: "2.0", ID: 1, Error: proto.NewError(proto.CodeBusy, "too many\nsessions")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, answer, says string }{
		{"it refuses", string(refusal) + "\n", `it refused: "too many\nsessions"`},
		{"it closes", "", "reading its answer: EOF"},
		{"half an answer", taken[:20], "reading its answer: EOF"},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n", "reading its answer: invalid character 'H' looking for beginning of value"},
		{"neither a result nor an error", `{"jsonrpc":"2.0","id":1}` + "\n", "its answer names no session"},
		{"a result of another kind", `{"jsonrpc":"2.0","id":1,"result":"x"}` + "\n", "its answer names no session"},
		{"no session", `{"jsonrpc":"2.0","id":1,"result":{}}` + "\n", "its answer names no session"},
		{"an answer without end", strings.Repeat(" ", proto.MaxLine+1), "reading its answer: EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Handover = settings.HandoverManager
			var got <-chan asked
			s.ManagerSocket, got = manager(t, tt.answer)
			err := Run(s, quiet)
			want := fmt.Sprintf("handing the connection to %s:%d over to the manager at %s: %s", client.Host, client.Port, s.ManagerSocket, tt.says)
			if err == nil || err.Error() != want || sysexits.Code(err) != sysexits.OSErr {
				t.Errorf("exit status %d with\n%v, want\n%s", sysexits.Code(err), err, want)
			}
			if hint := sysexits.Hint(err); hint != "see callhome-mgr's log, or use --handover exec" {
				t.Errorf("advises %q", hint)
			}
			// The trigger lets go of the connection.
			request := <-got
			if request.err != nil {
				t.Fatal(request.err)
			}
			request.sock.Close()
			if rest, err := bufio.NewReader(accept(t, l)).ReadString('\n'); err != io.EOF {
				t.Errorf("the client reads %q, %v", rest, err)
			}
		})
	}
}
