package session

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Identity identifies a process beyond the reuse of its PID: StartTime is in clock
// ticks since boot (proc_pid_stat(5)).
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start-time"`
}

// identify returns the identity of a running process.
func identify(pid int) (Identity, error) {
	_, start, err := stat(pid)
	return Identity{pid, start}, err
}

// stat reads a process's parent and start time.
func stat(pid int) (parent int, start uint64, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	// The second field is the program's name in parentheses, which may contain
	// any character; the other fields follow the last parenthesis.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("reading the state of process %d: %d fields in its stat", pid, len(fields))
	}
	parent, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return parent, start, errors.Join(err1, err2)
}

// open returns a pidfd of exactly this process, for the runtime's poller: it is
// readable when the process has ended. The caller owns it. The error is unix.ESRCH
// where the process has ended, also if its PID is in use again.
func (id Identity) open() (*os.File, error) {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	// The pidfd pins the PID; compare only now that it is the same process.
	now, err := identify(id.PID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now != id {
		err = unix.ESRCH
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	return os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(id.PID)), nil
}

// runs reports whether it is this process that runs under its PID.
func (id Identity) runs() bool {
	now, err := identify(id.PID)
	return err == nil && now == id
}

// ended reports whether the process is known to have ended.
func (id Identity) ended() bool {
	f, err := id.open()
	if err == nil {
		f.Close()
	}
	return errors.Is(err, unix.ESRCH)
}

// awaitExit returns when the process of the pidfd has ended or pidfd was
// closed.
func awaitExit(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	// waitid(2) with WNOWAIT works only for our own children, poll for any process.
	return raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
	})
}

// childrenOfAll returns the children of every process, by parent. A child's
// identity is from the same read as its parent: its PID can be in use again later.
func childrenOfAll() map[int][]Identity {
	children := make(map[int][]Identity)
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range paths {
		child, _ := strconv.Atoi(filepath.Base(p))
		if parent, start, err := stat(child); err == nil {
			children[parent] = append(children[parent], Identity{child, start})
		}
	}
	return children
}

// descendants returns all processes below pid, including the subsystem, which sshd
// starts in a session (setsid(2)) of its own.
func descendants(pid int) []Identity {
	children := childrenOfAll()
	out := children[pid]
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i].PID]...)
	}
	return out
}

// termTime is how long a session's processes may take to exit after SIGTERM.
const termTime = 3 * time.Second

// signal sends sig to the process of a pidfd, unless it has ended.
func signal(pidfd *os.File, sig unix.Signal) {
	if raw, err := pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	}
}

// endTree ends sshd and its descendants: SIGTERM, then SIGKILL for those that
// remain. It returns when all have ended. It signals pidfds, not the process
// group: sshd starts the subsystem in a session of its own, and the group's number
// can be in use again. On error no signal was sent.
func endTree(id Identity) error {
	leader, err := id.open()
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	defer leader.Close()
	endAll(append(descendants(id.PID), id))
	return nil
}

// endAll ends those processes, all at once: SIGTERM, then SIGKILL for those that
// remain. It returns when all have ended.
func endAll(ids []Identity) {
	var all []*os.File
	for _, id := range ids {
		if f, err := id.open(); err == nil {
			all = append(all, f)
			defer f.Close()
		}
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		for _, f := range all {
			signal(f, sig)
		}
		if awaitAll(all, termTime) {
			break
		}
	}
}

// awaitAll waits for all processes to end, at most d.
func awaitAll(pidfds []*os.File, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for _, f := range pidfds {
		if err := f.SetReadDeadline(deadline); err != nil {
			return false
		}
		if err := awaitExit(f); err != nil {
			return false
		}
	}
	return true
}
