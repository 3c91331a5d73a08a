//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/proto"
)

// newLinkedSite is a device and a station on a link of their own.
func newLinkedSite(t *testing.T) (*site, *link) {
	t.Helper()
	s, l := newStandingSite(t, "/bin/cat"), newLink(t)
	s.netns, s.nms.netns = l.device, l.nms
	return s, l
}

// Pull takes the cable out of the station, Plug puts it in again: the device's
// interface loses its carrier and keeps its addresses.
func (l *link) Pull() { l.t.Helper(); ip(l.t, "-n "+filepath.Base(l.nms)+" link set port down") }
func (l *link) Plug() { l.t.Helper(); ip(l.t, "-n "+filepath.Base(l.nms)+" link set port up") }

const (
	// aliveBound is within what quickAlive notices a dead peer; TCP alone takes minutes.
	aliveBound = 5 * time.Second
	// lateness is what a busy machine may add to a bound that is measured.
	lateness = 2 * time.Second
	// loginTime is what a login takes on a machine on which all other stories run at
	// the same time; alone it is a quarter of a second.
	loginTime = 6 * time.Second
)

// The link is down in mid-session: the dead connection is noticed in time on
// every OpenSSH, and when the link is back so is the connection, whatever pause
// there was. Shortened: 1 s of ssh keepalives' 30 and an outage of 13 s.
func TestEveryOpenSSHSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	onOpenSSHs(t, trees, func(t *testing.T, _, root string) {
		s, l := newLinkedSite(t)
		s.root = root
		nms := s.nms.Station(freeAddr(nmsV4))
		client := persistent("nms", quickAlive(s.At(nms.Addr)))
		delete(client, "callhome:backoff")
		k := s.Keep(document(client))
		k.AwaitServing(patience, "nms")
		nms.Session().echo("hello")
		outage(t, k, nms, l.Pull, l.Plug, 13*time.Second, aliveBound)
		t.Logf("sshd: %s", sshdVersion(t, s.device))
	})
}

// outage takes the way between away for that long, and wants the session to be
// given up in time, a call within 1 s of the way's return, and a session within
// 2 s.
func outage(t *testing.T, k *keeper, nms *station, take, restore func(), length, bound time.Duration) {
	t.Helper()
	before := nms.Session()
	take()
	down := time.Now()
	lost := k.AwaitPublished(bound+patience, "nms", proto.EventLost, 1)
	noticed := lost.Time.Sub(down)
	if noticed > 2*bound {
		t.Errorf("noticed after %v, expected within %v", noticed, bound)
	}
	if lost.Session.End != proto.EndSilent || lost.Session.Graceful {
		t.Errorf("the session ended as %q: %s", lost.Session.End, lost.Session.Cause)
	}
	for len(nms.Calls()) == 1 && time.Since(down) < length {
		time.Sleep(10 * time.Millisecond) // the outage itself: nothing to wait for
	}
	failures := k.client("nms").Failures
	up := time.Now()
	restore()
	call := nms.AwaitCall(patience, 2)
	k.AwaitServing(patience, "nms")
	served := time.Since(up)
	recovered := k.AwaitPublished(patience, "nms", proto.EventRecovered, 1)
	t.Logf("noticed after %v (%s), %d calls failed, called %v and served %v after the way was back, outage %v", noticed, lost.Session.Cause, failures, call.at.Sub(up), served, recovered.Outage)
	// The kernel asks for the station's link address once a second, whichever process
	// waits for it.
	if took := call.at.Sub(up); took > time.Second+lateness {
		t.Errorf("called %v after the way was back", took)
	}
	if served > 2*time.Second+loginTime {
		t.Errorf("served %v after the way was back", served)
	}
	nms.Session().echo("back")
	before.end() // what hangs at the station's end
	nms.Session().leave()
}

// A minute of it, with the pauses as they are by default.
func TestALinkThatIsDownForAMinute(t *testing.T) {
	t.Parallel()
	s, l := newLinkedSite(t)
	nms := s.nms.Station(freeAddr(nmsV4))
	endpoint := putSSH(s.At(nms.Addr), object{"max-wait": 5, "max-attempts": 2}, "keepalives")
	client := persistent("nms", endpoint)
	delete(client, "callhome:backoff")
	k := s.Keep(document(client))
	k.AwaitServing(patience, "nms")
	outage(t, k, nms, l.Pull, l.Plug, time.Minute, 16*time.Second)
}

// A link that comes back while a call is being made: the call has its packets
// on a way that is not there any more, and does not make the next one wait.
func TestALinkThatIsBackDuringACall(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{5400 * time.Millisecond, 6 * time.Second, 7200 * time.Millisecond} {
		t.Run(length.String(), func(t *testing.T) {
			t.Parallel()
			s, l := newLinkedSite(t)
			// As up to Linux 6.4: a SYN after 1, 3 and 7 s, not after each second.
			_ = atNetns(t, l.device, func() error {
				return os.WriteFile("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", []byte("0"), 0)
			})
			nms := s.nms.Station(freeAddr(nmsV4))
			// Its pauses are shorter than an attempt takes: there always is one.
			k := s.Keep(document(persistent("nms", quickAlive(s.At(nms.Addr)))))
			k.AwaitServing(patience, "nms")
			outage(t, k, nms, l.Pull, l.Plug, length, aliveBound)
		})
	}
}

