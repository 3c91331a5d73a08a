// Package hook runs the operator's program on chosen events, with the event as
// one line of JSON on its standard input: a Hook once for each event, a Stream one
// program for all. It owns when the program runs, how many run at a time, and that
// each run ends. Both daemons feed it their events. It
// never changes anything in a daemon, never passes text from outside as an
// argument or in the environment, and never makes the publisher wait.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/printable"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// DefaultTimeout is how long one run may take.
const DefaultTimeout = 10 * time.Second

// Config is the hook's configuration.
type Config struct {
	Program string   // an absolute path
	Events  []string // the names of the events to run it on
	Known   []string // the names that Events may hold
	Timeout time.Duration
	// Waiting returns how many events may wait for a run; nil for maxWaiting.
	Waiting func() int
}

// Check returns why the hook cannot run, or must not.
func (c *Config) Check() error {
	for _, e := range c.Events {
		if !slices.Contains(c.Known, e) {
			return fmt.Errorf("hook event %q is unknown, expected one of %s", e, strings.Join(c.Known, ", "))
		}
	}
	if c.Timeout <= 0 {
		return fmt.Errorf("hook timeout %s: expected a time above 0", c.Timeout)
	}
	return check(c.Program)
}

// check returns why a program cannot run, or must not.
func check(program string) error {
	if !filepath.IsAbs(program) {
		return fmt.Errorf("hook %q is not an absolute path", program)
	}
	info, err := os.Stat(program)
	switch {
	case err != nil:
		return fmt.Errorf("checking the hook: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("hook %q is not a file", program)
	case info.Mode()&0o002 != 0:
		return fmt.Errorf("hook %q can be written by every user of this machine; remove that permission (chmod o-w)", program)
	}
	if err := unix.Access(program, unix.X_OK); err != nil {
		return fmt.Errorf("hook %q cannot be executed: %w", program, &fs.PathError{Op: "access", Path: program, Err: err})
	}
	return nil
}

// Event is what the program is run on.
type Event struct {
	Name  string
	About []any // names and values for the log, such as the session
	Value any   // becomes the line of JSON
}

// Counts counts the runs by how they ended, and the events without a run.
type Counts struct {
	OK, Failed, TimedOut, Stopped, Dropped uint64
}

// Hook runs the program. Its methods may be called by several goroutines.
type Hook struct {
	config Config
	log    hclog.Logger
	// run is replaced by tests.
	run    func(ctx context.Context, program, event string, line []byte) result
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // one for each run

	mu     sync.Mutex // guards the fields that follow; never held while something runs
	queue  queue
	drops  ratelimit.Limit
	counts Counts
	closed bool
}

// New returns a hook for c. Close ends it.
func New(c Config, log hclog.Logger) (*Hook, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	h := &Hook{config: c, log: log, run: run}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// Handle runs the program on e if its name is configured: now, or when one of the
// running programs has ended. It returns at once.
func (h *Hook) Handle(e Event) {
	if !slices.Contains(h.config.Events, e.Name) {
		return
	}
	if n := h.take(e); n > 0 {
		h.log.Warn("hook not run, too many events wait", "events", n)
	}
}

// take starts a run, queues the event or drops it. It returns how many dropped
// events to log now.
func (h *Hook) take(e Event) (dropped int) {
	most := maxWaiting
	if h.config.Waiting != nil {
		most = max(most, h.config.Waiting())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		h.counts.Dropped++
		return 0
	}
	switch h.queue.offer(e, most) {
	case start:
		h.wg.Go(func() { h.work(e) })
	case drop:
		h.counts.Dropped++
		if dropped, ok := h.drops.Allow(time.Now()); ok {
			return dropped + 1
		}
	}
	return 0
}

// Counts returns a copy.
func (h *Hook) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Close kills the running programs, drops the events that wait, and returns when
// no program runs.
func (h *Hook) Close() {
	h.mu.Lock()
	h.closed = true
	waiting := h.queue.drain()
	h.counts.Dropped += uint64(waiting)
	dropped := h.drops.Rest() + waiting
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
	if dropped > 0 {
		h.log.Warn("hook not run, too many events waited or the daemon ends", "events", dropped)
	}
}

// work runs the program on e and then on the events that wait.
func (h *Hook) work(e Event) {
	for more := true; more; {
		h.one(e)
		h.mu.Lock()
		e, more = h.queue.next()
		h.mu.Unlock()
	}
}

// one runs the program once and logs how it ended.
func (h *Hook) one(e Event) {
	log := h.log.With(append([]any{"event", e.Name}, e.About...)...)
	line, err := json.Marshal(e.Value)
	if err != nil {
		// An event always has JSON, unless its time is beyond the year 9999.
		h.count(failed)
		log.Warn("hook not run", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, h.config.Timeout)
	defer cancel()
	begun := time.Now()
	r := h.run(ctx, h.config.Program, e.Name, append(line, '\n'))
	how := outcomeOf(r, ctx.Err())
	h.count(how)
	if r.output != "" {
		log.Info("hook's output", "output", printable.ASCII(strings.TrimRight(r.output, "\n")))
	}
	took := time.Since(begun).Round(time.Millisecond)
	switch how {
	case ok:
		log.Debug("hook has run", "took", took)
	case failed:
		log.Warn("hook failed", "took", took, "error", r.err)
	case timedOut:
		log.Warn("hook killed, it took too long", "took", took)
	case stopped:
		log.Info("hook killed, the daemon ends", "took", took)
	}
}

func (h *Hook) count(o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch o {
	case ok:
		h.counts.OK++
	case failed:
		h.counts.Failed++
	case timedOut:
		h.counts.TimedOut++
	case stopped:
		h.counts.Stopped++
	}
}

// outcome is how a run ended.
type outcome string

const (
	ok       outcome = "ok"
	failed   outcome = "failed"
	timedOut outcome = "timeout"
	stopped  outcome = "stopped"
)

// outcomeOf judges a run; ended is the error of its context.
func outcomeOf(r result, ended error) outcome {
	switch {
	case r.err == nil:
		return ok // also where it ended by itself at the last moment
	case r.killed && errors.Is(ended, context.DeadlineExceeded):
		return timedOut
	case r.killed:
		return stopped
	}
	return failed
}
