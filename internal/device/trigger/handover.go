package trigger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/hostsaccess"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// toSshd hands the connection to sshd, by exec or detach. It borrows log.
func toSshd(s *settings.Settings, c *dial.Conn, log *sshdexec.Log) error {
	if !log.Syslog {
		// An unwritable log, as on a full disk, must not prevent a call home.
		_ = log.Head(time.Now(), s.Host, c.Remote, c.Local, s.Opaque)
	}
	s.Sshd.Syslog = log.Syslog
	switch {
	case log.Syslog:
		printOnTerminal(s, "connected to %v; sshd logs to syslog", c.Remote)
	case s.SshdLog != "stderr":
		printOnTerminal(s, "connected to %v; sshd logs to %s", c.Remote, log.File.Name())
	}
	dial.QuickenAcks(c.File) // no process of ours is there after the login to undo it
	if s.Handover == settings.HandoverDetach {
		return detach(&s.Sshd, c, log)
	}
	return startError(s.Sshd.Become(c.File, log.File), c)
}

// printOnTerminal writes a line to standard error if that is a terminal: what happens
// after the handover is only in a log, and a person must know in which.
func printOnTerminal(s *settings.Settings, format string, args ...any) {
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err == nil && s.LogFormat != "json" {
		fmt.Fprintf(os.Stderr, "callhome-trigger: "+format+"\n", args...)
	}
}

// clientHint is the hint where the client ended the connection.
const clientHint = "see why the NETCONF client closes connections"

// startError gives a failed start of sshd its exit status.
func startError(err error, c *dial.Conn) error {
	if errors.Is(err, unix.ENOTCONN) {
		return resetError(c)
	}
	return sysexits.New(osCode(err), "", err)
}

// resetError is the error of a connection that the client reset before the
// handover.
func resetError(c *dial.Conn) error {
	return sysexits.New(sysexits.Unavailable, clientHint, fmt.Errorf("%v accepted the connection and reset it before it was handed over", c.Remote))
}

func osCode(err error) int {
	if errors.Is(err, fs.ErrPermission) {
		return sysexits.NoPerm
	}
	return sysexits.OSErr
}

// startTime bounds the time from sshd's start to its first byte to the client.
const startTime = 15 * time.Second

// detach starts sshd and returns when sshd has sent its first byte, the version
// string. sshd keeps the session's log open after this process ends.
func detach(cmd *sshdexec.Command, c *dial.Conn, log *sshdexec.Log) error {
	before := bytesSent(c.File)
	p, err := cmd.Start(c.File, log.File)
	if err != nil {
		return startError(err, c)
	}
	defer p.Release()
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		// The kernel has no event for "a byte was sent", so poll every 2 ms.
		var info unix.WaitStatus
		if pid, _ := unix.Wait4(p.Pid, &info, unix.WNOHANG, nil); pid == p.Pid && bytesSent(c.File) == before {
			return exitError(info, c, log)
		}
		if bytesSent(c.File) > before {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	_ = unix.Kill(-p.Pid, unix.SIGKILL)
	return sysexits.New(sysexits.OSErr, "callhome-trigger --check shows what is missing", fmt.Errorf("sshd took longer than %v to start and was ended", startTime))
}

// bytesSent returns how many bytes the kernel has sent, each counted once: an
// announcement before sshd's start can be sent again after it.
func bytesSent(sock *os.File) uint64 {
	info, err := unix.GetsockoptTCPInfo(int(sock.Fd()), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return info.Bytes_sent - info.Bytes_retrans
}

// missingOutput says where sshd's output is when the log has none.
func missingOutput(log *sshdexec.Log) string {
	if log.Syslog {
		return "its output is in syslog"
	}
	if info, err := log.File.Stat(); err == nil && !info.Mode().IsRegular() {
		return "its output is on standard error"
	}
	return "it logged nothing"
}

// exitError is the error of an sshd that exited before its first byte to the
// client, with the last lines of its log.
func exitError(status unix.WaitStatus, c *dial.Conn, log *sshdexec.Log) error {
	output := log.Tail(3)
	if strings.Contains(output, "Connection from ") {
		// sshd accepted the socket, so the client closed the connection.
		return sysexits.New(sysexits.Unavailable, clientHint,
			fmt.Errorf("%v accepted the connection and closed it before SSH began: %s", c.Remote, output))
	}
	if cause := hostsaccess.Cause(hostsaccess.Dir); output == "" && status.ExitStatus() == 0 && cause != "" {
		return sysexits.New(sysexits.NoPerm, "correct that line; hosts_access(5)",
			fmt.Errorf("sshd took the connection to %v and ended it: %s", c.Remote, cause))
	}
	if output == "" {
		output = missingOutput(log)
	}
	code := sysexits.Config
	if strings.Contains(output, "no hostkeys available") {
		code = sysexits.NoInput
	}
	return sysexits.New(code, "callhome-trigger --check shows what is missing",
		fmt.Errorf("sshd ended with status %d before it took the connection to %v: %s", status.ExitStatus(), c.Remote, output))
}
