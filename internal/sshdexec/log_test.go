package sshdexec

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 123456000, time.UTC)

// withStderr puts f on descriptor 2 until the test ends.
func withStderr(t *testing.T, f *os.File) {
	t.Helper()
	saved, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.Dup3(int(f.Fd()), 2, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Dup3(saved, 2, 0); err != nil {
			t.Error(err)
		}
		unix.Close(saved)
	})
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func mustOpenLog(t *testing.T, dest, dir string) *Log {
	t.Helper()
	l, err := OpenLog(dest, dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.File.Close() })
	return l
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func sameFile(t *testing.T, a, b *os.File) bool {
	t.Helper()
	x, err := a.Stat()
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

// Where the session's log goes, by what descriptor 2 is and what was asked for.
func TestOpenLog(t *testing.T) {
	t.Run("auto, the caller's stderr is a file: there", func(t *testing.T) {
		f := textFile(t, "before\n")
		withStderr(t, f)
		if l := mustOpenLog(t, "auto", "/proc/nonexistent"); !sameFile(t, l.File, f) {
			t.Errorf("goes to %s", l.File.Name())
		}
	})
	t.Run("auto, the caller's stderr is a pipe: a file of its own, never the pipe", func(t *testing.T) {
		_, w := pipe(t)
		withStderr(t, w)
		dir := filepath.Join(t.TempDir(), "callhome", "log") // is made
		before := openDescriptors(t)
		l := mustOpenLog(t, "auto", dir)
		if open := openDescriptors(t); open != before+1 {
			t.Errorf("%d descriptors more are open, want 1", open-before)
		}
		want := filepath.Join(dir, "20260304T120000.123456Z-"+strconv.Itoa(os.Getpid())+".log")
		info, err := os.Stat(want)
		if err != nil || l.File.Name() != want {
			t.Fatalf("goes to %s, %v", l.File.Name(), err)
		}
		if err := l.Head(noon, "nms", netip.AddrPort{}, netip.AddrPort{}, ""); err != nil {
			t.Error(err)
		}
		if _, err := l.File.WriteString("sshd's\n"); err != nil {
			t.Error(err)
		}
		if got := l.Tail(3); got != "sshd's" {
			t.Errorf("its tail is %q", got)
		}
		// Less with the umask of the caller.
		if info.Mode()&^0o640 != 0 {
			t.Errorf("mode %v", info.Mode())
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&^0o750 != 0 {
			t.Errorf("its directory has mode %v, %v", info.Mode(), err)
		}
	})
	t.Run("stderr is what was inherited, whatever it is", func(t *testing.T) {
		_, w := pipe(t)
		withStderr(t, w)
		if l := mustOpenLog(t, "stderr", "/proc/nonexistent"); !sameFile(t, l.File, w) || l.File.Fd() == 2 {
			t.Errorf("goes to %s, descriptor %d", l.File.Name(), l.File.Fd())
		}
	})
	t.Run("a file is made and appended to", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		for range 2 {
			l := mustOpenLog(t, path, "/proc/nonexistent")
			if _, err := l.File.WriteString("line\n"); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "line\nline\n" {
			t.Errorf("the file has %q, %v", text, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&^0o640 != 0 {
			t.Errorf("its mode is %v, %v", info.Mode(), err)
		}
	})
	t.Run("syslog where the machine has one", func(t *testing.T) {
		l, err := OpenLog("syslog", "/proc/nonexistent", noon)
		expectSyslog(t, l, err, "logging to syslog: ")
	})
	// Where even root may not write (sysfs), as an ordinary user may not in /run.
	t.Run("auto, nothing can be written: syslog where the machine has one", func(t *testing.T) {
		_, w := pipe(t)
		withStderr(t, w)
		l, err := OpenLog("auto", "/sys/callhome-test", noon)
		expectSyslog(t, l, err, "opening a log for sshd: mkdir /sys/callhome-test: ")
	})
}

func expectSyslog(t *testing.T, l *Log, err error, otherwise string) {
	t.Helper()
	if _, none := os.Stat("/dev/log"); none != nil {
		if err == nil || !strings.HasPrefix(err.Error(), otherwise) {
			t.Errorf("without /dev/log: %v, want %s", err, otherwise)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.File.Close()
	if !l.Syslog || l.File.Name() != os.DevNull {
		t.Errorf("with /dev/log: syslog %v, descriptor 2 is %s", l.Syslog, l.File.Name())
	}
}

func TestOpenLogRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, dest, says string }{
		{"a directory", dir, "is a directory"},
		{"a file in no directory", filepath.Join(dir, "none", "log"), "no such file or directory"},
		{"a device", "/dev/null", "/dev/null is not a regular file, and anything else can block the session"},
		{"a pipe without a reader", fifo, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := openDescriptors(t)
			result := make(chan error, 1)
			go func() {
				l, err := OpenLog(tt.dest, dir, noon)
				if err == nil {
					l.File.Close()
				}
				result <- err
			}()
			select {
			case err := <-result:
				if err == nil || !strings.HasPrefix(err.Error(), "opening the log for sshd: ") || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("says %v, want %q in it", err, tt.says)
				}
			case <-time.After(time.Minute):
				t.Error("hangs, with the NETCONF client on the line")
				if r, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil { // lets it go on
					<-result
					r.Close()
				}
			}
			if open := openDescriptors(t); open != before {
				t.Errorf("%d descriptors are left", open-before)
			}
		})
	}
}

// flocked reports whether a process holds the lock of a log.
func flocked(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// The lock lasts as long as a process has the open file: sshd and its children
// get it by exec and fork, here it is a duplicate.
func TestLogIsLockedWhileItsSessionLives(t *testing.T) {
	f, err := newLogFile(t.TempDir(), noon)
	if err != nil {
		t.Fatal(err)
	}
	sshds, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	if !flocked(t, f.Name()) {
		t.Error("not locked at the start")
	}
	f.Close()
	if !flocked(t, f.Name()) {
		t.Error("not locked though a descriptor is left")
	}
	unix.Close(sshds)
	if flocked(t, f.Name()) {
		t.Error("locked though no process is left")
	}
}

func TestTwoSessionsNeverShareALog(t *testing.T) {
	dir := t.TempDir()
	f, err := newLogFile(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if second, err := newLogFile(dir, noon); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, %v", second, err)
	}
}

func TestPruning(t *testing.T) {
	for _, tt := range []struct {
		name  string
		logs  int   // before
		lives []int // those whose session lives, the oldest is 0
		other int   // files that are no logs
		left  []int // the logs that must be there after
	}{
		{"none", 0, nil, 0, nil},
		{"as many as are kept", keepMost, nil, 0, upTo(0, keepMost)},
		{"one more: the oldest go", keepMost + 1, nil, 0, upTo(keepMost+1-keepLeast, keepMost+1)},
		{"a living session keeps its log, however old", keepMost + 1, []int{0, 5}, 0, append([]int{0, 5}, upTo(keepMost+1-keepLeast+2, keepMost+1)...)},
		{"all live: all stay", keepMost + 6, upTo(0, keepMost+6), 0, upTo(0, keepMost+6)},
		{"what is no log stays", keepMost, nil, 1, upTo(keepMost-keepLeast+1, keepMost)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			name := func(i int) string { return fmt.Sprintf("20250101T0000%02d.000000Z-1.log", i) }
			for i := range tt.logs {
				f, err := os.Create(filepath.Join(dir, name(i)))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if slices.Contains(tt.lives, i) {
					if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
						t.Fatal(err)
					}
				}
			}
			var want []string
			for i := range tt.other {
				want = append(want, fmt.Sprintf("0-not-ours-%d", i))
				if err := os.WriteFile(filepath.Join(dir, want[i]), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := openDescriptors(t)
			f, err := newLogFile(dir, noon)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if open := openDescriptors(t); open != before+1 {
				t.Errorf("%d descriptors more are open, want 1", open-before)
			}
			for _, i := range tt.left {
				want = append(want, name(i))
			}
			want = append(want, filepath.Base(f.Name()))
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d files are left, want %d:\n%q\n%q", len(got), len(want), got, want)
			}
		})
	}
}

func upTo(from, to int) []int {
	var out []int
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func TestHeadIsOneLine(t *testing.T) {
	remote, local := netip.MustParseAddrPort("[2001:db8::1]:4334"), netip.MustParseAddrPort("[2001:db8::2]:51112")
	for _, tt := range []struct{ opaque, want string }{
		{"", ""},
		{"site 7", ` opaque "site 7"`},
		{"a\nMar 4 sshd: Accepted \"x\"\x1b[31m\x00é\xff", ` opaque "a\nMar 4 sshd: Accepted \"x\"\x1b[31m\x00\u00e9\xff"`},
	} {
		f := textFile(t, "")
		l := &Log{File: f}
		if err := l.Head(noon, "nms.example", remote, local, tt.opaque); err != nil {
			t.Fatal(err)
		}
		want := "2026-03-04T12:00:00.123Z callhome-trigger[" + strconv.Itoa(os.Getpid()) + "]: connected to [2001:db8::1]:4334 (nms.example) from [2001:db8::2]:51112" + tt.want + "\n"
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != want {
			t.Errorf("opaque %q gives\n%q, want\n%q", tt.opaque, got, want)
		}
	}
}

func TestTail(t *testing.T) {
	head := "2026-03-04T12:00:00.123Z callhome-trigger[1]: connected to x\n"
	for _, tt := range []struct {
		name, before, text string
		want               string
	}{
		{"nothing", "", "", ""},
		{"only our own line", "", head, ""},
		{"one line", "", head + "sshd: no hostkeys available -- exiting.\r\n", "sshd: no hostkeys available -- exiting."},
		{"the last two", "", head + "a\r\nb\r\nc\r\n", "b; c"},
		{"empty lines do not count", "", "a\n\n \r\nb\n\n", "a; b"},
		{"a line without its end", "", "a\nb", "a; b"},
		{"a former session's lines do not count", "old\n", head + "new\n", "new"},
		{"a former session's lines alone", "old\n", "", ""},
		{"control characters are quoted", "", "a\x1b[31m\x00\"b\"\tc\n", `a\x1b[31m\x00\"b\"\tc`},
		{"a log larger than is looked at", strings.Repeat("old\n", 5000), strings.Repeat("x\n", 5000) + "a\nb\n", "a; b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := textFile(t, tt.before)
			l := mustOpenLog(t, f.Name(), "/proc/nonexistent")
			if _, err := l.File.WriteString(tt.text); err != nil {
				t.Fatal(err)
			}
			if got := l.Tail(2); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// The two logs that may be a file which others wrote before.
func TestTailOfTheCallersStderr(t *testing.T) {
	for _, dest := range []string{"auto", "stderr"} {
		t.Run(dest, func(t *testing.T) {
			f := textFile(t, "the caller's own\n")
			withStderr(t, f)
			l := mustOpenLog(t, dest, "/proc/nonexistent")
			if _, err := l.File.WriteString("sshd's\n"); err != nil {
				t.Fatal(err)
			}
			if got := l.Tail(3); got != "sshd's" {
				t.Errorf("%q, want %q", got, "sshd's")
			}
		})
	}
}

// Tail never reads a pipe: its content belongs to the reader at the other end.
func TestTailLeavesAPipeAlone(t *testing.T) {
	r, w := pipe(t)
	if _, err := w.WriteString("line\n"); err != nil {
		t.Fatal(err)
	}
	if got := (&Log{File: w}).Tail(3); got != "" {
		t.Errorf("%q", got)
	}
	buf := make([]byte, 16)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "line\n" {
		t.Errorf("the pipe holds %q, %v", buf[:n], err)
	}
}

func TestNamesOfLogsSortByTime(t *testing.T) {
	dir := t.TempDir()
	pattern := regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9]+\.log$`)
	var names []string
	for _, when := range []time.Time{noon, noon.Add(time.Microsecond), noon.Add(time.Second), noon.In(time.FixedZone("", 3600)).Add(time.Hour), noon.AddDate(1, 0, 0)} {
		f, err := newLogFile(dir, when)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		names = append(names, filepath.Base(f.Name()))
	}
	for _, n := range names {
		if !pattern.MatchString(n) {
			t.Errorf("name %s", n)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %q", names)
	}
}
