package station

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// many connects n devices.
func (s *site) many(n int) []*standIn {
	all := make([]*standIn, n)
	for i := range all {
		all[i] = newStandIn(s.t)
		s.know(fmt.Sprintf("d%d", i), all[i], "")
		s.call(fmt.Sprintf("192.0.%d.%d:1", 2+i/200, i%200), all[i].serve)
		s.await(nmsproto.EventUp)
	}
	return all
}

// A drain ends devices at its rate, those with a session last, and these when it has
// waited long enough or their session has ended.
func TestADrainEndsDevicesAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.many(12)
		var sessions sync.WaitGroup
		open := func(id string, lasts time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			a, b := net.Pipe()
			sessions.Go(func() {
				defer cancel()
				defer a.Close()
				_, _ = s.Connect(ctx, id, duplexPipe{b})
			})
		}
		open("d0", 5*time.Second)
		open("d1", time.Hour)
		synctest.Wait()

		p := nmsproto.DrainParams{Rate: 5, SessionTime: time.Minute}
		begun := time.Now()
		if d, err := s.Drain(p); err != nil || d.Left != 12 || d.Busy != 2 {
			t.Fatalf("got %+v, %v", d, err)
		}
		left := func(at time.Duration, devices, busy int) {
			t.Helper()
			time.Sleep(at - time.Since(begun))
			synctest.Wait()
			if d := s.Stats().Drain; d.Left != devices || d.Busy != busy || d.DrainParams != p {
				t.Errorf("after %v: %+v, want %d devices, %d with sessions", at, d, devices, busy)
			}
		}
		left(time.Second+drainStep, 12-6, 2)
		left(4*time.Second, 2, 2)
		left(9*time.Second, 1, 1) // the session has a linger time of its own
		left(time.Minute, 1, 1)
		e := s.await(nmsproto.EventDrained)
		if took := time.Since(begun); took < time.Minute || took > 65*time.Second {
			t.Errorf("the last session ended after %v, event %+v", took, e)
		}
		left(70*time.Second, 0, 0)
		if info, _ := s.Device("d3"); info.LastError != draining {
			t.Errorf("it is %+v", info)
		}
		sessions.Wait()
	})
}

// While the station is drained no device gets in: neither one that calls, nor one whose
// login was under way.
func TestADrainedStationTakesNoDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		slow, late := newStandIn(t), newStandIn(t)
		slow.loginTime = 3 * time.Second
		s.know("slow", slow, "")
		s.know("late", late, "")
		s.call("192.0.2.1:1", slow.serve)
		time.Sleep(time.Second)
		if _, err := s.Drain(nmsproto.DrainParams{Rate: 1}); err != nil {
			t.Fatal(err)
		}
		s.await(nmsproto.EventDrained) // there was no device
		told := make(chan error, 1)
		s.call("192.0.2.2:1", func(c net.Conn) {
			_, _, _, err := ssh.NewServerConn(c, serverConfig(late))
			told <- err
		})
		if err := <-told; err == nil || err.Error() != `ssh: disconnect, reason 7: "`+draining+`"` {
			t.Errorf("the device got %v", err)
		}
		for s.await(nmsproto.EventRefused).Cause != draining { // it may be that of the slow one first
		}
		time.Sleep(10 * time.Second)
		if st := s.Stats(); st.Outcomes[LoggedIn] != 0 || st.Outcomes[Draining] != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A second call changes the rate, and a stop does not wait for the drain.
func TestADrainCanBeHurriedAndStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.many(30)
		drain := func(p nmsproto.DrainParams) {
			if _, err := s.Drain(p); err != nil {
				t.Fatal(err)
			}
		}
		drain(nmsproto.DrainParams{Rate: 1})
		time.Sleep(5 * time.Second)
		drain(nmsproto.DrainParams{Rate: 10})
		time.Sleep(time.Second)
		synctest.Wait()
		if d := s.Stats().Drain; d.Left > 16 || d.Left < 12 {
			t.Errorf("got %+v", d)
		}
		begun := time.Now()
		s.stop()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

