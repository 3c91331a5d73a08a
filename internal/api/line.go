package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"callhome/internal/fdpass"

	"golang.org/x/sys/unix"
)

// How long a message may take once its first byte is there, either way. A
// connection without any may stay as long as it likes.
const messageTime = 10 * time.Second

// line is one message a line on a Unix socket: jrpc2's channel.
type line struct {
	conn *net.UnixConn
	fds  *fdpass.Reader
	r    *bufio.Reader
	most int          // bytes of one message
	open atomic.Int64 // messages that came and are not answered

	subscribed atomic.Bool
	pass       atomic.Pointer[os.File] // goes with the next message; ours
}

func newLine(c *net.UnixConn, most int) *line {
	fds := fdpass.NewReader(c)
	return &line{conn: c, fds: fds, r: bufio.NewReaderSize(fds, 4<<10), most: most}
}

var errTooLong = errors.New("a message is too long")

// Recv returns the next message. A connection with nothing to say costs its 4
// KiB; a message grows as it comes, to the line's limit.
func (l *line) Recv() ([]byte, error) {
	// jrpc2 takes in any number of requests behind those that are slow.
	for l.open.Load() >= concurrency {
		if l.gone() {
			return nil, io.EOF
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := l.r.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			l.awaitAnswers()
		}
		return nil, err
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return nil, err
	}
	var message []byte
	for {
		part, err := l.r.ReadSlice('\n')
		message = append(message, part...)
		if len(message) > l.most {
			return nil, errTooLong
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if wantsAnswer(message) {
			l.open.Add(1)
		}
		return message[:len(message)-1], l.conn.SetReadDeadline(time.Time{})
	}
}

// wantsAnswer reports whether a message is not a notification, or several.
func wantsAnswer(message []byte) bool {
	type head struct {
		ID json.RawMessage `json:"id"`
	}
	var one head
	if json.Unmarshal(message, &one) == nil {
		return one.ID != nil
	}
	var batch []head
	if json.Unmarshal(message, &batch) == nil && len(batch) > 0 {
		return slices.ContainsFunc(batch, func(h head) bool { return h.ID != nil })
	}
	return true // an error
}

// answerTime bounds how long a caller that has said its last word waits.
const answerTime = 2 * time.Minute

// awaitAnswers keeps the end of what a caller has to say (`echo … | socat`)
// from being taken for its leaving: jrpc2 would drop what it asked. It returns
// when all is answered or nobody is there to read it.
func (l *line) awaitAnswers() {
	for end := time.Now().Add(answerTime); l.open.Load() > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if l.gone() {
			return
		}
	}
}

// gone reports whether the peer has closed its socket, not just its half.
func (l *line) gone() (gone bool) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		gone = err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// notification begins what is no answer to anything.
var notification = []byte(`{"jsonrpc":"2.0","method":`)

// Send writes one message. A peer that does not read loses its connection.
func (l *line) Send(message []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	err := l.write(append(message, '\n'))
	if !bytes.HasPrefix(message, notification) {
		l.open.Add(-1)
	}
	if err != nil {
		// A part of the message may be on its way: nothing can follow it.
		l.conn.Close()
	}
	return err
}

func (l *line) write(message []byte) error {
	if f := l.pass.Swap(nil); f != nil {
		return errors.Join(fdpass.Send(l.conn, message, f), f.Close())
	}
	_, err := l.conn.Write(message)
	return err
}

func (l *line) Close() error {
	if f := l.pass.Swap(nil); f != nil {
		f.Close()
	}
	return errors.Join(l.conn.Close(), l.fds.Close())
}
