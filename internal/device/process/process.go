// Package process owns what the kernel says of processes: which one has a PID now,
// whose child it is, and its end. Packages evidence and session use it to examine
// sshd's processes and to end a session's. It never starts a process and knows
// nothing of sshd.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is the path of a proc(5) file system; tests use trees of their own.
type Proc string

// System is the proc(5) file system of this machine.
const System Proc = "/proc"

// Identity identifies a process beyond the reuse of its PID: StartTime is in clock
// ticks since boot (proc_pid_stat(5)).
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start-time"`
}

// Path returns the path of a file of a process.
func (p Proc) Path(pid int, name string) string {
	return string(p) + "/" + strconv.Itoa(pid) + "/" + name
}

// Read reads a file of a process.
func (p Proc) Read(pid int, name string) ([]byte, error) {
	data, err := os.ReadFile(p.Path(pid, name))
	if err != nil {
		return nil, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	return data, nil
}

// Stat returns a process's identity and its parent.
func (p Proc) Stat(pid int) (id Identity, parent int, err error) {
	data, err := p.Read(pid, "stat")
	if err != nil {
		return Identity{}, 0, err
	}
	parent, start, err := parseStat(data)
	if err != nil {
		return Identity{}, 0, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	return Identity{pid, start}, parent, nil
}

// parseStat returns a process's parent and start time (proc_pid_stat(5)).
func parseStat(data []byte) (parent int, start uint64, err error) {
	// The second field is the program's name in parentheses, which may contain any
	// character; the other fields follow the last parenthesis.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("%d fields in its stat", len(fields))
	}
	parent, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return parent, start, errors.Join(err1, err2)
}

// listsChildren reports whether the kernel keeps lists of children
// (CONFIG_PROC_CHILDREN).
var listsChildren = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/thread-self/children")
	return err == nil
})

// Children returns a process's children. On kernels without lists of children it
// searches all processes.
func (p Proc) Children(pid int) (pids []int) {
	if !listsChildren() {
		for _, id := range p.byParent()[pid] {
			pids = append(pids, id.PID)
		}
		return pids
	}
	data, err := p.Read(pid, "task/"+strconv.Itoa(pid)+"/children")
	if err != nil {
		return nil // it has ended
	}
	for _, field := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// byParent returns the children of every process. A child's identity is from the
// same read as its parent: its PID can be in use again later.
func (p Proc) byParent() map[int][]Identity {
	children := make(map[int][]Identity)
	paths, _ := filepath.Glob(string(p) + "/[0-9]*")
	for _, path := range paths {
		pid, _ := strconv.Atoi(filepath.Base(path))
		if id, parent, err := p.Stat(pid); err == nil {
			children[parent] = append(children[parent], id)
		}
	}
	return children
}

// Below reports whether pid is a descendant of top.
func (p Proc) Below(top, pid int) bool { return slices.Contains(p.Ancestors(pid), top) }

// Ancestors returns the processes above pid, without process 1.
func (p Proc) Ancestors(pid int) (all []int) {
	for range 64 { // deeper than any chain of sshd, shell and subsystem
		_, parent, err := p.Stat(pid)
		if err != nil || parent <= 1 {
			break
		}
		all = append(all, parent)
		pid = parent
	}
	return all
}

// Identify returns the identity of a running process.
func Identify(pid int) (Identity, error) {
	id, _, err := System.Stat(pid)
	return id, err
}

// Runs reports whether it is this process that has its PID.
func (id Identity) Runs() bool {
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// Open returns a pidfd of exactly this process, for the runtime's poller: it is
// readable when the process has ended. The caller owns it. The error is unix.ESRCH
// where the process has ended, also if its PID is in use again.
func (id Identity) Open() (*os.File, error) {
	fd, err := id.pidfd()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(id.PID)), nil
}

// pidfd is Open for a caller that needs no file.
func (id Identity) pidfd() (fd int, err error) {
	fd, err = unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return -1, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	// PIDFD_NONBLOCK would be refused before Linux 5.10, and is lost by qemu-user 7.2 on
	// MIPS, where Go then cannot wait for it, and AwaitExit fails at once.
	err = unix.SetNonblock(fd, true)
	if err == nil {
		// Compare only now: what has the identity afterwards has had the PID all along.
		var now Identity
		now, err = Identify(id.PID)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now != id {
			err = unix.ESRCH
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	return fd, nil
}

// Ended reports whether the process is known to have ended, also where its parent
// has not waited for it yet.
func (id Identity) Ended() bool {
	f, err := id.Open()
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer f.Close()
	ended := false
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { ended = isReadable(fd) })
	}
	return ended
}

// isReadable reports whether a pidfd's process has ended. waitid(2) with WNOWAIT
// works only for our own children.
func isReadable(pidfd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
}

// AwaitExit returns when the process of the pidfd has ended or pidfd was closed.
func AwaitExit(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(isReadable)
}

// Tree returns the process and all processes below it, it last; nothing where it
// has ended, since its PID can be another process's then. sshd starts a subsystem
// in a session (setsid(2)) of its own: only the parents show that it belongs here.
func (id Identity) Tree() []Identity {
	if !id.Runs() {
		return nil
	}
	children := System.byParent()
	out := children[id.PID]
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i].PID]...)
	}
	if !id.Runs() {
		return nil
	}
	return append(out, id)
}

// termTime is how long processes may take to exit after SIGTERM.
const termTime = 3 * time.Second

// End ends those processes, all at once: SIGTERM, then SIGKILL for those that
// remain. It returns when all have ended. It signals pidfds: a PID or the number of
// a group can be in use again.
func End(ids []Identity) {
	var all []*os.File
	for _, id := range ids {
		if f, err := id.Open(); err == nil {
			all = append(all, f)
			defer f.Close()
		}
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		for _, f := range all {
			signal(f, sig)
		}
		if awaitAll(all, termTime) {
			return
		}
	}
}

// EndTree ends the process and its descendants. On error, as without free
// descriptors, nothing was signalled.
func (id Identity) EndTree() error {
	leader, err := id.Open()
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	defer leader.Close()
	End(id.Tree())
	return nil
}

// signal sends sig to the process of a pidfd, unless it has ended.
func signal(pidfd *os.File, sig unix.Signal) {
	if raw, err := pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	}
}

// awaitAll waits for all processes to end, at most d.
func awaitAll(pidfds []*os.File, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for _, f := range pidfds {
		if err := f.SetReadDeadline(deadline); err != nil {
			return false
		}
		if err := AwaitExit(f); err != nil {
			return false
		}
	}
	return true
}
