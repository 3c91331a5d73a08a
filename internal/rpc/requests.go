package rpc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// concurrency is how many requests of one connection are carried out at a time.
const concurrency = 32

// requests is the daemon's side of a line and the channel of jrpc2. It passes on
// messages that get exactly one answer, and at most as many as are carried out at
// a time: jrpc2 itself queues without a limit.
type requests struct {
	*line
	open atomic.Int64 // requests without an answer yet; a batch counts as concurrency

	mu     sync.Mutex          // guards passed
	passed map[string]*os.File // the descriptors that came, by the request's id; nil after Close
}

func newRequests(l *line) *requests { return &requests{line: l, passed: make(map[string]*os.File)} }

// pollTime is how often a connection with too many requests is checked.
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
		switch {
		case errors.Is(err, io.EOF):
			q.awaitAnswers()
		case errors.Is(err, errTooLong):
			q.discard()
			_ = q.line.Send(refusal(jrpc2.InvalidRequest, fmt.Sprintf("a message is longer than %d bytes", q.most)))
		}
		if err != nil {
			return nil, err
		}
		if f == nil && len(bytes.TrimSpace(message)) == 0 {
			continue // a blank line
		}
		weight, id, refused := judge(message)
		q.open.Add(weight)
		if f != nil {
			q.keep(id, f)
		}
		if refused == nil {
			return message, nil
		}
		// No message is read before this is written: a peer that never reads
		// makes no queue of answers.
		if err := q.Send(refused); err != nil {
			return nil, err
		}
	}
}

// judge returns how many requests a message counts as, the id of a single
// request, and the answer to a message that is refused or nil. jrpc2 answers messages
// that are JSON and not JSON-RPC.
func judge(message []byte) (weight int64, id string, refused []byte) {
	refuse := func(why string) (int64, string, []byte) { return 1, "", refusal(jrpc2.InvalidRequest, why) }
	if why := notJSON(message); why != "" {
		return 1, "", refusal(jrpc2.ParseError, why)
	}
	if why := repeatedMember(message); why != "" {
		return refuse(why)
	}
	parsed, err := jrpc2.ParseRequests(message)
	switch {
	case err != nil || len(parsed) == 0:
		return 1, "", nil
	case len(parsed) > concurrency:
		return refuse("too many requests in one message")
	case slices.ContainsFunc(parsed, func(r *jrpc2.ParsedRequest) bool { return r.ID == "" && r.Error == nil }):
		// Without an id there is no answer, so its failure would stay unseen.
		return refuse("a request needs an id")
	case parsed[0].Batch:
		return concurrency, "", nil
	case parsed[0].Error != nil || parsed[0].Method == "":
		return 1, "", nil
	}
	return 1, parsed[0].ID, nil
}

// notJSON returns why a line is no JSON, or "". Programs that print JSON for people
// spread a message over several lines, so the answer names the rule that breaks.
func notJSON(message []byte) string {
	var syntax *json.SyntaxError
	err := json.Unmarshal(message, new(json.RawMessage))
	switch {
	case err == nil:
		return ""
	case errors.As(err, &syntax) && syntax.Error() != "unexpected end of JSON input":
		return fmt.Sprintf("byte %d of the line is no JSON: %v; send one message a line", syntax.Offset, err)
	}
	return "the line ends before the message does; send one message a line"
}

// maxDiscarded bounds what is read of a message that is too long, so that its sender
// is not stopped in the middle and reads the answer.
const maxDiscarded = 1 << 20

// discard reads the rest of a line.
func (q *requests) discard() {
	for n := 0; q.cut && n < maxDiscarded; {
		part, err := q.r.ReadSlice('\n')
		n += len(part)
		q.cut = errors.Is(err, bufio.ErrBufferFull)
	}
}

// refusal is the answer to a refused message. Its id is null (JSON-RPC 2.0).
func refusal(code jrpc2.Code, why string) []byte {
	answer, _ := json.Marshal(struct { // nothing in it can fail
		Version string `json:"jsonrpc"`
		ID      any    `json:"id"`
		Error   error  `json:"error"`
	}{jrpc2.Version, nil, standardError(code, why)})
	return answer
}

// Send writes one message, and takes the requests that it answers off the count.
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

// keep stores the descriptor of a single request until take, and closes that of
// another message. A later request with the same id replaces it; jrpc2 refuses
// such a request while the former one is carried out.
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

// take returns the descriptor that came with a request, or nil. The caller then
// owns it.
func (q *requests) take(id string) *os.File {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.passed[id]
	delete(q.passed, id)
	return f
}

// forget closes the descriptor of a request whose method did not take it.
func (q *requests) forget(id string) {
	if f := q.take(id); f != nil {
		fdpass.Close(f)
	}
}

// Close closes the connection and the descriptors that were not taken.
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

// answerTime bounds how long a half-closed connection waits for its answers.
const answerTime = 2 * time.Minute

// awaitAnswers delays the end of a connection whose peer has closed its sending
// half (`echo … | socat`): jrpc2 would drop its requests. It returns when all are
// answered or the peer has closed the socket.
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
