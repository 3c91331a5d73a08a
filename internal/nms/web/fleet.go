package web

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/wake"
)

// How often the copy is read from the daemon. A read of a large fleet takes the daemon
// and this process some time: they spend at most a share of 1/restShare on it.
const (
	leastPause = 250 * time.Millisecond // between two reads when events come
	mostPause  = 10 * time.Second       // also without events
	// The events are those of one station: changes at others of its cluster come with none.
	clusterPause = 2 * time.Second
	restShare    = 20
	watchTime    = time.Minute // after a request the copy is kept current that long
	retryPause   = 2 * time.Second
	freshTime    = 5 * time.Second // for a read that a request waits for
	callTime     = 20 * time.Second
	maxEvents    = 50
	maxChoices   = 200 // of a list of values to choose from
)

// daemonClient is the daemon's control socket.
type daemonClient interface {
	Call(ctx context.Context, method string, params, result any) error
	Events() <-chan nmsproto.Event
	Close() error
}

// fleet is a copy of what the daemon knows. It is read from the daemon when an event
// comes and from time to time, while a browser shows it.
type fleet struct {
	dial func() (daemonClient, error)
	wake chan struct{} // wakes run

	mu      sync.Mutex // guards the fields that follow
	last    *snapshot
	events  []nmsproto.Event // the newest last
	dirty   bool             // an event came since last was begun
	begun   uint64           // reads
	wanted  uint64           // the number of a read that a request waits for
	watched time.Time        // when the last request came
	changed chan struct{}    // closed with the next snapshot
}

// snapshot is one copy; it does not change.
type snapshot struct {
	Number   uint64
	At       time.Time
	Err      error // the daemon does not answer; the rest is as it was before
	Status   nmsproto.Status
	History  nmsproto.History
	Rows     []row // by id
	Unknown  []nmsproto.Unknown
	Problems []nmsproto.Problem
	Events   []nmsproto.Event // the newest first
	// Values to choose from.
	Labels, Software, Stations []string
}

// row is a device with the text that a search looks at.
type row struct {
	nmsproto.Device
	text string // in lower case
}

func newFleet(dial func() (daemonClient, error)) *fleet {
	return &fleet{dial: dial, wake: wake.New(), last: &snapshot{}, changed: make(chan struct{})}
}

// get returns a copy that is current, for a request.
func (f *fleet) get(ctx context.Context) *snapshot {
	f.mu.Lock()
	idle := time.Since(f.watched) > watchTime
	f.watched = time.Now()
	last := f.last
	f.mu.Unlock()
	if idle || last.Number == 0 {
		return f.fresh(ctx)
	}
	return last
}

// fresh returns a copy whose read begins after the call, or the last one if that takes
// too long.
func (f *fleet) fresh(ctx context.Context) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, freshTime)
	defer cancel()
	f.mu.Lock()
	want := f.begun + 1
	f.wanted = max(f.wanted, want)
	f.mu.Unlock()
	wake.Up(f.wake)
	for {
		last, changed := f.next()
		if last.Number >= want {
			return last
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last
		}
	}
}

// next returns the last copy, and a channel that is closed when another one replaces it.
func (f *fleet) next() (*snapshot, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.changed
}

// watch has the copy kept current for some time.
func (f *fleet) watch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = time.Now()
}

// run reads copies until ctx ends.
func (f *fleet) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		f.publish(func(s *snapshot) { s.Err = err })
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// follow connects to the daemon and reads copies until the connection fails.
func (f *fleet) follow(ctx context.Context) error {
	f.mu.Lock()
	f.begun++
	f.mu.Unlock()
	c, err := f.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var last nmsproto.EventList
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := c.Call(limited, nmsproto.MethodSubscribe, nil, &last); err != nil {
		return err
	}
	f.mu.Lock()
	f.events = nil
	f.mu.Unlock()
	f.note(last.Events...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range c.Events() {
			f.note(e)
		}
		wake.Up(f.wake)
	}()
	for {
		begun := time.Now()
		if err := f.read(ctx, c); err != nil {
			return err
		}
		if !f.wait(ctx, time.Since(begun), ended) {
			return errEnded
		}
	}
}

var errEnded = errors.New("callhome-nms serve closed the connection")

// note records events.
func (f *fleet) note(events ...nmsproto.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, events...)
	if n := len(f.events); n > maxEvents {
		f.events = slices.Clone(f.events[n-maxEvents:])
	}
	f.dirty = true
	wake.Up(f.wake)
}

// read reads one copy.
func (f *fleet) read(ctx context.Context, c daemonClient) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	f.mu.Lock()
	f.begun++
	f.dirty = false
	f.mu.Unlock()
	var s snapshot
	var list nmsproto.DeviceList
	for _, call := range []struct {
		method string
		result any
	}{{nmsproto.MethodStatus, &s.Status}, {nmsproto.MethodHistory, &s.History}, {nmsproto.MethodDevices, &list}} {
		if err := c.Call(ctx, call.method, nil, call.result); err != nil {
			return err
		}
	}
	s.take(list)
	f.publish(func(to *snapshot) { *to = s })
	return nil
}

// publish replaces the copy by a changed one.
func (f *fleet) publish(change func(*snapshot)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := *f.last
	change(&s)
	s.Number, s.Events = f.begun, slices.Clone(f.events)
	slices.Reverse(s.Events)
	if s.Err == nil {
		s.At = time.Now()
	}
	f.last = &s
	close(f.changed)
	f.changed = make(chan struct{})
}

// wait waits until the copy is to be read again; the last read took that long. It
// returns false when ctx or the connection has ended.
func (f *fleet) wait(ctx context.Context, took time.Duration, ended <-chan struct{}) bool {
	read := time.Now()
	least := max(leastPause, restShare*took)
	most := max(mostPause, least)
	if last, _ := f.next(); last.Status.Station != "" {
		most = max(clusterPause, least)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		f.mu.Lock()
		now := f.wanted > f.begun
		pause := most
		if f.dirty {
			pause = least
		}
		if time.Since(f.watched) > watchTime {
			pause = 0
		}
		f.mu.Unlock()
		var due <-chan time.Time
		if pause > 0 {
			left := time.Until(read.Add(pause))
			if now = now || left <= 0; !now {
				timer.Reset(left)
				due = timer.C
			}
		}
		if now {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-due:
		case <-f.wake:
		}
	}
}

// take takes the devices, and what is to be known of them for searches.
func (s *snapshot) take(list nmsproto.DeviceList) {
	s.Unknown, s.Problems = list.Unknown, list.Problems
	s.Rows = make([]row, len(list.Devices))
	labels, software, stations := make(map[string]int), make(map[string]int), make(map[string]int)
	var text []string
	for i, d := range list.Devices {
		text = append(text[:0], d.ID, d.Address, d.Software, d.HostKey, d.Certificate, d.Station, d.LastError)
		for name, value := range d.Labels {
			text = append(text, name+"="+value)
			labels[name+"="+value]++
		}
		software[d.Software]++
		stations[d.Station]++
		s.Rows[i] = row{d, strings.ToLower(strings.Join(text, "\n"))}
	}
	slices.SortFunc(s.Rows, func(a, b row) int { return strings.Compare(a.ID, b.ID) })
	s.Labels, s.Software, s.Stations = choices(labels), choices(software), choices(stations)
}

// choices returns the most frequent values, in order.
func choices(of map[string]int) []string {
	delete(of, "")
	all := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(of[b]-of[a], strings.Compare(a, b)) })
	all = all[:min(len(all), maxChoices)]
	slices.Sort(all)
	return all
}
