//go:build integration

package clients

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// patience is how long a story waits for what takes milliseconds when all is
// well; valgrind on a busy machine is slow.
const patience = 60 * time.Second

// A client is a way to run ask.
type client struct {
	name string
	args []string
}

func allClients() []client {
	dir := os.Getenv(insideEnv)
	return []client{
		{"c-valgrind", []string{"valgrind", "--quiet", "--vgdb=no", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all", dir + "/ask"}},
		{"c-sanitized", []string{dir + "/ask-san"}},
		{"python", []string{python(), "-W", "error", "-B", dir + "/ask.py"}},
	}
}

// python is the interpreter that runs ask.py.
func python() string {
	if p := os.Getenv("CALLHOME_PYTHON"); p != "" {
		return p
	}
	// Not one of root's own, which other users cannot run.
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		return "/usr/bin/python3"
	}
	return "python3"
}

// each runs a story with every client.
func each(t *testing.T, story func(t *testing.T, c client)) {
	t.Helper()
	for _, c := range allClients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sandbox.Need(t, c.args[0])
			story(t, c)
		})
	}
}

// caller is who runs ask, and how.
type caller struct {
	uid   uint32
	gid   uint32
	env   []string
	stdin *os.File
}

// answer is what one command printed. Where a name comes several times, all
// holds every value.
type answer struct {
	command string
	all     map[string][]string
}

func (a answer) get(name string) string {
	if v := a.all[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (a answer) number(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(a.get(name))
	if err != nil {
		t.Fatalf("%s: %s is no number in %v", a.command, name, a.all)
	}
	return n
}

// want checks what was printed, name and value in turn.
func (a answer) want(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.get(pairs[i]); got != pairs[i+1] {
			t.Errorf("%s: %s is %q, want %q; all: %v", a.command, pairs[i], got, pairs[i+1], a.all)
		}
	}
}

// contains checks a part of what was printed.
func (a answer) contains(t *testing.T, name, part string) {
	t.Helper()
	if !strings.Contains(a.get(name), part) {
		t.Errorf("%s: %s is %q, want it to hold %q", a.command, name, a.get(name), part)
	}
}

// session runs ask for one command that succeeds.
func (c client) session(t *testing.T, socket string, words ...string) answer {
	t.Helper()
	a := c.ask(t, caller{}, socket, words...)[0]
	if e := a.get("message"); e != "" {
		t.Fatalf("%s: %s: %v", a.command, e, a.all)
	}
	return a
}

// fails runs ask for one command that fails with that error.
func (c client) fails(t *testing.T, name, socket string, words ...string) answer {
	t.Helper()
	a := c.ask(t, caller{}, socket, words...)[0]
	a.want(t, "error", name)
	return a
}

// ask runs ask and returns an answer for each command ("then" stands between
// them).
func (c client) ask(t *testing.T, who caller, socket string, words ...string) []answer {
	t.Helper()
	r := c.start(t, who, socket, words...)
	var out []answer
	for {
		a, ok := r.next(t)
		if !ok {
			break
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		t.Fatalf("%v said nothing; stderr: %s", words, r.stderr.String())
	}
	return out
}

// running is an ask that goes on.
type running struct {
	what   string
	cmd    *exec.Cmd
	lines  *bufio.Reader
	stderr *bytes.Buffer
	failed bool
	ended  bool
}

func (c client) start(t *testing.T, who caller, socket string, words ...string) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	args := append(append(append([]string(nil), c.args...), socket), words...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "PYTHONUTF8=1"}, who.env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if who.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: who.uid, Gid: who.gid}
	}
	if who.stdin != nil {
		cmd.Stdin = who.stdin
	}
	r := &running{what: fmt.Sprintf("%s %q", c.name, words), cmd: cmd, stderr: &bytes.Buffer{}}
	cmd.Stderr = r.stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", r.what, err)
	}
	r.lines = bufio.NewReader(out)
	return r
}

// line returns the next thing that ask prints; false at the end, when it has
// also been seen to that ask ended as it should.
func (r *running) line(t *testing.T) (name, value string, ok bool) {
	t.Helper()
	if r.ended {
		return "", "", false
	}
	line, err := r.lines.ReadString('\n')
	if err == io.EOF && line == "" {
		r.ended = true
		r.wait(t)
		return "", "", false
	}
	name, value, ok = strings.Cut(strings.TrimSuffix(line, "\n"), "=")
	if err != nil || !ok {
		t.Fatalf("%s printed %q (%v); stderr: %s", r.what, line, err, r.stderr.String())
	}
	if name == "error" {
		r.failed = true
	}
	return name, unquote(t, value), true
}

func unquote(t *testing.T, s string) string {
	t.Helper()
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		if i+4 > len(s) {
			t.Fatalf("bad escape in %q", s)
		}
		n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
		if err != nil {
			t.Fatalf("bad escape in %q", s)
		}
		out = append(out, byte(n))
		i += 3
	}
	return string(out)
}

// next returns the answer to the next command, or false at the end.
func (r *running) next(t *testing.T) (answer, bool) {
	t.Helper()
	a := answer{command: r.what, all: make(map[string][]string)}
	for {
		name, value, ok := r.line(t)
		if !ok {
			return a, len(a.all) > 0
		}
		if name == "--" {
			return a, true
		}
		a.all[name] = append(a.all[name], value)
	}
}

// until returns what is printed up to the line of that name.
func (r *running) until(t *testing.T, last string) answer {
	t.Helper()
	a := answer{command: r.what, all: make(map[string][]string)}
	for {
		name, value, ok := r.line(t)
		if !ok {
			t.Fatalf("%s ended without %s; it said %v", r.what, last, a.all)
		}
		a.all[name] = append(a.all[name], value)
		if name == last {
			return a
		}
	}
}

// wait checks how ask ended: valgrind and the sanitizers complain there.
func (r *running) wait(t *testing.T) {
	t.Helper()
	err := r.cmd.Wait()
	want := 0
	if r.failed {
		want = 1
	}
	if got := r.cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("%s: status %d, want %d (%v); stderr:\n%s", r.what, got, want, err, r.stderr.String())
	}
	if r.stderr.Len() > 0 {
		t.Fatalf("%s said on stderr:\n%s", r.what, r.stderr.String())
	}
}
