package mirror

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/registry"
)

// failure is a change that could not be written, as on a full disk. Until it is, this
// station accepts a device that another one has removed or revoked.
type failure struct {
	value buckets.Value
	err   error
}

// The pauses before a change that could not be written is tried again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// fail notes a change that could not be written, and has it tried again. The caller holds mu.
func (m *Mirror) fail(name string, v buckets.Value, err error) {
	m.failed[name] = failure{v, err}
	m.warn.Warn("cannot write the copy of the registry; temporary, retry", "file", name, "error", err)
	m.tryLater()
}

// tryLater has what could not be written tried again. The caller holds mu.
func (m *Mirror) tryLater() {
	if m.retry == nil {
		m.pause = min(max(2*m.pause, firstPause), lastPause)
		m.retry = time.AfterFunc(m.pause, m.again)
	}
}

// again writes what could not be written, and brings it in force.
func (m *Mirror) again() {
	var written []string
	m.mu.Lock()
	m.retry = nil
	for name, f := range maps.Clone(m.failed) {
		m.apply(name, f.value, true)
		if _, failed := m.failed[name]; !failed {
			written = append(written, name)
		}
	}
	if len(m.failed) == 0 {
		m.pause = 0
	} else {
		m.tryLater() // also where the list of revoked keys waits for NATS
	}
	m.mu.Unlock()
	for _, name := range written {
		if c, err := m.registry.Read(name); err != nil || c.Any() {
			m.changed(c, err)
		}
	}
}

// failures are the changes that could not be written. The caller holds mu.
func (m *Mirror) failures() (out []registry.Problem) {
	for _, name := range slices.Sorted(maps.Keys(m.failed)) {
		out = append(out, registry.Problem{File: name, Error: "the cluster's change cannot be written here: " + m.failed[name].err.Error()})
	}
	return out
}

// unwritten returns why the cluster's file of that name is not in force at this station,
// nil where it is: an operator who revokes a key must not believe that it is refused here.
func (m *Mirror) unwritten(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, failed := m.failed[name]
	if !failed {
		return nil
	}
	// Not wrapped: a file that is missing is no device that is missing.
	return fmt.Errorf("the cluster has the change of %s, which this station cannot write; temporary, retried: %v", name, f.err)
}
