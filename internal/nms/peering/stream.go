package peering

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// window is how many bytes of a direction may be on the way or unread. Both ends so
// read every frame at once, however slow a reader is, and a connection that stands
// still is dead: TCP_USER_TIMEOUT would end it also for a reader that pauses.
const window = 256 << 10

// keptBuffer is how much of an empty buffer is kept for the next bytes.
const keptBuffer = 32 << 10

// stream is a session on a connection: each end reads and writes it as a socket while
// receive runs.
type stream struct {
	*frames

	mu      sync.Mutex // guards the fields that follow
	changed sync.Cond  // of any of them
	inbox   bytes.Buffer
	ended   bool // the other end sends no more
	closed  bool // its bytes are discarded
	credit  int  // bytes that may be sent
	failed  error
	taken   int // bytes read, of which the other end does not know yet
}

func newStream(f *frames) *stream {
	s := &stream{frames: f, credit: window}
	s.changed.L = &s.mu
	return s
}

// update changes the fields that mu guards, and wakes those who wait for them.
func (s *stream) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.changed.Broadcast()
}

// fail ends reads, once the inbox is empty, and writes.
func (s *stream) fail(err error) {
	s.update(func() {
		if s.failed == nil {
			s.failed = err
		}
	})
}

// receive takes frames until the result, which it leaves to be read, or an error, which
// reads and writes return too.
func (s *stream) receive() (err error) {
	defer func() {
		if err != nil {
			s.fail(err)
		} else {
			s.update(func() { s.ended = true })
		}
	}()
	buffer := make([]byte, dataSize)
	for {
		k, err := s.next(maxFrame)
		if err != nil {
			return unexpected(err)
		}
		switch k {
		case frameResult:
			return nil
		case frameEnd:
			s.update(func() { s.ended = true })
			continue
		case frameData, frameCredit:
		default:
			return fmt.Errorf("%w: a frame of kind %d in a session", errFrame, k)
		}
		for credit := k == frameCredit; s.left > 0; {
			if credit && s.left != 4 {
				return fmt.Errorf("%w: %d bytes in place of a number", errFrame, s.left)
			}
			part := buffer[:min(s.left, len(buffer))]
			if _, err := io.ReadFull(s.Conn, part); err != nil {
				return unexpected(err)
			}
			s.left -= len(part)
			if !s.take(part, credit) {
				return fmt.Errorf("%w: it sends more than it may", errFrame)
			}
		}
	}
}

// take takes a part of a data frame, or a credit, and reports whether the window allows
// it.
func (s *stream) take(part []byte, credit bool) (ok bool) {
	s.update(func() {
		if credit {
			n := binary.BigEndian.Uint32(part)
			if ok = n <= uint32(window-s.credit); ok {
				s.credit += int(n)
			}
			return
		}
		if ok = s.closed; ok {
			return
		}
		if ok = !s.ended && s.inbox.Len()+s.taken+len(part) <= window; ok {
			s.inbox.Write(part)
		}
	})
	return ok
}

// unexpected is the error for a connection that closes where frames must follow.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for s.inbox.Len() == 0 && !s.ended && s.failed == nil {
		s.changed.Wait()
	}
	n, _ := s.inbox.Read(p)
	if n == 0 && len(p) > 0 {
		err := s.failed
		if s.ended {
			err = io.EOF
		}
		s.mu.Unlock()
		return 0, err
	}
	if s.inbox.Len() == 0 && s.inbox.Cap() > keptBuffer {
		s.inbox = bytes.Buffer{}
	}
	s.taken += n
	tell := 0
	if s.taken >= window/2 {
		tell, s.taken = s.taken, 0
	}
	s.mu.Unlock()
	if tell > 0 {
		// Where the connection has failed, so has receive.
		_ = s.send(frameCredit, binary.BigEndian.AppendUint32(nil, uint32(tell)))
	}
	return n, nil
}

// Write implements io.Writer. It waits while the window is full.
func (s *stream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := s.spend(min(len(p)-sent, dataSize))
		if err == nil {
			err = s.send(frameData, p[sent:sent+n])
		}
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// spend waits until bytes may be sent, and returns how many, at most the given number.
func (s *stream) spend(most int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credit == 0 && s.failed == nil {
		s.changed.Wait()
	}
	if s.failed != nil {
		return 0, s.failed
	}
	n := min(most, s.credit)
	s.credit -= n
	return n, nil
}

// CloseWrite sends the end of this direction.
func (s *stream) CloseWrite() error { return s.send(frameEnd, nil) }

// relayed is a session's stream at the station that holds the device. The station reads
// and writes it in place of a caller's socket.
type relayed struct {
	*stream
	opened atomic.Bool
}

// open tells the caller that the device's channel is open: a station reads and writes
// nothing before.
func (r *relayed) open() error {
	if r.opened.Swap(true) {
		return nil
	}
	return r.send(frameOpened, nil)
}

// Read implements io.Reader.
func (r *relayed) Read(p []byte) (int, error) {
	if err := r.open(); err != nil {
		return 0, err
	}
	return r.stream.Read(p)
}

// Write implements io.Writer.
func (r *relayed) Write(p []byte) (int, error) {
	if err := r.open(); err != nil {
		return 0, err
	}
	return r.stream.Write(p)
}

// CloseWrite sends the end of the device's direction.
func (r *relayed) CloseWrite() error {
	if err := r.open(); err != nil {
		return err
	}
	return r.stream.CloseWrite()
}

// Close ends reading and writing, and leaves the connection open for the result.
func (r *relayed) Close() error {
	r.update(func() {
		r.closed = true
		r.inbox.Reset()
	})
	r.fail(net.ErrClosed)
	return nil
}
