//go:build integration

package integration

import (
	"errors"
	"testing"
	"time"

	"callhome/internal/proto"
)

// periodically makes a client's connections periodic: every minute, the least
// that the model has, so that a slot is near.
func periodically(c object, idle int) object {
	c["connection-type"] = object{"periodic": object{"period": 1, "anchor-time": "2026-01-01T00:00:00Z", "idle-timeout": idle}}
	return c
}

// nextMinute returns the next slot, with time to get ready for it: one that is
// too near, or that has just begun, is left to pass.
func nextMinute() time.Time {
	const ready = 10 * time.Second
	next := time.Now().Truncate(time.Minute).Add(time.Minute)
	if left := time.Until(next); left < ready {
		next = next.Add(time.Minute)
		time.Sleep(left + 2*time.Second)
	} else if began := time.Minute - left; began < 2*time.Second {
		time.Sleep(2*time.Second - began)
	}
	return next
}

// atSlot wants a call, number n, in the second that begins with the slot.
func atSlot(t *testing.T, nms *station, n int, slot time.Time) call {
	t.Helper()
	c := nms.AwaitCall(time.Until(slot)+patience, n)
	if off := c.at.Sub(slot); off < 0 || off > time.Second+lateness {
		t.Errorf("call %d came %v after its slot %v", n, off, slot.Format(time.TimeOnly))
	}
	return c
}

// Periodic connections: at their slots and not before; one at a time; ended
// when idle, by whatever this OpenSSH has for it and though keepalives go on;
// again at once when the end was not intended, and at the next slot when it
// was. Shortened: an idle-timeout of 5 s of 180.
func TestPeriodicConnections(t *testing.T) {
	t.Parallel()
	const idle = 5
	onOpenSSHs(t, []string{"bullseye"}, func(t *testing.T, _, root string) {
		s := newStandingSite(t, "/bin/cat")
		s.root = root
		long, lazy, broken := s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
		slot := nextMinute()
		k := s.Keep(document(
			periodically(persistent("long", quickAlive(s.At(long.Addr))), 0),
			periodically(persistent("lazy", quickAlive(s.At(lazy.Addr))), idle),
			periodically(persistent("broken", quickAlive(s.At(broken.Addr))), 0),
		))
		if c := k.client("lazy"); c.State != proto.ClientIdle || c.NextAttempt == nil || !c.NextAttempt.Equal(slot) || !c.Periodic {
			t.Errorf("before the slot %v the client is %+v", slot, c)
		}
		if n := len(long.Calls()) + len(lazy.Calls()) + len(broken.Calls()); n > 0 {
			t.Errorf("%d calls before the slot", n)
		}
		for _, nms := range []*station{long, lazy, broken} {
			atSlot(t, nms, 1, slot)
		}

		// Idle: not sooner than the timeout, and not much later.
		k.AwaitState(patience, "lazy", proto.ClientIdle)
		ended := k.AwaitPublished(patience, "lazy", proto.EventClosed, 1).Session
		// From 9.2 on sshd closes the session alone, upon which a stock ssh says
		// goodbye by itself.
		if ended.End != proto.EndIdle && ended.End != proto.EndDisconnected || !ended.Graceful || ended.Ended == nil {
			t.Fatalf("the idle session ended as %+v", ended)
		}
		// ChannelTimeout has a resolution of a second, either way (measured, 9.2).
		if lived := ended.Ended.Sub(ended.Since); lived < (idle-1)*time.Second || lived > (2*idle+4)*time.Second {
			t.Errorf("the idle session lived for %v", lived)
		}

		// Not meant: again at once.
		k.awaitGood("broken")
		broken.HangUp()
		hung := time.Now()
		if took := broken.AwaitCall(patience, 2).at.Sub(hung); took > time.Second+lateness {
			t.Errorf("after an end that was not meant the next call took %v", took)
		}
		k.AwaitServing(patience, "broken")
		broken.Session().echo("hello")
		broken.Session().leave()
		c := k.AwaitState(patience, "broken", proto.ClientIdle)
		if want := slot.Add(time.Minute); c.NextAttempt == nil || !c.NextAttempt.Equal(want) {
			t.Errorf("after an end that was meant the next attempt is at %v, expected %v", c.NextAttempt, want)
		}

		// The next slot: those who are gone come, who is there stays.
		second := slot.Add(time.Minute)
		atSlot(t, lazy, 2, second)
		atSlot(t, broken, 3, second)
		if n := len(long.Calls()); n != 1 {
			t.Errorf("%d calls for the session that is open", n)
		}
		long.Session().echo("still the first one")
		long.Session().leave()
		k.AwaitClient(patience, "long", func(c proto.ClientStatus) error {
			if c.State != proto.ClientIdle || c.NextAttempt == nil || !c.NextAttempt.Equal(second.Add(time.Minute)) {
				return errors.New("not waiting for the third slot")
			}
			return nil
		})
		if n := len(broken.Calls()); n != 3 {
			t.Errorf("%d calls for the broken one", n)
		}
		t.Logf("sshd: %s", sshdVersion(t, s.device))
	})
}

// The endpoint connected to last is called first after a boot.
func TestLastConnectedSurvivesABoot(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	first, second := s.nms.NewStation(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	client := persistent("nms", s.At(first.Addr), s.At(second.Addr))
	client["reconnect-strategy"] = object{"start-with": "last-connected", "max-attempts": 1}
	k := s.Keep(document(client))
	if session := k.AwaitServing(patience, "nms"); session.Endpoint != second.Addr {
		t.Errorf("the session is %+v", session)
	}
	first.Open()
	session := k.AwaitServing(patience, "nms")
	family := []proc{mustLookup(t, session.PID)}
	k.must(proto.MethodStop, nil, nil)
	k.MustExit(0)
	// A boot ends the session and takes what is on tmpfs.
	second.HangUp()
	AwaitGone(t, patience, family)
	k.state += "-of-the-next-boot"
	k.begin()
	if session := k.AwaitServing(patience, "nms"); session.Endpoint != second.Addr {
		t.Errorf("the session is %+v", session)
	}
	if n := len(first.Calls()); n != 0 {
		t.Errorf("the first endpoint was called %d times", n)
	}
	second.Session().leave()
}
