package station

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/sshtest"
)

// pacedPipe returns a paced connection and its peer.
func pacedPipe(t *testing.T, turns turns, overdue func()) (*paced, net.Conn) {
	t.Helper()
	a, b := sshtest.Pipe()
	p := newPaced(a, turns, func() {}, overdue)
	t.Cleanup(func() { p.Close(); b.Close() })
	return p, b
}

func TestConnectionsComputeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, atOnce = 20, 2
		shared := make(turns, atOnce)
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
		if finished.Load() != many || most.Load() != atOnce || len(shared) != 0 {
			t.Errorf("%d finished, %d at once, %d turns are taken", finished.Load(), most.Load(), len(shared))
		}
	})
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
				shared := make(turns, 1)
				first, peer := pacedPipe(t, shared, func() {})
				_, _ = io.WriteString(peer, "x")
				if _, err := first.Read(make([]byte, 1)); err != nil || len(shared) != 1 {
					t.Fatalf("%v, %d turns are taken", err, len(shared))
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
				if len(shared) != 1 || !second.has || first.has || third.has {
					t.Errorf("%d turns are taken, by the second %v", len(shared), second.has)
				}
				second.loggedIn()
				if len(shared) != 0 {
					t.Errorf("%d turns are taken at the end", len(shared))
				}
			})
		})
	}
}

func TestAPeerThatSendsNothingIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := make(turns, 1)
		var silent atomic.Bool
		a, peer := sshtest.Pipe()
		p := newPaced(a, shared, func() { silent.Store(true) }, func() {})
		defer peer.Close()
		defer p.Close()
		shared <- struct{}{} // another has the turn: the time to wait for it does not count
		_, _ = io.WriteString(peer, "x")
		go func() {
			for {
				if _, err := p.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		}()
		time.Sleep(2 * silentTime)
		<-shared
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
		shared := make(turns, 1)
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
		if _, err := p.Read(make([]byte, 1)); err != nil || len(shared) != 0 || overdue.Load() {
			t.Errorf("%v, %d turns are taken, overdue %v", err, len(shared), overdue.Load())
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
