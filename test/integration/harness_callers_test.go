//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/schedule"
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
	policy    schedule.Policy
	endpoints []string
	from      string // what their addresses begin with

	mu     sync.Mutex     // guards the fields that follow
	spells [][]spell      // of each; the last one's end is zero while it is connected
	failed map[string]int // calls without a login, by why
}

func (s *standIns) id(i int) string { return fmt.Sprintf("d%d", i) }

// KeepConnected has each stand-in call as a persistent client of callhome-mgr does, their
// begin spread over a time, until the story ends.
func (c *stations) KeepConnected(s *standIns, over time.Duration, policy schedule.Policy, endpoints ...string) *callers {
	d := &callers{standIns: s, policy: policy, endpoints: endpoints, from: c.devices, spells: make([][]spell, len(s.servers)), failed: make(map[string]int)}
	d.policy.Endpoints, d.policy.Pause = len(endpoints), schedule.DefaultPause
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%d devices are connected; calls that failed: %v", d.connected(""), d.failed)
		}
		cancel()
		wg.Wait()
	})
	for i := range s.servers {
		wg.Go(func() {
			begin := time.NewTimer(over * time.Duration(i) / time.Duration(len(s.servers)))
			defer begin.Stop()
			select {
			case <-begin.C:
				d.keep(ctx, i)
			case <-ctx.Done():
			}
		})
	}
	return d
}

// keep plays the schedule of one.
func (d *callers) keep(ctx context.Context, i int) {
	events := make(chan schedule.Event)
	var calls sync.WaitGroup
	defer calls.Wait()
	var state schedule.State
	e := schedule.Event{Kind: schedule.Begin}
	var drop chan struct{}
	for {
		var do schedule.Do
		state, do = d.policy.Step(state, e, time.Now(), rand.Float64())
		switch {
		case do.Call:
			drop = make(chan struct{})
			drop, at := drop, d.endpoints[state.Endpoint]
			calls.Go(func() {
				call, end := context.WithCancel(ctx)
				defer end()
				go func() {
					select {
					case <-drop:
						end()
					case <-call.Done():
					}
				}()
				d.call(call, i, at, func(e schedule.Event) {
					select {
					case events <- e:
					case <-ctx.Done():
					}
				})
			})
		case do.Drop:
			close(drop)
		}
		var tick <-chan time.Time
		if !state.At.IsZero() {
			tick = time.After(time.Until(state.At))
		}
		select {
		case <-ctx.Done():
			return
		case e = <-events:
		case <-tick:
			e = schedule.Event{Kind: schedule.Tick}
		}
	}
}

// address is where a stand-in calls from.
func (d *callers) address(i int) string { return fmt.Sprintf("%s%d.%d", d.from, 1+i/250, 1+i%250) }

// notice is how long a stand-in takes to find that its station is silent.
const notice = 8 * time.Second

// call is one call home to its end.
func (d *callers) call(ctx context.Context, i int, to string, happened func(schedule.Event)) {
	// Each has an address of its own, as the devices of a fleet.
	from := &net.TCPAddr{IP: net.ParseIP(d.address(i))}
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: notice / 2, Interval: notice / 8, Count: 4}
	conn, err := d.nms.Dial(ctx, &net.Dialer{LocalAddr: from, Timeout: 5 * time.Second, KeepAliveConfig: keepAlive}, to)
	if err != nil {
		d.fails(err)
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
		d.begun(i, to)
		happened(schedule.Event{Kind: schedule.LoggedIn})
		<-done
		d.ended(i)
	case <-done:
		d.fails(<-why)
	}
	happened(schedule.Event{Kind: schedule.Ended, Stage: stage})
}

func (d *callers) begun(i int, at string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spells[i] = append(d.spells[i], spell{at: at, from: time.Now()})
}

func (d *callers) ended(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spells[i][len(d.spells[i])-1].to = time.Now()
}

// fails counts a call without a login.
func (d *callers) fails(err error) {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[fmt.Sprint(err)]++
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
// sorted, and which devices have one that is still open.
func (d *callers) Away(since time.Time) (gaps []time.Duration, open []string) {
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
