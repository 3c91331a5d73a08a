//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that a story started. It ends with the story at the
// latest, and when the story fails its output is shown.
type process struct {
	t      *testing.T
	name   string
	pid    int
	self   proc   // as it was when it started
	stdout string // files; empty where the story gave a descriptor of its own
	stderr string
	ended  chan struct{}
	state  *os.ProcessState // valid once ended is closed
}

// start runs cmd. Output goes to files, not pipes: a process that inherits it
// can then neither be blocked by us nor keep us waiting. Clients lead a group
// of their own; callhome-trigger is left in ours (SysProcAttr is set), since
// leading one is its own duty.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, ended: make(chan struct{})}
	dir := tempDir(t)
	output := func(file string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if cmd.Stdout == nil {
		f := output("stdout")
		defer f.Close()
		cmd.Stdout, p.stdout = f, f.Name()
	}
	if cmd.Stderr == nil {
		f := output("stderr")
		defer f.Close()
		cmd.Stderr, p.stderr = f, f.Name()
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.pid = cmd.Process.Pid
	p.self, _ = lookup(p.pid) // there until it is waited for
	go func() {
		_ = cmd.Wait() // the state says it all
		p.state = cmd.ProcessState
		close(p.ended)
	}()
	t.Cleanup(p.end)
	return p
}

// end asks the process and its group to end, then makes them.
func (p *process) end() {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if p.over(0) {
			break
		}
		_ = unix.Kill(p.pid, s)
		_ = unix.Kill(-p.pid, s)
		p.over(3 * time.Second)
	}
	if p.t.Failed() {
		p.t.Logf("%s", p.report())
	}
}

// over reports whether the process ended within limit.
func (p *process) over(limit time.Duration) bool {
	select {
	case <-p.ended:
		return true
	default:
	}
	select {
	case <-p.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// Running fails the test if the process has ended.
func (p *process) Running() {
	p.t.Helper()
	if p.over(0) {
		p.t.Fatalf("%s has ended: %v", p.name, p.state)
	}
}

// Exit waits for the process and returns its exit status, -1 for a signal.
func (p *process) Exit(limit time.Duration) int {
	p.t.Helper()
	if !p.over(limit) {
		p.t.Fatalf("%s still runs after %v", p.name, limit)
	}
	return p.state.ExitCode()
}

// MustExit waits for the process and wants that status.
func (p *process) MustExit(want int) {
	p.t.Helper()
	if got := p.Exit(patience); got != want {
		p.t.Fatalf("%s: exit status %d (%v), want %d", p.name, got, p.state, want)
	}
}

// Stdout and Stderr return what the process wrote so far.
func (p *process) Stdout() string { p.t.Helper(); return readFile(p.t, p.stdout) }
func (p *process) Stderr() string { p.t.Helper(); return readFile(p.t, p.stderr) }

// AwaitStdout and AwaitStderr wait until the process wrote text there.
func (p *process) AwaitStdout(text string) {
	p.t.Helper()
	awaitFile(p.t, p.stdout, text)
}

func (p *process) AwaitStderr(text string) {
	p.t.Helper()
	awaitFile(p.t, p.stderr, text)
}

func (p *process) Signal(s unix.Signal) {
	p.t.Helper()
	if err := unix.Kill(p.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

func (p *process) report() string {
	state := "running"
	if p.over(0) {
		state = p.state.String()
	}
	text := fmt.Sprintf("%s (%s)", p.name, state)
	for what, file := range map[string]string{"stdout": p.stdout, "stderr": p.stderr} {
		if data, err := os.ReadFile(file); err == nil && len(data) > 0 {
			text += fmt.Sprintf("\n--- its %s:\n%s", what, tail(string(data)))
		}
	}
	return text
}

// tail returns the end of a log, enough of it for one story.
func tail(s string) string {
	const most = 6 << 10
	if len(s) > most {
		return "...\n" + s[len(s)-most:]
	}
	return s
}

// readToTheEnd runs a command as a careful caller does: it reads stdout and
// stderr until no process has them open, and wants exit status 0.
func readToTheEnd(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatalf("%s: %v\n%s", cmd.Path, r.err, r.out)
		}
		return string(r.out)
	case <-time.After(patience):
		t.Fatalf("%s: its output has no end within %v", cmd.Path, patience)
		return ""
	}
}

// oneLine wants exactly one line that holds all parts.
func oneLine(t *testing.T, text string, parts ...string) {
	t.Helper()
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("want one line:\n%s", text)
	}
	contains(t, "the line", text, parts...)
}
