package registry

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// file is a file of the directory as it was read last.
type file struct {
	stamp stamp
	// final reports that a file with this stamp has this content. It is false where a
	// change after the reading may have left the stamp as it was.
	final bool
	sum   [sha256.Size]byte
	content
	unread string // why it cannot be read now; the rest is from before
}

// content is what a file says. It is shared by copies.
type content struct {
	entry   *Entry          // nil where it is not valid, and for the list of revoked keys
	revoked map[string]bool // nil where it is not valid, and for an entry
	problem string          // why it is not valid
}

// stamp is what changes with a file's content. Programs can set the time of
// modification, not that of the change (ctime).
type stamp struct {
	dev, ino               uint64
	size, modified, change int64
}

func stampOf(s *unix.Stat_t) stamp {
	return stamp{uint64(s.Dev), uint64(s.Ino), s.Size, s.Mtim.Nano(), s.Ctim.Nano()} // the types depend on the architecture
}

// granularity is the coarsest that a file system gives the time of a change: FAT has
// 2 s, Linux otherwise a clock that advances every 1 to 10 ms.
const granularity = 2 * time.Second

// changed reports whether a file is another one than was read before.
func (r *Registry) changed(name string, was *file) bool {
	if was == nil || !was.final {
		return true
	}
	var now unix.Stat_t
	err := unix.Stat(filepath.Join(r.dir, name), &now)
	return err != nil || stampOf(&now) != was.stamp
}

// look reads a file that was known as was; nil is no file. Content is parsed where it
// is new. The caller holds reading.
func (r *Registry) look(name string, was *file) *file {
	begun := r.now()
	text, stamp, stable, err := readStable(filepath.Join(r.dir, name))
	f := &file{stamp: stamp, final: stable && begun.Sub(time.Unix(0, stamp.change)) > granularity}
	var no refused
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.As(err, &no):
		f.problem = err.Error()
		return f
	case err != nil:
		if was != nil {
			*f = *was
		}
		f.final, f.unread = false, err.Error()
		return f
	}
	r.reads++
	f.sum = sha256.Sum256(text)
	if was != nil && was.sum == f.sum {
		f.content = was.content
	} else {
		f.content = parseFile(name, text)
	}
	return f
}

// parseFile parses the content of an entry's file, or of the list of revoked keys.
func parseFile(name string, text []byte) (c content) {
	var err error
	if name == RevokedFile {
		c.revoked, err = parseRevoked(text)
	} else {
		c.entry, err = Parse(text)
		if id, _ := idOf(name); err == nil && c.entry.ID != id {
			err = fmt.Errorf("line 1: id %q, expected %q as in the file's name", c.entry.ID, id)
		}
	}
	if err != nil {
		return content{problem: err.Error()}
	}
	return c
}

// maxReads is how often a file that changes meanwhile is read.
const maxReads = 3

// readStable reads a file; stable reports that it did not change meanwhile.
func readStable(path string) (text []byte, s stamp, stable bool, err error) {
	for range maxReads {
		if text, s, stable, err = readOnce(path); err != nil || stable {
			break
		}
	}
	return text, s, stable, err
}

func readOnce(path string) (text []byte, s stamp, stable bool, err error) {
	// Without O_NONBLOCK, opening a named pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, s, true, notRegular // a socket
	}
	if err != nil {
		return nil, s, false, err
	}
	defer f.Close()
	var before, after unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return nil, s, false, os.NewSyscallError("fstat", err)
	}
	s = stampOf(&before)
	list := filepath.Base(path) == RevokedFile
	switch {
	case before.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, s, true, notRegular
	case list:
		text, err = io.ReadAll(f)
	case before.Mode&0o002 != 0:
		return nil, s, true, anyoneWrites
	default:
		text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	}
	if err == nil {
		err = os.NewSyscallError("fstat", unix.Fstat(int(f.Fd()), &after))
	}
	return text, s, s == stampOf(&after), err
}

// refused is why the content of a file is not looked at.
type refused string

func (r refused) Error() string { return string(r) }

const (
	notRegular   refused = "it is not a regular file"
	anyoneWrites refused = "every user of this machine can write it"
)
