// Package skips owns the list of stories that could not run on a machine:
// nothing skips in silence. The integration tests and the clients' tests put
// their skips here. It decides nothing about a story but whether a skip is
// allowed.
package skips

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
)

// The environment of a run.
const (
	// ForbidEnv makes every skip a failure where it is 1.
	ForbidEnv = "CALLHOME_NO_SKIP"
	// ListEnv names a file that skips are added to, for one list of several
	// test programs.
	ListEnv = "CALLHOME_SKIP_LIST"
)

var skips struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

// Story skips a story that cannot run here.
func Story(t *testing.T, reason string) {
	t.Helper()
	if forbidden() {
		t.Fatalf("skipped, and %s is set: %s", ForbidEnv, reason)
	}
	add(t.Name() + ": " + reason)
	t.Skip(reason)
}

// All prints that a whole test program cannot run here and returns its exit
// status.
func All(reason string) int {
	add(reason)
	Print(os.Stdout)
	if forbidden() {
		return 1
	}
	return 0
}

// Print writes the list and adds it to the file of ListEnv.
func Print(w io.Writer) {
	skips.mu.Lock()
	defer skips.mu.Unlock()
	fmt.Fprintf(w, "skipped: %d\n", len(skips.list))
	for _, s := range skips.list {
		fmt.Fprintln(w, "  "+s)
	}
	name := os.Getenv(ListEnv)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		fmt.Fprintln(w, "adding to the list of skips:", err)
		return
	}
	defer f.Close()
	for _, s := range skips.list {
		fmt.Fprintln(f, s)
	}
}

func forbidden() bool { return os.Getenv(ForbidEnv) == "1" }

func add(s string) {
	skips.mu.Lock()
	defer skips.mu.Unlock()
	skips.list = append(skips.list, s)
}
