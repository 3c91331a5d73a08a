// Package subsystem lets callhome-mgr know by the kernel's word that a session's
// netconf subsystem runs, and when it ends. The forced command executes the
// helper (Run, in callhome-trigger), which reports to the manager's socket
// (Listener) and then becomes the NETCONF server's command. The session room
// verifies each report by its process, never by its content. Nothing here is in
// the data path: the helper is gone when the subsystem reads its first byte.
//
//	sshd ─▶ shell ─▶ helper ── nonce, $SSH_USER_AUTH ─▶ manager
//	                 helper ◀── write end of a pipe ──── manager
//	                 helper = subsystem, which keeps the write end until it ends
package subsystem

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Flag is the first argument of the helper's command line:
// callhome-trigger Flag SOCKET NONCE COMMAND [ARGUMENT ...].
const Flag = "--report-subsystem"

// reportTime bounds how long a helper waits for a manager: a session never
// depends on one.
const reportTime = 500 * time.Millisecond

// maxAuth bounds what is sent of sshd's authentication information
// (ExposeAuthInfo in sshd_config(5)), in bytes: certificates are the longest.
const maxAuth = 12 << 10

// Run reports to the manager and executes the command, with the environment and
// the descriptors that it has. It returns only with an error: the command could
// not be executed. Without a manager the command is executed all the same.
func Run(args []string) error {
	if len(args) < 3 {
		return errors.New("expected SOCKET NONCE COMMAND [ARGUMENT ...]")
	}
	socket, nonce, command := args[0], args[1], args[2:]
	_ = report(socket, nonce) // no manager is no reason to end a session
	if err := unix.Exec(command[0], command, os.Environ()); err != nil {
		return fmt.Errorf("executing %q: %w", command[0], err)
	}
	return nil
}

// report connects, sends, and keeps the descriptor that comes back: it is not
// close-on-exec, so the command has it from here to its end.
func report(socket, nonce string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(reportTime.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // SNDTIMEO bounds connect too
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

// authInfo returns what sshd wrote of the login's methods and keys, "" where
// there is no such file.
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
