package sysevents

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/wake"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Changes that come together are reported once, and a flapping link at most every
// minInterval.
func TestChangesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done, changes := make(chan struct{}), wake.New()
		begun := time.Now()
		var mu sync.Mutex // guards all
		var all []time.Duration
		go coalesce(done, changes, func() {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(begun))
		})
		soFar := func() []time.Duration {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		expect := func(want ...time.Duration) {
			t.Helper()
			reports := soFar()
			if len(reports) != len(want) {
				t.Fatalf("reported after %v, expected %v", reports, want)
			}
			for i := range want {
				if reports[i] != want[i] {
					t.Errorf("reported after %v, expected %v", reports, want)
				}
			}
		}
		for range 5 { // a link and its addresses
			wake.Up(changes)
			time.Sleep(settle / 10)
		}
		expect()
		time.Sleep(settle / 2)
		expect(settle)
		time.Sleep(minInterval)
		expect(settle)
		second := time.Since(begun)
		for range 100 { // a flapping link
			wake.Up(changes)
			time.Sleep(settle)
		}
		reports := soFar()
		for i, at := range reports[1:] {
			if want := second + settle + time.Duration(i)*(minInterval+settle); at != want {
				t.Errorf("flap reported after %v, expected %v", at, want)
			}
		}
		if n := len(reports) - 1; n != 5 {
			t.Errorf("100 flaps in 10 s were reported %d times", n)
		}
		close(done) // and the goroutine ends, else the bubble fails
	})
}

func TestAppearedReportsOnlyReturns(t *testing.T) {
	p := make(present[int])
	for i, step := range []struct {
		k               int
		there, appeared bool
	}{
		{1, true, true}, {1, true, false}, {2, false, false}, {2, true, true}, {1, false, false}, {1, false, false}, {1, true, true}, {2, true, false},
	} {
		if got := p.appeared(step.k, step.there); got != step.appeared {
			t.Errorf("step %d: appeared %v", i, got)
		}
	}
	for link := range 1000 { // of containers that come and go
		p.appeared(100+link, true)
		p.appeared(100+link, false)
	}
	if len(p) != 2 {
		t.Errorf("%d entries remain", len(p))
	}
}

// kernel is a subscription whose events the test makes.
func kernel() *subscription {
	return &subscription{links: make(chan netlink.LinkUpdate), addrs: make(chan netlink.AddrUpdate), done: make(chan struct{}),
		up: make(present[int]), ours: make(present[address])}
}

func link(index int, up, running bool) netlink.LinkUpdate {
	var l netlink.Dummy
	l.Index = index
	if up {
		l.Flags |= net.FlagUp
	}
	if running {
		l.RawFlags |= unix.IFF_RUNNING
	}
	return netlink.LinkUpdate{Link: &l, Header: unix.NlMsghdr{Type: unix.RTM_NEWLINK}}
}

func addr(ip string, flags int, there bool) netlink.AddrUpdate {
	_, n, _ := net.ParseCIDR(ip + "/64")
	return netlink.AddrUpdate{LinkIndex: 1, LinkAddress: *n, Flags: flags, NewAddr: there}
}

func TestWhichEventsAreChangesOfTheNetwork(t *testing.T) {
	gone := link(1, true, true)
	gone.Header.Type = unix.RTM_DELLINK
	for name, tt := range map[string]struct {
		links   []netlink.LinkUpdate
		addrs   []netlink.AddrUpdate
		changed bool // by the last event
	}{
		"a link with a carrier":             {links: []netlink.LinkUpdate{link(1, true, true)}, changed: true},
		"one without":                       {links: []netlink.LinkUpdate{link(1, true, false)}},
		"one that is down":                  {links: []netlink.LinkUpdate{link(1, false, true)}},
		"another change of one that is up":  {links: []netlink.LinkUpdate{link(1, true, true), link(1, true, true)}},
		"one that was away":                 {links: []netlink.LinkUpdate{link(1, true, true), link(1, true, false), link(1, true, true)}, changed: true},
		"one that was taken away":           {links: []netlink.LinkUpdate{link(1, true, true), gone}},
		"one that was taken away and again": {links: []netlink.LinkUpdate{link(1, true, true), gone, link(1, true, true)}, changed: true},
		"an address":                        {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true)}, changed: true},
		"one that is not ours yet":          {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_TENTATIVE, true)}},
		"one that is ours now":              {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_TENTATIVE, true), addr("2001:db8::", 0, true)}, changed: true},
		"one that is a duplicate":           {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_DADFAILED, true)}},
		"one that is prolonged":             {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, true)}},
		"one that is taken away":            {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, false)}},
		"one that comes back":               {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, false), addr("2001:db8::", 0, true)}, changed: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, done, changes := kernel(), make(chan struct{}), wake.New()
				go s.read(done, changes)
				changed := false
				look := func() {
					synctest.Wait()
					select {
					case <-changes:
						changed = true
					default:
						changed = false
					}
				}
				for _, l := range tt.links {
					s.links <- l
					look()
				}
				for _, a := range tt.addrs {
					s.addrs <- a
					look()
				}
				if changed != tt.changed {
					t.Errorf("changed: %v", changed)
				}
				close(done)
			})
		})
	}
}

