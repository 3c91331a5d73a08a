package hook

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// numbers is a publisher of 1, 2, … up to what the test says; it keeps all of them.
type numbers struct {
	mu     sync.Mutex
	to     int
	more   chan struct{}
	opened []uint64 // after which sequences
	open   int
	ended  bool // none will come
}

func newNumbers() *numbers { return &numbers{more: make(chan struct{}, 1)} }

func (n *numbers) publish(to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.to = to
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *numbers) after(sequence uint64) Lines {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened = append(n.opened, sequence)
	n.open++
	return &numberLines{n, int(sequence)}
}

type numberLines struct {
	*numbers
	at int
}

func (n *numberLines) Next(ctx context.Context) (any, bool, bool) {
	for {
		n.mu.Lock()
		found, ended := n.at < n.to, n.ended
		if found {
			n.at++
		}
		n.mu.Unlock()
		if found || ended || ctx.Err() != nil {
			return n.at, false, found
		}
		select {
		case <-n.more:
		case <-ctx.Done():
		}
	}
}

func (n *numberLines) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
}

// streaming runs a Stream of a shell script, whose output is the file "out" in dir. stop
// ends it, and returns its log.
func streaming(t *testing.T, n *numbers, last time.Duration, script string) (dir string, stop func() string) {
	t.Helper()
	dir = t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncd "+dir+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	s, err := NewStream(program, n.after, hclog.New(&hclog.LoggerOptions{Output: &text, Mutex: new(sync.Mutex)}))
	if err != nil {
		t.Fatal(err)
	}
	s.pause, s.last = time.Millisecond, last
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop = func() string {
		cancel()
		<-done
		return text.String()
	}
	t.Cleanup(func() { stop() })
	return dir, stop
}

// awaitFile waits until a file has that text.
func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	var text []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if text, _ = os.ReadFile(path); string(text) == want {
			return
		}
	}
	t.Fatalf("%s has %q, want %q", path, text, want)
}

func sequence(from, to int) string {
	var out strings.Builder
	for n := from; n <= to; n++ {
		fmt.Fprintln(&out, n)
	}
	return out.String()
}

func TestAStreamPassesOnEachEvent(t *testing.T) {
	n := newNumbers()
	n.publish(1000)
	dir, stop := streaming(t, n, patience, "cat > out\necho end >> out\n")
	n.publish(5000)
	if log := stop(); log != "" { // which passes on the rest
		t.Errorf("logged: %s", log)
	}
	awaitFile(t, filepath.Join(dir, "out"), sequence(1, 5000)+"end\n")
	if len(n.opened) != 1 || n.opened[0] != 0 || n.open != 0 {
		t.Errorf("opened after %v, %d open", n.opened, n.open)
	}
}

// A program that prints what it has handled gets what follows when it is started again.
func TestAStreamGoesOnAfterWhatWasHandled(t *testing.T) {
	n := newNumbers()
	n.publish(10)
	// The first run ends after 3 events, of which it has handled 2.
	dir, stop := streaming(t, n, patience, `
if ! [ -e first ]; then
	touch first
	read one; read two; read three
	echo "begun with $one" >&2
	echo 2
	exit 3
fi
exec cat > out
`)
	awaitFile(t, filepath.Join(dir, "out"), sequence(3, 10))
	log := stop()
	for _, want := range []string{`output="begun with 1"`, "[WARN]", "has ended and is started again", "pause=1ms", `error="exit status 3"`} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in %s", want, log)
		}
	}
	if len(n.opened) != 2 || n.opened[1] != 2 {
		t.Errorf("opened after %v", n.opened)
	}
}

// A program that does not read holds up nothing but its own events, and the end.
func TestAStreamEndsAProgramThatDoesNotRead(t *testing.T) {
	n := newNumbers()
	n.publish(1 << 20)
	dir, stop := streaming(t, n, 50*time.Millisecond, "touch begun\nexec sleep 1000\n")
	awaitFile(t, filepath.Join(dir, "begun"), "")
	begun := time.Now()
	log := stop()
	if took := time.Since(begun); took > patience || !strings.Contains(log, "hook killed") || n.open != 0 {
		t.Errorf("it took %v, %d open, logged: %s", took, n.open, log)
	}
}

func TestAStreamsProgramIsChecked(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	for _, tt := range []struct {
		mode os.FileMode
		err  string
	}{{0o757, "can be written by every user"}, {0o644, "permission denied"}} {
		if err := os.WriteFile(program, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(program, tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := NewStream(program, newNumbers().after, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("got %v, want %q", err, tt.err)
		}
	}
}

func TestLinesOfOutputAreBounded(t *testing.T) {
	var got []string
	s := &splitter{line: func(b []byte) { got = append(got, string(b)) }}
	long := strings.Repeat("x", 3*maxPrinted)
	for _, part := range []string{"1", "2\n\n", "3", "\n" + long, long + "\n4\n5"} {
		if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if want := []string{"12", "", "3", long[:maxPrinted], "4"}; strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("got %q", got)
	}
}

// At the end of a daemon its events end before the stream's context.
func TestAStreamEndsWithItsEvents(t *testing.T) {
	n := newNumbers()
	n.publish(3)
	n.ended = true
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncat > "+dir+"/out\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	s, err := NewStream(program, n.after, hclog.New(&hclog.LoggerOptions{Output: &text}))
	if err != nil {
		t.Fatal(err)
	}
	s.Run(t.Context())
	if text.Len() > 0 {
		t.Errorf("the log has %s", &text)
	}
	awaitFile(t, dir+"/out", sequence(1, 3))
}
