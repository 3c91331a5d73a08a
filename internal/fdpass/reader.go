package fdpass

import (
	"io"
	"net"
	"os"
	"sync"
)

// Reader reads a Unix stream socket and keeps the descriptor that may come with
// the bytes, for whoever understands those. At most one waits to be taken: a
// second one is an error, and all are closed.
type Reader struct {
	conn *net.UnixConn
	mu   sync.Mutex // guards file
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
	if f != nil && !r.put(f) {
		f.Close()
		r.Close()
		return 0, ErrMany
	}
	if n == 0 && f == nil {
		return 0, io.EOF
	}
	return n, nil
}

func (r *Reader) put(f *os.File) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		return false
	}
	r.file = f
	return true
}

// Take returns the descriptor that came, now the caller's, or nil.
func (r *Reader) Take() *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.file
	r.file = nil
	return f
}

// Close closes a descriptor that nobody took.
func (r *Reader) Close() error {
	if f := r.Take(); f != nil {
		return f.Close()
	}
	return nil
}
