package web

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"callhome/internal/nms/nmsproto"
)

func fleetOf(devices ...nmsproto.Device) *snapshot {
	s := new(snapshot)
	s.take(nmsproto.DeviceList{Devices: devices})
	return s
}

func TestFind(t *testing.T) {
	at := func(minutes int) *time.Time {
		t := time.Date(2026, 11, 29, 12, minutes, 0, 0, time.UTC)
		return &t
	}
	s := fleetOf(
		nmsproto.Device{ID: "a", State: nmsproto.Connected, Since: at(5), Labels: map[string]string{"site": "West"}, Software: "SSH-2.0-x", Station: "one", Sessions: 2},
		nmsproto.Device{ID: "b", State: nmsproto.Lost, Since: at(3), LastError: "No answer", ErrorTime: at(3), Labels: map[string]string{"site": "east"}, Software: "SSH-2.0-y"},
		nmsproto.Device{ID: "c", State: nmsproto.NeverSeen},
		nmsproto.Device{ID: "d", State: nmsproto.Lost, Since: at(1), Station: "two", ErrorTime: at(1)},
	)
	for query, want := range map[string]string{
		"": "abcd", "q=west": "a", "q=SSH+WEST": "a", "q=west+east": "", "q=no+answer": "b", "state=lost": "bd", "state=nonsense": "abcd",
		"label=site": "ab", "label=site%3DWest": "a", "label=site%3Dwest": "", "station=two": "d", "software=SSH-2.0-y": "b",
		"sort=since": "dbac", "sort=since&order=down": "abdc", "order=down": "dcba", "sort=error": "dbac", "sort=sessions&order=down": "adcb",
		"sort=nonsense": "abcd", "page=9": "abcd", "page=-1": "abcd",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range s.find(readQuery(v)).Rows {
			got += r.ID
		}
		if got != want {
			t.Errorf("%q finds %q, want %q", query, got, want)
		}
	}
	if fmt.Sprint(s.Labels, s.Stations, s.Software) != "[site=West site=east] [one two] [SSH-2.0-x SSH-2.0-y]" {
		t.Errorf("choices %q %q %q", s.Labels, s.Stations, s.Software)
	}
	if lost := s.longestLost(1); len(lost) != 1 || lost[0].ID != "d" {
		t.Errorf("lost longest: %+v", lost)
	}
}

func TestPages(t *testing.T) {
	var all []nmsproto.Device
	for i := range 2*pageRows + 1 {
		all = append(all, nmsproto.Device{ID: fmt.Sprintf("%04d", i)})
	}
	s := fleetOf(all...)
	f := s.find(query{Sort: "id", Page: 3})
	if f.Pages != 3 || f.First != 201 || f.Last != 201 || len(f.Rows) != 1 || f.Query.Page != 3 {
		t.Errorf("got %+v", f)
	}
	q := readQuery(url.Values{"q": {"a b"}, "state": {"lost"}, "sort": {"since"}, "order": {"down"}, "page": {"2"}})
	u, err := url.Parse(q.URL())
	if err != nil || readQuery(u.Query()) != q || u.Path != "/devices" {
		t.Errorf("%+v has the address %s", q, q.URL())
	}
	if by := q.By("since"); by.Down || by.Page != 1 || !by.By("since").Down || by.By("id").Down {
		t.Errorf("the other way round is %+v", by)
	}
}

// calm is a daemon that counts how often it is asked.
type calm struct {
	events chan nmsproto.Event
	reads  *atomic.Int64
	failed *atomic.Pointer[error]
}

func (c calm) Call(_ context.Context, method string, _, _ any) error {
	if method == nmsproto.MethodDevices {
		c.reads.Add(1)
	}
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}
func (c calm) Events() <-chan nmsproto.Event { return c.events }
func (c calm) Close() error                  { return nil }

// A fleet that no browser shows is not read; one that is shown is read with events, and
// from time to time.
func TestTheDaemonIsAskedWhileABrowserShowsThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan nmsproto.Event)
		var counted atomic.Int64
		var failed atomic.Pointer[error]
		reads := func() int { return int(counted.Load()) }
		f := newFleet(func() (daemonClient, error) { return calm{events, &counted, &failed}, nil })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.run(ctx)
		}()
		synctest.Wait()
		begun := reads()
		time.Sleep(time.Hour)
		if reads() != begun {
			t.Errorf("it was read %d times while nobody looked", reads()-begun)
		}
		if s := f.get(ctx); s.Err != nil || reads() != begun+1 {
			t.Errorf("a request reads %d times: %v", reads()-begun, s.Err)
		}
		events <- nmsproto.Event{Event: nmsproto.EventUp}
		time.Sleep(leastPause)
		synctest.Wait()
		if reads() != begun+2 {
			t.Errorf("after an event it was read %d times", reads()-begun)
		}
		time.Sleep(mostPause)
		synctest.Wait()
		if reads() != begun+3 {
			t.Errorf("after a while it was read %d times", reads()-begun)
		}
		for range 1000 {
			events <- nmsproto.Event{Event: nmsproto.EventUp}
			time.Sleep(time.Millisecond)
		}
		f.mu.Lock()
		kept := len(f.events)
		f.mu.Unlock()
		if n := reads() - begun; n > 3+int(time.Second/leastPause) || kept != maxEvents {
			t.Errorf("1000 events in a second cause %d reads, %d are kept", n, kept)
		}
		// The daemon fails, and comes back.
		err := errors.New("it fails")
		failed.Store(&err)
		if s := f.fresh(ctx); s.Err == nil || s.At.IsZero() {
			t.Errorf("a failure is shown as %v", s.Err)
		}
		failed.Store(nil)
		if s := f.fresh(ctx); s.Err != nil {
			t.Errorf("afterwards: %v", s.Err)
		}
		cancel()
		close(events)
		<-ended
	})
}

func TestALongSearchIsCut(t *testing.T) {
	q := readQuery(url.Values{"q": {strings.Repeat("ä ", 10_000)}})
	if len(q.Text) > maxText || !utf8.ValidString(q.Text) {
		t.Errorf("%d bytes: %q", len(q.Text), q.Text)
	}
}
