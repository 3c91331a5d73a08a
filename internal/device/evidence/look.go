package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Proc is the path of a proc(5) file system; tests use trees of their own.
type Proc string

// System is the proc(5) file system of this machine.
const System Proc = "/proc"

// Login looks once at the session's sshd and the processes that it started. It
// returns the user whose login is shown and the user's number, and false where
// there is no login. socket is the inode number of the session's socket. claimed
// reports whether the log names a user; it is asked only about users whom no local
// file has.
func (fs Proc) Login(sshd int, socket uint64, claimed func(string) bool) (user string, uid int, ok bool) {
	fs.find(sshd, socket, func(p, parent *Process) bool {
		// What a user runs is below a process of the user's, and can have any title.
		if parent == nil || parent.UIDs == parent.first {
			user, ok = p.LoggedIn(uidOf, claimed)
		}
		uid = p.UIDs[0]
		return ok
	})
	return user, uid, ok
}

// Program returns the first process below sshd that runs a program other than sshd
// with the user's UID, or false.
func (fs Proc) Program(sshd, uid int) (Process, bool) {
	return fs.find(sshd, 0, func(p, parent *Process) bool { return parent != nil && p.IsProgram(uid) })
}

// find looks once at sshd and the processes below it, and returns the first one
// that is wanted. wanted gets a process and its parent, nil for sshd's.
func (fs Proc) find(sshd int, socket uint64, wanted func(p, parent *Process) bool) (Process, bool) {
	first, err := fs.Look(sshd, socket)
	if err != nil {
		return Process{}, false
	}
	first.first = first.UIDs
	if wanted(&first, nil) {
		return first, true
	}
	for todo := []*Process{&first}; len(todo) > 0; todo = todo[1:] {
		parent := todo[0]
		for _, pid := range fs.Children(parent.PID) {
			p, err := fs.Look(pid, socket)
			if err != nil {
				continue
			}
			p.first, p.Sandboxed = first.UIDs, p.Filters > first.Filters
			if wanted(&p, parent) {
				return p, true
			}
			todo = append(todo, &p)
		}
	}
	return Process{}, false
}

// uidOf returns the UID of a user in /etc/passwd, or anyUID: for users of another
// name service the process's title and UIDs decide.
func uidOf(name string) int {
	found, err := user.Lookup(name)
	if err != nil {
		return anyUID
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		return anyUID
	}
	return uid
}

// errChanged says that a process changed between the two reads of a Look.
var errChanged = errors.New("it changed between two reads")

