package sshdexec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LogDir is the default directory of the logs, one file for each session.
const LogDir = "/run/callhome/log"

// How many files LogDir keeps: above keepMost a new session removes the oldest
// ones of ended sessions until keepLeast are left.
const (
	keepMost  = 64
	keepLeast = 32
)

// maxLogs bounds what LogDir holds, in bytes: a peer without a key makes sshd write
// some 2 MB a second (measured).
const maxLogs = 16 << 20

// Log becomes descriptor 2 of sshd. It never blocks sshd, as an unread pipe
// would, and loses no line.
type Log struct {
	// File is open for appending; the owner of the Log owns it.
	File *os.File
	// Syslog: sshd logs to syslog, and File is /dev/null.
	Syslog bool
	start  int64 // the file's size before this session
}

// OpenLog opens the log for dest: "syslog", "stderr" (descriptor 2 as
// inherited: the caller must read it), the path of a file, or "auto".
// "auto" is descriptor 2 if that is a regular file, else a new file in dir, else,
// without the permission to write there, syslog. The caller owns the Log.
func OpenLog(dest, dir string, now time.Time) (*Log, error) {
	switch dest {
	case "syslog":
		return syslogLog()
	case "stderr":
		f, err := dupStderr()
		return &Log{File: f, start: sizeOf(f)}, err
	case "auto":
		if f, err := dupStderr(); err == nil && isRegular(f) {
			return &Log{File: f, start: sizeOf(f)}, nil
		} else if err == nil {
			f.Close()
		}
		f, err := newLogFile(dir, now)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			if l, err := syslogLog(); err == nil {
				return l, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("opening a log for sshd: %w", err)
		}
		return &Log{File: f}, nil
	default:
		// Opening an unread FIFO without O_NONBLOCK blocks.
		f, err := os.OpenFile(dest, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o640)
		if err != nil {
			return nil, fmt.Errorf("opening the log for sshd: %w", err)
		}
		if !isRegular(f) {
			f.Close()
			return nil, fmt.Errorf("opening the log for sshd: %s is not a regular file, and anything else can block the session", dest)
		}
		return &Log{File: f, start: sizeOf(f)}, nil
	}
}

func syslogLog() (*Log, error) {
	if _, err := os.Stat("/dev/log"); err != nil {
		return nil, fmt.Errorf("logging to syslog: %w", err)
	}
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	return &Log{File: f, Syslog: true}, err
}

func dupStderr() (*os.File, error) {
	fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor 2: %w", err)
	}
	return os.NewFile(uintptr(fd), "descriptor 2"), nil
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

func sizeOf(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// newLogFile makes the log file of a session that begins now. A lock on it
// (flock(2)) goes with the open file through exec and fork, and falls with the
// last process that has it open: a locked file is that of a live session.
func newLogFile(dir string, now time.Time) (*os.File, error) {
	// Its parent also holds the manager's socket, which other users connect to.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if dir == LogDir {
		_ = BoundDir(dir, maxLogs, 0o750) // best effort: not permitted to all
	}
	prune(dir)
	for {
		name := now.UTC().Format("20060102T150405.000000Z") + "-" + strconv.Itoa(os.Getpid()) + ".log"
		f, err := Open(filepath.Join(dir, name), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640)
		if err != nil {
			return nil, err
		}
		kept, err := lockLog(f)
		if kept {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// lockLog locks a new file. It reports false if another session's prune locked
// and removed the file first.
func lockLog(f *os.File) (bool, error) {
	if err := lock(f, unix.LOCK_SH); err != nil {
		return false, err
	}
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(mine, there), nil
}

// lock takes a lock of flock(2), and waits for it.
func lock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}

// contents returns how many files a file system has, with its root (0: it does not
// count them), and whether it has less than a quarter of its space left.
func contents(dir string) (files uint64, isFilled bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0, false
	}
	return st.Files - st.Ffree, st.Bavail < st.Blocks/4
}

// prune bounds the directory: the number of its files, and what they hold of
// LogDir's own file system. It is best effort: a log that cannot be removed must
// not keep a device from calling home.
func prune(dir string) {
	own := dir == LogDir && isMount(dir)
	full := func() bool {
		_, isFilled := contents(dir)
		return own && isFilled
	}
	// To read the directory takes 0.04 ms of a call home.
	if files, isFilled := contents(dir); own && files > 0 && files <= keepMost && !isFilled {
		return
	}
	d, err := Open(dir, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) <= keepMost && !full() {
		return
	}
	slices.Sort(names) // begins with the time: oldest first
	left := len(names)
	for _, name := range names {
		if left <= keepLeast && !full() {
			return
		}
		if strings.HasSuffix(name, ".log") && removeEnded(filepath.Join(dir, name)) {
			left--
		}
	}
}

func removeEnded(path string) bool {
	f, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	return os.Remove(path) == nil
}

// Head writes the first line of a session's log: the time, which sshd's lines
// lack, the NETCONF client, the local address, and the quoted opaque value.
func (l *Log) Head(now time.Time, host string, remote, local netip.AddrPort, opaque string) error {
	line := now.UTC().Format("2006-01-02T15:04:05.000Z") + " callhome-trigger[" + strconv.Itoa(os.Getpid()) + "]: connected to " +
		remote.String() + " (" + host + ") from " + local.String()
	if opaque != "" {
		line += " opaque " + strconv.QuoteToASCII(opaque)
	}
	_, err := io.WriteString(l.File, line+"\n")
	return err
}

// Tail returns the last lines that sshd wrote in this session, at most n,
// joined by "; " with control characters quoted; "" where the log is not a
// file or cannot be read.
func (l *Log) Tail(n int) string {
	const most = 4 << 10
	// Ours may be open for writing only.
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(l.File.Fd())))
	if err != nil {
		return ""
	}
	defer f.Close()
	if !isRegular(f) {
		return ""
	}
	from := max(l.start, sizeOf(f)-most)
	text, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return ""
	}
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, " callhome-trigger[") {
			continue
		}
		quoted := strconv.Quote(line)
		lines = append(lines, quoted[1:len(quoted)-1])
	}
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
