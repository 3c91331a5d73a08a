//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/schedule"
	"callhome/internal/nms/sshtest"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// spell is one connection of a stand-in, from its login to its end.
type spell struct {
	at       string // the station's address
	from, to time.Time
}

// callers are stand-ins that stay connected by the schedule of callhome-mgr, with several
// endpoints, and record when they were.
type callers struct {
	*standIns
	from      string          // what their addresses begin with
	processes []*json.Encoder // to their standard inputs

	mu     sync.Mutex     // guards the fields that follow
	spells [][]spell      // of each; the last one's end is zero while it is connected
	failed map[string]int // calls without a login, by why
	marks  map[int]int    // that came back, how often
}

func (s *standIns) id(i int) string { return fmt.Sprintf("d%d", i) }

// perProcess bounds the stand-ins of one process: each takes a file descriptor.
const perProcess = 10_000

// devicesJob is what a process with stand-ins gets on its standard input, as JSON. It ends
// when its input ends.
type devicesJob struct {
	First     int // of all
	Seeds     [][]byte
	User      string
	Begin     time.Duration // between the first calls of two
	Policy    schedule.Policy
	Endpoints []string
	From      string // what their addresses begin with
}

// KeepConnected has each stand-in call as a persistent client of callhome-mgr does, their
// begin spread over a time, until the story ends.
func (c *stations) KeepConnected(s *standIns, over time.Duration, policy schedule.Policy, endpoints ...string) *callers {
	d := &callers{standIns: s, from: c.devices, spells: make([][]spell, len(s.servers)), failed: make(map[string]int), marks: make(map[int]int)}
	policy.Endpoints, policy.Pause = len(endpoints), schedule.DefaultPause
	s.t.Cleanup(func() {
		if s.t.Failed() {
			n := d.connected("")
			d.mu.Lock()
			defer d.mu.Unlock()
			s.t.Logf("%d devices are connected; calls that failed: %v", n, d.failed)
		}
	})
	for first, seeds := range slices.Collect(slices.Chunk(s.seeds, perProcess)) {
		d.start(devicesJob{First: first * perProcess, Seeds: seeds, User: s.user, Begin: over / time.Duration(len(s.seeds)),
			Policy: policy, Endpoints: endpoints, From: c.devices})
	}
	return d
}

// start starts a process with stand-ins, in their network.
func (d *callers) start(job devicesJob) {
	d.t.Helper()
	cmd := d.nms.here(fmt.Sprintf("/proc/%d/exe", os.Getpid()))
	cmd.Env = append(os.Environ(), stageEnv+"="+stageDevices)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		d.read(out)
	}()
	d.t.Cleanup(func() {
		in.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("the process with stand-ins: %v", err)
		}
	})
	to := json.NewEncoder(in)
	if err := to.Encode(job); err != nil {
		d.t.Error(err)
	}
	d.processes = append(d.processes, to)
}

// catchUp returns when all that the stand-ins have reported so far is taken in. A station
// that knows a device's new connection knows it after the report of the old one's end.
func (d *callers) catchUp() {
	d.t.Helper()
	d.mu.Lock()
	mark := len(d.marks) + 1
	d.marks[mark] = 0
	d.mu.Unlock()
	for _, p := range d.processes {
		if err := p.Encode(mark); err != nil {
			d.t.Fatal(err)
		}
	}
	sandbox.Await(d.t, patience, "what the stand-ins have reported", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if n := d.marks[mark]; n < len(d.processes) {
			return fmt.Errorf("%d of %d processes have answered", n, len(d.processes))
		}
		return nil
	})
}

// report is one line of a process with stand-ins.
type report struct {
	Device int
	At     string    // the station's address after a login
	Time   time.Time // of the login, or of the connection's end
	Failed string    // why a call had no login
	Mark   int       // of catchUp; 0 for none
}

// read takes in what a process with stand-ins reports.
func (d *callers) read(out io.Reader) {
	lines := json.NewDecoder(out)
	for {
		var r report
		if lines.Decode(&r) != nil {
			return
		}
		d.mu.Lock()
		switch of := &d.spells[r.Device]; {
		case r.Mark != 0:
			d.marks[r.Mark]++
		case r.Failed != "":
			d.failed[r.Failed]++
		case r.At != "":
			*of = append(*of, spell{at: r.At, from: r.Time})
		default:
			(*of)[len(*of)-1].to = r.Time
		}
		d.mu.Unlock()
	}
}

// devicesMain is a process with stand-ins.
func devicesMain() int {
	var job devicesJob
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&job); err != nil {
		fmt.Fprintln(os.Stderr, "reading what the stand-ins are:", err)
		return 1
	}
	p := &devices{devicesJob: job, out: json.NewEncoder(os.Stdout)}
	for _, seed := range job.Seeds {
		server, _, err := standIn(seed, job.User)
		if err != nil {
			fmt.Fprintln(os.Stderr, "making a stand-in:", err)
			return 1
		}
		p.servers = append(p.servers, server)
	}
	for i := range p.servers {
		time.AfterFunc(job.Begin*time.Duration(job.First+i), func() { p.keep(i) })
	}
	for mark := 0; in.Decode(&mark) == nil; {
		p.report(0, report{Mark: mark})
	}
	return 0
}

