//go:build integration

package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// A station is drained: its device moves to the next endpoint of its document, a device with
// a session when that has ended. Then the kernel refuses calls.
func TestADrainedStationsDevicesMove(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	first, second := startStation(s.nms), startStation(s.nms)
	for _, station := range []*served{first, second} {
		station.Know("edge7", strings.TrimSuffix(s.key.file, ".pub"), "")
	}
	client := persistent("nms", s.At(first.addr), s.At(second.addr))
	client["reconnect-strategy"] = object{"max-attempts": 1}
	k := s.Keep(document(client))
	first.AwaitState("edge7", nmsproto.Connected)
	session := first.Connect("edge7")
	sandbox.Await(t, patience, "the session", func() error {
		if d, err := first.device("edge7"); err != nil || d.Sessions != 1 {
			return fmt.Errorf("%+v, %w", d, err)
		}
		return nil
	})

	drain := start(t, "callhome-nms drain", first.Command("drain", "--rate", "5", "--session-time", "1m"))
	drain.AwaitStdout("1 device connected still, 1 of them with sessions")
	contains(t, "the status", first.Run("status"), "draining for ", "1 device connected still, 1 of them with sessions")
	if _, err := net.Dial("tcp", first.addr); err == nil {
		t.Error("it accepts calls")
	}
	session.in.Close()
	session.MustExit(0)
	drain.MustExit(0)
	contains(t, "drain", drain.Stdout(), "no device is connected any more")
	first.AwaitEvent(nmsproto.EventDrained, "ended devices: 1,")
	second.AwaitState("edge7", nmsproto.Connected)
	lost := k.AwaitPublished(patience, "nms", proto.EventLost, 1)
	contains(t, "the device's cause", lost.Session.Cause, "the station is being drained")
	first.Stop()
}

// A device with last-connected returns to its station when the connection was lost, and
// calls the next endpoint of its document while that station is away, where it then stays.
func TestLastConnectedPrefersItsStation(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	var stations []*served
	var endpoints []object
	for range 3 {
		// Of a session whose sshd was killed another process may hold the connection yet.
		one := startStation(s.nms, "--duplicate", "replace")
		one.Know("edge7", strings.TrimSuffix(s.key.file, ".pub"), "")
		stations, endpoints = append(stations, one), append(endpoints, s.At(one.addr))
	}
	client := persistent("nms", endpoints...)
	client["reconnect-strategy"] = object{"start-with": "last-connected", "max-attempts": 1}
	k := s.Keep(document(client))
	// at waits for login n of the device, which must be at station i.
	at := func(i int, n uint64) (session proto.SessionInfo) {
		t.Helper()
		k.AwaitClient(patience, "nms", func(c proto.ClientStatus) error {
			if c.Connections < n || c.State != proto.ClientAuthenticated && c.State != proto.ClientServing {
				return fmt.Errorf("it has had %d logins", c.Connections)
			}
			for _, session = range k.Sessions() {
				if session.Session == c.Session {
					return nil
				}
			}
			return fmt.Errorf("it has no session %d", c.Session)
		})
		if session.Endpoint != stations[i].addr {
			t.Fatalf("login %d is at %s, want station %d of %v", n, session.Endpoint, i, endpoints)
		}
		stations[i].AwaitState("edge7", nmsproto.Connected)
		return session
	}
	good := func() { // a shorter session is an attempt that failed
		t.Helper()
		k.AwaitClient(2*goodSession, "nms", func(c proto.ClientStatus) error {
			if on := time.Since(c.Since); on < goodSession {
				return fmt.Errorf("%s for %v", c.State, on)
			}
			return nil
		})
	}
	loses := func(session proto.SessionInfo) {
		t.Helper()
		good()
		if err := unix.Kill(session.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	at(0, 1)
	stations[0].Stop()
	session := at(1, 2)
	stations[0].begin()
	loses(session)
	at(1, 3)
	good()
	stations[1].Stop()
	at(2, 4)
	stations[1].begin()
	for _, one := range stations[:2] {
		if d, err := one.device("edge7"); err != nil || d.State != nmsproto.NeverSeen {
			t.Errorf("a station was called that was not the last one, nor next: %+v, %v", d, err)
		}
	}
}
