package hook

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// patience bounds what should take no time.
const patience = 20 * time.Second

// script returns a program of those lines of sh. Beside it are two named
// pipes, $0.out for its output and $0.go to start it.
func script(t *testing.T, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, pipe := range []string{path + ".out", path + ".go"} {
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// printed returns what the program writes to its pipe.
func printed(t *testing.T, program string) string {
	t.Helper()
	text, err := os.ReadFile(program + ".out")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// process is one whose end can be awaited, also if it is no child of the test.
type process struct{ pid, pidfd int }

// printedProcess returns the process whose number the program writes.
func printedProcess(t *testing.T, program string) process {
	t.Helper()
	pid, err := strconv.Atoi(printed(t, program))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // where the test failed
		unix.Close(fd)
	})
	return process{pid, fd}
}

// ended waits for the process's end.
func (p process) ended(within time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(within.Milliseconds()))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// running starts program; its result comes on the channel.
func running(ctx context.Context, program string) <-chan result {
	c := make(chan result, 1)
	go func() { c <- run(ctx, program, "connected", []byte("{}\n")) }()
	return c
}

func TestContract(t *testing.T) {
	t.Setenv("CALLHOME_SECRET", "of the daemon's")
	program := script(t, `cat
echo "arguments $#"
echo "group $(( $(cut -d ' ' -f 5 /proc/$$/stat) - $$ ))"
pwd
tr '\0' '\n' </proc/$$/environ
echo "to stderr" >&2`)
	r := run(t.Context(), program, "connected", []byte(`{"event":"connected"}`+"\n"))
	want := `{"event":"connected"}
arguments 0
group 0
/
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CALLHOME_EVENT=connected
to stderr
`
	if r.err != nil || r.killed || r.output != want {
		t.Errorf("got %+v, want\n%s", r, want)
	}
}

func TestExitStatus(t *testing.T) {
	if r := run(t.Context(), script(t, "exit 3"), "connected", nil); r.killed || r.err == nil || r.err.Error() != "exit status 3" {
		t.Errorf("got %+v", r)
	}
}

func TestProgramIsGone(t *testing.T) {
	if r := run(t.Context(), filepath.Join(t.TempDir(), "none"), "connected", nil); r.err == nil || r.killed {
		t.Errorf("got %+v", r)
	}
}

func TestInputIsNotRead(t *testing.T) {
	line := []byte(strings.Repeat("x", 1<<20)) // more than a pipe takes
	if r := run(t.Context(), script(t, "exit 0"), "connected", line); r.err != nil {
		t.Errorf("got %+v", r)
	}
}

func TestOutputIsBounded(t *testing.T) {
	program := script(t, `head -c 1000000 /dev/zero | tr '\0' x; echo through >"$0.out"`)
	c := running(t.Context(), program)
	if got := printed(t, program); got != "through" {
		t.Errorf("the program did not get rid of its output: %q", got)
	}
	if r := <-c; r.err != nil || r.output != strings.Repeat("x", maxOutput)+"..." {
		t.Errorf("got %v and %d bytes, want %d and three dots", r.err, len(r.output), maxOutput)
	}
}

func TestKillReachesTheGroup(t *testing.T) {
	program := script(t, `trap '' TERM HUP INT
sh -c 'trap "" TERM HUP INT; echo $$ >"$1.out"; sleep 1000' - "$0"`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := running(ctx, program)
	grandchild := printedProcess(t, program)
	cancel()
	if r := <-c; !r.killed || r.err == nil {
		t.Errorf("got %+v", r)
	}
	if !grandchild.ended(patience) {
		t.Errorf("process %d still runs", grandchild.pid)
	}
}

func TestNothingOfTheGroupStays(t *testing.T) {
	program := script(t, `sleep 1000 &
echo $! >"$0.out"
cat "$0.go"`)
	c := running(t.Context(), program)
	left := printedProcess(t, program)
	if err := os.WriteFile(program+".go", []byte("bye"), 0); err != nil {
		t.Fatal(err)
	}
	if r := <-c; r.err != nil || r.killed || r.output != "bye" {
		t.Errorf("got %+v", r)
	}
	if !left.ended(patience) {
		t.Errorf("process %d still runs", left.pid)
	}
}

// Who leaves the group keeps the pipe of the output, but not the slot.
func TestLeavingTheGroup(t *testing.T) {
	program := script(t, `setsid sh -c 'echo $$ >"$1.out"; exec sleep 1000' - "$0" &
cat "$0.go"`)
	c := running(t.Context(), program)
	left := printedProcess(t, program)
	if err := os.WriteFile(program+".go", []byte("bye"), 0); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-c:
		if r.err != nil || r.killed || r.output != "bye" {
			t.Errorf("got %+v", r)
		}
	case <-time.After(patience):
		t.Fatal("the run has no end")
	}
	if left.ended(0) {
		t.Error("the process that left has ended, so it did not hold the pipe")
	}
}

// A daemon that is killed ends no hook at its time limit.
func TestKilledDaemon(t *testing.T) {
	const variable = "CALLHOME_TEST_HOOK"
	if program := os.Getenv(variable); program != "" {
		run(context.Background(), program, "connected", nil) // as the daemon
		return
	}
	program := script(t, `echo $$ >"$0.out"
exec sleep 1000`)
	daemon := exec.Command(os.Args[0], "-test.run=^TestKilledDaemon$")
	daemon.Env = append(os.Environ(), variable+"="+program)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	hook := printedProcess(t, program)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait() // killed, as it says
	if !hook.ended(patience) {
		t.Errorf("process %d outlived its daemon", hook.pid)
	}
}

func TestHookRunsItsProgram(t *testing.T) {
	program := script(t, `exec cat >"$0.out"`)
	h, err := New(Config{Program: program, Known: proto.Events, Events: []string{proto.EventFailed}, Timeout: patience}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	sent := proto.Event{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Event: proto.EventFailed, Text: "a\nb\x00",
		Session: proto.SessionInfo{Session: 7, Host: "nms.example", Stage: proto.StageTCP, Cause: "connection refused"},
	}
	h.Handle(eventOf(sent))
	text := printed(t, program)
	var got proto.Event
	if err := json.Unmarshal([]byte(text), &got); err != nil || got != sent || strings.Contains(text, "\n") {
		t.Errorf("got %q (%v), want %+v in one line", text, err, sent)
	}
}
