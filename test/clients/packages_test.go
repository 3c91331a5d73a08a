//go:build integration

package clients

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/proto"
)

func itoa(n int) string { return strconv.Itoa(n) }

// run runs a program to its end and returns what it said and its status.
func run(t *testing.T, env []string, words ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", words, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestInstalledC: what `make install` installs is found by pkg-config, serves
// C and C++, and the example does as it says.
func TestInstalledC(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "pkg-config")
	sandbox.Need(t, "c++")
	dir, root := t.TempDir(), os.Getenv(insideEnv)+"/root"
	out, code := run(t, []string{"PKG_CONFIG_PATH=" + root + "/opt/callhome/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR=" + root},
		"pkg-config", "--cflags", "--libs", "callhome")
	if code != 0 {
		t.Fatalf("pkg-config: %s", out)
	}
	flags := strings.Fields(out)
	example, err := filepath.Abs("../../clients/c/example.c")
	if err != nil {
		t.Fatal(err)
	}
	strict := []string{"-Wall", "-Wextra", "-Werror", "-pedantic"}
	if out, code := run(t, nil, append(append([]string{"cc", "-std=c99", "-o", dir + "/example", example}, strict...), flags...)...); code != 0 {
		t.Fatalf("building the example: %s", out)
	}
	plus := dir + "/plus.cc"
	if err := os.WriteFile(plus, []byte("#include <callhome.h>\nint main() { return callhome_connect(\"/nowhere\") == CALLHOME_ERR && callhome_errno == CALLHOME_ERR_NOMANAGER ? 0 : 1; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, nil, append(append([]string{"c++", "-o", dir + "/plus", plus}, strict...), flags...)...); code != 0 {
		t.Fatalf("building in C++: %s", out)
	}
	if out, code := run(t, nil, dir+"/plus"); code != 0 {
		t.Fatalf("the program in C++: status %d: %s", code, out)
	}

	d := startDaemon(t, nil)
	s := startSSH(t, "user_key", "-s", "netop@nms", "netconf")
	env := []string{"CALLHOME_MANAGER_SOCKET=" + d.socket}
	out, code = run(t, env, dir+"/example", "127.0.0.1", s.port, "ticket")
	if code != 0 || !strings.Contains(out, "session 1: netop has started the netconf subsystem from 127.0.0.1:"+s.port) {
		t.Errorf("the example: status %d: %s", code, out)
	}
	s.echo(t, "hello")
	out, code = run(t, env, dir+"/example", "127.0.0.1", refusingPort(t))
	if code != 75 || !strings.Contains(out, "connection refused (CALLHOME_ERR_UNAVAILABLE, stage tcp)") {
		t.Errorf("the example, refused: status %d: %s", code, out)
	}
}

// TestOldPython: the module is written in the language of Python 3.6, and every
// public thing in it says what it is.
func TestOldPython(t *testing.T) {
	t.Parallel()
	script := `
import ast, inspect, sys
sys.path.insert(0, sys.argv[1])
source = open(sys.argv[1] + "/callhome.py").read()
if sys.version_info >= (3, 8):
    ast.parse(source, feature_version=(3, 6))
import callhome
bare = [n for n in callhome.__all__ if not hasattr(callhome, n)]
for c in (callhome.Manager, callhome.Events, callhome.Error):
    for name, f in [("", c)] + inspect.getmembers(c, inspect.isfunction):
        own = f.__qualname__.startswith(c.__name__) if name else True
        if own and not f.__doc__ and not (name.startswith("_") and name != "__next__"):
            bare.append(c.__name__ + "." + name)
print(bare)
`
	out, code := run(t, []string{"PYTHONDONTWRITEBYTECODE=1"}, python(), "-c", script, os.Getenv(insideEnv))
	if code != 0 || out != "[]\n" {
		t.Errorf("status %d: %s", code, out)
	}
}

// TestPythonAlone: what only the Python client has: objects that are closed,
// events that come early or in two parts, bytes that are no text, and threads.
func TestPythonAlone(t *testing.T) {
	t.Parallel()
	script := `
import sys, threading
sys.path.insert(0, sys.argv[1])
import callhome

def code(f, *args, **more):
    try:
        f(*args, **more)
    except callhome.Error as e:
        return e.code
    return 0

with callhome.Manager(sys.argv[2], timeout=30) as m:
    for bad in ("a\udcff", b"a\xff", b"\xf4\x90\x80\x80", "\ud800", float("nan"), object(), "x" * 70000):
        assert code(m.netconf_ssh_call_home_opaque, "nms", bad) == callhome.ERR_BADTYPE, bad
    each = [threading.Thread(target=lambda: [m.reload_config() for _ in range(20)]) for _ in range(8)]
    for t in each:
        t.start()
    for t in each:
        t.join()
    m.reload_config()
    events = m.events(timeout=0.3)
    assert events.fileno() > 2
    assert events.last == [{"event": "before"}], events.last
    assert next(events) == {"event": "early"}
    assert code(next, events) == callhome.ERR_TIMEOUT
    m.reload_config()  # lets the other half come
    events.timeout = 30
    assert next(events) == {"event": "halved"}
    with events:
        pass
    assert code(next, events) == callhome.ERR_CLOSED
assert code(m.call_home_status) == callhome.ERR_CLOSED
assert code(callhome.Manager, None) == callhome.ERR_BADTYPE
e = callhome.Error(5, "words", stage="authentication", retry=False)
assert (str(e), e.name, e.stage, e.code) == ("words", "CALLHOME_ERR_AUTH", "authentication", 5)
print("done")
`
	halves := make(chan bool, 1000)
	socket := fakeManager(t, func(f *fake) {
		for {
			switch request := f.receive(); {
			case request == "":
				return
			case strings.Contains(request, `"subscribe"`):
				for len(halves) > 0 {
					<-halves
				}
				f.say(`{"jsonrpc":"2.0","method":"event","params":{"event":"early"}}` + "\n")
				f.say(`{"jsonrpc":"2.0","id":1,"result":{"events":[{"event":"before"}]}}` + "\n" + `{"jsonrpc":"2.0","method":"event",`)
				<-halves
				f.say(`"params":{"event":"halved"}}` + "\n")
			default:
				halves <- true
				f.say(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n")
			}
		}
	})
	out, code := run(t, []string{"PYTHONDONTWRITEBYTECODE=1"}, python(), "-W", "error", "-c", script, os.Getenv(insideEnv), socket)
	if code != 0 || out != "done\n" {
		t.Errorf("status %d: %s", code, out)
	}
}

// TestSameCodes: C, Python and the manager have the same numbers and names.
func TestSameCodes(t *testing.T) {
	t.Parallel()
	header, err := os.ReadFile("../../clients/c/callhome.h")
	if err != nil {
		t.Fatal(err)
	}
	out, code := run(t, []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + os.Getenv(insideEnv)}, python(), "-c",
		"import callhome\nfor n in dir(callhome):\n  if n.startswith('ERR_'): print('CALLHOME_%s = %d' % (n, getattr(callhome, n)))")
	if code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	count := 0
	for line := range strings.Lines(out) {
		count++
		if !strings.Contains(string(header), strings.TrimSpace(line)) {
			t.Errorf("callhome.py has %q, callhome.h has not", line)
		}
	}
	last := proto.CodeBadConfig
	for c := proto.CodeName; c <= last; c++ {
		if !strings.Contains(out, fmt.Sprintf("%v = %d\n", c, c)) {
			t.Errorf("callhome.py has no %v = %d", c, c)
		}
	}
	if (last + 1).String() != "CALLHOME_ERR_INTERNAL" {
		t.Errorf("package proto has a new code, %v, which the clients do not know", last+1)
	}
	if got := strings.Count(string(header), "\tCALLHOME_ERR_"); got != count || count != int(last)+4 {
		t.Errorf("%d codes in callhome.h, %d in callhome.py, %d in package proto and 4 of the clients' own", got, count, int(last))
	}
	if !strings.Contains(string(header), `CALLHOME_SOCKET "`+proto.DefaultSocket+`"`) || !strings.Contains(string(header), "CALLHOME_PORT "+itoa(proto.DefaultPort)+"\n") {
		t.Error("callhome.h has another default socket or port than package proto")
	}
}

// results says of what type a method's result is.
var results = map[string]any{
	proto.MethodCallHome: proto.SessionInfo{}, proto.MethodCallHomeOpaque: proto.SessionInfo{}, proto.MethodHandover: proto.SessionInfo{},
	proto.MethodKillUserSession: proto.SessionInfo{}, proto.MethodUserSessions: proto.SessionList{}, proto.MethodReloadConfig: proto.Nothing{},
	proto.MethodReopenLogs: proto.Nothing{}, proto.MethodStop: proto.Nothing{}, proto.MethodWaitStart: proto.Status{}, proto.MethodStatus: proto.Status{},
	proto.MethodSubscribe: proto.EventList{}, proto.MethodRestartCallHome: proto.RestartResult{},
}

// TestDocumentedExchanges: docs/api.md shows for each method an exchange that
// the manager of today still understands, and whose answer has the fields of
// today. Lines begin with --> and <--.
func TestDocumentedExchanges(t *testing.T) {
	t.Parallel()
	d, n := startDaemon(t, nil), listen(t, nil)
	f, err := os.Open("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var asked struct {
		ID     json.RawMessage
		Method string
		Params map[string]any
	}
	seen, events := make(map[string]bool), 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if request, ok := strings.CutPrefix(line, "--> "); ok {
			asked.Params, asked.ID = nil, nil
			if err := json.Unmarshal([]byte(request), &asked); err != nil {
				t.Errorf("%s: %v", request, err)
				continue
			}
			tryRequest(t, d, n, request, asked.Method, asked.Params)
		}
		if text, ok := strings.CutPrefix(line, "<-- "); ok {
			var got struct {
				Version string          `json:"jsonrpc"`
				ID      json.RawMessage `json:"id"`
				Result  json.RawMessage `json:"result"`
				Error   json.RawMessage `json:"error"`
				Method  string          `json:"method"`
				Params  json.RawMessage `json:"params"`
			}
			if err := strict([]byte(text), &got); err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			switch {
			case got.Method == proto.NotifyEvent:
				events++
				if err := strict(got.Params, &proto.Event{}); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			case got.Error != nil:
				var e proto.Error
				if err := strict(got.Error, &e); err != nil || e.Data.Name != e.Code.String() {
					t.Errorf("%s: %v", text, err)
				}
			default:
				seen[asked.Method] = true
				to := reflect.New(reflect.TypeOf(results[asked.Method]))
				if err := strict(got.Result, to.Interface()); err != nil || string(got.ID) != string(asked.ID) {
					t.Errorf("%s: %v", text, err)
				}
			}
		}
	}
	for method := range results {
		if !seen[method] {
			t.Errorf("docs/api.md shows no exchange of %s", method)
		}
	}
	if events == 0 {
		t.Error("docs/api.md shows no event")
	}
}

