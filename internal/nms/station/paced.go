package station

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"callhome/internal/nms/admission"
)

// minWait and maxWait bound how long the station waits for a peer, in all reads
// together, until its connection is overdue. Each connection draws its own limit, so
// that a device on a slow link, too, finishes its key exchange after some calls.
const minWait, maxWait = 2 * time.Second, 5 * time.Second

// silentTime is how long a device has to send its first byte before another connection
// of its address can take its place. sshd sends its version as soon as it has started.
const silentTime = 500 * time.Millisecond

// paced is a connection before its login. The login computes only in its turn:
// from a read to the next read or write, which may block. It measures how long the
// station waits for the peer; the time to wait for a turn is not the peer's. From
// loggedIn on it does neither.
type paced struct {
	net.Conn
	turns   *turns
	silent  func() // called when the peer has sent nothing for silentTime
	overdue func()

	reading sync.Mutex    // held while a read is under way; guards left and heard
	left    time.Duration // until it is overdue
	heard   bool          // the peer has sent something

	mu       sync.Mutex // guards the fields that follow
	priority admission.Priority
	has      bool // it has its turn
	over     bool // it needs no turn any more
	done     chan struct{}
	read     func(n int) // called with the bytes of each read from the login on, unless nil
}

func newPaced(c net.Conn, t *turns, silent, overdue func()) *paced {
	return &paced{
		Conn: c, turns: t, silent: silent, overdue: overdue, left: minWait + rand.N(maxWait-minWait),
		priority: admission.Ordinary, done: make(chan struct{}),
	}
}

func (p *paced) Read(b []byte) (int, error) {
	if over, read := p.isOver(); over {
		n, err := p.Conn.Read(b)
		if n > 0 && read != nil {
			read(n)
		}
		return n, err
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	p.yield()
	begun := time.Now()
	timers := []*time.Timer{time.AfterFunc(p.left, p.overdue)}
	if !p.heard {
		timers = append(timers, time.AfterFunc(silentTime, p.silent))
	}
	n, err := p.Conn.Read(b)
	for _, t := range timers {
		t.Stop()
	}
	p.heard = p.heard || n > 0
	p.left = max(0, p.left-time.Since(begun))
	if n > 0 {
		p.await()
	}
	return n, err
}

func (p *paced) Write(b []byte) (int, error) {
	p.yield()
	return p.Conn.Write(b)
}

// await waits for the connection's turn, or until it needs none.
func (p *paced) await() {
	p.mu.Lock()
	priority := p.priority
	p.mu.Unlock()
	if !p.turns.take(priority, p.done) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.has {
		p.turns.give()
		return
	}
	p.has = true
}

// setPriority sets the priority with which the connection waits from now on.
func (p *paced) setPriority(to admission.Priority) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.priority = to
}

// yield ends the connection's turn, if it has it.
func (p *paced) yield() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has {
		p.has = false
		p.turns.give()
	}
}

func (p *paced) isOver() (bool, func(int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over, p.read
}

// watch has read called with each read that begins from now on.
func (p *paced) watch(read func(n int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = read
}

// loggedIn must be called when the login is done or has failed.
func (p *paced) loggedIn() {
	p.yield()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over = true
		close(p.done)
	}
}

func (p *paced) Close() error {
	p.loggedIn()
	return p.Conn.Close()
}
