package session

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
)

// sshd's log is not to be trusted in one thing: it writes a user's name and a
// client's last words with the line ends that are in them, so that whoever can
// connect can write a line of any content, "Accepted publickey for root from
// ..." among them. What cannot be forged is what the kernel shows. After a login
// sshd has a process with another user's rights than its own, or one that names
// the user and the session in its title; before it there are the monitor, whose
// title ends in [accepted] or [priv], and the process without rights, [net].

// proven reports whether the processes of sshd show that user has logged in.
func proven(sshd Identity, user string) bool {
	owner := uidOf(sshd.PID)
	for todo := []int{sshd.PID}; len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		todo = append(todo, childrenOf(pid)...)
		who, isSshd := titleOf(pid)
		switch {
		case !isSshd:
		case who == user, strings.HasPrefix(who, user+"@") && !strings.HasSuffix(who, "]"):
			return true
		case strings.HasSuffix(who, " [priv]") && pid != sshd.PID && uidOf(pid) != owner:
			return true // forked from the monitor, and not yet named
		}
	}
	return false
}

// titleOf returns what sshd has put in a process's title behind its own name:
// "root@notty", "netop [priv]".
func titleOf(pid int) (who string, isSshd bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return "", false
	}
	data, _, _ = bytes.Cut(data, []byte{0})
	name, who, ok := strings.Cut(string(data), ": ")
	return who, ok && (name == "sshd" || name == "sshd-session")
}

// uidOf returns a process's real user, -1 where it is gone.
func uidOf(pid int) int {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return -1
	}
	_, rest, _ := bytes.Cut(data, []byte("\nUid:\t"))
	uid, err := strconv.Atoi(string(bytes.SplitN(rest, []byte{'\t'}, 2)[0]))
	if err != nil {
		return -1
	}
	return uid
}

// listsChildren reports whether the kernel keeps lists of children
// (CONFIG_PROC_CHILDREN).
var listsChildren = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/thread-self/children")
	return err == nil
})

// childrenOf returns a process's children. Where the kernel keeps no list of
// them it is found from all processes.
func childrenOf(pid int) []int {
	if !listsChildren() {
		return childrenOfAll()[pid]
	}
	n := strconv.Itoa(pid)
	data, err := os.ReadFile("/proc/" + n + "/task/" + n + "/children")
	if err != nil {
		return nil // it is gone
	}
	var out []int
	for _, word := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(word); err == nil {
			out = append(out, child)
		}
	}
	return out
}