// Look returns a snapshot of a process. A change during the look, by exec, setuid
// or the reuse of the PID, is an error.
func (fs Proc) Look(pid int, socket uint64) (Process, error) {
	p := Process{PID: pid}
	before, err := fs.read(pid, "stat")
	if err != nil {
		return p, err
	}
	if p.Parent, p.Start, err = parseStat(before); err != nil {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	status, err := fs.read(pid, "status")
	if err != nil {
		return p, err
	}
	if p.UIDs, p.Filters, err = parseStatus(status); err != nil {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	title, err := fs.read(pid, "cmdline")
	if err != nil {
		return p, err
	}
	first, _, _ := bytes.Cut(title, []byte{0})
	p.Title = string(first)
	p.Root = fs.rootOf(pid)
	p.Socket = fs.holds(pid, socket)

	again, err := fs.read(pid, "status")
	if err != nil {
		return p, err
	}
	after, err := fs.read(pid, "stat")
	if err != nil {
		return p, err
	}
	uids, filters, err := parseStatus(again)
	parent, start, err2 := parseStat(after)
	if err != nil || err2 != nil || uids != p.UIDs || filters != p.Filters || parent != p.Parent || start != p.Start {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, errChanged)
	}
	return p, nil
}

func (fs Proc) path(pid int, name string) string {
	return string(fs) + "/" + strconv.Itoa(pid) + "/" + name
}

func (fs Proc) read(pid int, name string) ([]byte, error) {
	data, err := os.ReadFile(fs.path(pid, name))
	if err != nil {
		return nil, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	return data, nil
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

// parseStatus returns a process's four UIDs and its number of seccomp filters
// (proc_pid_status(5)). A kernel without seccomp writes no such line, and sshd has
// no seccomp sandbox there.
func parseStatus(data []byte) (uids [4]int, filters int, err error) {
	found := false
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		fields := strings.Fields(value)
		switch {
		case name == "Uid" && !found:
			if len(fields) != 4 {
				return uids, 0, fmt.Errorf("%d UIDs in its status", len(fields))
			}
			for i, f := range fields {
				if uids[i], err = strconv.Atoi(f); err != nil {
					return uids, 0, fmt.Errorf("the UIDs in its status: %w", err)
				}
			}
			found = true
		case name == "Seccomp" && len(fields) == 1:
			if fields[0] == "2" {
				filters = max(filters, 1)
			}
		case name == "Seccomp_filters" && len(fields) == 1:
			if filters, err = strconv.Atoi(fields[0]); err != nil {
				return uids, 0, fmt.Errorf("the seccomp filters in its status: %w", err)
			}
		}
	}
	if !found {
		return uids, 0, errors.New("no UIDs in its status")
	}
	return uids, filters, nil
}

// rootOf returns which root directory a process has.
func (fs Proc) rootOf(pid int) Root {
	root := fs.path(pid, "root")
	own, err := os.Stat("/")
	if err != nil {
		return RootUnseen
	}
	its, err := os.Stat(root + "/")
	if err != nil {
		return RootUnseen
	}
	if os.SameFile(own, its) {
		return RootUsual
	}
	dir, err := os.Open(root + "/")
	if err != nil {
		return RootUnseen
	}
	defer dir.Close()
	if names, _ := dir.Readdirnames(1); len(names) == 0 {
		return RootEmpty
	}
	return RootUsual
}

// holds reports whether a process has a descriptor of the socket.
func (fs Proc) holds(pid int, socket uint64) Known {
	if socket == 0 {
		return Unseen // the session's socket is not known
	}
	dir := fs.path(pid, "fd")
	names, err := filepath.Glob(dir + "/*")
	if err != nil || len(names) == 0 {
		return Unseen // no permission; an sshd with a login always has descriptors
	}
	want := "socket:[" + strconv.FormatUint(socket, 10) + "]"
	for _, name := range names {
		link, err := os.Readlink(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return Unseen
		}
		if link == want {
			return Yes
		}
	}
	return No
}

// listsChildren reports whether the kernel keeps lists of children
// (CONFIG_PROC_CHILDREN).
var listsChildren = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/thread-self/children")
	return err == nil
})

// Children returns a process's children. On kernels without lists of children it
// searches all processes.
func (fs Proc) Children(pid int) []int {
	if !listsChildren() {
		return fs.childrenByParent()[pid]
	}
	n := strconv.Itoa(pid)
	data, err := fs.read(pid, "task/"+n+"/children")
	if err != nil {
		return nil // it has ended
	}
	var out []int
	for _, field := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			out = append(out, child)
		}
	}
	return out
}

// childrenByParent returns the children of every process, by parent.
func (fs Proc) childrenByParent() map[int][]int {
	children := make(map[int][]int)
	paths, _ := filepath.Glob(string(fs) + "/[0-9]*")
	for _, p := range paths {
		child, _ := strconv.Atoi(filepath.Base(p))
		data, err := fs.read(child, "stat")
		if err != nil {
			continue
		}
		if parent, _, err := parseStat(data); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	return children
}

// Below reports whether pid is a descendant of top. It returns the child of top
// that is pid or its ancestor: sshd's process of the user, or pid itself.
func (fs Proc) Below(top, pid int) (under int, ok bool) {
	for range 64 { // deeper than any chain of sshd, shell and subsystem
		data, err := fs.read(pid, "stat")
		if err != nil {
			return 0, false
		}
		parent, _, err := parseStat(data)
		switch {
		case err != nil || parent <= 1:
			return 0, false
		case parent == top:
			return pid, true
		}
		pid = parent
	}
	return 0, false
}
