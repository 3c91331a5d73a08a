package station

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/admission"
	"callhome/internal/nms/sshtest"
)

// unused returns how many turns are free.
func (t *turns) unused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.free
}

// pacedPipe returns a paced connection and its peer.
func pacedPipe(t *testing.T, turns *turns, overdue func()) (*paced, net.Conn) {
	t.Helper()
	a, b := sshtest.Pipe()
	p := newPaced(a, turns, func() {}, overdue)
	t.Cleanup(func() { p.Close(); b.Close() })
	return p, b
}

func TestConnectionsComputeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, atOnce = 20, 2
		shared := &turns{free: atOnce}
		var busy, most, finished atomic.Int64
		for range many {
			p, peer := pacedPipe(t, shared, func() { t.Error("overdue while it waited for its turn") })
			_, _ = io.WriteString(peer, "xx")
			go func() {
				for range 2 {
					if _, err := io.ReadFull(p, make([]byte, 1)); err != nil {
						t.Error(err)
					}
					now := busy.Add(1)
					for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
					}
					time.Sleep(time.Second) // it computes
					busy.Add(-1)
				}
				finished.Add(1)
				_, _ = p.Write([]byte("done"))
			}()
			go func() { _, _ = io.Copy(io.Discard, peer) }()
		}
		time.Sleep(many * 2 * time.Second)
		if finished.Load() != many || most.Load() != atOnce || shared.unused() != atOnce {
			t.Errorf("%d finished, %d at once, %d turns are free", finished.Load(), most.Load(), shared.unused())
		}
	})
}

// Where computing costs, a device at an address that logged in lately waits for one turn,
// and not for those that came before it; those that failed wait for all others.
func TestTheHighestPriorityComputesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const attackers, cost = 100, 100 * time.Millisecond
		shared := &turns{free: 1}
		begun := time.Now()
		var latest [admission.Suspect + 1]time.Duration
		exchange := func(p admission.Priority) {
			conn, peer := pacedPipe(t, shared, func() {})
			conn.setPriority(p)
			_, _ = io.WriteString(peer, "x")
			go func() {
				_, _ = conn.Read(make([]byte, 1))
				time.Sleep(cost) // it computes
				latest[p] = time.Since(begun)
				conn.Close()
			}()
			synctest.Wait()
		}
		for range attackers {
			exchange(admission.Suspect)
		}
		for range attackers {
			exchange(admission.Ordinary)
		}
		exchange(admission.Recent)
		time.Sleep(time.Hour)
		synctest.Wait()
		want := [...]time.Duration{admission.Recent: 2 * cost, admission.Ordinary: (2 + attackers) * cost, admission.Suspect: (1 + 2*attackers) * cost}
		if latest != want {
			t.Errorf("the last of each priority was served after %v, want %v", latest, want)
		}
	})
}

// A turn that comes together with the end of the connection is passed on.
func TestNoTurnIsLostWhenConnectionsEnd(t *testing.T) {
	const most = 2
	shared := &turns{free: most}
	var all sync.WaitGroup
	for n := range 2000 {
		done := make(chan struct{})
		all.Go(func() {
			if shared.take(admission.Priority(n%3), done) {
				shared.give()
			}
		})
		all.Go(func() { close(done) })
	}
	all.Wait()
	if shared.unused() != most {
		t.Errorf("%d turns are free, want %d", shared.unused(), most)
	}
}

// A peer that does not read, an end and a login give the turn back; so does an end
// while the connection waits for its turn.
func TestATurnIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(*paced){
		"write": func(p *paced) { go func() { _, _ = p.Write([]byte("x")) }() },
		"read":  func(p *paced) { go func() { _, _ = p.Read(make([]byte, 1)) }() },
		"close": func(p *paced) { p.Close() },
		"login": func(p *paced) { p.loggedIn() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := &turns{free: 1}
				first, peer := pacedPipe(t, shared, func() {})
				_, _ = io.WriteString(peer, "x")
				if _, err := first.Read(make([]byte, 1)); err != nil || shared.unused() != 0 {
					t.Fatalf("%v, %d turns are free", err, shared.unused())
				}
				second, other := pacedPipe(t, shared, func() {})
				_, _ = io.WriteString(other, "x")
				go func() { _, _ = second.Read(make([]byte, 1)) }()
				third, another := pacedPipe(t, shared, func() {})
				_, _ = io.WriteString(another, "x")
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					_, _ = third.Read(make([]byte, 1))
				}()
				synctest.Wait()
				third.Close()
				<-gone
				end(first)
				synctest.Wait()
				if shared.unused() != 0 || !second.has || first.has || third.has {
					t.Errorf("%d turns are free, by the second %v", shared.unused(), second.has)
				}
				second.loggedIn()
				if shared.unused() != 1 {
					t.Errorf("%d turns are free at the end", shared.unused())
				}
			})
		})
	}
}

func TestAPeerThatSendsNothingIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &turns{free: 1}
		var silent atomic.Bool
		a, peer := sshtest.Pipe()
		p := newPaced(a, shared, func() { silent.Store(true) }, func() {})
		defer peer.Close()
		defer p.Close()
		shared.take(0, nil) // another has the turn: the time to wait for it does not count
		_, _ = io.WriteString(peer, "x")
		go func() {
			for {
				if _, err := p.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		}()
		time.Sleep(2 * silentTime)
		shared.give()
		time.Sleep(2 * silentTime)
		if silent.Load() {
			t.Error("a peer that has sent a byte is silent")
		}
		b, other := sshtest.Pipe()
		q := newPaced(b, shared, func() { silent.Store(true) }, func() {})
		defer other.Close()
		go func() { _, _ = q.Read(make([]byte, 1)) }()
		time.Sleep(silentTime - 1)
		synctest.Wait()
		if silent.Load() {
			t.Error("it is silent before its time")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !silent.Load() {
			t.Error("it is not silent")
		}
		q.Close()
	})
}

func TestAfterTheLoginAConnectionIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &turns{free: 1}
		var overdue atomic.Bool
		p, peer := pacedPipe(t, shared, func() { overdue.Store(true) })
		_, _ = io.WriteString(peer, "x")
		if _, err := p.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		p.loggedIn()
		go func() {
			time.Sleep(time.Hour)
			_, _ = io.WriteString(peer, "x")
		}()
		if _, err := p.Read(make([]byte, 1)); err != nil || shared.unused() != 1 || overdue.Load() {
			t.Errorf("%v, %d turns are free, overdue %v", err, shared.unused(), overdue.Load())
		}
	})
}

func TestAllButAShareOfTheProcessorsLogIn(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 4: 3, 8: 6, 16: 12} {
		if got := turnsOf(processors); got != want {
			t.Errorf("of %d processors %d, want %d", processors, got, want)
		}
	}
}
