// Package inotify owns the reading of one directory's inotify events. Both wings use
// it to wait for changes of files. It never decides what a change means.
//
// It reads each event by bytes: a pointer to a struct in the buffer, as fsnotify
// 1.10.1 has it, must be aligned to four bytes, which Go does not promise for a byte
// array, and a MIPS kernel may end the process with SIGBUS at one that is not.
package inotify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Changes are the events after which a directory may have other files, or files
// other content.
const Changes = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVE | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

// Event is what happened in the directory: bits of inotify(7), and the file's name
// in it, "" where the event is about the directory or the queue.
type Event struct {
	Mask uint32
	Name string
}

// Overflow reports whether the kernel's queue was full and events are lost.
func (e Event) Overflow() bool { return e.Mask&unix.IN_Q_OVERFLOW != 0 }

// Dir is an inotify instance that watches one directory. Its owner closes it.
type Dir struct {
	file *os.File
	raw  syscall.RawConn
	buf  [16 << 10]byte
}

// Open watches the directory dir for the events in mask, until Close. It fails where dir
// is no directory.
func Open(dir string, mask uint32) (*Dir, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	d := &Dir{file: os.NewFile(uintptr(fd), "inotify")}
	if _, err = unix.InotifyAddWatch(fd, dir, mask|unix.IN_ONLYDIR); err != nil {
		err = fmt.Errorf("watching the directory %q: %w", dir, err)
	} else {
		d.raw, err = d.file.SyscallConn()
	}
	if err != nil {
		d.file.Close()
		return nil, err
	}
	return d, nil
}

// Close ends Wait.
func (d *Dir) Close() error { return d.file.Close() }

// Wait calls ready at once and whenever events are queued, until Close. ready calls
// Drain.
func (d *Dir) Wait(ready func()) {
	_ = d.raw.Read(func(uintptr) bool {
		ready()
		return false // wait for more
	})
}

// Follow applies each event as it comes, until Close.
func (d *Dir) Follow(apply func(Event)) { d.Wait(func() { d.Drain(apply) }) }

// Drain applies the events that are queued now, in their order. Only one call may run
// at a time.
func (d *Dir) Drain(apply func(Event)) {
	_ = d.raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), d.buf[:])
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			parse(d.buf[:n], apply)
		}
	})
}

// parse applies the events in b: struct inotify_event is wd, mask, cookie, and the
// length of the name after it, which is padded with zeros (inotify(7)).
func parse(b []byte, apply func(Event)) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask, size := binary.NativeEndian.Uint32(b[4:]), int(binary.NativeEndian.Uint32(b[12:]))
		name := b[unix.SizeofInotifyEvent:][:size]
		apply(Event{mask, string(bytes.TrimRight(name, "\x00"))})
		b = b[unix.SizeofInotifyEvent+size:]
	}
}
