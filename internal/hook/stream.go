package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"callhome/internal/printable"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Times of a Stream.
const (
	firstPause = time.Second // before the program is started again, then twice as long each time
	mostPause  = time.Minute // and so long it must run for firstPause to hold again
	// lastTime is how long the program may run after its input has ended.
	lastTime = 10 * time.Second
	// stuckTime is how long a line may wait before that is logged.
	stuckTime = 10 * time.Second
)

// Lines are the events that the program gets, each as a line of JSON.
type Lines interface {
	// Next returns the next line, and waits for it until ctx ends. ok is false when no
	// line is left and ctx has ended or the source is closed. missed reports that lines
	// before it are missing.
	Next(ctx context.Context) (line any, missed, ok bool)
	Close()
}

// Stream runs a program for as long as the daemon runs, with each event as a line of
// JSON on its standard input. It starts the program again when it has ended.
type Stream struct {
	program string
	// open returns the events after a sequence, 0 for none known.
	open func(after uint64) Lines
	log  hclog.Logger
	// handled is the sequence that the program has printed last.
	handled atomic.Uint64
	output  ratelimit.Limit // of the lines that are logged
	pause   time.Duration   // firstPause, lastTime; tests have less
	last    time.Duration
}

// NewStream returns a stream for program; open returns the events after that sequence,
// or all that there are for 0. Run runs it.
func NewStream(program string, open func(after uint64) Lines, log hclog.Logger) (*Stream, error) {
	if err := check(program); err != nil {
		return nil, err
	}
	return &Stream{program: program, open: open, log: log, output: ratelimit.Limit{Burst: 20}, pause: firstPause, last: lastTime}, nil
}

// Run runs the program until ctx or the events end. It has then passed on what there was, and the
// program has ended or was killed.
func (s *Stream) Run(ctx context.Context) {
	pause := s.pause
	for {
		begun := time.Now()
		ended, err := s.once(ctx)
		if ended || ctx.Err() != nil {
			return
		}
		took := time.Since(begun)
		if took >= mostPause {
			pause = s.pause
		}
		s.log.Warn("the hook's program has ended and is started again", "after", took.Round(time.Millisecond), "pause", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, mostPause)
	}
}

// once runs the program once, and reports whether the events have ended.
func (s *Stream) once(ctx context.Context) (ended bool, err error) {
	// As in run, this thread must outlive the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return false, fmt.Errorf("creating a pipe: %w", err)
	}
	defer ours.Close()
	cmd := exec.Command(s.program)
	cmd.Dir = "/"
	cmd.Env = []string{path}
	cmd.Stdin = theirs
	out := &splitter{line: s.printed}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = pipeTime
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return false, err
	}
	pid := cmd.Process.Pid
	running, exited := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		awaitExit(pid)
		close(gone)
		exited()
	}()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		ended = s.feed(running, gone, ours)
		ours.Close() // the program reads the end of its input
	}()
	// The program ends by itself, or has lastTime from the end of ctx or of its input.
	select {
	case <-gone:
	case <-fed:
	case <-ctx.Done():
	}
	timer := time.NewTimer(s.last)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		s.log.Warn("hook killed, it runs on after the end of its input", "after", s.last)
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // it is not reaped before Wait
	ours.Close()
	<-fed
	err = cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return ended, err
}

// feed writes lines until the program is gone, does not read any more, or none is left
// after running has ended. It reports whether none will come.
func (s *Stream) feed(running context.Context, gone <-chan struct{}, to *os.File) (ended bool) {
	lines := s.open(s.handled.Load())
	defer lines.Close()
	for {
		value, missed, ok := lines.Next(running)
		if !ok {
			return running.Err() == nil
		}
		select {
		case <-gone:
			return false
		default:
		}
		if missed {
			s.log.Warn("events lost, the hook's program was too slow")
		}
		line, err := json.Marshal(value)
		if err != nil {
			s.log.Warn("an event is not passed to the hook", "error", err)
			continue
		}
		stuck := time.AfterFunc(stuckTime, func() { s.log.Warn("the hook's program does not read its input", "for", stuckTime) })
		_, err = to.Write(append(line, '\n'))
		stuck.Stop()
		if err != nil {
			return false
		}
	}
}

// printed takes a line that the program prints: a sequence that it has handled, or text
// for the log.
func (s *Stream) printed(line []byte) {
	line = bytes.TrimSpace(line)
	if n, err := strconv.ParseUint(string(line), 10, 64); err == nil {
		s.handled.Store(n)
		return
	}
	if len(line) == 0 {
		return
	}
	if dropped, ok := s.output.Allow(time.Now()); ok {
		s.log.Info("hook's output", "output", printable.ASCII(string(line)), "left-out-before", dropped)
	}
}

// maxPrinted bounds a line of the program's output. The rest of it is dropped.
const maxPrinted = 1 << 10

// splitter passes the lines that are written to it on.
type splitter struct {
	line func([]byte)
	part []byte
}

func (s *splitter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		text, after, ended := bytes.Cut(rest, []byte("\n"))
		s.part = append(s.part, text[:min(len(text), maxPrinted-len(s.part))]...)
		if ended {
			s.line(s.part)
			s.part = s.part[:0]
		}
		rest = after
	}
	return len(p), nil
}
