//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"callhome/internal/proto"
)

// A device that is switched on calls home by itself, and the session is a whole
// one. The NMS is restarted, and is called again.
func TestANMSThatIsRestartedIsCalledAgain(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	k := s.Keep(document(persistent("nms", quickAlive(s.At(nms.Addr)))))
	first := k.AwaitServing(patience, "nms")
	nms.Session().echo("hello")
	if first.User != netop || first.Client != "nms" || first.Endpoint != nms.Addr || first.Remote != nms.Addr {
		t.Errorf("the session is %+v", first)
	}
	c := k.client("nms")
	if c.Connections != 1 || c.Failures != 0 || c.User != netop || c.NextAttempt != nil || c.LastError != nil {
		t.Errorf("the client is %+v", c)
	}

	nms.Shut()
	nms.HangUp()
	lost := k.AwaitPublished(patience, "nms", proto.EventLost, 1)
	down := k.AwaitClient(patience, "nms", func(c proto.ClientStatus) error {
		if c.Failures < 2 || c.LastError == nil || c.State != proto.ClientWaiting || c.NextAttempt == nil {
			return errors.New("not refused twice yet")
		}
		return nil
	})
	if down.LastError.Stage != proto.StageTCP || down.LastError.End != proto.EndNoConnection || down.Session != 0 || down.User != "" {
		t.Errorf("the client is %+v, its error %+v", down, down.LastError)
	}
	nms.Open()
	second := k.AwaitServing(patience, "nms")
	nms.Session().echo("hello again")
	back := k.AwaitPublished(patience, "nms", proto.EventRecovered, 1)
	if second.Session <= first.Session || back.Outage <= 0 || back.Time.Sub(lost.Time) < back.Outage-time.Second {
		t.Errorf("sessions %d and %d, the outage was %v", first.Session, second.Session, back.Outage)
	}
	if c := k.client("nms"); c.Connections != 2 || c.Failures != 0 {
		t.Errorf("the client is %+v", c)
	}
	nms.Session().leave()
}

// hangUp closes at once.
func hangUp(c *net.TCPConn) { c.Close() }

// An NMS that does not want us sees growing pauses, and never more than three
// calls in the first 10 s. All defaults.
func TestAnNMSThatHangsUpSeesGrowingPauses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve func(s *station) func(*net.TCPConn)
		stage proto.Stage
		end   proto.End
	}{
		{"at once", func(*station) func(*net.TCPConn) { return hangUp }, proto.StageSSH, ""},
		{"after garbage", func(*station) func(*net.TCPConn) {
			return func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
				time.AfterFunc(time.Second, func() { c.Close() })
			}
		}, proto.StageSSH, proto.EndProtocol},
		{"after the login", func(s *station) func(*net.TCPConn) {
			return func(c *net.TCPConn) {
				s.logIn(c)
				// What cat sends back shows that the login is done.
				session := s.Session()
				_, _ = io.WriteString(session.in, "x\n")
				_ = session.out.SetReadDeadline(time.Now().Add(patience))
				_, _ = session.reader.ReadString('\n')
				s.HangUp()
			}
		}, proto.StageSession, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStandingSite(t, "/bin/cat")
			nms := s.nms.NewStation(freeAddr("127.0.0.1"))
			nms.serve = tt.serve(nms)
			nms.Open()
			client := persistent("nms", s.At(nms.Addr))
			delete(client, "callhome:backoff")
			k := s.Keep(document(client))
			first := nms.AwaitCall(patience, 1)
			fourth := nms.AwaitCall(time.Minute, 4)
			calls := nms.Calls()
			in10 := 0
			var at []time.Duration
			for _, c := range calls {
				if c.at.Sub(first.at) < 10*time.Second {
					in10++
				}
				at = append(at, c.at.Sub(first.at).Round(time.Millisecond))
			}
			t.Logf("calls at %v; %d in the first 10 s", at, in10)
			if in10 > 3 {
				t.Errorf("%d calls in the first 10 s", in10)
			}
			// 4, 8 and 16 s, each half shorter or longer.
			if took := fourth.at.Sub(first.at); took < 14*time.Second {
				t.Errorf("three pauses took %v: they do not grow", took)
			}
			c := k.client("nms")
			if e := c.LastError; e == nil || e.Stage != tt.stage || tt.end != "" && e.End != tt.end {
				t.Errorf("the client is %+v, its error %+v", c, e)
			}
			if failed := len(k.Published("nms", proto.EventAttemptFailed)) + len(k.Published("nms", proto.EventLost)); failed < 2 {
				t.Errorf("%d failures were published", failed)
			}
		})
	}
}

