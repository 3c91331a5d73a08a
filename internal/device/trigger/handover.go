package trigger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// toSshd hands the connection to sshd: exec, or detach. It borrows log.
func toSshd(s *settings.Settings, c *dial.Conn, log *sshdexec.Log) error {
	if !log.Syslog {
		// A log that cannot be written (a full disk) must not keep the device
		// from calling home.
		_ = log.Head(time.Now(), s.Host, c.Remote, c.Local, s.Opaque)
	}
	s.Sshd.Syslog = log.Syslog
	if s.Handover == settings.HandoverDetach {
		return detach(&s.Sshd, c, log)
	}
	return notTaken(s.Sshd.Become(c.File, log.File), c)
}

// seeClient is the advice where the client ended the connection.
const seeClient = "see why the NETCONF client closes connections"

// notTaken gives a failed start of sshd its exit status.
func notTaken(err error, c *dial.Conn) error {
	if errors.Is(err, unix.ENOTCONN) {
		return wasReset(c)
	}
	return sysexits.New(osCode(err), "", err)
}

// wasReset says that the client has reset the connection meanwhile.
func wasReset(c *dial.Conn) error {
	return sysexits.New(sysexits.Unavailable, seeClient, fmt.Errorf("%v accepted the connection and reset it before it was handed over", c.Remote))
}

func osCode(err error) int {
	if errors.Is(err, fs.ErrPermission) {
		return sysexits.NoPerm
	}
	return sysexits.OSErr
}

// takeTime bounds how long sshd may take from its start to its first byte.
const takeTime = 15 * time.Second

// detach starts sshd and returns when it has taken the socket, which its
// version string on the wire proves. The session's log outlives us.
func detach(cmd *sshdexec.Command, c *dial.Conn, log *sshdexec.Log) error {
	before := bytesSent(c.File)
	p, err := cmd.Start(c.File, log.File)
	if err != nil {
		return notTaken(err, c)
	}
	defer p.Release()
	for end := time.Now().Add(takeTime); time.Now().Before(end); {
		// The kernel has no event for "a byte was sent", so look every 2 ms.
		var info unix.WaitStatus
		if pid, _ := unix.Wait4(p.Pid, &info, unix.WNOHANG, nil); pid == p.Pid && bytesSent(c.File) == before {
			return refusedBySshd(info, c, log)
		}
		if bytesSent(c.File) > before {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	_ = unix.Kill(-p.Pid, unix.SIGKILL)
	return sysexits.New(sysexits.OSErr, "callhome-trigger --check shows what is missing", fmt.Errorf("sshd took longer than %v to start and was ended", takeTime))
}

func bytesSent(sock *os.File) uint64 {
	info, err := unix.GetsockoptTCPInfo(int(sock.Fd()), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return info.Bytes_sent
}

// silence says where an sshd's words are that are not in a file, or that there
// are none.
func silence(log *sshdexec.Log) string {
	if log.Syslog {
		return "its output is in syslog"
	}
	if info, err := log.File.Stat(); err == nil && !info.Mode().IsRegular() {
		return "its output is on standard error"
	}
	return "it said nothing"
}

// refusedBySshd turns the words of an sshd that ended before it said anything
// to the client into an error.
func refusedBySshd(status unix.WaitStatus, c *dial.Conn, log *sshdexec.Log) error {
	words := log.Tail(3)
	if strings.Contains(words, "Connection from ") {
		// It had begun: the client was gone by then.
		return sysexits.New(sysexits.Unavailable, seeClient,
			fmt.Errorf("%v accepted the connection and closed it before SSH began: %s", c.Remote, words))
	}
	if words == "" {
		words = silence(log)
	}
	code := sysexits.Config
	if strings.Contains(words, "no hostkeys available") {
		code = sysexits.NoInput
	}
	return sysexits.New(code, "callhome-trigger --check shows what is missing",
		fmt.Errorf("sshd ended with status %d before it took the connection to %v: %s", status.ExitStatus(), c.Remote, words))
}
