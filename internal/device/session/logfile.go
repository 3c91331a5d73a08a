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

// maxLine bounds one line of sshd's, in bytes; what is longer comes in pieces.
const maxLine = 8 << 10

// keepLog is how much of a log that was understood stays in memory. Beyond
// that the kernel takes the pages back: the file keeps its size, so sshd, which
// appends, notices nothing, and no line can get lost between reading and
// cutting.
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

// most is how many bytes are read at a time.
const most = 256 << 10

// buffers are what logs are read into: all sessions' logs in turn, so that each
// costs none of its own.
var buffers = sync.Pool{New: func() any { return new([maxLine]byte) }}

// read returns whole lines that are new, and whether there may be more.
func (t *logFile) read() (lines []logLine, more bool, err error) {
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
			lines = append(lines, logLine{sshdlog.Parse(line), t.offset})
		}
	}
	return lines, true, nil
}

// understood lets the kernel have the memory of what lies before offset.
func (t *logFile) understood(offset int64) {
	if offset-t.punched > keepLog {
		// Best effort: a file system that cannot do it keeps the pages.
		_ = unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, t.punched, offset-t.punched)
		t.punched = offset
	}
}
