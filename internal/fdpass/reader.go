package fdpass

import (
	"io"
	"net"
	"os"
	"sync"
)

// waiting is how many descriptors can be read ahead of the message they came
// with: one for a message of which a part has come, and one for that behind it.
const waiting = 2

// Reader reads a Unix stream socket and keeps the descriptors that come with
// the bytes, for the caller, which parses those. More than it can keep are an error,
// and all are closed.
type Reader struct {
	conn *net.UnixConn

	mu     sync.Mutex // guards the fields that follow
	read   int64      // bytes so far
	came   []passed   // the oldest first
	closed bool
}

// passed is a descriptor and where the bytes end that it was read with. The
// kernel may put bytes of earlier messages before its own, but none behind them
// (unix(7)): it came with the message that has the last of these bytes.
type passed struct {
	end  int64
	file *os.File
}

// NewReader returns a Reader of c, which it borrows.
func NewReader(c *net.UnixConn) *Reader { return &Reader{conn: c} }

// Read is io.Reader's.
func (r *Reader) Read(p []byte) (int, error) {
	n, f, err := receive(r.conn, p)
	if err != nil {
		return 0, err
	}
	if !r.put(n, f) {
		Close(f)
		r.Close()
		return 0, ErrMany
	}
	if n == 0 && f == nil {
		return 0, io.EOF
	}
	return n, nil
}

// put counts n bytes and keeps f, where it is not nil.
func (r *Reader) put(n int, f *os.File) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += int64(n)
	if f == nil {
		return true
	}
	if r.closed || len(r.came) == waiting {
		return false
	}
	r.came = append(r.came, passed{r.read, f})
	return true
}

// Take returns the descriptor that came with a message, now the caller's, or
// nil. The message ends at that byte of the stream, counted from 1; those
// before it must have been asked for. Two with one message are an error, and
// closed.
func (r *Reader) Take(end int64) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(r.came) && r.came[n].end <= end {
		n++
	}
	taken := r.came[:n:n]
	r.came = append([]passed(nil), r.came[n:]...)
	switch n {
	case 0:
		return nil, nil
	case 1:
		return taken[0].file, nil
	}
	for _, t := range taken {
		Close(t.file)
	}
	return nil, ErrMany
}

// Close closes the descriptors that were not taken, and those to come.
func (r *Reader) Close() error {
	r.mu.Lock()
	came := r.came
	r.came, r.closed = nil, true
	r.mu.Unlock()
	for _, p := range came {
		Close(p.file)
	}
	return nil
}
