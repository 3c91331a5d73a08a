package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/proto"
)

// stub stands in for sshd where its own cost would hide ours: it logs the
// connection as sshd does, and goes on with what is given.
const stub = `#!/bin/bash
echo 'Connection from 127.0.0.1 port 1 on 127.0.0.1 port 2' >&2
%s
`

// holds is a stub's session: the lines of a login from the socket's peer, and the
// processes that sshd has after it, because the manager believes no line alone.
const holds = `inode=$(readlink /proc/self/fd/0)
port=
while [ -z "$port" ]; do # a table that changes while it is read may lack a line
	port=$(awk -v i="${inode//[!0-9]/}" '$10 == i { split($3, a, ":"); print a[2]; exit }' /proc/net/tcp)
done
from="127.0.0.1 port $((16#$port))"
echo "Accepted publickey for root from $from ssh2: ED25519 SHA256:x" >&2
echo "Starting session: subsystem 'netconf' for root from $from id 0" >&2
bash -c 'exec -a "sshd: root@notty" bash -c "cat > /dev/null; :"'`

// stubbed starts a manager whose sshd is a stub, and a station that accepts and
// reads; end stops both.
func (f *fixture) stubbed(name, rest string) (d *daemon, l *net.TCPListener, end func(), err error) {
	if err := os.WriteFile(f.path(name+".sshd"), fmt.Appendf(nil, stub, rest), 0o755); err != nil {
		return nil, nil, nil, err
	}
	if l, err = listen(); err != nil {
		return nil, nil, nil, err
	}
	if d, err = f.startManager(name, "CALLHOME_SSHD="+f.path(name+".sshd")); err != nil {
		l.Close()
		return nil, nil, nil, err
	}
	go drain(l)
	return d, l, func() { l.Close(); d.end() }, nil
}

// throughput counts calls that end at once.
func throughput(f *fixture) error {
	d, l, end, err := f.stubbed("throughput", "exit 0")
	if err != nil {
		return err
	}
	defer end()
	const callers, calls = 8, 4000
	var wg sync.WaitGroup
	var failed atomic.Int64
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			for range calls / callers {
				if d.call(l, proto.WaitNone) != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	answered := time.Since(begin)
	for {
		var st proto.Status
		if err := d.client.Call(context.Background(), proto.MethodStatus, nil, &st); err != nil {
			return err
		}
		if st.Sessions == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Printf("API calls, %d by %d callers, stub in place of sshd: %.0f a second answered, %.0f a second over with their sessions, %d failed\n",
		calls, callers, calls/answered.Seconds(), calls/time.Since(begin).Seconds(), failed.Load())
	return nil
}

// drain accepts and reads until the device or the listener is gone.
func drain(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}()
	}
}

// settleTime is how long a daemon is left alone before its memory is measured.
const settleTime = 5 * time.Second

// holding measures the daemon's memory by sessions held, and its CPU when
// nothing happens; sshd's own memory is stated beside it.
func holding(f *fixture) error {
	d, l, end, err := f.stubbed("holding", holds)
	if err != nil {
		return err
	}
	defer end()
	fmt.Printf("%-34s %10s %10s\n", "callhome-mgr holds", "RSS KiB", "anon KiB")
	var first int
	for have, n := 0, 0; ; n = min(n*5+100, *held) {
		for have < n {
			some := min(20, n-have)
			if err := atOnce(some, func() error { return d.call(l, proto.WaitNetconf) }); err != nil {
				return err
			}
			have += some
		}
		time.Sleep(settleTime)
		rss, anon := memory(d.cmd.Process.Pid)
		fmt.Printf("%-34s %10d %10d\n", strconv.Itoa(n)+" sessions", rss, anon)
		if n == 0 {
			first = rss
		}
		if n == *held {
			fmt.Printf("%-34s %10.1f\n", "a session", float64(rss-first)/float64(n))
			break
		}
	}
	before := cpu(d.cmd.Process.Pid)
	time.Sleep(*idle)
	fmt.Printf("idle with %d sessions for %v: %d ms of CPU\n", *held, *idle, (cpu(d.cmd.Process.Pid)-before)*10)
	return f.sshdMemory()
}

// atOnce runs f n times at once and returns one of the errors.
func atOnce(n int, f func() error) error {
	failed := make(chan error, n)
	for range n {
		go func() { failed <- f() }()
	}
	var err error
	for range n {
		err = cmp.Or(<-failed, err)
	}
	return err
}

// sshdMemory measures what ten real sessions take, sshd and subsystem.
func (f *fixture) sshdMemory() error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	go drain(l)
	const n = 10
	for range n {
		if err := f.manager.call(l, proto.WaitTCP); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond) // until all of them wait for a client
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(f.manager.cmd.Process.Pid)).Output()
	if err != nil {
		return err
	}
	pss := 0
	for _, pid := range strings.Fields(string(out)) {
		pss += field("/proc/"+pid+"/smaps_rollup", "Pss:")
	}
	fmt.Printf("beside it: sshd waiting for a login, of %d: %d KiB PSS each, its unprivileged child apart\n", n, pss/n)
	return nil
}

func memory(pid int) (rss, anon int) {
	status := "/proc/" + strconv.Itoa(pid) + "/status"
	return field(status, "VmRSS:"), field(status, "RssAnon:")
}

// field returns a number of KiB from one of proc(5)'s files.
func field(file, name string) int {
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// cpu returns a process's user and system time in clock ticks of 10 ms.
func cpu(pid int) int {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}
