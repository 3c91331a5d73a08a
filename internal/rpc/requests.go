package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"callhome/internal/fdpass"

	"github.com/creachadair/jrpc2"
	"golang.org/x/sys/unix"
)

// concurrency is how many requests of one connection are worked on at a time.
const concurrency = 32

// requests is the daemon's end of a line, jrpc2's channel. It lets through only
// what will be answered, exactly once each, and no more than can be worked on:
// jrpc2 itself takes in any number.
type requests struct {
	*line
	open atomic.Int64 // requests that are not answered; a batch is as many as there can be

	mu     sync.Mutex          // guards passed
	passed map[string]*os.File // descriptors that came with a request, by its id; nil at the end
}

func newRequests(l *line) *requests { return &requests{line: l, passed: make(map[string]*os.File)} }

// pollTime is how often a connection with too much to do is looked at.
const pollTime = 10 * time.Millisecond

// Recv returns the next message that will be answered.
func (q *requests) Recv() ([]byte, error) {
	for {
		for q.open.Load() >= concurrency {
			if q.gone() {
				return nil, io.EOF
			}
			time.Sleep(pollTime)
		}
		message, f, err := q.next()
		if errors.Is(err, io.EOF) {
			q.awaitAnswers()
		}
		if err != nil {
			return nil, err
		}
		weight, id, why := judge(message)
		q.open.Add(weight)
		if f != nil {
			q.keep(id, f)
		}
		if why == "" {
			return message, nil
		}
		// The next one is not read before this is written, so who sends many
		// and reads none has no answers waiting here.
		if err := q.Send(refusal(why)); err != nil {
			return nil, err
		}
	}
}

// judge returns what a message weighs, the id of the request that it is, and
// why it is refused; "" where it is not. What is no JSON-RPC is answered by
// jrpc2.
func judge(message []byte) (weight int64, id, why string) {
	parsed, err := jrpc2.ParseRequests(message)
	switch {
	case err != nil || len(parsed) == 0:
		return 1, "", ""
	case len(parsed) > concurrency:
		return 1, "", "too many requests in one message"
	case slices.ContainsFunc(parsed, func(r *jrpc2.ParsedRequest) bool { return r.ID == "" && r.Error == nil }):
		// Nobody would know what became of it.
		return 1, "", "a request needs an id"
	case parsed[0].Batch:
		return concurrency, "", ""
	case parsed[0].Error != nil || parsed[0].Method == "":
		return 1, "", ""
	}
	return 1, parsed[0].ID, ""
}

// refusal is the answer to what is not taken. It names no id, as there is none.
func refusal(why string) []byte {
	answer, _ := json.Marshal(struct { // nothing in it can fail
		Version string `json:"jsonrpc"`
		ID      any    `json:"id"`
		Error   error  `json:"error"`
	}{jrpc2.Version, nil, standardError(jrpc2.InvalidRequest, why)})
	return answer
}

// Send writes one message, and counts what it answers.
func (q *requests) Send(message []byte) error {
	weight := int64(1)
	switch {
	case bytes.HasPrefix(message, notification):
		weight = 0
	case message[0] == '[':
		weight = concurrency
	}
	err := q.line.Send(message)
	q.open.Add(-weight)
	return err
}

// keep keeps the descriptor of a request until it is taken, and closes that of
// a message that is no single one. A later request with the same id, which
// jrpc2 refuses while the former is worked on, replaces it.
func (q *requests) keep(id string, f *os.File) {
	q.mu.Lock()
	former := f
	if id != "" && q.passed != nil {
		former = q.passed[id]
		q.passed[id] = f
	}
	q.mu.Unlock()
	if former != nil {
		fdpass.Close(former)
	}
}

// take returns the descriptor that came with a request, now the caller's, or
// nil.
func (q *requests) take(id string) *os.File {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.passed[id]
	delete(q.passed, id)
	return f
}

// forget closes the descriptor of a request that did not take it.
func (q *requests) forget(id string) {
	if f := q.take(id); f != nil {
		fdpass.Close(f)
	}
}

// Close ends the connection and closes what nobody took.
func (q *requests) Close() error {
	err := q.line.Close()
	q.mu.Lock()
	passed := q.passed
	q.passed = nil
	q.mu.Unlock()
	for _, f := range passed {
		fdpass.Close(f)
	}
	return err
}

// answerTime bounds how long a caller that has said its last word waits.
const answerTime = 2 * time.Minute

// awaitAnswers keeps the end of what a caller has to say (`echo … | socat`)
// from being taken for its leaving: jrpc2 would drop what it asked. It returns
// when all is answered or nobody is there to read it.
func (q *requests) awaitAnswers() {
	for end := time.Now().Add(answerTime); q.open.Load() > 0 && time.Now().Before(end); time.Sleep(pollTime) {
		if q.gone() {
			return
		}
	}
}

// gone reports whether the peer has closed its socket, not just its half.
func (q *requests) gone() (gone bool) {
	raw, err := q.conn.SyscallConn()
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
