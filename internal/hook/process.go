package hook

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// path and CALLHOME_EVENT are the program's whole environment: it inherits nothing
// of the daemon's.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxOutput bounds what is logged of a run's output, in bytes.
const maxOutput = 4 << 10

// pipeTime bounds the wait for output after the process group has ended: a
// process that left the group can hold the pipe open without a limit.
const pipeTime = 100 * time.Millisecond

// result is how a run ended.
type result struct {
	err    error
	killed bool // by run, as ctx ended
	output string
}

// run runs program until it or ctx ends, and then kills the rest of its process
// group.
func run(ctx context.Context, program, event string, line []byte) result {
	// The kernel sends Pdeathsig when the thread that started the child ends
	// (prctl(2)), so this thread must outlive the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out head
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{path, "CALLHOME_EVENT=" + event}
	cmd.Stdin = bytes.NewReader(line)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = pipeTime
	// Pdeathsig ends the program with a daemon that is killed and so can enforce
	// no timeout.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return result{err: err}
	}
	pid := cmd.Process.Pid
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		awaitExit(pid)
	}()
	killed := false
	select {
	case <-exited:
	case <-ctx.Done():
		killed = true
	}
	// The program is not reaped before Wait, so its process group id is not reused.
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-exited
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return result{err: err, killed: killed, output: out.String()}
}

// awaitExit returns when a child has ended, without reaping it.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// head keeps the first maxOutput bytes that are written to it, and discards the
// rest so that the writer never blocks.
type head struct {
	text []byte
	more bool
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), maxOutput-len(h.text))
	h.text = append(h.text, p[:n]...)
	h.more = h.more || n < len(p)
	return len(p), nil
}

func (h *head) String() string {
	if h.more {
		return string(h.text) + "..."
	}
	return string(h.text)
}