// devices are the stand-ins of one process.
type devices struct {
	devicesJob
	servers []*sshtest.Server

	mu  sync.Mutex // guards out
	out *json.Encoder
}

func (d *devices) report(i int, r report) {
	r.Device, r.Time = d.First+i, time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(r)
}

// keep plays the schedule of one.
func (d *devices) keep(i int) {
	events := make(chan schedule.Event)
	e := schedule.Event{Kind: schedule.Begin}
	var state schedule.State
	var end func()
	for {
		var do schedule.Do
		state, do = d.Policy.Step(state, e, time.Now(), rand.Float64())
		switch {
		case do.Call:
			var call context.Context
			call, end = context.WithCancel(context.Background())
			go d.call(call, i, d.Endpoints[state.Endpoint], func(e schedule.Event) { events <- e })
		case do.Drop:
			end()
		}
		var tick <-chan time.Time
		if !state.At.IsZero() {
			tick = time.After(time.Until(state.At))
		}
		select {
		case e = <-events:
		case <-tick:
			e = schedule.Event{Kind: schedule.Tick}
		}
	}
}

// address is where a stand-in calls from.
func (d *callers) address(i int) string { return address(d.from, i) }

func address(from string, i int) string { return fmt.Sprintf("%s%d.%d", from, 1+i/250, 1+i%250) }

// notice is how long a stand-in takes to find that its station is silent.
const notice = 8 * time.Second

// call is one call home to its end.
func (d *devices) call(ctx context.Context, i int, to string, happened func(schedule.Event)) {
	// Each has an address of its own, as the devices of a fleet.
	from := &net.TCPAddr{IP: net.ParseIP(address(d.From, d.First+i))}
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: notice / 2, Interval: notice / 8, Count: 4}
	dialer := net.Dialer{LocalAddr: from, Timeout: 5 * time.Second, KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		d.fails(i, err)
		happened(schedule.Event{Kind: schedule.Failed, Stage: proto.StageTCP})
		return
	}
	if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(notice.Milliseconds()))
		})
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	happened(schedule.Event{Kind: schedule.Connected})
	server := *d.servers[i]
	why := make(chan error, 1)
	server.Ended = func(err error) { why <- err }
	in, done := make(chan struct{}), make(chan struct{})
	server.LoggedIn = func(ssh.Conn) { close(in) }
	go func() {
		defer close(done)
		server.Serve(conn)
	}()
	stage := proto.StageAuth
	select {
	case <-in:
		stage = proto.StageSession
		d.report(i, report{At: to})
		happened(schedule.Event{Kind: schedule.LoggedIn})
		<-done
		d.report(i, report{})
	case <-done:
		d.fails(i, <-why)
	}
	happened(schedule.Event{Kind: schedule.Ended, Stage: stage})
}

// fails reports a call without a login.
func (d *devices) fails(i int, err error) {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	d.report(i, report{Failed: fmt.Sprint(err)})
}

// connected is how many are, at that address; "" for any.
func (d *callers) connected(at string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.spells {
		if len(s) > 0 && s[len(s)-1].to.IsZero() && (at == "" || s[len(s)-1].at == at) {
			n++
		}
	}
	return n
}

// Away returns how long each gap between two connections was that ended after since,
// sorted, and which devices have one that does not end soon.
func (d *callers) Away(since time.Time) (gaps []time.Duration, open []string) {
	d.t.Helper()
	d.catchUp()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // a station knows a login before the device does
		if gaps, open = d.away(since); len(open) == 0 || time.Now().After(end) {
			return gaps, open
		}
	}
}

func (d *callers) away(since time.Time) (gaps []time.Duration, open []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, s := range d.spells {
		for n, one := range s {
			switch {
			case one.to.IsZero() || one.to.Before(since):
			case n+1 < len(s):
				gaps = append(gaps, s[n+1].from.Sub(one.to))
			default:
				open = append(open, d.id(i))
			}
		}
	}
	slices.Sort(gaps)
	return gaps, open
}

// Undisturbed fails the story if a connection has ended since then at one of these
// addresses.
func (d *callers) Undisturbed(t *testing.T, since time.Time, addresses ...string) {
	t.Helper()
	d.catchUp()
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, s := range d.spells {
		for _, one := range s {
			if slices.Contains(addresses, one.at) && !one.to.IsZero() && one.to.After(since) {
				n++
			}
		}
	}
	if n > 0 {
		t.Errorf("%d connections with %v have ended", n, addresses)
	}
}

// percent is the value that so many percent of sorted ones do not exceed.
func percent(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(10 * time.Millisecond)
}

// awaitGood waits until the connection of each stand-in is so old that its loss is
// answered by a call at once.
func (d *callers) awaitGood() {
	d.t.Helper()
	sandbox.Await(d.t, 3*goodSession, "connections that have lasted", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, s := range d.spells {
			if len(s) == 0 || !s[len(s)-1].to.IsZero() || time.Since(s[len(s)-1].from) < goodSession {
				return fmt.Errorf("%s was connected %+v", d.id(i), s)
			}
		}
		return nil
	})
}