// The device's own interface is down, and what the kernel forgets with that
// comes back as DHCP or a router brings it.
func TestTheDevicesInterfaceIsDown(t *testing.T) {
	t.Parallel()
	for _, host := range []string{nmsV4, nmsV6} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s, l := newLinkedSite(t)
			nms := s.nms.Station(freeAddr(host))
			client := persistent("nms", quickAlive(s.At(nms.Addr)))
			delete(client, "callhome:backoff")
			k := s.Keep(document(client))
			k.AwaitServing(patience, "nms")
			device := "-n " + filepath.Base(l.device)
			outage(t, k, nms, func() { ip(t, device+" link set "+l.port+" down") }, func() {
				ip(t, device+" link set "+l.port+" up")
				ip(t, device+" addr replace "+deviceV6+"/64 nodad dev "+l.port)
			}, 8*time.Second, aliveBound)
		})
	}
}

// Packets of one direction are lost, with no event from the link. Shortened:
// max-wait to 1 s and the pauses to 150 ms, which alone say how soon the next
// call is made here.
func TestPacketsOfOneDirectionAreLost(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{
		"to the NMS":      "chain lost { type filter hook input priority 0; ip saddr " + deviceV4 + " drop; }\n",
		"from the NMS":    "chain lost { type filter hook output priority 0; ip daddr " + deviceV4 + " drop; }\n",
		"both directions": "chain lost { type filter hook output priority 0; drop; }\nchain too { type filter hook input priority 0; drop; }\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sandbox.Need(t, "nft")
			s, l := newLinkedSite(t)
			nms := s.nms.Station(freeAddr(nmsV4))
			client := persistent("nms", quickAlive(s.At(nms.Addr)))
			client["callhome:backoff"] = object{"initial": 50, "maximum": 150}
			client["reconnect-strategy"] = object{"max-wait": 1}
			k := s.Keep(document(client))
			k.AwaitServing(patience, "nms")
			nms.Session().echo("hello")
			outage(t, k, nms, func() { l.nft("table inet way {\n" + rule + "}") }, func() { l.nft("delete table inet way") }, 8*time.Second, aliveBound)
		})
	}
}

// The device's address is another one: the session from the old one is given up
// and the next call comes from the new one.
func TestTheDevicesAddressChanges(t *testing.T) {
	t.Parallel()
	const other = "192.0.2.77"
	s, l := newLinkedSite(t)
	nms := s.nms.Station(freeAddr(nmsV4))
	k := s.Keep(document(persistent("nms", quickAlive(s.At(nms.Addr)))))
	k.AwaitServing(patience, "nms")
	device := "-n " + filepath.Base(l.device)
	outage(t, k, nms, func() { ip(t, device+" addr del "+deviceV4+"/24 dev "+l.port) },
		func() { ip(t, device+" addr add "+other+"/24 dev "+l.port) }, 7*time.Second, aliveBound)
	if from, _ := splitAddr(t, nms.Calls()[1].from); from != other {
		t.Errorf("called from %s", from)
	}
}

// The device moves to another network while it calls from the one before, where
// no station answers: the call is given up and made anew. The pauses and max-wait
// are longer than the story, so that nothing else could end them.
func TestTheDeviceMovesDuringACall(t *testing.T) {
	t.Parallel()
	const other = "192.0.2.77"
	sandbox.Need(t, "nft")
	s, l := newLinkedSite(t)
	nms := s.nms.Station(freeAddr(nmsV4))
	l.nft("table inet way {\nchain lost { type filter hook input priority 0; ip saddr " + deviceV4 + " drop; }\n}")
	client := persistent("nms", quickAlive(s.At(nms.Addr)))
	client["reconnect-strategy"] = object{"max-wait": 120}
	client["callhome:backoff"] = object{"initial": 60000}
	k := s.Keep(document(client))
	k.AwaitClient(patience, "nms", func(c proto.ClientStatus) error {
		if on := time.Since(c.Since); c.State != proto.ClientDialing || on < 3200*time.Millisecond {
			return fmt.Errorf("%s for %v", c.State, on)
		}
		return nil
	})
	device := "-n " + filepath.Base(l.device)
	ip(t, device+" addr del "+deviceV4+"/24 dev "+l.port)
	moved := time.Now()
	ip(t, device+" addr add "+other+"/24 dev "+l.port)
	call := nms.AwaitCall(patience, 1)
	if took := call.at.Sub(moved); took > 10*time.Second { // a pause is a minute
		t.Errorf("called %v after the device had moved", took)
	}
	if from, _ := splitAddr(t, call.from); from != other {
		t.Errorf("called from %s", from)
	}
	k.AwaitServing(patience, "nms")
	nms.Session().leave()
}

// A device behind NAT, with everything that comes from outside dropped: the NMS
// cannot connect to it, and call home works.
func TestADeviceBehindNAT(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, host, inside, outside string
		client                      int
	}{
		{"ipv4", nmsV4, insideV4, deviceV4, 0},
		{"ipv6", nmsV6, insideV6, deviceV6, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := clients[tt.client]
			for try := 1; ; try++ {
				server := startNetconfd(t)
				s := newStandingSite(t, server.Subsystem())
				s.options = append(s.options, "--ssh-connection-port", yumaPort)
				s.nms.netns = newNetns(t, fmt.Sprintf("nms%d", lastLink.Add(1)))
				router := newNAT(t, s.nms.netns, wans[0])
				s.netns = router.Place(insideV4, insideV6)
				router.Shuts(s.netns, tt.inside, tt.outside)
				addr := freeAddr(tt.host)
				waiting := c.wait(s.nms, server, addr, fmt.Sprintf("nat-%d", try))
				k := s.Keep(document(persistent("nms", quickAlive(s.At(addr)))))
				session := k.AwaitServing(patience, "nms")
				if !strings.Contains(session.Local, tt.inside) || session.Remote != addr {
					t.Errorf("the session is %+v", session)
				}
				err := waiting.Finish()
				if err == nil {
					return
				}
				if try == 3 || !server.Forgot() {
					t.Fatal(err)
				}
				t.Logf("netconfd forgot a request of %s's (%v); once more", c.name, err)
			}
		})
	}
}
