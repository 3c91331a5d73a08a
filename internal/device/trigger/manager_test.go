package trigger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/fdpass"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// request is what the manager received.
type request struct {
	line string
	sock *os.File
	err  error
}

// manager replaces callhome-mgr for one request: it answers and closes. The test
// owns the descriptor received.
func manager(t *testing.T, answer string) (socket string, got <-chan request) {
	t.Helper()
	socket = filepath.Join(shortDir(t), "mgr.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests := make(chan request, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			requests <- request{err: err}
			return
		}
		defer c.Close()
		buf := make([]byte, proto.MaxLine)
		n, sock, err := fdpass.Recv(c, buf)
		requests <- request{string(buf[:n]), sock, err}
		_, _ = io.WriteString(c, answer)
	}()
	return socket, requests
}

const taken = `{"jsonrpc":"2.0","id":1,"result":{"session":13,"state":"starting"}}` + "\n"

func TestTheManagerTakesTheConnection(t *testing.T) {
	for _, how := range []settings.Handover{settings.HandoverManager, settings.HandoverAuto} {
		t.Run(string(how), func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Handover, s.Opaque = how, "site\n\"7\" é"
			var got <-chan request
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
			var r proto.Request[proto.HandoverParams]
			if err := json.Unmarshal([]byte(line), &r); err != nil || rest != "" {
				t.Fatalf("the request is %q, %v", request.line, err)
			}
			want := proto.Request[proto.HandoverParams]{Version: "2.0", ID: 1, Method: "handover", Params: proto.HandoverParams{Host: client.Host, Port: client.Port, Opaque: s.Opaque}}
			if r != want {
				t.Errorf("requested %+v, want %+v", r, want)
			}
			// The descriptor is the connection, and no other process holds it.
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

func TestTheManagerRefusesTheConnection(t *testing.T) {
	refusal := func(code proto.Code, message string) string {
		line, err := json.Marshal(proto.Response{Version: "2.0", ID: 1, Error: proto.NewError(code, message)})
		if err != nil {
			t.Fatal(err)
		}
		return string(line) + "\n"
	}
	const logHint = "see callhome-mgr's log, or use --handover exec"
	for _, tt := range []struct {
		name, answer, message string
		code                  int
		hint                  string
	}{
		{"it is busy", refusal(proto.CodeBusy, "too many\nsessions"), `it refused: "too many\nsessions"`, sysexits.Unavailable, "try again later, or use --handover exec"},
		{"it is stopping", refusal(proto.CodeShutdown, "stopping"), `it refused: "stopping"`, sysexits.Unavailable, "try again when callhome-mgr runs, or use --handover exec"},
		{"this user has no access", refusal(proto.CodeAccessDenied, "no"), `it refused: "no"`, sysexits.NoPerm, "give this user the group callhome, or use --handover exec"},
		{"its sshd did not start", refusal(proto.CodeHandover, "no"), `it refused: "no"`, sysexits.Config, "callhome-mgr check names what is missing"},
		{"with an unknown code", refusal(99, "no"), `it refused: "no"`, sysexits.OSErr, logHint},
		{"with a very long message", refusal(proto.CodeBusy, strings.Repeat("x", 60000)), `it refused: "` + strings.Repeat("x", 300) + `"`, sysexits.Unavailable, "try again later, or use --handover exec"},
		{"it closes", "", "it closed the connection without an answer", sysexits.Unavailable, logHint},
		{"half an answer", taken[:20], "it closed the connection without an answer", sysexits.Unavailable, logHint},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n", "reading its answer: invalid character 'H' looking for beginning of value", sysexits.OSErr, logHint},
		{"neither a result nor an error", `{"jsonrpc":"2.0","id":1}` + "\n", "its answer names no session", sysexits.OSErr, logHint},
		{"a result of another kind", `{"jsonrpc":"2.0","id":1,"result":"x"}` + "\n", "its answer names no session", sysexits.OSErr, logHint},
		{"no session", `{"jsonrpc":"2.0","id":1,"result":{}}` + "\n", "its answer names no session", sysexits.OSErr, logHint},
		{"an answer without end", strings.Repeat(" ", proto.MaxLine+1), "its answer is longer than 65536 bytes", sysexits.OSErr, logHint},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			s.Handover = settings.HandoverManager
			var got <-chan request
			s.ManagerSocket, got = manager(t, tt.answer)
			err := Run(s, quiet)
			want := fmt.Sprintf("handing the connection to %s:%d over to the manager at %s: %s", client.Host, client.Port, s.ManagerSocket, tt.message)
			if err == nil || err.Error() != want || sysexits.Code(err) != tt.code {
				t.Errorf("exit status %d with\n%v, want\n%s", sysexits.Code(err), err, want)
			}
			if hint := sysexits.Hint(err); hint != tt.hint {
				t.Errorf("advises %q", hint)
			}
			// The trigger closes the connection.
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

// The wait for a manager that takes the socket and does not answer is bounded.
func TestTheWaitForAnAnswerIsBounded(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, silent := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "silent")
	defer ours.Close()
	defer silent.Close()
	start := time.Now()
	_, err = requestHandover(ours, silent, &settings.Settings{}, 20*time.Millisecond)
	if took := time.Since(start); took < 20*time.Millisecond || took > managerTime/2 {
		t.Errorf("took %v", took)
	}
	if err != errTimeout || err.Error() != "no answer within 10s" {
		t.Errorf("%v", err)
	}
	if code, hint := adviceFor(err); code != sysexits.Unavailable || hint == "" {
		t.Errorf("exit status %d, advises %q", code, hint)
	}
}

// Where the client has reset the connection, the error names the client, not the
// manager that refuses the socket.
func TestAResetIsReportedAsTheClients(t *testing.T) {
	l, client := listen(t)
	conn, err := dial.Dial([]netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(client.Host), client.Port)}, nil, dial.Options{}, time.Now().Add(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.File.Close()
	peer := accept(t, l).(*net.TCPConn)
	if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
		t.Fatal(err)
	}
	for _, err := unix.Getpeername(int(conn.File.Fd())); err == nil; _, err = unix.Getpeername(int(conn.File.Fd())) {
		time.Sleep(time.Millisecond)
	}
	s := call(t, client)
	var got <-chan request
	refusal := `{"jsonrpc":"2.0","id":1,"error":{"code":9,"message":"not connected"}}` + "\n"
	s.ManagerSocket, got = manager(t, refusal)
	m, err := connectManager(s.ManagerSocket, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, byManager := toManager(m, s, conn)
	if request := <-got; request.sock != nil {
		request.sock.Close()
	}
	log, err := openLog(s)
	if err != nil {
		t.Fatal(err)
	}
	defer log.File.Close()
	detached := toSshd(s, conn, log)
	s.Handover = settings.HandoverExec
	executed := toSshd(s, conn, log)
	for name, err := range map[string]error{"manager": byManager, "detach": detached, "exec": executed} {
		want := conn.Remote.String() + " accepted the connection and reset it before it was handed over"
		if err == nil || err.Error() != want || sysexits.Code(err) != sysexits.Unavailable || sysexits.Hint(err) != "see why the NETCONF client closes connections" {
			t.Errorf("%s: exit status %d with %v; %s", name, sysexits.Code(err), err, sysexits.Hint(err))
		}
	}
}
