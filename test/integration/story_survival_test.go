//go:build integration

package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// netopID is netop's uid and gid.
const netopID = 4830

var unixCredential = *credential(netopID)

func credential(id uint32) *syscall.Credential {
	return &syscall.Credential{Uid: id, Gid: id}
}

// echo sends a line through a session whose subsystem is cat.
func (s *netconf) echo(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatalf("sending to the subsystem: %v", err)
	}
	_ = s.out.SetReadDeadline(time.Now().Add(patience))
	got, err := s.reader.ReadString('\n')
	if err != nil || got != line+"\n" {
		s.t.Fatalf("the subsystem answered %q, %v to %q", got, err, line)
	}
}

// Fifty sessions are held while the daemon is killed twenty times, at any
// moment, and calls go on: none is lost, none doubled, none left over.
func TestSessionsSurviveTwentyKills(t *testing.T) {
	const held, kills = 50, 20
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d)
	stations := make([]*netconf, held)
	sessions := make(map[int]proto.SessionInfo)
	for i := range stations {
		addr := freeAddr("127.0.0.1")
		stations[i] = nms.Netconf(addr)
		s := m.MustCallHome(addr, proto.WaitNetconf)
		sessions[s.Session] = s
	}
	silent := listen(t, "127.0.0.1:0")
	var taken sync.WaitGroup
	taken.Go(func() {
		for {
			c, err := silent.Listener.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = io.Copy(io.Discard, c) // the banner, and then it hangs up
			c.Close()
		}
	})
	for range kills {
		stop := make(chan struct{})
		var callers sync.WaitGroup
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = m.CallHome(silent.Addr(), proto.WaitTCP) // the daemon may be killed meanwhile
				}
			}
		})
		// Any moment: that is the point, so it is drawn and not awaited.
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		close(stop)
		m.Signal(unix.SIGKILL)
		callers.Wait()
		m.Kill9()
		m.begin()
	}
	silent.Listener.Close()
	taken.Wait()
	sandbox.Await(t, 3*patience, "the held sessions alone", func() error {
		seen := make(map[int]bool)
		for _, s := range m.Sessions() {
			if was, ok := sessions[s.Session]; !ok {
				return fmt.Errorf("session %d is %s at %s", s.Session, s.State, s.Remote)
			} else if s.PID != was.PID || s.User != was.User || !s.Since.Equal(was.Since) {
				return fmt.Errorf("session %d was %+v and is %+v", s.Session, was, s)
			}
			if seen[s.Session] {
				return fmt.Errorf("session %d stands twice", s.Session)
			}
			seen[s.Session] = true
		}
		if len(seen) != held {
			return fmt.Errorf("%d sessions of %d", len(seen), held)
		}
		return nil
	})
	for i, s := range stations {
		s.echo(strconv.Itoa(i))
	}
	for i, s := range stations {
		s.in.Close() // the end of what ssh has to send
		s.MustExit(0)
		_ = i
	}
	m.AwaitNone()
	left, err := os.ReadDir(m.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if f.Name() != "last" && f.Name() != "lock" {
			t.Errorf("left over in the state directory: %s", f.Name())
		}
	}
	// What a manager has open without a session is what this one has.
	fresh := startManager(t, newDevice(t, "/bin/cat"))
	if have, want := len(descriptors(m.pid)), len(descriptors(fresh.pid)); have != want {
		t.Errorf("%d descriptors, a new manager has %d: %v", have, want, descriptors(m.pid))
	}
}

// Ten thousand call homes through one daemon, with a stub for sshd so that
// sshd's cost does not hide ours: nothing grows.
func TestTenThousandCallsLeaveNothing(t *testing.T) {
	const calls, callers = 10000, 8
	// The stub says what sshd says until the station hangs up.
	stub := writeFile(t, tempDir(t)+"/sshd", `#!/bin/sh
echo 'Connection from 127.0.0.1 port 1 on 127.0.0.1 port 2' >&2
echo SSH-2.0-stub
exit 255
`, 0o755)
	d := newDevice(t, "/bin/cat")
	d.options = append(d.options, "--sshd", stub)
	m := startManager(t, d)
	station := listen(t, "127.0.0.1:0")
	go func() {
		for {
			c, err := station.Listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	burst := func(n int) {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range n / callers {
					if _, err := m.CallHome(station.Addr(), proto.WaitTCP); err != nil && !strings.Contains(err.Error(), "status 255") {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		m.AwaitNone()
	}
	burst(1000)
	before, rssBefore, threadsBefore := len(descriptors(m.pid)), rss(t, m.pid), status(t, m.pid, "Threads")
	burst(calls)
	after, rssAfter, threadsAfter := len(descriptors(m.pid)), rss(t, m.pid), status(t, m.pid, "Threads")
	t.Logf("descriptors %d to %d, memory %d to %d KiB, threads %s to %s", before, after, rssBefore, rssAfter, threadsBefore, threadsAfter)
	if after != before {
		t.Errorf("descriptors grew from %d to %d: %v", before, after, descriptors(m.pid))
	}
	if rssAfter > rssBefore+rssBefore/2 {
		t.Errorf("memory grew from %d to %d KiB", rssBefore, rssAfter)
	}
	var st proto.Status
	m.must(proto.MethodStatus, nil, &st)
	if st.Calls != calls+1000 {
		t.Errorf("%d calls were counted", st.Calls)
	}
}

// rss is a process's resident memory in KiB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(status(t, pid, "VmRSS"), " kB"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