func strict(data []byte, to any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more behind it")
	}
	return nil
}

// tryRequest makes a documented request, with our own NETCONF client in place of
// the one in it. Its parameters must be known; how it ends is another matter.
func tryRequest(t *testing.T, d *daemon, n *nms, request, method string, params map[string]any) {
	t.Helper()
	if method == proto.MethodStop {
		return // the others still need the manager
	}
	if _, ok := params["host"]; ok {
		params["host"], params["wait"] = "127.0.0.1", "none"
		params["port"], _ = strconv.Atoi(n.port)
		if method == proto.MethodHandover {
			delete(params, "wait")
		}
		line, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
		if err != nil {
			t.Fatal(err)
		}
		request = string(line)
	}
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(conn, request)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	var answer proto.Response
	if err := json.Unmarshal([]byte(line), &answer); err != nil || answer.Error != nil && answer.Error.Code < 0 {
		t.Errorf("%s is answered with %s (%v)", request, line, err)
	}
}

// TestDocumentedErrors: the table in docs/api.md has the codes, names, stages
// and the retry of package proto.
func TestDocumentedErrors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	stages := []proto.Stage{proto.StageName, proto.StageTCP, proto.StageHandover, proto.StageSSH, proto.StageAuth, proto.StageSubsystem}
	for code := proto.CodeName; code <= proto.CodeShutdown; code++ {
		e := proto.NewError(code, "")
		for _, s := range stages {
			if of := proto.StageError(s, "", proto.ErrorData{}); of.Code == code {
				e = of
			}
		}
		stage, retry := string(e.Data.Stage), "no"
		if stage == "" {
			stage = "-"
		}
		if e.Data.Retry {
			retry = "yes"
		}
		row := fmt.Sprintf("| %d | `%v` | %s | %s |", code, code, stage, retry)
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/api.md has no row %s", row)
		}
	}
}
