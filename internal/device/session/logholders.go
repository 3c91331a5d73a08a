package session

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"callhome/internal/device/process"

	"golang.org/x/sys/unix"
)

// withLog returns the processes that have the log as descriptor 2.
func withLog(log os.FileInfo) (out []process.Identity) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		id, err := process.Identify(pid)
		if err != nil {
			continue
		}
		link := filepath.Join("/proc", p.Name(), "fd/2")
		path, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(filepath.Base(path), log.Name()) || !isFile(link, log) {
			continue
		}
		if id.Runs() { // it is this process that was looked at
			out = append(out, id)
		}
	}
	return out
}

// openLogs returns the numbers of the sessions in dir whose log is descriptor 2 of
// a process, also where the file was removed.
func openLogs(dir string) (ids []int) {
	own, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/2")
	for _, link := range links {
		path, err := os.Readlink(link)
		if err != nil || filepath.Dir(path) != filepath.Clean(dir) {
			continue
		}
		name, _, ok := strings.Cut(filepath.Base(path), ".log")
		// In a namespace of its own another process can have a file of that path.
		if id, err := strconv.ParseInt(name, 10, 32); ok && err == nil && id > 0 && !slices.Contains(ids, int(id)) && isOwn(link, own) {
			ids = append(ids, int(id))
		}
	}
	return ids
}

// statx describes the file behind a link of /proc without asking a file system that
// may not answer (FUSE, NFS).
func statx(link string) (st unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	return st, err
}

// isFile reports whether link leads to that file.
func isFile(link string, file os.FileInfo) bool {
	st, err := statx(link)
	want, ok := file.Sys().(*syscall.Stat_t)
	return err == nil && ok && st.Ino == want.Ino && onDevice(st, want)
}

// isOwn reports whether link leads to a regular file of ours, in the file system of
// that directory.
func isOwn(link string, dir os.FileInfo) bool {
	st, err := statx(link)
	want, ok := dir.Sys().(*syscall.Stat_t)
	return err == nil && ok && uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Geteuid() && onDevice(st, want)
}

// onDevice reports whether both are in one file system. Dev has 32 bits on MIPS.
func onDevice(st unix.Statx_t, want *syscall.Stat_t) bool {
	return unix.Mkdev(st.Dev_major, st.Dev_minor) == uint64(want.Dev)
}