// A drain down to a number of devices leaves these connected, those with sessions among
// them, and refuses no call. It ends each connection once, also where devices come back.
func TestADrainDownToANumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		all := s.many(12)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := net.Pipe()
		var session sync.WaitGroup
		session.Go(func() {
			defer a.Close()
			_, _ = s.Connect(ctx, "d0", duplexPipe{b})
		})
		synctest.Wait()
		p := nmsproto.DrainParams{DownTo: 4, Rate: 2}
		if d, err := s.Drain(p); err != nil || d.Left != 12 || d.Busy != 1 {
			t.Fatalf("got %+v, %v", d, err)
		}
		s.await(nmsproto.EventDrained)
		synctest.Wait()
		st := s.Stats()
		if st.Drain != nil || st.Devices[nmsproto.Connected] != 4 || st.SessionsNow != 1 {
			t.Errorf("it is over: %+v", st)
		}
		if d, err := s.Drain(p); err != nil || d.Left != 4 || s.Stats().Drain != nil {
			t.Errorf("again: %+v, %v", d, err)
		}
		cancel()
		session.Wait()

		// All come back at once, as devices with one endpoint do.
		back := func() {
			for i, d := range all {
				if info, _ := s.Device(fmt.Sprintf("d%d", i)); info.State == nmsproto.Lost {
					s.call(fmt.Sprintf("192.0.4.%d:1", i), d.serve)
				}
			}
			synctest.Wait()
		}
		back()
		if _, err := s.Drain(p); err != nil {
			t.Fatal(err)
		}
		_, err := s.Drain(nmsproto.DrainParams{Rate: 1})
		s.mustFail(err, proto.CodeBusy, "another drain is under way")
		for s.Stats().Drain != nil {
			time.Sleep(drainStep)
			back()
		}
		if e := s.await(nmsproto.EventDrained); e.Cause != "ended devices: 12, in 5.5s" {
			t.Errorf("got %+v", e)
		}
		if n := s.Stats().Devices[nmsproto.Connected]; n != 12 {
			t.Errorf("%d devices are connected", n)
		}
	})
}

// slowToClose is the connection of a device that is far away, until the test is over.
type slowToClose struct {
	net.Conn
	over <-chan struct{}
}

const wireTime = 500 * time.Millisecond

func (c slowToClose) Close() error {
	select {
	case <-c.over:
	case <-time.After(wireTime):
	}
	return c.Conn.Close()
}

// A drain down to a number of devices ends no further ones while connections that it has
// ended are still open.
func TestADrainDownToANumberEndsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		over := make(chan struct{})
		for i := range 12 {
			d := newStandIn(t)
			s.know(fmt.Sprintf("d%d", i), d, "")
			s.call(fmt.Sprintf("192.0.2.%d:1", i), func(c net.Conn) { d.serve(slowToClose{c, over}) })
			s.await(nmsproto.EventUp)
		}
		if _, err := s.Drain(nmsproto.DrainParams{DownTo: 4, Rate: 100}); err != nil {
			t.Fatal(err)
		}
		s.await(nmsproto.EventDrained)
		time.Sleep(2 * wireTime)
		if n := s.Stats().Devices[nmsproto.Connected]; n != 4 {
			t.Errorf("%d devices are left, want 4", n)
		}
		close(over)
	})
}

func TestADrainNeedsARate(t *testing.T) {
	s := newSite(t, nil)
	for _, p := range []nmsproto.DrainParams{{}, {Rate: -1}, {Rate: maxDrainRate + 1}, {Rate: 1, SessionTime: -1}, {Rate: 1, DownTo: -1}} {
		var e *proto.Error
		if _, err := s.Drain(p); !errors.As(err, &e) || e.Code != proto.CodeBadType {
			t.Errorf("%+v: got %v", p, err)
		}
	}
	if s.Stats().Drain != nil {
		t.Error("it drains")
	}
}

// order is a source of calls that notes in which order the station does what.
type order struct {
	mu   sync.Mutex // guards done
	done []string
}

func (o *order) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done = append(o.done, what)
}

func (o *order) Accept(ctx context.Context) (*net.TCPConn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (o *order) Close() error {
	o.note("listener closed")
	return nil
}

// At the end the kernel refuses calls before the first device is ended.
func TestTheListenerIsClosedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		var o order
		d := newStandIn(t)
		d.loggedIn = func(c ssh.Conn) {
			_ = c.Wait()
			o.note("device ended")
		}
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Serve(ctx, &o); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.done) != 2 || o.done[0] != "listener closed" {
			t.Errorf("got %q", o.done)
		}
	})
}
