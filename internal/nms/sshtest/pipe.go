package sshtest

import (
	"net"
	"sync"
	"time"
)

// Pipe is a connection within the process whose writers do not wait,
// as a socket's do not: SSH's two ends both begin with writing.
func Pipe() (a, b net.Conn) {
	x, y := net.Pipe()
	return x, newBuffered(y)
}

type buffered struct {
	net.Conn
	mu     sync.Mutex
	cond   *sync.Cond
	queue  [][]byte
	closed bool
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c}
	b.cond = sync.NewCond(&b.mu)
	go b.pump()
	return b
}

func (b *buffered) pump() {
	for {
		b.mu.Lock()
		for len(b.queue) == 0 && !b.closed {
			b.cond.Wait()
		}
		if len(b.queue) == 0 {
			b.mu.Unlock()
			b.Conn.Close()
			return
		}
		p := b.queue[0]
		b.queue = b.queue[1:]
		b.mu.Unlock()
		if _, err := b.Conn.Write(p); err != nil {
			b.Conn.Close()
			return
		}
	}
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.queue = append(b.queue, append([]byte(nil), p...))
	b.cond.Signal()
	return len(p), nil
}

func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Signal()
	// A reader must not wait for queued bytes.
	return b.Conn.SetReadDeadline(time.Unix(1, 0))
}
