package station

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"
)

func anyDevice(string) bool { return true }

func detail(t *testing.T, h *history, id string) nmsproto.DeviceDetail {
	t.Helper()
	out := nmsproto.DeviceDetail{Device: nmsproto.Device{ID: id}}
	h.fill(&out)
	return out
}

func TestADevicesHistoryIsBoundedAndTheNewestIsFirst(t *testing.T) {
	h := newHistory(anyDevice)
	begin := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for i := range maxRecords + 5 {
		h.note(nmsproto.Event{Time: begin.Add(time.Duration(i) * time.Second), Event: nmsproto.EventDown, Device: "edge7", Address: "192.0.2.1:1", Cause: fmt.Sprint(i)})
	}
	for i := range maxSessions + 5 {
		h.session("edge7", nmsproto.SessionRecord{Sent: uint64(i)})
	}
	d := detail(t, h, "edge7")
	if len(d.History) != maxRecords || d.History[0].Cause != fmt.Sprint(maxRecords+4) || d.History[maxRecords-1].Cause != "5" {
		t.Errorf("got %+v", d.History)
	}
	if len(d.SessionLog) != maxSessions || d.SessionLog[0].Sent != maxSessions+4 {
		t.Errorf("got %+v", d.SessionLog)
	}
	if d := detail(t, h, "edge8"); d.History == nil || d.SessionLog == nil {
		t.Error("a device without history has no lists")
	}
}

func TestEqualEventsInARowAreOneRecord(t *testing.T) {
	h := newHistory(anyDevice)
	begin := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	fails := nmsproto.Event{Event: nmsproto.EventRefused, Device: "edge7", Software: "SSH-2.0-x", Cause: "login failed"}
	for i := range 100 {
		fails.Time, fails.Address = begin.Add(time.Duration(i)*time.Minute), fmt.Sprintf("[2001:db8::1]:%d", 1000+i)
		h.note(fails)
	}
	fails.Software = "SSH-2.0-y"
	h.note(fails)
	d := detail(t, h, "edge7")
	if len(d.History) != 2 || d.History[1].Times != 100 || !d.History[1].First.Equal(begin) || !d.History[1].Time.Equal(begin.Add(99*time.Minute)) || d.History[1].Address != "[2001:db8::1]:1099" {
		t.Errorf("got %+v", d.History)
	}
}

func TestTheTimelineCountsByMinuteAndQuarter(t *testing.T) {
	h := newHistory(anyDevice)
	now := time.Date(2026, 11, 29, 12, 0, 30, 0, time.UTC)
	for _, e := range []struct {
		ago   time.Duration
		event string
	}{
		{25 * time.Hour, nmsproto.EventUp},                // its minute is used again
		{23*time.Hour + 59*time.Minute, nmsproto.EventUp}, // of the same quarter of an hour as now
		{23*time.Hour + 31*time.Minute, nmsproto.EventUp},
		{time.Hour, nmsproto.EventDown}, {59 * time.Minute, nmsproto.EventDown}, {time.Minute, nmsproto.EventReplaced},
		{0, nmsproto.EventUp}, {0, nmsproto.EventUnknown}, {0, nmsproto.EventRefused}, {0, nmsproto.EventDuplicate}, {0, nmsproto.EventAdopted},
	} {
		h.note(nmsproto.Event{Time: now.Add(-e.ago), Event: e.event})
	}
	got := h.timeline(now)
	if want := time.Date(2026, 11, 29, 12, 1, 0, 0, time.UTC); !got.End.Equal(want) || len(got.Minutes) != 60 || len(got.Quarters) != 96 {
		t.Errorf("it ends at %v with %d and %d", got.End, len(got.Minutes), len(got.Quarters))
	}
	count := func(logins, losses, refused int) nmsproto.Count {
		return nmsproto.Count{Logins: logins, Losses: losses, Refused: refused}
	}
	for name, tt := range map[string]struct{ got, want nmsproto.Count }{
		"this minute":       {got.Minutes[59], count(1, 0, 3)},
		"the minute before": {got.Minutes[58], count(1, 0, 0)},
		"the first minute":  {got.Minutes[0], count(0, 1, 0)},
		"this quarter":      {got.Quarters[95], count(1, 0, 3)},
		"a minute ago":      {got.Quarters[94], count(1, 0, 0)},
		"an hour ago":       {got.Quarters[91], count(0, 2, 0)},
		"the first quarter": {got.Quarters[0], count(1, 0, 0)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, tt.got, tt.want)
		}
	}
	if later := h.timeline(now.Add(48 * time.Hour)); later.Quarters[0] != count(0, 0, 0) || later.Minutes[59] != count(0, 0, 0) {
		t.Errorf("two days later: %+v", later)
	}
}

func TestTheStationRemembersWhatHappenedToADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		conn := s.call("192.0.2.1:1001", d.serve)
		s.await(nmsproto.EventUp)
		time.Sleep(time.Minute) // for a keepalive
		ours, theirs := socketpair(t)
		go func() {
			_ = ours.CloseWrite()
		}()
		if _, err := s.Connect(t.Context(), "edge7", theirs); err != nil {
			t.Error(err)
		}
		got, err := s.Detail("edge7")
		if err != nil || got.State != nmsproto.Connected || len(got.HostKeys) != 1 || got.HostKeys[0] != got.HostKey || len(got.SessionLog) != 1 {
			t.Errorf("got %+v, %v", got, err)
		}
		conn.Close()
		s.await(nmsproto.EventDown)
		got, _ = s.Detail("edge7")
		if len(got.History) != 2 || got.History[0].Event != nmsproto.EventDown || got.History[1].Event != nmsproto.EventUp || got.History[1].Software != "SSH-2.0-StandIn" || got.RoundTrip != 0 {
			t.Errorf("got %+v", got)
		}
		if h := s.History(); h.Minutes[58].Logins+h.Minutes[59].Logins != 1 || h.Minutes[58].Losses+h.Minutes[59].Losses != 1 {
			t.Errorf("got %+v", h.Minutes[58:])
		}
		if _, err := s.Detail("edge\x1b"); err == nil || !strings.Contains(err.Error(), `there is no device "edge\x1b"`) {
			t.Errorf("got %v", err)
		}
	})
}

func BenchmarkHistoryOf20000Devices(b *testing.B) {
	long := func(i, n int) string { return fmt.Sprintf("%06d %02d", i, n) + strings.Repeat("x", printable.Most) }
	usual := func(_, n int, e *nmsproto.Event) {
		e.Event = []string{nmsproto.EventUp, nmsproto.EventDown}[n%2]
		e.Software, e.Cause = "SSH-2.0-OpenSSH_9.2", "the device closed the connection"
	}
	for _, row := range []struct {
		name string
		fill func(i, n int, e *nmsproto.Event)
	}{
		{"usual", usual},
		{"another version, certificate and cause each time", func(i, n int, e *nmsproto.Event) {
			e.Event, e.Software, e.Certificate, e.Cause = nmsproto.EventRefused, long(i, n)[:255], long(i, n), "login failed: "+long(i, n)
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				h := newHistory(anyDevice)
				for i := range 20000 {
					for n := range maxRecords {
						e := nmsproto.Event{Time: time.Unix(int64(n), 0), Device: fmt.Sprintf("edge%d", i), Address: fmt.Sprintf("192.0.2.1:%d", n), HostKey: strings.Repeat("x", 50)}
						row.fill(i, n, &e)
						h.note(e)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/20000, "bytes/device")
				runtime.KeepAlive(h)
			}
		})
	}
}
