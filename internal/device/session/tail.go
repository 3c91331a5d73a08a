package session

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"callhome/internal/device/sshdlog"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// maxLine bounds one line of sshd's, in bytes; what is longer comes in pieces.
const maxLine = 8 << 10

// keepLog is how much of a log that was understood stays in memory. Beyond
// that the kernel takes the pages back: the file keeps its size, so sshd, which
// appends, notices nothing, and no line can get lost between reading and
// cutting.
const keepLog = 64 << 10

// tail reads a session's log as it grows. It owns file.
type tail struct {
	file    *os.File
	offset  int64 // of the first byte not yet read
	punched int64
}

// heard is a line with the offset of its end.
type heard struct {
	sshdlog.Line
	end int64
}

// most is how many bytes are read at a time.
const most = 256 << 10

// buffers are what logs are read into: all sessions' logs in turn, so that each
// costs none of its own.
var buffers = sync.Pool{New: func() any { return new([maxLine]byte) }}

// read returns whole lines that are new, and whether there may be more.
func (t *tail) read() (lines []heard, more bool, err error) {
	pooled := buffers.Get().(*[maxLine]byte)
	defer buffers.Put(pooled)
	buf := pooled[:]
	for start := t.offset; t.offset-start < most; {
		n, err := t.file.ReadAt(buf, t.offset)
		if err != nil && err != io.EOF {
			return lines, false, fmt.Errorf("reading sshd's log: %w", err)
		}
		end := bytes.LastIndexByte(buf[:n], '\n') + 1
		if end == 0 && n == len(buf) {
			end = n // a line without an end
		}
		if end == 0 {
			return lines, false, nil
		}
		for line := range strings.Lines(string(buf[:end])) {
			t.offset += int64(len(line))
			lines = append(lines, heard{sshdlog.Parse(line), t.offset})
		}
	}
	return lines, true, nil
}

// understood lets the kernel have the memory of what lies before offset.
func (t *tail) understood(offset int64) {
	if offset-t.punched > keepLog {
		// Best effort: a file system that cannot do it keeps the pages.
		_ = unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, t.punched, offset-t.punched)
		t.punched = offset
	}
}

// Watch tells sessions that their logs have grown: one inotify instance for
// all of them.
type Watch struct {
	watcher *fsnotify.Watcher
	mu      sync.Mutex // guards wake
	wake    map[int]chan<- struct{}
}

// NewWatch watches the logs in dir. Close ends it.
func NewWatch(dir string) (*Watch, error) {
	fs, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		return nil, fmt.Errorf("watching the sessions' logs: %w", err)
	}
	if err := fs.Add(dir); err != nil {
		fs.Close()
		return nil, fmt.Errorf("watching the sessions' logs: %w", err)
	}
	w := &Watch{watcher: fs, wake: make(map[int]chan<- struct{})}
	go w.run()
	return w, nil
}

// Close ends the watching.
func (w *Watch) Close() error { return w.watcher.Close() }

func (w *Watch) run() {
	for {
		select {
		case e, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if name, isLog := strings.CutSuffix(filepath.Base(e.Name), ".log"); isLog && e.Has(fsnotify.Write) {
				id, _ := strconv.Atoi(name)
				w.poke(id)
			}
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.pokeAll() // events were lost: everybody looks
		}
	}
}

func (w *Watch) add(id int, wake chan<- struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake[id] = wake
}

func (w *Watch) drop(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wake, id)
}

func (w *Watch) poke(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	poke(w.wake[id])
}

func (w *Watch) pokeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.wake {
		poke(c)
	}
}

// poke wakes a reader that is not awake already.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
