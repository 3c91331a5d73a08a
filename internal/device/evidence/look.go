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

	"callhome/internal/device/process"
)

// Proc is a proc(5) file system; tests use trees of their own.
type Proc struct{ process.Proc }

// System is the proc(5) file system of this machine.
var System = Proc{process.System}

// Login looks once at the session's sshd and the processes that it started. It
// returns the user whose login is shown and the user's number, and false where
// there is no login. socket is the inode number of the session's socket. claimed
// reports whether the log names a user; it is asked only about users whom no local
// file has.
func (fs Proc) Login(sshd int, socket uint64, claimed func(string) bool) (user string, uid int, ok bool) {
	p, ok := fs.find(sshd, socket, func(p *Process) (ok bool) {
		user, ok = p.LoggedIn(uidOf, claimed)
		return ok
	})
	return user, p.UIDs[0], ok
}

// Program returns the first process below sshd that runs a program other than sshd
// with the user's UID, or false.
func (fs Proc) Program(sshd, uid int) (Process, bool) {
	return fs.find(sshd, 0, func(p *Process) bool { return p.PID != sshd && p.IsProgram(uid) })
}

// find examines sshd and the processes below it once, and returns the first one
// for which wanted is true.
func (fs Proc) find(sshd int, socket uint64, wanted func(*Process) bool) (Process, bool) {
	first, err := fs.Look(sshd, socket)
	if err != nil {
		return Process{}, false
	}
	for todo := []*Process{&first}; len(todo) > 0; todo = todo[1:] {
		if wanted(todo[0]) {
			return *todo[0], true
		}
		for _, pid := range fs.Children(todo[0].PID) {
			p, err := fs.Look(pid, socket)
			if err != nil {
				continue
			}
			p.Sandboxed, p.ByUser = p.Filters > first.Filters, todo[0].UIDs != first.UIDs
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
	before, parent, err := fs.Stat(pid)
	if err != nil {
		return p, err
	}
	p.Parent, p.Start = parent, before.StartTime
	status, err := fs.Read(pid, "status")
	if err != nil {
		return p, err
	}
	if p.UIDs, p.Filters, err = parseStatus(status); err != nil {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	title, err := fs.Read(pid, "cmdline")
	if err != nil {
		return p, err
	}
	first, _, _ := bytes.Cut(title, []byte{0})
	p.Title = string(first)
	p.Root = fs.rootOf(pid)
	p.Socket = fs.holds(pid, socket)

	again, err := fs.Read(pid, "status")
	if err != nil {
		return p, err
	}
	after, parent, err := fs.Stat(pid)
	if err != nil {
		return p, err
	}
	uids, filters, err := parseStatus(again)
	if err != nil || uids != p.UIDs || filters != p.Filters || parent != p.Parent || after != before {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, errChanged)
	}
	return p, nil
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
	root := fs.Path(pid, "root")
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
	dir := fs.Path(pid, "fd")
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
