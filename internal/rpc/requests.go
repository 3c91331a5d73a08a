package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"callhome/internal/fdpass"

	"golang.org/x/sys/unix"
)

// concurrency is how many requests of one connection are carried out at a time.
const concurrency = 32

// requests is the daemon's side of a line. It carries out as many requests at a time
// as there are places, and reads no further message without one.
type requests struct {
	*line
	places  chan struct{}  // one for each request; a batch has all
	running sync.WaitGroup // messages that are being carried out

	mu     sync.Mutex          // guards the fields that follow
	open   map[string]bool     // the ids of requests that are being carried out
	passed map[string]*os.File // the descriptors that came, by the request's id; nil after Close
}

func newRequests(l *line) *requests {
	return &requests{line: l, places: make(chan struct{}, concurrency), open: make(map[string]bool), passed: make(map[string]*os.File)}
}

// pollTime is how often a connection that is not read is checked.
const pollTime = 10 * time.Millisecond

// requestKey is the context key of the request that a handler carries out.
type requestKey struct{}

// serve answers messages until the connection ends. Requests can then be running.
func (q *requests) serve(ctx context.Context, handle Handler) error {
	for {
		if !q.occupy(1) {
			return io.EOF
		}
		message, f, err := q.next()
		switch {
		case errors.Is(err, io.EOF):
			q.vacate(1)
			q.awaitAnswers()
		case errors.Is(err, errTooLong):
			q.discard()
			_ = q.Send(refusal(invalidRequest, fmt.Sprintf("a message is longer than %d bytes", q.most)))
		}
		if err != nil {
			return err
		}
		if f == nil && len(bytes.TrimSpace(message)) == 0 {
			q.vacate(1)
			continue // a blank line
		}
		list, batch, refused := judge(message)
		q.begin(list)
		if f != nil {
			q.keep(list, batch, f)
		}
		if refused != nil {
			// No message is read before this is written: a peer that never reads
			// makes no queue of answers.
			if err := q.Send(refused); err != nil {
				return err
			}
			q.vacate(1)
			continue
		}
		places := 1
		if batch {
			places = concurrency
			if !q.occupy(concurrency - 1) {
				return io.EOF
			}
		}
		q.running.Go(func() {
			defer q.vacate(places)
			_ = q.Send(q.answer(ctx, handle, list, batch)) // one that fails ends the connection
		})
	}
}

// occupy waits for n places. false: the peer has closed its socket.
func (q *requests) occupy(n int) bool {
	for range n {
		for taken := false; !taken; {
			select {
			case q.places <- struct{}{}:
				taken = true
				continue
			default:
			}
			select {
			case q.places <- struct{}{}:
				taken = true
			case <-time.After(pollTime):
				if q.gone() {
					return false
				}
			}
		}
	}
	return true
}

func (q *requests) vacate(n int) {
	for range n {
		<-q.places
	}
}

// answer carries out the requests of a message and returns its answer.
func (q *requests) answer(ctx context.Context, handle Handler, list []*Request, batch bool) []byte {
	if !batch {
		return q.carryOut(ctx, handle, list[0])
	}
	answers := make([][]byte, len(list))
	var all sync.WaitGroup
	for i, r := range list {
		all.Go(func() { answers[i] = q.carryOut(ctx, handle, r) })
	}
	all.Wait()
	return slices.Concat([]byte("["), bytes.Join(answers, []byte(",")), []byte("]"))
}

// begin marks requests as being carried out. One whose id is in use is at fault.
func (q *requests) begin(list []*Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range list {
		switch {
		case r.fault != "":
		case q.open[r.id]:
			r.fault = "a request with this id is being carried out"
		default:
			q.open[r.id] = true
		}
	}
}

// carryOut carries out one request and returns its answer.
func (q *requests) carryOut(ctx context.Context, handle Handler, r *Request) []byte {
	if r.fault != "" {
		return answerTo(r.id, nil, standardError(invalidRequest, r.fault))
	}
	defer func() {
		q.forget(r.id)
		q.mu.Lock()
		delete(q.open, r.id)
		q.mu.Unlock()
	}()
	result, err := handle(context.WithValue(ctx, requestKey{}, r), r)
	return answerTo(r.id, result, err)
}

// notify sends a notification.
func (q *requests) notify(method string, params any) error {
	message, err := notice(method, params)
	if err != nil {
		return err
	}
	return q.Send(message)
}

// stop ends the connection.
func (q *requests) stop() { fdpass.Close(q.conn) }

// judge returns the requests of a message, or the answer to one that is refused.
func judge(message []byte) (list []*Request, batch bool, refused []byte) {
	if why := notJSON(message); why != "" {
		return nil, false, refusal(parseError, why)
	}
	why := repeatedMember(message)
	if why == "" {
		list, batch = parse(message)
	}
	switch {
	case why != "":
	case len(list) == 0:
		why = "a batch has at least one request"
	case len(list) > concurrency:
		why = "too many requests in one message"
	case slices.ContainsFunc(list, func(r *Request) bool { return r.id == "" }):
		// Without an id there is no answer, so its failure would stay unseen.
		why = list[slices.IndexFunc(list, func(r *Request) bool { return r.id == "" })].fault
	}
	if why != "" {
		return nil, false, refusal(invalidRequest, why)
	}
	return list, batch, nil
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

// keep stores the descriptor of a single request until take, and closes that of another
// message.
func (q *requests) keep(list []*Request, batch bool, f *os.File) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(list) != 1 || batch || list[0].fault != "" || q.passed == nil {
		fdpass.Close(f)
		return
	}
	q.passed[list[0].id] = f
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
// half (`echo … | socat`). It returns when all requests are answered or the peer has
// closed the socket.
func (q *requests) awaitAnswers() {
	answered := make(chan struct{})
	go func() {
		q.running.Wait()
		close(answered)
	}()
	for end := time.Now().Add(answerTime); time.Now().Before(end) && !q.gone(); {
		select {
		case <-answered:
			return
		case <-time.After(pollTime):
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
