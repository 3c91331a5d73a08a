// Package sysevents tells when the world outside of the program has changed so
// that waiting on would be wrong: an address or a link that came back
// (rtnetlink(7)), a wall clock that was set (timerfd_create(2)), a file that
// was replaced. cmd/callhome-mgr passes the news on. It decides nothing and
// changes nothing.
package sysevents

import (
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long to wait for more news: a link that comes back brings its
// addresses one after another, and each is an event.
const settle = 100 * time.Millisecond

// apart is the least time between two tellings of the network: on a router
// with a link that flaps nobody shall be called at each flap.
const apart = 2 * time.Second

// Network calls tell, from a goroutine of its own, soon after an address or a
// link of this network namespace came back, until done is closed.
func Network(done <-chan struct{}, tell func()) error {
	first, err := subscribe()
	if err != nil {
		return err
	}
	news := make(chan struct{}, 1)
	go gather(done, news, tell)
	go func() {
		for s := first; ; {
			ended := s.read(done, news)
			s.end()
			if ended {
				return
			}
			// More came than the kernel keeps for us, and some of it is lost.
			for s = nil; s == nil; s, _ = subscribe() {
				if !pause(done, apart) {
					return
				}
			}
			poke(news)
		}
	}()
	return nil
}

// subscription is the kernel's news until it fails or done is closed.
type subscription struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	done  chan struct{}
	up    present[int]     // links by index that are running
	ours  present[address] // that can be used
}

// address is one of a link's.
type address struct {
	link int
	net  string
}

func subscribe() (*subscription, error) {
	s := &subscription{links: make(chan netlink.LinkUpdate, 64), addrs: make(chan netlink.AddrUpdate, 64), done: make(chan struct{}),
		up: make(present[int]), ours: make(present[address])}
	quiet := func(error) {} // a channel that is closed says it
	if err := netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: quiet}); err != nil {
		return nil, fmt.Errorf("watching the links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(s.addrs, s.done, netlink.AddrSubscribeOptions{ErrorCallback: quiet}); err != nil {
		close(s.done)
		go drain(s.links)
		return nil, fmt.Errorf("watching the addresses: %w", err)
	}
	s.look()
	return s, nil
}

// look notes what is there already. What cannot be seen tells once more.
func (s *subscription) look() {
	links, err := netlink.LinkList()
	for i := range links {
		if a := links[i].Attrs(); err == nil {
			s.up.came(a.Index, running(a))
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if err == nil {
			s.ours.came(address{a.LinkIndex, a.IPNet.String()}, usable(a.Flags))
		}
	}
}

// end ends the subscription. Its senders may have more to say until they see
// that.
func (s *subscription) end() {
	close(s.done)
	go drain(s.links)
	go drain(s.addrs)
}

func drain[T any](c <-chan T) {
	for range c {
	}
}

// read passes the news on. It reports whether it ended because of done.
func (s *subscription) read(done <-chan struct{}, news chan<- struct{}) bool {
	for {
		select {
		case <-done:
			return true
		case l, ok := <-s.links:
			if !ok {
				return false
			}
			if s.up.came(l.Attrs().Index, l.Header.Type != unix.RTM_DELLINK && running(l.Attrs())) {
				poke(news)
			}
		case a, ok := <-s.addrs:
			if !ok {
				return false
			}
			if s.ours.came(address{a.LinkIndex, a.LinkAddress.String()}, a.NewAddr && usable(a.Flags)) {
				poke(news)
			}
		}
	}
}

func poke(news chan<- struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}

// gather turns news that come together into one telling.
func gather(done <-chan struct{}, news <-chan struct{}, tell func()) {
	for {
		select {
		case <-news:
		case <-done:
			return
		}
		if !pause(done, settle) {
			return
		}
		select { // of the same moment
		case <-news:
		default:
		}
		tell()
		if !pause(done, apart) {
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

// usable leaves out an IPv6 address that is not ours yet (RFC 4862, section
// 5.4); the kernel tells again when it is.
func usable(flags int) bool {
	return flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// present is what is there. The kernel tells of each change of a link and an
// address, and most are none of this: a router's advertisement, say, prolongs
// an address every few minutes.
type present[K comparable] map[K]bool

// came notes whether k is there, and reports whether it was not.
func (p present[K]) came(k K, there bool) bool {
	was := p[k]
	if there {
		p[k] = true
	} else {
		delete(p, k) // a number is not used again, and would stay for ever
	}
	return there && !was
}
