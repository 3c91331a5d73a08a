package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"callhome/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// stateName is the file in the registry's directory that says which files came from
// the bucket. Its first line is the bucket's creation; then each line adds a name after
// a plus, or removes one after a minus.
const stateName = ".cluster"

type stateFile struct {
	path   string
	bucket string // creation of the bucket
	copies map[string]bool
	lines  int
	torn   bool // an append failed: the file may end in the middle of a line
}

func openState(path string) (*stateFile, error) {
	s := &stateFile{path: path, copies: make(map[string]bool)}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		switch {
		case i == 0:
			s.bucket = line
		case strings.HasPrefix(line, "+"):
			s.copies[line[1:]] = true
		case strings.HasPrefix(line, "-"):
			delete(s.copies, line[1:])
		}
	}
	s.torn = s.compact() != nil // on a full disk a station starts all the same; the next append writes all
	return s, nil
}

// compact writes the file without lines that later ones have undone.
func (s *stateFile) compact() error {
	if s.bucket == "" {
		return nil // no bucket was ever copied
	}
	out := bytes.NewBufferString(s.bucket + "\n")
	for _, name := range s.names() {
		fmt.Fprintf(out, "+%s\n", name)
	}
	s.lines = len(s.copies)
	return atomicfile.Write(s.path, out.Bytes(), atomicfile.Options{Mode: 0o600, Sync: true})
}

// reset begins the state of another bucket, of which no file came.
func (s *stateFile) reset(bucket string) error {
	s.bucket, s.copies = bucket, make(map[string]bool)
	err := s.compact()
	s.torn = err != nil // the next append writes all
	return err
}

func (s *stateFile) has(name string) bool { return s.copies[name] }

func (s *stateFile) names() []string { return slices.Sorted(maps.Keys(s.copies)) }

func (s *stateFile) add(name string) error {
	if s.copies[name] {
		return nil
	}
	s.copies[name] = true
	err := s.append("+" + name)
	if err != nil {
		delete(s.copies, name) // it is tried again
	}
	return err
}

func (s *stateFile) remove(name string) error {
	delete(s.copies, name)
	err := s.append("-" + name)
	if err != nil {
		s.copies[name] = true
	}
	return err
}

func (s *stateFile) append(line string) (err error) {
	defer func() { s.torn = err != nil }()
	if s.lines++; s.torn || s.lines > 2*len(s.copies)+1024 {
		return s.compact()
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

// syncDirectory writes what a filesystem has in memory to its disk: many files at once.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}
