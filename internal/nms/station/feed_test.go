package station

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/sshtest"
	"callhome/internal/pubsub"
)

// rest returns what a feed has now.
func rest(f *Feed) (out []nmsproto.Event) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		e, missed, ok := f.Next(now)
		if !ok {
			return out
		}
		if missed {
			e.Cause = "missed" // Next must not report it
		}
		out = append(out, e)
	}
}

// registered writes n entries and returns their ids.
func (s *site) registered(n int) (ids []string) {
	s.t.Helper()
	for i := range n {
		id := fmt.Sprintf("edge%d", i)
		text := fmt.Sprintf(`{"id": %q, "host-keys": [%q]}`, id, sshtest.Line(sshtest.NewSigner(s.t).PublicKey()))
		if err := os.WriteFile(filepath.Join(s.dir, id+".json"), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	s.reload()
	return ids
}

// goes has a device connect or disconnect, as far as its state and events go.
func (s *site) goes(id, event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, now := s.deviceOf(id), time.Now()
	d.seen.State, d.seen.Since, d.seen.Address, d.seen.LastError = nmsproto.Connected, &now, "192.0.2.1:1", ""
	if event == nmsproto.EventDown {
		d.seen.State, d.seen.LastError = nmsproto.Lost, "gone"
	}
	s.Station.events.publish(nmsproto.Event{Event: event, Device: id, Address: d.seen.Address, Cause: d.seen.LastError})
}

// Each device of a fleet that is lost and comes back is reported to a follower that
// reads nothing meanwhile.
func TestAFleetFitsIntoTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ids := s.registered(3000)
		f := s.Follow()
		defer f.Close()
		for _, event := range []string{nmsproto.EventDown, nmsproto.EventUp} {
			for _, id := range ids {
				s.goes(id, event)
			}
		}
		got := rest(f)
		if len(got) != 6000 {
			t.Fatalf("got %d events", len(got))
		}
		for n, e := range got {
			if e.Event != nmsproto.EventDown && n < 3000 || e.Event != nmsproto.EventUp && n >= 3000 || e.Device != ids[n%3000] || e.Missed != 0 || n > 0 && e.Sequence != got[n-1].Sequence+1 {
				t.Fatalf("event %d is %+v", n, e)
			}
		}
	})
}

// A follower that is too far behind gets the state of each device, and then all that
// follows: what it knows of a device is the truth again.
func TestAFollowerThatFellBehindIsResynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ids := s.registered(5)
		f := s.Follow()
		defer f.Close()
		s.goes(ids[0], nmsproto.EventUp)
		s.goes(ids[1], nmsproto.EventUp)
		s.goes(ids[1], nmsproto.EventDown)
		s.goes(ids[2], nmsproto.EventUp)
		const more = pubsub.Backlog + 20
		for range more {
			s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted, Device: "x"})
		}
		s.know(ids[4], newStandIn(t), "")
		got := rest(f)
		if len(got) != 5 {
			t.Fatalf("got %+v", got)
		}
		begin, states, end := got[0], got[1:4], got[4]
		if begin.Event != nmsproto.EventResync || begin.Missed != 4+more || begin.Sequence != 0 || end.Event != nmsproto.EventInSync || end.Sequence != s.Station.events.sequence || end.Cause != "devices: 3" {
			t.Errorf("it begins with %+v and ends with %+v", begin, end)
		}
		want := map[string]string{ids[0]: nmsproto.EventUp, ids[1]: nmsproto.EventDown, ids[2]: nmsproto.EventUp}
		for _, e := range states {
			if want[e.Device] != e.Event || !e.Resync || e.Sequence != 0 || e.Address == "" || (e.Event == nmsproto.EventDown) != (e.Cause == "gone") {
				t.Errorf("a state is %+v", e)
			}
			delete(want, e.Device)
		}
		s.goes(ids[1], nmsproto.EventUp)
		if got := rest(f); len(got) != 1 || got[0].Sequence != end.Sequence+1 || got[0].Device != ids[1] || got[0].Resync || got[0].Missed != 0 {
			t.Errorf("then it got %+v", got)
		}
	})
}

// Events of unauthenticated peers that are missing are counted. They need no resync.
func TestMissingEventsOfPeersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		f := s.Follow()
		defer f.Close()
		const n = pubsub.Backlog
		s.mu.Lock()
		for range n {
			s.Station.events.send(nmsproto.Event{Event: nmsproto.EventUnknown})
		}
		s.Station.events.send(nmsproto.Event{Event: nmsproto.EventAdopted})
		s.mu.Unlock()
		got := rest(f)
		var missed uint64
		for _, e := range got {
			missed += e.Missed
		}
		if len(got) != n/4+1 || missed != n-n/4 || got[0].Missed != missed || got[0].Resync {
			t.Errorf("got %d events, %d missing; the first is %+v", len(got), missed, got[0])
		}
	})
}

func TestAFollowerCatchesUpBySequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ids := s.registered(2)
		s.goes(ids[0], nmsproto.EventUp)
		first := s.Station.events.sequence
		s.goes(ids[1], nmsproto.EventUp)
		for _, tt := range []struct {
			name  string
			after uint64
			cause string // of a resync
		}{
			{"the events are kept", first, ""},
			{"nothing is new", first + 1, ""},
			{"all of them", first - 1, ""},
			{"a former run", first - 2, "was started since"},
			{"no sequence", 0, "begins"},
			{"a later one", first + 2, "no event has that sequence yet"},
		} {
			last, _, cancel := s.SubscribeAfter(tt.after)
			cancel()
			if tt.cause == "" {
				if want := int(first + 1 - tt.after); len(last) != want || want > 0 && last[0].Sequence != tt.after+1 {
					t.Errorf("%s: got %+v", tt.name, last)
				}
				continue
			}
			if len(last) != 4 || last[0].Event != nmsproto.EventResync || !strings.Contains(last[0].Cause, tt.cause) || last[3].Event != nmsproto.EventInSync || last[3].Sequence != first+1 {
				t.Errorf("%s: got %+v", tt.name, last)
			}
		}
		for range 2 * pubsub.Backlog {
			s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted})
		}
		if last, _, cancel := s.SubscribeAfter(first); len(last) != 4 || !strings.Contains(last[0].Cause, "no longer kept") {
			t.Errorf("got %+v", last)
		} else {
			cancel()
		}
		synctest.Wait()
	})
}

// More than SubscribeAfter returns at once comes on the channel.
func TestALongCatchUpIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		before := s.Station.events.sequence
		s.Station.events.hub.Backlog = func() int { return 2 * maxReplay }
		const n = maxReplay + 100
		for range n {
			s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted})
		}
		last, events, cancel := s.SubscribeAfter(before)
		defer cancel()
		next := before
		for n := range n {
			var e nmsproto.Event
			if n < len(last) {
				e = last[n]
			} else {
				e = <-events
			}
			if next++; e.Sequence != next || e.Missed != 0 {
				t.Fatalf("event %d is %+v", n, e)
			}
		}
	})
}
