//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// chaos is a device whose daemon keeps connections while faults happen to both, and
// the count of what each fault did.
type chaos struct {
	*keeper
	t       *testing.T
	site    *site
	station *station
	link    *link
	clients int
	files   int // in the state directory, with all sessions and no fault yet
	fds     int // descriptors of the daemon then, and after a restart, the more of both
	rows    map[string]*chaosRow
}

// chaosRow is what all faults of one kind did.
type chaosRow struct {
	times  int
	ended  int // sessions that the fault itself ended
	lost   int // others that ended
	double int // sessions more than clients when all was quiet again
	orphan int // processes of sessions that the daemon does not list
	leak   int // files and descriptors that belong to no session
}

// fault is one kind: do makes it happen and ends it, and returns the clients whose
// session it ended.
type fault struct {
	name string
	do   func(*chaos) (ended []string)
}

var faults = []fault{
	{"SIGKILL of callhome-mgr", func(c *chaos) []string { c.again(); return nil }},
	{"SIGSTOP of callhome-mgr, 2 s", func(c *chaos) []string {
		c.Signal(unix.SIGSTOP)
		time.Sleep(2 * time.Second) // the fault's length
		c.Signal(unix.SIGCONT)
		return nil
	}},
	{"SIGKILL and a damaged state file", func(c *chaos) []string {
		c.Kill9()
		c.damage()
		c.begin()
		return nil
	}},
	{"SIGKILL and no state files", func(c *chaos) []string {
		c.Kill9()
		files, _ := filepath.Glob(c.state + "/*.json")
		for _, f := range append(files, c.state+"/last") {
			_ = os.Remove(f)
		}
		c.begin()
		return nil
	}},
	{"SIGKILL of a session's sshd", func(c *chaos) []string {
		return c.hit(func(s proto.SessionInfo) { _ = unix.Kill(s.PID, unix.SIGKILL) })
	}},
	{"the NMS ends a session", func(c *chaos) []string { return c.hangUp() }},
	{"full disk, a session ends", func(c *chaos) []string {
		big, err := os.Create(filepath.Dir(c.state) + "/big")
		c.must0(err)
		for err == nil {
			_, err = big.Write(make([]byte, 64<<10))
		}
		_, _ = big.Write(make([]byte, 1))
		ended := c.hangUp()
		time.Sleep(time.Second) // calls are tried meanwhile
		c.must0(errors.Join(big.Close(), os.Remove(big.Name())))
		return ended
	}},
	{"read-only disk, a session ends", func(c *chaos) []string {
		// A mount with open files cannot become read-only: a read-only one covers it.
		c.must0(unix.Mount(c.state, c.state, "", unix.MS_BIND, ""))
		c.must0(unix.Mount("", c.state, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		ended := c.hangUp()
		time.Sleep(time.Second) // calls are tried meanwhile
		c.must0(unix.Unmount(c.state, 0))
		return ended
	}},
	{"no free descriptors, a session ends", func(c *chaos) []string {
		var was unix.Rlimit
		c.must0(unix.Prlimit(c.pid, unix.RLIMIT_NOFILE, nil, &was))
		c.must0(unix.Prlimit(c.pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(descriptors(c.pid))), Max: was.Max}, nil))
		ended := c.hangUp()
		time.Sleep(time.Second) // calls are tried meanwhile
		c.must0(unix.Prlimit(c.pid, unix.RLIMIT_NOFILE, &was, nil))
		return ended
	}},
	{"no free processes, a session ends", func(c *chaos) []string {
		group := pidsGroup(c.t)
		if group == "" {
			return nil
		}
		defer os.Remove(group)
		threads := status(c.t, c.pid, "Threads")
		c.must0(os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(c.pid)), 0))
		c.must0(os.WriteFile(group+"/pids.max", []byte(threads), 0))
		ended := c.hangUp()
		time.Sleep(time.Second) // calls are tried meanwhile
		c.must0(os.WriteFile(group+"/pids.max", []byte("max"), 0))
		c.settle()
		for _, pid := range strings.Fields(readFile(c.t, group+"/cgroup.procs")) {
			_ = os.WriteFile(filepath.Dir(group)+"/cgroup.procs", []byte(pid), 0) // it may have ended
		}
		return ended
	}},
	{"the link is down for 1 s", func(c *chaos) []string {
		c.link.Pull()
		time.Sleep(time.Second) // the fault's length
		c.link.Plug()
		return nil
	}},
}

