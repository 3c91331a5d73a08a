//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// proc is one row of the process table. PIDs come again; with its start time
// a process is named for good.
type proc struct {
	pid, parent, group, session int
	started                     uint64
	state                       byte
}

func (p proc) String() string {
	return fmt.Sprintf("pid %d, parent %d, group %d, session %d, state %c: %s", p.pid, p.parent, p.group, p.session, p.state, cmdline(p.pid))
}

// lookup reads /proc/PID/stat (proc(5)).
func lookup(pid int) (proc, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return proc{}, false
	}
	// The name in parentheses may hold anything.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	number := func(i int) int {
		n, _ := strconv.Atoi(string(f[i]))
		return n
	}
	started, _ := strconv.ParseUint(string(f[19]), 10, 64)
	return proc{pid: pid, state: f[0][0], parent: number(1), group: number(2), session: number(3), started: started}, true
}

func processes() []proc {
	names, err := os.ReadDir("/proc")
	if err != nil {
		panic(err) // without /proc no story means anything
	}
	var list []proc
	for _, name := range names {
		if pid, err := strconv.Atoi(name.Name()); err == nil {
			if p, ok := lookup(pid); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// family returns a process and all its descendants, and whatever is in its
// session or group.
func family(pid int) []proc {
	all := processes()
	in := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !in[p.pid] && (in[p.parent] || p.session == pid || p.group == pid) {
				in[p.pid], grown = true, true
			}
		}
	}
	var list []proc
	for _, p := range all {
		if in[p.pid] {
			list = append(list, p)
		}
	}
	return list
}

// leftovers returns every process here but process 1 and this one.
func leftovers() []proc {
	var list []proc
	for _, p := range processes() {
		if p.pid != 1 && p.pid != os.Getpid() {
			list = append(list, p)
		}
	}
	return list
}

// AwaitGone waits until none of these processes is left, nor any other of the
// sessions and groups that the first of them led. Orphans are found by it, too:
// take the family while it is whole.
func AwaitGone(t *testing.T, limit time.Duration, were []proc) {
	t.Helper()
	if len(were) == 0 {
		t.Fatal("no process to wait for: the family was taken too late")
	}
	sandbox.Await(t, limit, "end of every process of the session", func() error {
		var errs []error
		for _, p := range were {
			if now, ok := lookup(p.pid); ok && now.started == p.started {
				errs = append(errs, fmt.Errorf("left: %v", now))
			}
		}
		for _, p := range processes() {
			if first := were[0].pid; p.pid != first && (p.session == first || p.group == first) {
				errs = append(errs, fmt.Errorf("left of the session: %v", p))
			}
		}
		return errors.Join(errs...)
	})
}

func cmdline(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "(gone)"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
}

// executable returns the file a process runs.
func executable(t *testing.T, pid int) string {
	t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// descriptors returns what a process has open, by number.
func descriptors(pid int) map[string]string {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	names, _ := os.ReadDir(dir)
	open := make(map[string]string)
	for _, name := range names {
		if to, err := os.Readlink(dir + name.Name()); err == nil {
			open[name.Name()] = to
		}
	}
	return open
}

// status returns one line of /proc/PID/status.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in the status of process %d", key, pid)
	return ""
}

const (
	tcpEstablished = "01"
	tcpListen      = "0A"
)

// tcpSocket returns the inode of a TCP socket with that local port and state,
// in the network namespace of a process; "" if there is none.
func tcpSocket(pid int, port, state string) string {
	n, _ := strconv.Atoi(port)
	want := fmt.Sprintf(":%04X", n)
	for _, table := range []string{"tcp", "tcp6"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], want) && f[3] == state {
				return f[9]
			}
		}
	}
	return ""
}

// holders returns the processes that have the device's end of a connection
// open; remote is the device's address as the management station sees it.
func holders(remote net.Addr) []proc {
	addr, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		panic(err) // every connection here is TCP
	}
	inode := tcpSocket(os.Getpid(), fmt.Sprint(addr.Port()), tcpEstablished)
	if inode == "" {
		return nil
	}
	var list []proc
	for _, p := range processes() {
		for _, to := range descriptors(p.pid) {
			if to == "socket:["+inode+"]" {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

// signalSet reads a set as proc(5) writes it.
func signalSet(t *testing.T, hex string) map[unix.Signal]bool {
	t.Helper()
	bits, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[unix.Signal]bool)
	for i := range 64 {
		if bits&(1<<i) != 0 {
			set[unix.Signal(i+1)] = true
		}
	}
	return set
}