// A connection without a login is dropped after
// re-call-home-no-ssh-timer and counted. Shortened: 2 s of 60.
func TestAnNMSThatIsSilentIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.NewStation(freeAddr("127.0.0.1"))
	nms.serve = nms.Hold
	nms.Open()
	client := persistent("nms", s.At(nms.Addr))
	client["callhome:re-call-home-no-ssh-timer"] = 2
	client["reconnect-strategy"] = object{"max-attempts": 2}
	client["callhome:max-call-home-attempts"] = 2 // repetitions
	k := s.Keep(document(client))
	k.AwaitState(patience, "nms", proto.ClientHandedOver)
	call := nms.AwaitCall(patience, 1)
	failed := k.AwaitPublished(patience, "nms", proto.EventAttemptFailed, 1)
	if took := failed.Time.Sub(call.at); took < 1500*time.Millisecond || took > 10*time.Second { // 60 s by default
		t.Errorf("given up after %v", took)
	}
	if e := failed.Session; e.End != proto.EndLoginTimeout || e.Graceful {
		t.Errorf("it ended as %+v", e)
	}
	k.AwaitPublished(patience, "nms", proto.EventAllExhausted, 1)
	k.AwaitPublished(patience, "nms", proto.EventGivenUp, 1)
	if c := k.AwaitState(patience, "nms", proto.ClientStopped); c.Failures != 3 || c.NextAttempt != nil || len(nms.Calls()) != 3 {
		t.Errorf("%d calls, the client is %+v", len(nms.Calls()), c)
	}
	k.must(proto.MethodReloadConfig, nil, nil)
	if c := k.client("nms"); c.State != proto.ClientStopped {
		t.Errorf("a reload without a change started it: %+v", c)
	}
	if out, _ := k.Ask(0, "restart-call-home", "nms"); out != "calling client nms\n" {
		t.Errorf("restart-call-home printed %q", out)
	}
	nms.AwaitCall(patience, 4)
	if out, _ := k.Ask(0, "restart-call-home"); out != "no client waits or has been given up\n" {
		t.Errorf("restart-call-home while the client is called printed %q", out)
	}
	_, errs := k.Ask(64, "restart-call-home", "mns")
	contains(t, "restart-call-home of an unknown client", errs, `"mns"`, "no such client", "callhome-mgr status lists them")
}

