package handshake

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"time"

	"callhome/internal/nms/wire"
)

// maxExchange bounds the kept bytes of a key exchange, and each of its messages. ML-KEM
// with an RSA certificate of 4096 bits needs some 4 KiB; a peer may send other messages
// between.
const maxExchange = 32 << 10

// errEarly ends the first run: with its reply before KEX_INIT a peer would end the run
// while it writes.
var errEarly = errors.New("the reply of the key exchange came before its begin")

// recording is the connection of the first run.
type recording struct {
	*wire.Conn
	deadline time.Time
	random   bytes.Buffer

	reading sync.Mutex // held while a read is under way
	mu      sync.Mutex // guards the fields that follow
	in, out []byte
	packets packets
	begun   bool // KEX_INIT was sent
	// answered is set when the reply has come after KEX_INIT: nothing is written any more.
	answered bool
	closed   bool
}

func (r *recording) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in = append(r.in, p[:n]...)
	if err := r.packets.check(r.in); err != nil {
		return 0, err
	}
	switch {
	case r.packets.replied && r.begun:
		r.answered = true
		return 0, errClaimed
	case r.packets.replied:
		return 0, errEarly
	}
	return n, err
}

func (r *recording) Write(p []byte) (int, error) {
	if r.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = append(r.out, p[:n]...)
	r.begun = r.begun || n > 5 && p[5] == msgKexInit
	return n, err
}

func (r *recording) isAnswered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

func (r *recording) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Close ends the first run and leaves the connection open.
func (r *recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// stop waits until the first run does not read any more: it must not take bytes of
// the second.
func (r *recording) stop() error {
	r.Close()
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.SetReadDeadline(r.deadline)
}

// version returns the peer's version string or its first line, "" while that is not
// whole.
func (r *recording) version() string {
	if text, whole := r.Version(); whole {
		return text
	}
	return ""
}

// errDiffers is a bug of this package, or comes with another version of the library.
var errDiffers = errors.New("BUG: the second run of the key exchange differs from the first")

// replay is the connection of the second run. It returns the bytes that the first run
// read, and compares writes with the bytes that the first run sent, before it reads
// from and writes to the device.
type replay struct {
	*wire.Conn
	in, out []byte // the remaining bytes; one goroutine at a time uses each
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.in) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.in)
	if r.in = r.in[n:]; len(r.in) == 0 {
		r.in = nil
	}
	return n, nil
}

func (r *replay) Write(p []byte) (int, error) {
	n := min(len(p), len(r.out))
	if !bytes.Equal(p[:n], r.out[:n]) {
		return 0, errDiffers
	}
	if r.out = r.out[n:]; len(r.out) == 0 {
		r.out = nil
	}
	if n == len(p) {
		return n, nil
	}
	m, err := r.Conn.Write(p[n:])
	return n + m, err
}

// repeating returns the random numbers of the first run, and then new ones.
type repeating struct {
	mu    sync.Mutex // guards first
	first []byte
}

func (r *repeating) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.first) == 0 {
		return rand.Read(p)
	}
	n := copy(p, r.first)
	clear(r.first[:n])
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}