// A sender that still sends when a subscription ends is not blocked.
func TestAnEndedSubscriptionBlocksNoSender(t *testing.T) {
	for name, end := range map[string]func(s *subscription, done chan struct{}){
		"with its owner":        func(_ *subscription, done chan struct{}) { close(done) },
		"as the kernel said so": func(s *subscription, _ chan struct{}) { close(s.links) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, done := kernel(), make(chan struct{})
				ended := make(chan bool)
				go func() { ended <- s.read(done, make(chan struct{}, 1)) }()
				end(s, done)
				_, own := map[string]bool{"with its owner": true}[name]
				if got := <-ended; got != own {
					t.Errorf("it ended with its owner: %v", got)
				}
				go func() { // a sender as package netlink has it
					defer close(s.addrs)
					for range 100 {
						s.addrs <- addr("2001:db8::", 0, true)
					}
				}()
				s.end()
				if own {
					close(s.links)
				}
			})
		})
	}
}

// The timer is there to be cancelled, not to expire.
func TestTheClocksTimerDoesNotExpire(t *testing.T) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := arm(fd); err != nil {
		t.Fatal(err)
	}
	var left unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &left); err != nil {
		t.Fatal(err)
	}
	if years := left.Value.Sec / (365 * 24 * 3600); years < 10 {
		t.Errorf("it expires in %d years", years)
	}
	if _, err := unix.Read(fd, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("reading it: %v", err)
	}
	if err := arm(-1); err == nil {
		t.Error("no error from the kernel")
	}
}

func TestClockEnds(t *testing.T) {
	done := make(chan struct{})
	if err := Clock(done, func() { t.Error("the clock was set") }); err != nil {
		t.Fatal(err)
	}
	close(done)
}

// await fails the test if f does not return true within a minute.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestAFileWrittenInPiecesIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done, changed := make(chan struct{}), wake.New()
		var reports []time.Duration
		begun := time.Now()
		go awaitQuiet(done, changed, func() { reports = append(reports, time.Since(begun)) })
		for range 20 {
			wake.Up(changed)
			time.Sleep(quiet / 2)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := 19*quiet/2 + quiet; len(reports) != 1 || reports[0] != want {
			t.Errorf("reported after %v, expected once, after %v", reports, want)
		}
		close(done)
	})
}

func TestFileReportsWritesAndRenames(t *testing.T) {
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "callhome.json")
	done := make(chan struct{})
	defer close(done)
	var reports atomic.Int32
	if err := File(done, path, func() { reports.Add(1) }); err != nil {
		t.Fatal(err)
	}
	// The report of another file comes after all reports of earlier changes.
	var others atomic.Int32
	if err := File(done, filepath.Join(dir, "other.json"), func() { others.Add(1) }); err != nil {
		t.Fatal(err)
	}
	settled := func(want int32) {
		t.Helper()
		n := others.Load()
		put(filepath.Join(dir, "other.json"), "x")
		await(t, "the other file is reported", func() bool { return others.Load() > n })
		if got := reports.Load(); got != want {
			t.Fatalf("reported %d times, expected %d", got, want)
		}
	}
	settled(0)
	// A rename is one event, so one report however slow the machine is.
	for n, text := range []string{"first", "second"} { // it was not there, and it was
		put(path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		await(t, "the rename is reported", func() bool { return reports.Load() == int32(n+1) })
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	settled(2) // nothing to read
	put(path, "third")
	await(t, "the write is reported", func() bool { return reports.Load() >= 3 })
}

func TestFileNeedsItsDirectory(t *testing.T) {
	if err := File(make(chan struct{}), filepath.Join(t.TempDir(), "not", "there"), func() {}); err == nil {
		t.Error("it is watched")
	}
}
