package session

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"callhome/internal/sshdexec"

	"golang.org/x/sys/unix"
)

// numbering is held while a number is taken. A goroutine that waits for it needs no
// thread; one that waits for the lock of the file does, and Go keeps every thread.
var numbering sync.Mutex

// Next returns the number of a new session, which no session on disk has, and
// writes it to the file "last".
func Next(dir string) (int, error) {
	numbering.Lock()
	defer numbering.Unlock()
	path := filepath.Join(dir, "last")
	f, err := sshdexec.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	last, err := strconv.Atoi(string(text))
	if err != nil || last < 0 {
		// A new or damaged file: continue above the highest number in use.
		ids, err := onDisk(dir)
		if err != nil {
			return 0, err
		}
		for _, id := range append(ids, openLogs(dir)...) {
			last = max(last, id)
		}
	}
	if last >= math.MaxInt32 {
		return 0, fmt.Errorf("numbering the session: %d is the last number; remove %s when no session runs", last, path)
	}
	next := []byte(strconv.Itoa(last + 1))
	if _, err := f.WriteAt(next, 0); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	if err := f.Truncate(int64(len(next))); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	return last + 1, nil
}

// onDisk returns the numbers of the sessions that have a file in dir.
func onDisk(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the sessions: %w", err)
	}
	seen := make(map[int]bool)
	var ids []int
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		id, err := strconv.Atoi(name)
		if err == nil && id > 0 && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}
