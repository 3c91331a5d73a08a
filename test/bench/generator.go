package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/device/schedule"
	"callhome/internal/nms/sshtest"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// fleetNice is the niceness of the devices. On other machines they would take no processor
// time from the station; but devices that get none for seconds are evicted.
const fleetNice = 5

// perProcess bounds the devices of one process.
const perProcess = 5000

// generator is the devices of a fleet, in processes of their own as on other machines.
type generator struct {
	start []io.Writer

	mu             sync.Mutex // guards the fields that follow
	logins, failed []int      // of each process, so far
}

// fleet makes devices first to first+n. They call from begin on.
func (s *stormStation) fleet(first, n int) (*generator, error) {
	g := &generator{}
	for ; n > 0; first, n = first+perProcess, n-perProcess {
		c, err := s.crowdCommand(fleetNice, "fleet", first, min(n, perProcess))
		if err != nil {
			return nil, err
		}
		start, err := c.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := s.startCrowd(c); err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			return nil, fmt.Errorf("the devices were not made: %q", lines.Text())
		}
		i := len(g.start)
		g.start, g.logins, g.failed = append(g.start, start), append(g.logins, 0), append(g.failed, 0)
		defer func() { go g.read(i, lines) }()
	}
	return g, nil
}

// read takes the counts of process i from its output.
func (g *generator) read(i int, lines *bufio.Scanner) {
	for lines.Scan() {
		var logins, failed int
		if _, err := fmt.Sscan(lines.Text(), &logins, &failed); err == nil {
			g.mu.Lock()
			g.logins[i], g.failed[i] = logins, failed
			g.mu.Unlock()
		}
	}
}

func (g *generator) begin() error {
	for _, w := range g.start {
		if _, err := io.WriteString(w, "begin\n"); err != nil {
			return err
		}
	}
	return nil
}

// counts are the logins so far, and the calls that were connected and did not log in.
func (g *generator) counts() (logins, failed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.logins {
		logins, failed = logins+g.logins[i], failed+g.failed[i]
	}
	return logins, failed
}

// fleet is devices with callhome-mgr's own schedule. They begin with a line on standard
// input, and report their counts on standard output.
func (c crowd) fleet() error {
	hosts := make([]ssh.Signer, c.n)
	for i := range hosts {
		var err error
		if hosts[i], err = hostKey(c.first + i); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var logins, failed atomic.Int64
	for i, host := range hosts {
		d := &fleetDevice{crowd: c, i: c.first + i, host: host, logins: &logins, failed: &failed}
		go d.run()
	}
	for {
		time.Sleep(20 * time.Millisecond)
		fmt.Println(logins.Load(), failed.Load())
	}
}

// fleetDevice is one device of a fleet.
type fleetDevice struct {
	crowd
	i              int
	host           ssh.Signer
	logins, failed *atomic.Int64
	state          schedule.State
}

// policy is that of a client without options.
var policy = &schedule.Policy{Endpoints: 1, MaxAttempts: 3, Pause: schedule.DefaultPause}

// run calls home for ever.
func (d *fleetDevice) run() {
	do := d.step(schedule.Event{Kind: schedule.Begin}, time.Now())
	for {
		for !do.Call {
			time.Sleep(time.Until(d.state.At))
			do = d.step(schedule.Event{Kind: schedule.Tick}, time.Now())
		}
		do = d.step(d.call(), time.Now())
	}
}

func (d *fleetDevice) step(e schedule.Event, now time.Time) (do schedule.Do) {
	d.state, do = policy.Step(d.state, e, now, randFloat())
	return do
}

// call makes one call home and returns how it ended.
func (d *fleetDevice) call() schedule.Event {
	conn, err := d.dial(d.i, false)
	if err != nil {
		return schedule.Event{Kind: schedule.Failed, Stage: proto.StageTCP}
	}
	d.step(schedule.Event{Kind: schedule.Connected}, time.Now())
	at := make(chan time.Time, 1)
	config := sshtest.LetIn(d.host, d.user)
	config.ServerVersion = "SSH-2.0-OpenSSH_9.2" // so it is sent the keepalives of such a device
	(&sshtest.Server{Config: config, Netconf: greet, LoggedIn: func(ssh.Conn) {
		d.logins.Add(1)
		at <- time.Now()
	}}).Serve(conn)
	select {
	case login := <-at:
		d.step(schedule.Event{Kind: schedule.LoggedIn}, login)
		return schedule.Event{Kind: schedule.Ended, Stage: proto.StageSession}
	default:
		d.failed.Add(1)
		return schedule.Event{Kind: schedule.Ended, Stage: proto.StageSSH}
	}
}
