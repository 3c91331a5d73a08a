package rpc

import (
	"bufio"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/fdpass"
)

// messageTime bounds how long one message may take from its first byte to its
// last, in both directions. A connection may be idle without a limit.
const messageTime = 10 * time.Second

// line frames messages on a Unix socket, one a line, with the descriptor that may
// come with each.
type line struct {
	conn *net.UnixConn
	fds  *fdpass.Reader
	r    *bufio.Reader
	most int   // limit on the bytes of one message
	read int64 // bytes of all messages that next returned
	cut  bool  // after errTooLong: the message continues

	sending sync.Mutex              // held by Send
	pass    atomic.Pointer[os.File] // sent with the next message and then closed
}

func newLine(c *net.UnixConn, most int) *line {
	fds := fdpass.NewReader(c)
	return &line{conn: c, fds: fds, r: bufio.NewReaderSize(fds, 4<<10), most: most}
}

var errTooLong = errors.New("a message is too long")

// next returns the next message, and the descriptor that came with it or nil, which
// the caller then owns. An idle connection costs a buffer of 4 KiB.
func (l *line) next() ([]byte, *os.File, error) {
	if _, err := l.r.Peek(1); err != nil {
		return nil, nil, err
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return nil, nil, err
	}
	var message []byte
	for {
		part, err := l.r.ReadSlice('\n')
		message = append(message, part...)
		if len(message) > l.most {
			l.cut = errors.Is(err, bufio.ErrBufferFull)
			return nil, nil, errTooLong
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		break
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	l.read += int64(len(message))
	f, err := l.fds.Take(l.read)
	return message[:len(message)-1], f, err
}

// Recv returns the next message and closes a descriptor that came with it.
func (l *line) Recv() ([]byte, error) {
	message, f, err := l.next()
	if f != nil {
		fdpass.Close(f)
	}
	return message, err
}

// Send writes one message. It closes the connection of a peer that does not read.
func (l *line) Send(message []byte) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	err := l.write(append(message, '\n'))
	if err != nil {
		// A part of the message may be sent, so no other can follow.
		fdpass.Close(l.conn)
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
	return errors.Join(fdpass.Close(l.conn), l.fds.Close())
}
