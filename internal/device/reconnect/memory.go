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

	"callhome/internal/wake"

	"github.com/hashicorp/go-hclog"
)

// memory is what the next run of this program should know: the endpoint that
// each client was last connected to, in a file that outlives a boot, and the
// slots of periodic connections, in one that does not. Both are help, not need:
// a file that is not there, or not whole, is as none.
type memory struct {
	log         hclog.Logger
	last, slots string // files; "" for none

	wake    chan struct{}
	written chan struct{}

	mu                    sync.Mutex // guards the fields that follow
	known                 map[string]endpointAndSlot
	lastDirty, slotsDirty bool
}

type endpointAndSlot struct {
	Last string // name of an endpoint, or ""
	slot
}

// slot is what a periodic client without an anchor-time counts from, the last
// time that was due, and whether its connection is yet to be made or to end.
type slot struct {
	Anchor time.Time `json:"anchor"`
	Slot   time.Time `json:"slot"`
	Due    bool      `json:"due,omitempty"`
}

// maxMemory bounds a file, in bytes.
const maxMemory = 4 << 20

func recall(last, slots string, log hclog.Logger) *memory {
	m := &memory{log: log, last: last, slots: slots, known: make(map[string]endpointAndSlot), wake: wake.New(), written: make(chan struct{})}
	var names map[string]string
	m.read(last, &names)
	for client, endpoint := range names {
		m.known[client] = endpointAndSlot{Last: endpoint}
	}
	var at map[string]slot
	m.read(slots, &at)
	for client, s := range at {
		m.known[client] = endpointAndSlot{m.known[client].Last, s}
	}
	go m.write()
	return m
}

func (m *memory) read(path string, to any) {
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
		if data, err = io.ReadAll(io.LimitReader(f, maxMemory)); err == nil {
			err = json.Unmarshal(data, to)
		}
	}
	if err != nil {
		m.log.Warn("starting without the clients' saved state", "file", path, "error", err)
	}
}

func (m *memory) of(client string) endpointAndSlot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[client]
}

// remember notes what has changed. What has not is not written again: the file
// that outlives a boot is on flash.
func (m *memory) remember(client string, now endpointAndSlot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.known[client]
	m.known[client] = now
	m.changed(was.Last != now.Last, was.slot != now.slot)
}

// forget drops all clients but those named.
func (m *memory) forget(but []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for client := range m.known {
		if !slices.Contains(but, client) {
			delete(m.known, client)
			m.changed(true, true)
		}
	}
}

func (m *memory) changed(last, slots bool) {
	m.lastDirty, m.slotsDirty = m.lastDirty || last, m.slotsDirty || slots
	if m.lastDirty || m.slotsDirty {
		wake.Up(m.wake)
	}
}

// write writes the files whenever something has changed: what changes at once
// is written once, and nobody waits for a slow flash. It ends with close.
func (m *memory) write() {
	defer close(m.written)
	for range m.wake {
		m.mu.Lock()
		var last map[string]string
		var slots map[string]slot
		if m.lastDirty {
			last = make(map[string]string)
		}
		if m.slotsDirty {
			slots = make(map[string]slot)
		}
		for client, k := range m.known {
			if last != nil && k.Last != "" {
				last[client] = k.Last
			}
			if slots != nil && k.slot != (slot{}) {
				slots[client] = k.slot
			}
		}
		m.lastDirty, m.slotsDirty = false, false
		m.mu.Unlock()
		var errs []error
		if last != nil && m.last != "" {
			errs = append(errs, replace(m.last, last))
		}
		if slots != nil && m.slots != "" {
			errs = append(errs, replace(m.slots, slots))
		}
		if err := errors.Join(errs...); err != nil {
			m.log.Warn("saving the client's state failed", "error", err)
		}
	}
}

// close returns when all is written. Nothing may be remembered after it.
func (m *memory) close() {
	close(m.wake)
	<-m.written
}

// replace puts v in the file, whole or not at all.
func replace(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	// One name, as there is one writer: what a power cut leaves is used again.
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync() // a name must not come before its bytes, when power fails
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
