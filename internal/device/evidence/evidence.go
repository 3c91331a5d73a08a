// Package evidence owns the proof of a login: it decides from the kernel's data
// whether a user has logged in to a session's sshd, and whether a program of the
// user's runs. Package session uses it to verify what sshd's log claims. It reads /proc
// and never a log: a peer without a key can write whole lines into sshd's log,
// with any user's name.
//
// How each rule was measured, by OpenSSH version: docs/security.md.
package evidence

import (
	"strings"

	"callhome/internal/lazyregexp"
	"callhome/internal/sshdexec"
)

// Process is a consistent snapshot of a process from /proc.
type Process struct {
	PID, Parent int
	Start       uint64 // in clock ticks since boot, proc_pid_stat(5)
	UIDs        [4]int // real, effective, saved, file system
	// Filters counts the process's seccomp filters (proc_pid_status(5)); 1 means one
	// or more on kernels that do not count them (before Linux 5.9).
	Filters int
	// Sandboxed says that the process has more filters than the session's first
	// sshd: it is sshd's unprivileged process before the login. Both have the filters
	// of a container or of a systemd unit.
	Sandboxed bool
	// Root says where the process's root directory is.
	Root Root
	// Socket says whether the process holds the session's socket.
	Socket Known
	// Title is the process's title, its first argument (setproctitle(3)).
	Title string
	// ByUser says that a process with other UIDs than the session's first sshd started
	// it: a user's program, which can have any title.
	ByUser bool
}

// Known is the answer to a question that a process without CAP_SYS_PTRACE, as in
// many containers, cannot answer about another user's process.
type Known int

// The values of Known.
const (
	Unseen Known = iota
	No
	Yes
)

// Root is where a process's root directory is.
type Root int

// The values of Root. Before the login sshd's unprivileged process is confined to
// the privilege separation directory, which is empty. A user's ChrootDirectory is
// not empty: it contains the user's shell.
const (
	RootUnseen Root = iota
	RootUsual
	RootEmpty
)

// anyUID replaces the UID of a user whom the look-up did not find.
const anyUID = -1

// LoggedIn returns the user whose login p shows, which is the session's sshd or a
// process below it. uidOf returns the number of a user, anyUID where
// no local file has it; such a name counts only where claimed says so. Measured
// with OpenSSH 8.4 to 10.5: true after each of 160 logins, false in 1.3 million
// looks at 666 hostile connections.
func (p *Process) LoggedIn(uidOf func(string) int, claimed func(string) bool) (user string, ok bool) {
	uid := p.UIDs[0]
	if p.UIDs != [4]int{uid, uid, uid, uid} || p.Sandboxed || p.ByUser || p.Root == RootEmpty || p.Socket == No {
		return "", false
	}
	name, ok := p.user()
	if !ok {
		return "", false
	}
	switch uidOf(name) {
	case uid:
		return name, true
	case anyUID: // root is in /etc/passwd
		if uid != 0 && claimed(name) {
			return name, true
		}
	}
	return "", false
}

// IsProgram reports whether p runs a program as the user and is not a process of
// sshd. A process that has exited has no title.
func (p *Process) IsProgram(uid int) bool {
	name, _, _ := strings.Cut(p.Title, ":")
	return p.UIDs == [4]int{uid, uid, uid, uid} && !p.Sandboxed && p.Root != RootEmpty &&
		p.Title != "" && !strings.HasPrefix(name, "sshd") && name != sshdexec.PAMService && !strings.HasSuffix(p.Title, "/sshd")
}

// titles begin the title of sshd: with its argv[0], which up to 9.7 names the PAM
// service, from 9.8 on with "sshd-session".
var titles = []string{"sshd: ", sshdexec.PAMService + ": ", "sshd-session: "}

// terminals is what sshd appends to the user's name in the title once a channel is
// open: its terminals, or notty. No other name is tried, since a peer can have the log
// claim any: of "netconf@notty" only netconf can be the user.
var terminals = lazyregexp.New(`@(notty|(pts/[0-9]+|tty[A-Z]*[0-9]+)(,(pts/[0-9]+|tty[A-Z]*[0-9]+))*)$`)

// user returns the user that the title names. After a login it is one of titles and
// "USER" or "USER@notty", and a name can have an "@" of its own. All titles before a
// login end in a bracket: "[accepted]", "USER [priv]", "[net]".
func (p *Process) user() (name string, ok bool) {
	for _, t := range titles {
		if name, ok = strings.CutPrefix(p.Title, t); ok {
			break
		}
	}
	if !ok || strings.HasSuffix(name, "]") {
		return "", false
	}
	name = terminals().ReplaceAllString(name, "")
	return name, name != ""
}