// The NMS is replaced by a second endpoint, and when the first one is there
// again a reconnection begins with it.
func TestTheSecondEndpointAndBack(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	first, second := s.nms.NewStation(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	client := persistent("nms", quickAlive(s.At(first.Addr)), quickAlive(s.At(second.Addr)))
	client["reconnect-strategy"] = object{"max-attempts": 2}
	k := s.Keep(document(client))
	session := k.AwaitServing(patience, "nms")
	k.AwaitPublished(patience, "nms", proto.EventEndpointExhausted, 1)
	if session.Endpoint != second.Addr || len(k.Published("nms", proto.EventAttemptFailed)) != 2 || len(k.Published("nms", proto.EventEndpointExhausted)) != 1 {
		t.Errorf("the session is %+v", session)
	}
	first.Open()
	k.awaitGood("nms")
	hung := time.Now()
	second.HangUp()
	call := first.AwaitCall(patience, 1)
	if took := call.at.Sub(hung); took > time.Second+lateness {
		t.Errorf("after a session of 30 s the next call took %v", took)
	}
	if session := k.AwaitServing(patience, "nms"); session.Endpoint != first.Addr {
		t.Errorf("the session is %+v", session)
	}
	first.Session().leave()
}

// A name that does not resolve at boot is an ordinary attempt that failed.
func TestANameThatResolvesLater(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	_, port := splitAddr(t, nms.Addr)
	k := s.Keep(document(persistent("nms", s.At(net.JoinHostPort("late-"+port+".example", port)))))
	k.AwaitPublished(patience, "nms", proto.EventAttemptFailed, 2)
	c := k.client("nms")
	if c.LastError == nil || c.LastError.Stage != proto.StageName {
		t.Errorf("the client is %+v, its error %+v", c, c.LastError)
	}
	if err := appendFile("/etc/hosts", "127.0.0.1 late-"+port+".example\n"); err != nil {
		t.Fatal(err)
	}
	k.AwaitServing(patience, "nms")
	nms.Session().echo("hello")
	nms.Session().leave()
}

// Hours with an NMS that does all that it should not leave nothing behind, and
// when it comes to its senses it is connected. Shortened: pauses of at most 50 ms
// instead of five minutes, 150 of them.
func TestHoursWithABadNMSLeaveNothing(t *testing.T) {
	t.Parallel()
	const calls = 150
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.NewStation(freeAddr("127.0.0.1"))
	turn := 0
	bad := []func(*net.TCPConn){
		hangUp,
		func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, // a reset
		func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); c.Close() },
		func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-station\r\n"); c.Close() },
		func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 64<<10)); c.Close() },
	}
	nms.serve = func(c *net.TCPConn) {
		turn++
		if turn > calls {
			nms.logIn(c)
			return
		}
		bad[turn%len(bad)](c)
	}
	nms.Open()
	client := persistent("nms", s.At(nms.Addr))
	client["callhome:backoff"] = object{"initial": 2, "maximum": 10}
	k := s.Keep(document(client))
	nms.AwaitCall(patience, calls/3)
	before, rssBefore := len(descriptors(k.pid)), rss(t, k.pid)
	nms.AwaitCall(3*patience, calls)
	session := k.AwaitServing(patience, "nms")
	after, rssAfter := len(descriptors(k.pid)), rss(t, k.pid)
	t.Logf("%d calls: descriptors %d to %d, memory %d to %d KiB", calls, before, after, rssBefore, rssAfter)
	// A call on its way has some: a log, a socket, a process.
	const aCall = 6
	if after > before+aCall || rssAfter > rssBefore+rssBefore/2 {
		t.Errorf("descriptors grew from %d to %d, memory from %d to %d KiB", before, after, rssBefore, rssAfter)
	}
	k.AwaitPublished(patience, "nms", proto.EventAttemptFailed, calls)
	if failed := len(k.Published("nms", proto.EventAttemptFailed)); failed != calls {
		t.Errorf("%d failures were published for %d calls", failed, calls)
	}
	if list := k.Sessions(); len(list) != 1 || list[0].Session != session.Session {
		t.Errorf("the sessions are %+v", list)
	}
	nms.Session().echo("hello")
	nms.Session().leave()
}

// A configured client is called on demand, though it is not due, and the caller gets to
// know how far the call came, or why it failed.
func TestAConfiguredClientIsCalledOnDemand(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	daily := persistent("nms", s.At(nms.Addr))
	daily["connection-type"] = object{"periodic": object{"period": 1440, "idle-timeout": 0, "anchor-time": time.Now().Add(-12 * time.Hour).Truncate(time.Minute).UTC().Format(time.RFC3339)}}
	k := s.Keep(document(daily))
	k.AwaitState(patience, "nms", proto.ClientIdle)
	out, _ := k.Ask(0, "call", "--client", "nms", "--wait", "netconf")
	contains(t, "the call", out, netop+" from "+nms.Addr+" has started the netconf subsystem")
	session := k.AwaitServing(patience, "nms")
	out, _ = k.Ask(0, "call", "--client", "nms")
	contains(t, "a call while it is connected", out, fmt.Sprintf("session %d: ", session.Session), "has started the netconf subsystem")
	nms.Session().leave()
	k.AwaitState(patience, "nms", proto.ClientIdle)
	out, _ = k.Ask(0, "session", strconv.Itoa(session.Session))
	contains(t, "the session that has ended", out, "closed at session", "lasted", "ended")

	nms.Shut()
	_, said := k.Ask(69, "call", "--client", "nms")
	contains(t, "a call that is refused", said, "failed at tcp", "connection refused")
	_, said = k.Ask(64, "call", "--client", "nsm")
	contains(t, "an unknown client", said, `calling client "nsm": the configuration has no such client`)
	_, said = k.Ask(64, "call", "--client", "nms", nms.Addr)
	contains(t, "a client and a host", said, "--client takes no HOST")
}
