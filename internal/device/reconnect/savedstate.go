package reconnect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"callhome/internal/atomicfile"
	"callhome/internal/wake"

	"github.com/hashicorp/go-hclog"
)

// savedState is what the next run of this program reads: the endpoint of each
// client's last connection, in a file that outlives a boot, and the slots of
// periodic connections, in a file that does not. Both are optional: a missing or
// damaged file is an empty one.
type savedState struct {
	log         hclog.Logger
	last, slots string // files; "": not saved

	wake    chan struct{}
	written chan struct{}

	mu                    sync.Mutex // guards the fields that follow
	byClient              map[string]endpointAndSlot
	lastDirty, slotsDirty bool
}

type endpointAndSlot struct {
	Last string // name of an endpoint, or ""
	slot
}

// slot is a periodic client's anchor where its configuration has none, the last
// slot, and whether that slot's connection has not been made or not ended yet.
type slot struct {
	Anchor time.Time `json:"anchor"`
	Slot   time.Time `json:"slot"`
	Due    bool      `json:"due,omitempty"`
}

// maxSavedState bounds a file, in bytes.
const maxSavedState = 4 << 20

func loadSavedState(last, slots string, log hclog.Logger) *savedState {
	s := &savedState{log: log, last: last, slots: slots, byClient: make(map[string]endpointAndSlot), wake: wake.New(), written: make(chan struct{})}
	var names map[string]string
	s.read(last, &names)
	for client, endpoint := range names {
		s.byClient[client] = endpointAndSlot{Last: endpoint}
	}
	var slotOf map[string]slot
	s.read(slots, &slotOf)
	for client, at := range slotOf {
		s.byClient[client] = endpointAndSlot{s.byClient[client].Last, at}
	}
	go s.write()
	return s
}

func (s *savedState) read(path string, to any) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxSavedState)); err == nil {
			err = json.Unmarshal(data, to)
		}
	}
	if err != nil {
		s.log.Warn("saved state of the clients unreadable, starting without it", "file", path, "error", err)
	}
}

func (s *savedState) of(client string) endpointAndSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byClient[client]
}

// set records a client's state. An unchanged state is not written again, because
// the file that outlives a boot is on flash.
func (s *savedState) set(client string, now endpointAndSlot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.byClient[client]
	s.byClient[client] = now
	s.changed(was.Last != now.Last, was.slot != now.slot)
}

// keepOnly drops all clients except the named ones.
func (s *savedState) keepOnly(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for client := range s.byClient {
		if !slices.Contains(names, client) {
			delete(s.byClient, client)
			s.changed(true, true)
		}
	}
}

func (s *savedState) changed(last, slots bool) {
	s.lastDirty, s.slotsDirty = s.lastDirty || last, s.slotsDirty || slots
	if s.lastDirty || s.slotsDirty {
		wake.Up(s.wake)
	}
}

// write writes the changed files. Changes that come together are written once, and
// no client waits for a slow flash. It ends with close.
func (s *savedState) write() {
	defer close(s.written)
	for range s.wake {
		s.mu.Lock()
		var last map[string]string
		var slots map[string]slot
		if s.lastDirty {
			last = make(map[string]string)
		}
		if s.slotsDirty {
			slots = make(map[string]slot)
		}
		for client, known := range s.byClient {
			if last != nil && known.Last != "" {
				last[client] = known.Last
			}
			if slots != nil && known.slot != (slot{}) {
				slots[client] = known.slot
			}
		}
		s.lastDirty, s.slotsDirty = false, false
		s.mu.Unlock()
		var errs []error
		if last != nil && s.last != "" {
			errs = append(errs, replace(s.last, last))
		}
		if slots != nil && s.slots != "" {
			errs = append(errs, replace(s.slots, slots))
		}
		if err := errors.Join(errs...); err != nil {
			s.log.Warn("saving the state of the clients failed", "error", err)
		}
	}
}

// close returns when the last changes are written. set must not be called after
// it.
func (s *savedState) close() {
	close(s.wake)
	<-s.written
}

// replace writes v to the file atomically.
func replace(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err := atomicfile.Write(path, append(data, '\n'), atomicfile.Options{Mode: 0o600, Sync: true}); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}
