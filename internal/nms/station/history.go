package station

import (
	"time"

	"callhome/internal/nms/nmsproto"
)

// Bounds of the history. With all records in use a device takes about 2 KiB.
const (
	maxRecords  = 16 // of one device; the oldest is dropped
	maxSessions = 8  // that have ended, of one device
	maxMinutes  = 24 * 60
	lastMinutes = 60
	perQuarter  = 15
)

// history is what the station remembers of the events and sessions of its devices,
// and how many logins, losses and refused calls there were in each minute of the last
// day. The station calls its methods with its mu held.
type history struct {
	known   func(id string) bool // whether the registry has a device
	devices map[string]*deviceHistory
	minutes [maxMinutes]minute // of minute n at n modulo maxMinutes
}

type minute struct {
	n int64 // since 1970; another one than expected means that nothing happened
	nmsproto.Count
}

type deviceHistory struct {
	records  []record // the oldest first
	sessions []nmsproto.SessionRecord
}

// record is a nmsproto.Record in less memory.
type record struct {
	first, last int64 // in Unix nanoseconds
	times       int
	event       string
	address     string
	cause       string
	identity    *identity
}

// identity is what a device showed; records share it.
type identity struct{ software, hostKey, certificate string }

func newHistory(known func(id string) bool) *history {
	return &history{known: known, devices: make(map[string]*deviceHistory)}
}

// note records an event, also one that a rate limit does not publish.
func (h *history) note(e nmsproto.Event) {
	h.count(e)
	// The connection of a device that was removed ends after that.
	if e.Device == "" || !h.known(e.Device) {
		return
	}
	d := h.of(e.Device)
	at := e.Time.UnixNano()
	r := record{first: at, last: at, times: 1, event: e.Event, address: e.Address, cause: e.Cause, identity: &identity{e.Software, e.HostKey, e.Certificate}}
	if n := len(d.records); n > 0 {
		before := &d.records[n-1]
		if *before.identity == *r.identity {
			r.identity = before.identity
		}
		// A device that fails each minute must not push its history out.
		if before.event == r.event && before.cause == r.cause && before.identity == r.identity && sameHost(before.address, r.address) {
			before.last, before.address = at, r.address
			before.times++
			return
		}
	}
	d.records = appendBounded(d.records, r, maxRecords)
}

// session records a session that has ended.
func (h *history) session(device string, s nmsproto.SessionRecord) {
	if !h.known(device) {
		return
	}
	d := h.of(device)
	d.sessions = appendBounded(d.sessions, s, maxSessions)
}

// count counts an event in its minute.
func (h *history) count(e nmsproto.Event) {
	n := e.Time.Unix() / 60
	m := &h.minutes[n%maxMinutes]
	if m.n != n {
		*m = minute{n: n}
	}
	switch e.Event {
	case nmsproto.EventUp, nmsproto.EventReplaced:
		m.Logins++
	case nmsproto.EventDown:
		m.Losses++
	case nmsproto.EventRefused, nmsproto.EventUnknown, nmsproto.EventDuplicate:
		m.Refused++
	}
}

func (h *history) of(device string) *deviceHistory {
	d := h.devices[device]
	if d == nil {
		d = new(deviceHistory)
		h.devices[device] = d
	}
	return d
}

// timeline returns the totals up to the minute of now.
func (h *history) timeline(now time.Time) nmsproto.History {
	last := now.Unix() / 60
	out := nmsproto.History{End: time.Unix((last+1)*60, 0).UTC(), Minutes: make([]nmsproto.Count, lastMinutes), Quarters: make([]nmsproto.Count, maxMinutes/perQuarter)}
	for age := range int64(maxMinutes) {
		m := h.minutes[(last-age)%maxMinutes]
		if m.n != last-age {
			continue
		}
		if age < lastMinutes {
			out.Minutes[lastMinutes-1-age] = m.Count
		}
		at := len(out.Quarters) - 1 - int(last/perQuarter-m.n/perQuarter)
		if at < 0 {
			continue // of the same quarter of an hour yesterday
		}
		q := &out.Quarters[at]
		q.Logins += m.Logins
		q.Losses += m.Losses
		q.Refused += m.Refused
	}
	return out
}

// fill copies the history of a device, the newest first.
func (h *history) fill(to *nmsproto.DeviceDetail) {
	to.History, to.SessionLog = []nmsproto.Record{}, []nmsproto.SessionRecord{}
	d := h.devices[to.ID]
	if d == nil {
		return
	}
	for i := len(d.records) - 1; i >= 0; i-- {
		r := d.records[i]
		to.History = append(to.History, nmsproto.Record{
			Time: time.Unix(0, r.last).UTC(), First: time.Unix(0, r.first).UTC(), Times: r.times, Event: r.event, Address: r.address, Cause: r.cause,
			Software: r.identity.software, HostKey: r.identity.hostKey, Certificate: r.identity.certificate,
		})
	}
	for i := len(d.sessions) - 1; i >= 0; i-- {
		to.SessionLog = append(to.SessionLog, d.sessions[i])
	}
}

// sameHost reports whether two addresses differ in their ports at most.
func sameHost(a, b string) bool { return hostOf(a) == hostOf(b) }

func hostOf(address string) string {
	for i := len(address) - 1; i >= 0; i-- {
		if address[i] == ':' {
			return address[:i]
		}
	}
	return address
}

// appendBounded appends v, and drops the oldest where there are more than most.
func appendBounded[E any](to []E, v E, most int) []E {
	if len(to) < most {
		return append(to, v)
	}
	copy(to, to[1:])
	to[len(to)-1] = v
	return to
}
