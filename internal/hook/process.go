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

// path is the program's whole environment but for CALLHOME_EVENT: nothing that
// the daemon was started with gets through.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxOutput bounds what is logged of a run's output, in bytes.
const maxOutput = 4 << 10

// pipeTime is how long the output is waited for when the program's whole group
// is gone: somebody who left the group may hold the pipe for ever.
const pipeTime = 100 * time.Millisecond

// result is what a run came to.
type result struct {
	err    error
	killed bool // by us, since ctx ended
	output string
}

// run runs program until it ends or ctx does, and then kills what is left of
// its process group.
func run(ctx context.Context, program, event string, line []byte) result {
	// The kernel sends Pdeathsig when the thread that started the child ends,
	// so this one must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out head
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{path, "CALLHOME_EVENT=" + event}
	cmd.Stdin = bytes.NewReader(line)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = pipeTime
	// Pdeathsig is for a daemon that is killed: nobody is left to time the
	// program then.
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
	// The program is not reaped before Wait, so the group's number is its own.
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-exited
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return result{err: err, killed: killed, output: out.String()}
}

// awaitExit returns when a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// head keeps the beginning of what is written to it, and takes the rest so
// that the writer does not wait.
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
