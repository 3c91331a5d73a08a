// Package subsystem owns the reports by which callhome-mgr detects, from the
// kernel's data, when a session's netconf subsystem starts and ends. The forced
// command executes the helper (Run, in callhome-trigger), which reports to the
// manager's socket (Listener) and then executes the NETCONF server's command.
// Package session verifies each report by its process, never by its content. It is
// never in the data path: the helper's exec precedes the subsystem's first byte.
//
//	sshd ─▶ shell ─▶ helper ── nonce, $SSH_USER_AUTH ─▶ manager
//	                 helper ◀── the end file, read-only ─ manager
//	                 helper = subsystem, which holds the end file until it ends
package subsystem

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Flag is the first argument of the helper's command line:
// callhome-trigger Flag SOCKET NONCE COMMAND [ARGUMENT ...].
const Flag = "--report-subsystem"

// reportTime bounds each step of a report: a session must not depend on a manager.
const reportTime = 500 * time.Millisecond

// maxAuth bounds the part of sshd's authentication information (ExposeAuthInfo in
// sshd_config(5)) that is sent, in bytes: certificates are the longest.
const maxAuth = 12 << 10

// Run reports to the manager and executes the command with the process's environment
// and descriptors. It returns only if the command cannot be executed. It executes
// the command also without a manager.
func Run(args []string) error {
	if len(args) < 3 {
		return errors.New("expected SOCKET NONCE COMMAND [ARGUMENT ...]")
	}
	socket, nonce, command := args[0], args[1], args[2:]
	_ = report(socket, nonce) // the session continues without a manager
	if argv := withoutShell(command); argv != nil {
		_ = unix.Exec(argv[0], argv, os.Environ()) // on error the shell reports it
	}
	if err := unix.Exec(command[0], command, os.Environ()); err != nil {
		return fmt.Errorf("executing %q: %w", command[0], err)
	}
	return nil
}

// withoutShell returns the arguments of the program that the shell command would
// execute, nil where only a shell can tell. A shell takes 0.6 ms to start.
func withoutShell(command []string) []string {
	if len(command) != 3 || command[0] != "/bin/sh" || command[1] != "-c" {
		return nil
	}
	program, ok := strings.CutPrefix(command[2], "exec /")
	if !ok || strings.ContainsFunc(program, needsShell) {
		return nil
	}
	return strings.Fields("/" + program)
}

// needsShell reports whether a character can mean something to a shell.
func needsShell(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" /.,:_+-=@", c))
}

// report connects, sends, and receives a descriptor. It is not close-on-exec, so the
// command inherits it and holds it until its end.
func report(socket, nonce string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(reportTime.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // SO_SNDTIMEO bounds connect too
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	file := os.Getenv("SSH_USER_AUTH")
	message := append([]byte(nonce+"\n"+file+"\n"), authInfo(file)...)
	for len(message) > 0 {
		n, err := unix.SendmsgN(fd, message, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		message = message[n:]
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return os.NewSyscallError("shutdown", err)
	}
	// The descriptor stays open; its number does not matter.
	_, _, _, _, err = unix.Recvmsg(fd, make([]byte, 1), make([]byte, unix.CmsgSpace(4)), 0)
	return os.NewSyscallError("recvmsg", err)
}

// authInfo returns the login's methods and keys that sshd wrote, nil without the
// file.
func authInfo(file string) []byte {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAuth))
	if err != nil {
		return nil
	}
	return bytes.ToValidUTF8(text, nil)
}
