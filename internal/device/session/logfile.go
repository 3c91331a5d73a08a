package session

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"callhome/internal/device/sshdlog"

	"golang.org/x/sys/unix"
)

// maxLine bounds one line of sshd's log, in bytes; a longer one is read in pieces.
const maxLine = 8 << 10

// keepLog is how many bytes of processed lines stay in the log. Earlier pages are
// released with a hole: the file keeps its size, so sshd's appends are not
// affected and no line can be lost between reading and releasing.
const keepLog = 64 << 10

// logFile reads a session's log as it grows. It owns file.
type logFile struct {
	file    *os.File
	offset  int64 // of the first byte not yet read
	punched int64
}

// logLine is a line with the offset of its end.
type logLine struct {
	sshdlog.Line
	end int64
}

// maxRead bounds the bytes of one read call.
const maxRead = 256 << 10

// buffers are shared by the readers of all sessions' logs, so that an idle session
// holds no buffer.
var buffers = sync.Pool{New: func() any { return new([maxLine]byte) }}

// read returns the new complete lines, and whether there may be more.
func (t *logFile) read() (lines []logLine, more bool, err error) {
	pooled := buffers.Get().(*[maxLine]byte)
	defer buffers.Put(pooled)
	buf := pooled[:]
	for start := t.offset; t.offset-start < maxRead; {
		n, err := t.file.ReadAt(buf, t.offset)
		if err != nil && err != io.EOF {
			return lines, false, fmt.Errorf("reading sshd's log: %w", err)
		}
		end := bytes.LastIndexByte(buf[:n], '\n') + 1
		if end == 0 && n == len(buf) {
			end = n // a line longer than the buffer
		}
		if end == 0 {
			return lines, false, nil
		}
		for line := range strings.Lines(string(buf[:end])) {
			t.offset += int64(len(line))
			lines = append(lines, logLine{sshdlog.Parse(line), t.offset})
		}
	}
	return lines, true, nil
}

// release returns the pages before offset to the kernel.
func (t *logFile) release(offset int64) {
	if offset-t.punched > keepLog {
		// Best effort: a file system without holes keeps the pages.
		_ = unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, t.punched, offset-t.punched)
		t.punched = offset
	}
}
