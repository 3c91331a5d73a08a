// Package netconf owns the client's side of a NETCONF session (RFC 6241) over any byte
// stream: both framings of RFC 6242, the hello exchange, requests with their replies,
// notifications. The management station's console uses it. It passes each message on as
// the bytes that came, and never changes one. It knows no data model and opens no
// connection.
package netconf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// Framing is how messages are delimited in the stream (RFC 6242).
type Framing string

// The framings, named by the version of the base protocol.
const (
	EndOfMessage Framing = "1.0" // ]]>]]> after each message; section 4.3
	Chunked      Framing = "1.1" // \n#LENGTH\n before each chunk, \n##\n after the last; section 4.2
)

// MaxMessage is the default limit of a message, in bytes. It bounds memory: a peer can
// announce a chunk of 4 GiB in one line.
const MaxMessage = 64 << 20

const (
	endOfMessage = "]]>]]>"
	endOfChunks  = "\n##\n"
	// maxChunk is the largest chunk-size of RFC 6242.
	maxChunk = 1<<32 - 1
)

// ErrTooLong is the error for a message above the limit.
var ErrTooLong = errors.New("the message is longer than the maximum")

// Reader reads messages from a byte stream. One goroutine may use it.
type Reader struct {
	// Framing is that of the next message; a session changes it after the hello.
	Framing Framing
	// Max is the length of the longest message, in bytes.
	Max int

	r *bufio.Reader
}

// NewReader returns a Reader in the framing of the hello messages.
func NewReader(r io.Reader) *Reader {
	return &Reader{Framing: EndOfMessage, Max: MaxMessage, r: bufio.NewReaderSize(r, 32<<10)}
}

// Next returns the next message without its framing; the caller owns it. It returns
// io.EOF for an end of the stream between two messages, io.ErrUnexpectedEOF for one
// within a message. After any error the Reader cannot be used.
func (r *Reader) Next() ([]byte, error) {
	if r.Framing == Chunked {
		return r.chunks()
	}
	return r.untilMark()
}

func (r *Reader) untilMark() ([]byte, error) {
	var message []byte
	for {
		part, err := r.r.ReadSlice('>')
		if len(message)+len(part) > r.Max+len(endOfMessage) {
			return nil, ErrTooLong
		}
		message = append(message, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(message)) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if text, ok := bytes.CutSuffix(message, []byte(endOfMessage)); ok {
			return text, nil
		}
	}
}

func (r *Reader) chunks() ([]byte, error) {
	if err := r.skipLineEnds(); err != nil {
		return nil, err
	}
	var message []byte
	for first := true; ; first = false {
		size, err := r.chunkSize()
		switch {
		case errors.Is(err, io.EOF) && !first:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case size == 0 && first:
			return nil, errors.New("a message without a chunk")
		case size == 0:
			return message, nil
		case size > r.Max-len(message):
			return nil, ErrTooLong
		}
		if message, err = r.appendChunk(message, size); err != nil {
			return nil, err
		}
	}
}

// skipLineEnds skips line ends before the one that begins a message. RFC 6242 has none
// there, but some servers send one after each message.
func (r *Reader) skipLineEnds() error {
	for {
		next, err := r.r.Peek(2)
		if len(next) == 0 || !isLineEnd(next[0]) || len(next) == 2 && !isLineEnd(next[1]) {
			return nil // chunkSize reads the error again
		}
		if _, _ = r.r.Discard(1); err != nil {
			return err
		}
	}
}

func isLineEnd(b byte) bool { return b == '\n' || b == '\r' }

// appendChunk reads one chunk's data. Memory grows with the bytes that have come, not
// with the announced length.
func (r *Reader) appendChunk(message []byte, size int) ([]byte, error) {
	for size > 0 {
		n := min(size, r.r.Size())
		part, err := r.r.Peek(n)
		message = append(message, part...)
		if err != nil {
			return nil, unexpectedEnd(err)
		}
		if _, err := r.r.Discard(n); err != nil {
			return nil, unexpectedEnd(err)
		}
		size -= n
	}
	return message, nil
}

// chunkSize reads one chunk header, or the end of the chunks as size 0. It returns
// io.EOF if the stream ends before the first byte.
func (r *Reader) chunkSize() (int, error) {
	first, err := r.r.ReadByte()
	if err != nil {
		return 0, err
	}
	// The longest header is "\n#4294967295\n".
	header := []byte{first}
	for len(header) < 3 || header[len(header)-1] != '\n' {
		if len(header) == 13 || !startsChunk(header) {
			return 0, fmt.Errorf("%.20q, expected the length of a chunk", header)
		}
		b, err := r.r.ReadByte()
		if err != nil {
			return 0, unexpectedEnd(err)
		}
		header = append(header, b)
	}
	if string(header) == endOfChunks {
		return 0, nil
	}
	digits := string(header[2 : len(header)-1])
	size, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !startsChunk(header) || digits[0] == '0' || digits[0] == '+' || size > maxChunk {
		return 0, fmt.Errorf("%.20q, expected the length of a chunk", header)
	}
	return int(min(size, math.MaxInt)), nil // where int has 32 bits, ErrTooLong follows
}

func startsChunk(header []byte) bool {
	return header[0] == '\n' && (len(header) < 2 || header[1] == '#')
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write writes one message in a framing, with one call of w.Write.
func Write(w io.Writer, framing Framing, message []byte) error {
	var framed []byte
	switch {
	case len(message) == 0:
		return errors.New("an empty message cannot be sent")
	case framing == Chunked && uint64(len(message)) > maxChunk:
		return ErrTooLong
	case framing == Chunked:
		framed = fmt.Appendf(nil, "\n#%d\n", len(message))
		framed = append(append(framed, message...), endOfChunks...)
	case bytes.Contains(append(message[:len(message):len(message)], endOfMessage[:len(endOfMessage)-1]...), []byte(endOfMessage)):
		return fmt.Errorf("a message with %q in it cannot be sent in the framing of base:1.0", endOfMessage)
	default:
		framed = append(append(framed, message...), endOfMessage...)
	}
	_, err := w.Write(framed)
	return err
}
