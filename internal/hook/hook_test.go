package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", 0o755)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string // a part of it; "" for none
	}{
		{"as it should be", func(*Config) {}, ""},
		{"a link", func(c *Config) { c.Program = link }, ""},
		{"every event", func(c *Config) { c.Events = proto.Events }, ""},
		{"no program", func(c *Config) { c.Program = "" }, "not an absolute path"},
		{"a relative path", func(c *Config) { c.Program = "hook" }, "not an absolute path"},
		{"nothing there", func(c *Config) { c.Program = filepath.Join(dir, "none") }, "no such file"},
		{"a directory", func(c *Config) { c.Program = dir }, "not a file"},
		{"not executable", func(c *Config) { c.Program = file("plain", 0o644) }, "permission denied"},
		{"writable by every user", func(c *Config) { c.Program = file("loose", 0o757) }, "can be written by every user"},
		{"an unknown event", func(c *Config) { c.Events = []string{"connected", "conected"} }, `"conected" is unknown, expected one of`},
		{"events of another daemon", func(c *Config) { c.Known, c.Events = []string{"up"}, []string{"up"} }, ""},
		{"an event of another daemon's", func(c *Config) { c.Known = []string{"up"} }, `expected one of up`},
		{"no time", func(c *Config) { c.Timeout = 0 }, "above 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Program: good, Known: proto.Events, Events: wanted, Timeout: time.Second}
			tt.change(&c)
			_, err := New(c, hclog.NewNullLogger())
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

// runs stands in place of the program: each run takes as long as the test says,
// or until it is killed.
type runs struct {
	takes  time.Duration
	result result

	mu      sync.Mutex
	order   []string // the lines of JSON, as they were started
	now     int
	atATime int
}

func (r *runs) run(ctx context.Context, _, _ string, line []byte) result {
	r.mu.Lock()
	r.order = append(r.order, string(line))
	r.now++
	r.atATime = max(r.atATime, r.now)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
	}()
	select {
	case <-time.After(r.takes):
		return r.result
	case <-ctx.Done():
		return result{err: errors.New("signal: killed"), killed: true}
	}
}

// hookOf returns a hook whose program is r, and what it logs.
func hookOf(r *runs) (*Hook, *bytes.Buffer) {
	var text bytes.Buffer
	h := &Hook{
		config: Config{Program: "/hook", Known: proto.Events, Events: wanted, Timeout: DefaultTimeout},
		log:    hclog.New(&hclog.LoggerOptions{Output: &text, Mutex: new(sync.Mutex), DisableTime: true}),
		run:    r.run,
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, &text
}

func TestHandleRunsWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runs{}
		h, _ := hookOf(r)
		for _, name := range proto.Events {
			h.Handle(eventOf(proto.Event{Event: name}))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		h.Close()
		if got := h.Counts(); got != (Counts{OK: uint64(len(wanted))}) {
			t.Errorf("got %+v", got)
		}
		for _, name := range wanted {
			if !slices.ContainsFunc(r.order, func(line string) bool { return strings.Contains(line, `"event":"`+name+`"`) }) {
				t.Errorf("not run on %s", name)
			}
		}
	})
}

func TestHandleBoundsWhatRunsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runs{takes: time.Second}
		h, text := hookOf(r)
		begun := time.Now()
		const more = 100
		for n := range maxRunning + maxWaiting + more {
			h.Handle(numberedEvent(n))
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("the caller waited for %s", took)
		}
		if got := h.Counts(); got != (Counts{Dropped: more}) {
			t.Errorf("got %+v, want %d dropped", got, more)
		}
		if got := strings.Count(text.String(), "not run"); got != 1 {
			t.Errorf("drops were logged %d times at once:\n%s", got, text)
		}
		time.Sleep(2 * ratelimit.Every)
		if got := h.Counts(); got != (Counts{OK: maxRunning + maxWaiting, Dropped: more}) {
			t.Errorf("got %+v in the end", got)
		}
		if r.atATime != maxRunning {
			t.Errorf("%d ran at a time, want %d", r.atATime, maxRunning)
		}
		h.Close()
		if !strings.Contains(text.String(), fmt.Sprintf("events=%d", more-1)) {
			t.Errorf("the other %d drops were not logged:\n%s", more-1, text)
		}
	})
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runs{takes: time.Second}
		h, _ := hookOf(r)
		const events = 40
		for n := range events {
			h.Handle(numberedEvent(n))
			synctest.Wait()
			time.Sleep(time.Millisecond) // so that of four, one is the first to end
		}
		time.Sleep(time.Minute)
		h.Close()
		if len(r.order) != events {
			t.Fatalf("got %d runs", len(r.order))
		}
		for n, line := range r.order {
			if !strings.Contains(line, fmt.Sprintf(`"session":%d,`, n)) {
				t.Errorf("run %d was on %s", n, line)
			}
			if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
				t.Errorf("not one line: %q", line)
			}
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runs{takes: time.Hour}
		h, text := hookOf(r)
		h.Handle(numberedEvent(1))
		time.Sleep(DefaultTimeout - time.Nanosecond)
		if got := h.Counts(); got != (Counts{}) {
			t.Errorf("got %+v before the time", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := h.Counts(); got != (Counts{TimedOut: 1}) {
			t.Errorf("got %+v after it", got)
		}
		h.Close()
		if !strings.Contains(text.String(), "took too long") {
			t.Errorf("not logged:\n%s", text)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runs{takes: time.Hour}
		h, text := hookOf(r)
		for n := range maxRunning + 10 {
			h.Handle(numberedEvent(n))
		}
		synctest.Wait()
		begun := time.Now()
		h.Close()
		if took := time.Since(begun); took != 0 {
			t.Errorf("the end took %s", took)
		}
		if r.now != 0 {
			t.Errorf("%d still run", r.now)
		}
		h.Handle(numberedEvent(99))
		synctest.Wait()
		if got := h.Counts(); got != (Counts{Stopped: maxRunning, Dropped: 11}) {
			t.Errorf("got %+v", got)
		}
		if len(r.order) != maxRunning {
			t.Errorf("%d were started, want %d", len(r.order), maxRunning)
		}
		if !strings.Contains(text.String(), "events=10") {
			t.Errorf("what waited was not logged:\n%s", text)
		}
	})
}

func TestWhatIsLogged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		result result
		want   []string
	}{
		{"nothing to say", result{}, nil},
		{"output", result{output: "one\ntwo\x1b[2J\n"}, []string{"[INFO]", "hook's output", "event=connected", "session=7", `output=one\ntwo\x1b[2J`}},
		{"failure", result{err: errors.New("exit status 3")}, []string{"[WARN]", "hook failed", "event=connected", "session=7", `error="exit status 3"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, text := hookOf(&runs{result: tt.result})
				h.Handle(numberedEvent(7))
				time.Sleep(time.Second)
				h.Close()
				for _, want := range tt.want {
					if !strings.Contains(text.String(), want) {
						t.Errorf("no %q in %q", want, text)
					}
				}
				if lines := strings.Count(text.String(), "\n"); lines > 1 || len(tt.want) == 0 && lines > 0 {
					t.Errorf("%d lines: %q", lines, text)
				}
			})
		})
	}
}

func TestOutcomeSquare(t *testing.T) {
	failure := errors.New("exit status 1")
	for _, tt := range []struct {
		result result
		ended  error
		want   outcome
	}{
		{result{}, nil, ok},
		{result{}, context.DeadlineExceeded, ok},
		{result{}, context.Canceled, ok},
		{result{killed: true}, nil, ok},
		{result{killed: true}, context.DeadlineExceeded, ok},
		{result{killed: true}, context.Canceled, ok},
		{result{err: failure}, nil, failed},
		{result{err: failure}, context.DeadlineExceeded, failed},
		{result{err: failure}, context.Canceled, failed},
		{result{err: failure, killed: true}, context.DeadlineExceeded, timedOut},
		{result{err: failure, killed: true}, context.Canceled, stopped},
	} {
		if got := outcomeOf(tt.result, tt.ended); got != tt.want {
			t.Errorf("%+v, %v: got %s, want %s", tt.result, tt.ended, got, tt.want)
		}
	}
}
