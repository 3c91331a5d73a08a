package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"callhome/internal/wake"

	"golang.org/x/sys/unix"
)

// Watch reports to the sessions what happens to their files, with one inotify
// instance for all sessions: that a log has grown, and that the subsystem has closed
// its descriptor of a session's end file. The kernel's queue has these events in the
// order in which they happened (inotify(7)), however late they are read: that order
// shows an orderly end. fsnotify does not report IN_CLOSE_NOWRITE.
type Watch struct {
	file *os.File
	raw  syscall.RawConn

	mu       sync.Mutex // held while events are read and applied, which keeps their order; guards what follows
	sessions map[int]*watched
	buf      [16 << 10]byte
}

// watched is a session's part of the Watch.
type watched struct {
	happened
	wake chan<- struct{}
}

// happened is what happened to a session's files since take.
type happened struct {
	grown bool // the log has grown
	ended bool // the subsystem's descriptor was closed
	after bool // ended, and the log had grown before that
}

// watchMask is for the logs, which sshd writes, and the end files, which the
// subsystem holds open for reading.
const watchMask = unix.IN_MODIFY | unix.IN_CLOSE_NOWRITE | unix.IN_ONLYDIR

// NewWatch watches the sessions' files in dir until Close.
func NewWatch(dir string) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching the sessions' logs: %w", os.NewSyscallError("inotify_init1", err))
	}
	w := &Watch{file: os.NewFile(uintptr(fd), "inotify"), sessions: make(map[int]*watched)}
	_, err = unix.InotifyAddWatch(fd, dir, watchMask)
	if err == nil {
		w.raw, err = w.file.SyscallConn()
	}
	if err != nil {
		w.file.Close()
		return nil, fmt.Errorf("watching the sessions' logs in %q: %w", dir, err)
	}
	go w.run()
	return w, nil
}

// Close closes the inotify instance.
func (w *Watch) Close() error { return w.file.Close() }

// run applies events until Close.
func (w *Watch) run() {
	_ = w.raw.Read(func(fd uintptr) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.drain(int(fd))
		return false // wait for more
	})
}

// drain applies the events that are in the queue. The caller holds w.mu.
func (w *Watch) drain(fd int) {
	for {
		n, err := unix.Read(fd, w.buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		// struct inotify_event: wd, mask, cookie, and the length of the name after it.
		for b := w.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := b[unix.SizeofInotifyEvent:][:size]
			w.apply(mask, string(bytes.TrimRight(name, "\x00")))
			b = b[unix.SizeofInotifyEvent+int(size):]
		}
	}
}

// apply applies one event to the session of the file that it names. The caller holds
// w.mu.
func (w *Watch) apply(mask uint32, name string) {
	if mask&unix.IN_Q_OVERFLOW != 0 { // events were lost: every session reads its log
		for _, s := range w.sessions {
			s.grown = true
			wake.Up(s.wake)
		}
		return
	}
	number, kind, _ := strings.Cut(name, ".")
	id, _ := strconv.Atoi(number)
	s := w.sessions[id]
	switch {
	case s == nil:
	case kind == logSuffix && mask&unix.IN_MODIFY != 0:
		s.grown = true
		wake.Up(s.wake)
	case kind == endSuffix && mask&unix.IN_CLOSE_NOWRITE != 0:
		s.ended, s.after = true, s.grown
		wake.Up(s.wake)
	}
}

// add begins the reports on a session's files; each wakes c.
func (w *Watch) add(id int, c chan<- struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[id] = &watched{wake: c}
}

func (w *Watch) drop(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, id)
}

// take returns what has happened until now since the last take.
func (w *Watch) take(id int) (out happened) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.raw.Control(func(fd uintptr) { w.drain(int(fd)) })
	if s := w.sessions[id]; s != nil {
		out, s.happened = s.happened, happened{}
	}
	return out
}

// end reports the end of a session's subsystem that the Watch cannot see: the log
// may have grown before it.
func (w *Watch) end(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sessions[id]; s != nil {
		s.ended, s.after = true, true
		wake.Up(s.wake)
	}
}
