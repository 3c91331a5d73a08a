package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"

	"golang.org/x/sys/unix"
)

// heldBefore are the devices that the station holds before a storm; sessions are
// opened on them.
const heldBefore = 50

// attackTime is how long sessions are opened in an attack at least.
const attackTime = 10 * time.Second

// most is the largest storm: a device takes two descriptors of the station.
const most = 9000

// storms are what the station meets while sessions are opened on held devices.
var storms = []struct {
	name    string
	crowds  []string // KIND with the number of peers
	devices int      // that call home in it; 0: none
	limit   time.Duration
}{
	{"quiet", nil, 0, 10 * time.Second},
	{"storm of 3000 devices", nil, 3000, 90 * time.Second},
	{"1024 sources of versions, 12 devices", []string{"versions 1024"}, 12, 30 * time.Second},
	{"1024 sources of versions, storm of 3000", []string{"versions 1024"}, 3000, 90 * time.Second},
	{"64 sources of unknown keys, 12 devices", []string{"keys 64"}, 12, 30 * time.Second},
	{"4 devices that flood", []string{"flood 4"}, 0, 20 * time.Second},
	{"storm of 9000 devices", nil, most, 180 * time.Second},
}

// stormyStation measures, for each storm, how many devices log in and how long opening
// a session on a held device takes.
func stormyStation(f *fixture) error {
	dir := f.path("storm")
	if err := writeRegistry(dir, heldBefore+most+hostileFloods); err != nil {
		return err
	}
	fmt.Printf("%-48s %9s %9s %9s %9s %9s %9s\n", "management station, sessions on 50 held devices", "logins", "all s", "sessions", "failed", "p50 ms", "p99 ms")
	for i, s := range storms {
		if *only >= 0 && i != *only {
			continue
		}
		if err := f.storm(dir, s.name, s.crowds, s.devices, s.limit); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// hold has heldBefore devices call, and opens a session on each, before what is measured.
func (s *stormStation) hold() error {
	if err := s.crowd(0, "devices", 0, heldBefore); err != nil {
		return err
	}
	if _, err := s.await(heldBefore, time.Minute); err != nil {
		return err
	}
	for i := range heldBefore {
		if err := s.open(i); err != nil {
			return err
		}
	}
	return nil
}

func (f *fixture) storm(dir, name string, others []string, devices int, limit time.Duration) error {
	st, err := f.startStation(dir, "127.0.0.1:0", true)
	if err != nil {
		return err
	}
	defer st.end()
	if err := st.hold(); err != nil {
		return err
	}
	for _, o := range others {
		var kind string
		var n int
		if _, err := fmt.Sscan(o, &kind, &n); err != nil {
			return err
		}
		if err := st.crowd(15, kind, heldBefore+most, n); err != nil {
			return err
		}
	}
	if len(others) > 0 {
		time.Sleep(2 * time.Second) // the attack is there first
	}
	probed := st.probe()
	begin := time.Now()
	got := heldBefore
	if devices > 0 {
		if err := st.crowd(15, "devices", heldBefore, devices); err != nil {
			return err
		}
		got, err = st.await(heldBefore+devices, limit)
	} else {
		time.Sleep(limit)
	}
	took := fmt.Sprintf("%.1f", time.Since(begin).Seconds())
	if err != nil {
		took = "-"
	}
	if rest := attackTime - time.Since(begin); len(others) > 0 && rest > 0 {
		time.Sleep(rest)
	}
	p := probed()
	fmt.Printf("%-48s %9s %9s %9d %9d %9.1f %9.1f\n", name, fmt.Sprintf("%d/%d", got-heldBefore, devices), took, len(p.times), p.failed, ms(p.times[len(p.times)/2]), ms(p.times[len(p.times)*99/100]))
	return nil
}

// stormStation is a station and the crowds around it.
type stormStation struct {
	f      *fixture
	dir    string // its registry
	cmd    *exec.Cmd
	doors  string
	addr   string
	status func() (nmsproto.Status, error)
	crowds []*exec.Cmd
}

func (f *fixture) startStation(dir, listen string, withDoors bool) (*stormStation, error) {
	socket, doors := f.path("nms-storm"), ""
	if withDoors {
		doors = f.path("doors-storm")
	}
	s := &stormStation{f: f, dir: dir, doors: doors}
	s.cmd = exec.Command(program("callhome-nms"), "serve", "--listen", listen, "--metrics", "unix:"+f.path("metrics-storm"), "--registry", dir, "--socket", socket, "--device-sockets", doors,
		"--group", "", "--user", "root", "--key-file", f.path("user_key"), "--log-level", "error")
	s.cmd.Stderr = f.log
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	var st nmsproto.Status
	var err error
	if s.status, err = serveStatus(socket); err == nil {
		st, err = s.status()
	}
	if err != nil {
		s.end()
		return nil, err
	}
	s.addr = st.Listening[0]
	return s, nil
}

func (s *stormStation) end() {
	for _, c := range append(s.crowds, s.cmd) {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	_ = os.RemoveAll(s.f.path("doors-storm"))
	_ = os.Remove(s.f.path("nms-storm"))
	_ = os.Remove(s.f.path("metrics-storm"))
}

// crowd starts peers first to first+n, in a process of that niceness: on other
// machines they would take no processor time from the station.
func (s *stormStation) crowd(nice int, kind string, first, n int) error {
	c, err := s.crowdCommand(nice, kind, first, n)
	if err != nil {
		return err
	}
	return s.startCrowd(c)
}

func (s *stormStation) crowdCommand(nice int, kind string, first, n int) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command("nice", "-n", strconv.Itoa(nice), self, "-crowd", kind, s.addr, strconv.Itoa(first), strconv.Itoa(n), s.f.path("user_key.pub"))
	c.Stderr = os.Stderr
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return c, nil
}

func (s *stormStation) startCrowd(c *exec.Cmd) error {
	if err := c.Start(); err != nil {
		return err
	}
	s.crowds = append(s.crowds, c)
	return nil
}

// await waits until that many devices are connected, and returns how many are.
func (s *stormStation) await(n int, limit time.Duration) (int, error) {
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		st, err := s.status()
		if err != nil {
			return 0, err
		}
		got := st.Devices[nmsproto.Connected]
		if got >= n {
			return got, nil
		}
		if time.Since(begin) > limit {
			return got, errors.New("not all devices logged in")
		}
	}
}

// probes are the sessions that were opened.
type probes struct {
	times  []time.Duration
	failed int
}

// probe opens a session every 20 ms, on one held device after the other, until the
// returned function is called. It does not wait for one before it begins the next.
func (s *stormStation) probe() func() probes {
	stop, done := make(chan struct{}), make(chan probes)
	go func() {
		var mu sync.Mutex // guards p
		var wg sync.WaitGroup
		var p probes
		defer func() {
			wg.Wait()
			slices.Sort(p.times)
			done <- p
		}()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			wg.Go(func() {
				begin := time.Now()
				err := s.open(i % heldBefore)
				mu.Lock()
				defer mu.Unlock()
				p.times = append(p.times, time.Since(begin))
				if err != nil {
					p.failed++
				}
			})
		}
	}()
	return func() probes {
		close(stop)
		return <-done
	}
}

// open opens a session with a device and reads its hello.
func (s *stormStation) open(i int) error {
	id := fmt.Sprintf("d%d", i)
	var conn net.Conn
	var err error
	if s.doors == "" {
		conn, err = control.Open(context.Background(), s.f.path("nms-storm"), id)
	} else {
		conn, err = dialDoor(filepath.Join(s.doors, id+".sock"))
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, len(standInHello)))
	return err
}
