// Package sysevents reports changes of the system that end a wait early: an
// address or a link that came back (rtnetlink(7)), a wall clock that was set
// (timerfd_create(2)), a file that was replaced. Package rollout passes the
// reports on. It never decides what follows from a change, and changes nothing.
package sysevents

import (
	"fmt"
	"net"
	"time"

	"callhome/internal/wake"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long to collect changes before one report: a link that comes
// back brings its addresses one after another, and each is an event.
const settle = 100 * time.Millisecond

// minInterval is the shortest time between two reports: a flapping link must not
// cause a call home at each flap.
const minInterval = 2 * time.Second

// Network calls notify from its own goroutine soon after an address or a link of
// this network namespace came back, until done is closed.
func Network(done <-chan struct{}, notify func()) error {
	first, err := subscribe()
	if err != nil {
		return err
	}
	changes := wake.New()
	go coalesce(done, changes, notify)
	go func() {
		for s := first; ; {
			ended := s.read(done, changes)
			s.end()
			if ended {
				return
			}
			// The socket's buffer overflowed, and events are lost (netlink(7),
			// ENOBUFS).
			for s = nil; s == nil; s, _ = subscribe() {
				if !pause(done, minInterval) {
					return
				}
			}
			wake.Up(changes)
		}
	}()
	return nil
}

// subscription receives the kernel's events until it fails or done is closed.
type subscription struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	done  chan struct{}
	up    present[int]     // running links, by index
	ours  present[address] // usable addresses
}

// address is one address of a link.
type address struct {
	link int
	net  string
}

func subscribe() (*subscription, error) {
	s := &subscription{links: make(chan netlink.LinkUpdate, 64), addrs: make(chan netlink.AddrUpdate, 64), done: make(chan struct{}),
		up: make(present[int]), ours: make(present[address])}
	quiet := func(error) {} // read sees the failure as a closed channel
	if err := netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: quiet}); err != nil {
		return nil, fmt.Errorf("watching the network links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(s.addrs, s.done, netlink.AddrSubscribeOptions{ErrorCallback: quiet}); err != nil {
		close(s.done)
		go drain(s.links)
		return nil, fmt.Errorf("watching the network addresses: %w", err)
	}
	s.list()
	return s, nil
}

// list notes the links and addresses that are present already. One that cannot be
// listed causes a needless report at its next event, and no harm.
func (s *subscription) list() {
	links, err := netlink.LinkList()
	for i := range links {
		if a := links[i].Attrs(); err == nil {
			s.up.appeared(a.Index, running(a))
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if err == nil {
			s.ours.appeared(address{a.LinkIndex, a.IPNet.String()}, usable(a.Flags))
		}
	}
}

// end ends the subscription. It drains the channels, because their senders block
// until they see that done is closed.
func (s *subscription) end() {
	close(s.done)
	go drain(s.links)
	go drain(s.addrs)
}

func drain[T any](c <-chan T) {
	for range c {
	}
}

// read signals changes for each link or address that came back. It reports
// whether it ended because of done.
func (s *subscription) read(done <-chan struct{}, changes chan<- struct{}) bool {
	for {
		select {
		case <-done:
			return true
		case l, ok := <-s.links:
			if !ok {
				return false
			}
			if s.up.appeared(l.Attrs().Index, l.Header.Type != unix.RTM_DELLINK && running(l.Attrs())) {
				wake.Up(changes)
			}
		case a, ok := <-s.addrs:
			if !ok {
				return false
			}
			if s.ours.appeared(address{a.LinkIndex, a.LinkAddress.String()}, a.NewAddr && usable(a.Flags)) {
				wake.Up(changes)
			}
		}
	}
}

// coalesce turns changes that come together into one call of notify.
func coalesce(done <-chan struct{}, changes <-chan struct{}, notify func()) {
	for {
		select {
		case <-changes:
		case <-done:
			return
		}
		if !pause(done, settle) {
			return
		}
		select { // a change within settle belongs to the same report
		case <-changes:
		default:
		}
		notify()
		if !pause(done, minInterval) {
			return
		}
	}
}

func pause(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-done:
		return false
	}
}

// running reports whether a link can carry packets.
func running(l *netlink.LinkAttrs) bool {
	return l.Flags&net.FlagUp != 0 && l.RawFlags&unix.IFF_RUNNING != 0
}

// usable leaves out an IPv6 address that duplicate address detection has not
// confirmed (RFC 4862, section 5.4); the kernel sends another event when it has.
func usable(flags int) bool {
	return flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// present is the set of links or addresses that are there. The kernel sends an
// event for every change, and most matter to no call home: a router
// advertisement, for one, prolongs an address every few minutes.
type present[K comparable] map[K]bool

// appeared records whether k is there, and reports whether it is there and was not
// before.
func (p present[K]) appeared(k K, there bool) bool {
	was := p[k]
	if there {
		p[k] = true
	} else {
		delete(p, k) // link indexes are not used again: the map would grow
	}
	return there && !was
}
