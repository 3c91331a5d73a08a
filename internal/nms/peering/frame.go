package peering

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// kind is what a frame holds.
type kind byte

// The kinds.
const (
	frameRequest kind = 1 + iota
	frameOpened
	frameData
	frameCredit // how many bytes of data the sender has passed on, 4 bytes
	frameEnd    // the sender's direction has ended
	frameResult
)

// maxFrame bounds a payload, and maxRequest the one that comes first. The largest
// result has 4 KiB of a subsystem's stderr, which JSON may write six times as long.
const (
	maxFrame   = 64 << 10
	maxRequest = 4 << 10
)

const frameHeader = 4

// dataSize is the payload of a data frame: with its header it is one TLS record.
const dataSize = 16<<10 - frameHeader

// errFrame is a frame that the protocol does not allow.
var errFrame = errors.New("the other station does not keep to the protocol")

// frames is a connection with frames on it. One goroutine reads; any may write.
type frames struct {
	net.Conn
	left int // of the payload that is being read

	writing sync.Mutex // guards the fields that follow, held during a write
	buffer  []byte
	broken  error // a write failed: a part of its frame may have been sent
}

// next reads the header of the next frame. The payload of the one before must have
// been read.
func (f *frames) next(limit int) (kind, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(f.Conn, h[:]); err != nil {
		return 0, err
	}
	k := kind(h[0])
	f.left = int(h[1])<<16 | int(h[2])<<8 | int(h[3])
	empty := k == frameOpened || k == frameEnd
	if k < frameRequest || k > frameResult || f.left > limit || empty != (f.left == 0) {
		return 0, fmt.Errorf("%w: a frame of kind %d with %d bytes", errFrame, k, f.left)
	}
	return k, nil
}

// message reads the rest of a frame, which is JSON.
func (f *frames) message(v any) error {
	text := make([]byte, f.left)
	if _, err := io.ReadFull(f.Conn, text); err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// result reads the last frame.
func (f *frames) result(v any) error {
	var o outcome
	if err := f.message(&o); err != nil {
		return err
	}
	if len(o.Result) > 0 {
		if err := json.Unmarshal(o.Result, v); err != nil {
			return fmt.Errorf("%w: %w", errFrame, err)
		}
	}
	if o.Error != nil {
		return o.Error
	}
	return nil
}

// send writes one frame.
func (f *frames) send(k kind, payload []byte) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.broken != nil {
		return f.broken
	}
	n := len(payload)
	f.buffer = append(f.buffer[:0], byte(k), byte(n>>16), byte(n>>8), byte(n))
	f.buffer = append(f.buffer, payload...)
	_, f.broken = f.Conn.Write(f.buffer)
	return f.broken
}

// sendMessage writes one frame of JSON.
func (f *frames) sendMessage(k kind, v any) error {
	text, err := json.Marshal(v)
	if err == nil && len(text) > maxFrame {
		err = fmt.Errorf("a message of %d bytes: at most %d", len(text), maxFrame)
	}
	if err != nil {
		return err
	}
	return f.send(k, text)
}

// finish sends the last frame, and waits until the other station has closed: what is
// unread when a socket is closed resets the connection, and the frame may be lost.
func (f *frames) finish(o outcome, limit time.Duration) error {
	if err := f.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	err := f.sendMessage(frameResult, o)
	if err == nil {
		_, _ = io.Copy(io.Discard, f.Conn)
	}
	return err
}
