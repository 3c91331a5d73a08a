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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// News that come together are told once, and a flapping link is told of now and
// then.
func TestNewsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done, news := make(chan struct{}), make(chan struct{}, 1)
		begun := time.Now()
		var mu sync.Mutex // guards all
		var all []time.Duration
		go gather(done, news, func() {
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
			told := soFar()
			if len(told) != len(want) {
				t.Fatalf("told after %v, expected %v", told, want)
			}
			for i := range want {
				if told[i] != want[i] {
					t.Errorf("told after %v, expected %v", told, want)
				}
			}
		}
		for range 5 { // a link and its addresses
			poke(news)
			time.Sleep(settle / 10)
		}
		expect()
		time.Sleep(settle / 2)
		expect(settle)
		time.Sleep(apart)
		expect(settle)
		second := time.Since(begun)
		for range 100 { // a flapping link
			poke(news)
			time.Sleep(settle)
		}
		told := soFar()
		for i, at := range told[1:] {
			if want := second + settle + time.Duration(i)*(apart+settle); at != want {
				t.Errorf("flap told after %v, expected %v", at, want)
			}
		}
		if n := len(told) - 1; n != 5 {
			t.Errorf("100 flaps in 10 s were told %d times", n)
		}
		close(done) // and the goroutine ends, else the bubble fails
	})
}

func TestWhatCameBack(t *testing.T) {
	p := make(present[int])
	for i, step := range []struct {
		k           int
		there, came bool
	}{
		{1, true, true}, {1, true, false}, {2, false, false}, {2, true, true}, {1, false, false}, {1, false, false}, {1, true, true}, {2, true, false},
	} {
		if got := p.came(step.k, step.there); got != step.came {
			t.Errorf("step %d: came %v", i, got)
		}
	}
	for link := range 1000 { // of containers that come and go
		p.came(100+link, true)
		p.came(100+link, false)
	}
	if len(p) != 2 {
		t.Errorf("%d are kept in mind", len(p))
	}
}

// kernel is a subscription whose news the test makes.
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

func TestWhatIsNewsOfTheNetwork(t *testing.T) {
	gone := link(1, true, true)
	gone.Header.Type = unix.RTM_DELLINK
	for name, tt := range map[string]struct {
		links []netlink.LinkUpdate
		addrs []netlink.AddrUpdate
		news  bool // of the last one
	}{
		"a link with a carrier":             {links: []netlink.LinkUpdate{link(1, true, true)}, news: true},
		"one without":                       {links: []netlink.LinkUpdate{link(1, true, false)}},
		"one that is down":                  {links: []netlink.LinkUpdate{link(1, false, true)}},
		"another change of one that is up":  {links: []netlink.LinkUpdate{link(1, true, true), link(1, true, true)}},
		"one that was away":                 {links: []netlink.LinkUpdate{link(1, true, true), link(1, true, false), link(1, true, true)}, news: true},
		"one that was taken away":           {links: []netlink.LinkUpdate{link(1, true, true), gone}},
		"one that was taken away and again": {links: []netlink.LinkUpdate{link(1, true, true), gone, link(1, true, true)}, news: true},
		"an address":                        {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true)}, news: true},
		"one that is not ours yet":          {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_TENTATIVE, true)}},
		"one that is ours now":              {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_TENTATIVE, true), addr("2001:db8::", 0, true)}, news: true},
		"one that somebody else has":        {addrs: []netlink.AddrUpdate{addr("2001:db8::", unix.IFA_F_DADFAILED, true)}},
		"one that is prolonged":             {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, true)}},
		"one that is taken away":            {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, false)}},
		"one that comes back":               {addrs: []netlink.AddrUpdate{addr("2001:db8::", 0, true), addr("2001:db8::", 0, false), addr("2001:db8::", 0, true)}, news: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, done, news := kernel(), make(chan struct{}), make(chan struct{}, 1)
				go s.read(done, news)
				heard := false
				hear := func() {
					synctest.Wait()
					select {
					case <-news:
						heard = true
					default:
						heard = false
					}
				}
				for _, l := range tt.links {
					s.links <- l
					hear()
				}
				for _, a := range tt.addrs {
					s.addrs <- a
					hear()
				}
				if heard != tt.news {
					t.Errorf("news: %v", heard)
				}
				close(done)
			})
		})
	}
}

// Whoever still sends when a subscription ends is let go.
func TestASubscriptionEnds(t *testing.T) {
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

// The timer is there to be cancelled, not to come.
func TestTheClocksTimerIsFarAway(t *testing.T) {
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
		t.Errorf("it comes in %d years", years)
	}
	if _, err := unix.Read(fd, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("reading it: %v", err)
	}
	if err := arm(-1); err == nil {
		t.Error("no error of the kernel's")
	}
}

func TestClockEnds(t *testing.T) {
	done := make(chan struct{})
	if err := Clock(done, func() { t.Error("the clock was set") }); err != nil {
		t.Fatal(err)
	}
	close(done)
}

// await fails when f does not come true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestFile(t *testing.T) {
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "callhome.json")
	done := make(chan struct{})
	defer close(done)
	var told atomic.Int32
	if err := File(done, path, func() { told.Add(1) }); err != nil {
		t.Fatal(err)
	}
	// Another file's news come when all that was before has been told.
	var others atomic.Int32
	if err := File(done, filepath.Join(dir, "other.json"), func() { others.Add(1) }); err != nil {
		t.Fatal(err)
	}
	settled := func(want int32) {
		t.Helper()
		n := others.Load()
		put(filepath.Join(dir, "other.json"), "x")
		await(t, "the other file is told", func() bool { return others.Load() > n })
		if got := told.Load(); got != want {
			t.Fatalf("told %d times, expected %d", got, want)
		}
	}
	settled(0)
	put(path, "first") // it was not there
	await(t, "the first is told", func() bool { return told.Load() == 1 })

	put(path+".new", "second")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	await(t, "the rename is told", func() bool { return told.Load() == 2 })

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	settled(2)     // nothing to read
	for range 20 { // written in pieces
		put(path, "third")
	}
	await(t, "the third is told", func() bool { return told.Load() >= 3 })
	settled(3)
}

func TestFileNeedsItsDirectory(t *testing.T) {
	if err := File(make(chan struct{}), filepath.Join(t.TempDir(), "not", "there"), func() {}); err == nil {
		t.Error("it is followed")
	}
}