// Sessions are held while one fault after the other happens. After each, no session
// is lost but those that the fault itself ended, none is doubled, and nothing is left
// over. CHAOS is how long that goes on (`make chaos`), with 50 sessions; without it
// each fault happens once, with 8.
func TestChaos(t *testing.T) {
	t.Parallel()
	c := newChaos(t, 8)
	length, err := time.ParseDuration(os.Getenv("CHAOS"))
	if os.Getenv("CHAOS") == "" {
		for _, f := range faults {
			c.round(f)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		c.round(faults[rand.IntN(len(faults))])
	}
	t.Logf("%d sessions\n%s", c.clients, c.table())
}

func newChaos(t *testing.T, clients int) *chaos {
	t.Helper()
	if os.Getenv("CHAOS") != "" {
		clients = 50
	}
	s, l := newLinkedSite(t)
	c := &chaos{t: t, site: s, link: l, clients: clients, rows: make(map[string]*chaosRow), station: s.nms.Station(freeAddr(nmsV4))}
	c.keeper = s.Keep(document())
	c.Kill9()
	// A file system of its own, which the faults fill.
	disk := tempDir(t)
	c.must0(unix.Mount("chaos", disk, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	c.state = disk + "/sessions"
	c.begin()
	list := make([]object, clients)
	for i := range list {
		list[i] = persistent(fmt.Sprintf("nms-%d", i), putSSH(s.At(c.station.Addr), object{"max-wait": 10, "max-attempts": 3}, "keepalives"))
	}
	c.Reload(document(list...))
	c.files, c.fds = 1<<20, 1<<20
	for _, problem := range c.settle() {
		t.Fatal(problem)
	}
	files, fds := len(c.stateFiles()), len(descriptors(c.pid))
	c.again()
	for _, problem := range c.settle() {
		t.Fatal(problem)
	}
	c.files, c.fds = files, max(fds, len(descriptors(c.pid)))
	return c
}

func (c *chaos) must0(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// again kills the daemon and starts the next one.
func (c *chaos) again() {
	c.Kill9()
	c.begin()
}

// damage changes, cuts or removes one of the daemon's state files.
func (c *chaos) damage() {
	files, err := filepath.Glob(c.state + "/*.json")
	c.must0(err)
	file := append(files, c.state+"/last")[rand.IntN(len(files)+1)]
	text := []byte(readFile(c.t, file))
	switch at := rand.IntN(len(text)); rand.IntN(3) {
	case 0:
		text[at] ^= 1 << rand.IntN(8)
	case 1:
		text = text[:at]
	case 2:
		c.must0(os.Remove(file))
		return
	}
	writeFile(c.t, file, string(text), 0o600)
}

// hit ends one session in a way of its own and returns its client.
func (c *chaos) hit(end func(proto.SessionInfo)) []string {
	all := c.Sessions()
	s := all[rand.IntN(len(all))]
	end(s)
	return []string{s.Client}
}

// hangUp has the station end one session, and returns its client.
func (c *chaos) hangUp() []string {
	return c.hit(func(s proto.SessionInfo) {
		for _, one := range c.station.Live() {
			if one.from == s.Local {
				one.Signal(unix.SIGKILL)
				return
			}
		}
		c.t.Errorf("the station has no session with %s", s.Local)
	})
}

// round has one fault happen and counts what it did.
func (c *chaos) round(f fault) {
	before := c.byClient()
	ended := f.do(c)
	for end := time.Now().Add(patience); c.still(before, ended) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) // the fault is not noticed yet
	}
	problems := c.settle()
	row := c.rows[f.name]
	if row == nil {
		row = new(chaosRow)
		c.rows[f.name] = row
	}
	row.times++
	row.ended += len(ended)
	after := c.byClient()
	for client, s := range before {
		if !slices.Contains(ended, client) && after[client].PID != s.PID {
			row.lost++
			c.t.Errorf("%s: the session of %s was %+v and is %+v", f.name, client, s, after[client])
		}
	}
	row.double += max(0, len(c.station.Live())-c.clients)
	row.orphan += len(c.orphans())
	row.leak += c.leaks()
	for _, p := range problems {
		c.t.Errorf("%s: %v", f.name, p)
	}
}

// still reports whether a session that the fault ended is still listed.
func (c *chaos) still(before map[string]proto.SessionInfo, ended []string) bool {
	now := c.byClient()
	return slices.ContainsFunc(ended, func(client string) bool { return now[client].PID == before[client].PID })
}

func (c *chaos) byClient() map[string]proto.SessionInfo {
	out := make(map[string]proto.SessionInfo)
	for _, s := range c.Sessions() {
		out[s.Client] = s
	}
	return out
}

// settle waits until each client has one session that serves and nothing else is
// left, and returns what is wrong otherwise.
func (c *chaos) settle() (problems []error) {
	for end := time.Now().Add(2 * patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		problems = nil
		serving := make(map[string]int)
		for _, s := range c.Sessions() {
			if s.State == proto.StateServing {
				serving[s.Client]++
			} else {
				problems = append(problems, fmt.Errorf("session %d is %s", s.Session, s.State))
			}
		}
		if len(serving) != c.clients {
			problems = append(problems, fmt.Errorf("%d clients of %d are served", len(serving), c.clients))
		}
		if n := len(c.station.Live()); n != c.clients {
			problems = append(problems, fmt.Errorf("the station has %d sessions", n))
		}
		if orphans := c.orphans(); len(orphans) > 0 {
			problems = append(problems, fmt.Errorf("processes of no session: %v", orphans))
		}
		if n := c.leaks(); n > 0 {
			problems = append(problems, fmt.Errorf("%d files or descriptors too many: %v, %v", n, c.stateFiles(), descriptors(c.pid)))
		}
		if len(problems) == 0 {
			return nil
		}
	}
	return problems
}

// orphans returns processes that write the log of a session that is not listed.
func (c *chaos) orphans() (list []proc) {
	listed := make(map[string]bool)
	for _, s := range c.Sessions() {
		listed[fmt.Sprintf("%s/%d.log", c.state, s.Session)] = true
	}
	for _, p := range processes() {
		log, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", p.pid))
		log = strings.TrimSuffix(log, " (deleted)")
		if strings.HasPrefix(log, c.state+"/") && !listed[log] {
			list = append(list, p)
		}
	}
	return list
}

// leaks counts files and descriptors beyond those of the sessions.
func (c *chaos) leaks() int {
	return max(0, len(c.stateFiles())-c.files) + max(0, len(descriptors(c.pid))-c.fds)
}

func (c *chaos) stateFiles() []string {
	names, err := filepath.Glob(c.state + "/*")
	c.must0(err)
	return names
}

func (c *chaos) table() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\ttimes\tended by it\tlost\tdoubled\torphaned\tleaked")
	for _, f := range faults {
		if r := c.rows[f.name]; r != nil {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", f.name, r.times, r.ended, r.lost, r.double, r.orphan, r.leak)
		}
	}
	w.Flush()
	return b.String()
}

// pidsGroup makes a control group that limits processes, "" where none can be made.
func pidsGroup(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir := fmt.Sprintf("%s/callhome-test-%d", parent, os.Getpid())
		if err := os.Mkdir(dir, 0o755); err == nil {
			if _, err := os.Stat(dir + "/pids.max"); err == nil {
				return dir
			}
			_ = os.Remove(dir)
		}
	}
	t.Log("no control group for processes can be made here: the fault is left out")
	return ""
}
