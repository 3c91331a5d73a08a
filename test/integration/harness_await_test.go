//go:build integration

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"callhome/test/sandbox"
)

// patience is how long a story waits for what takes milliseconds when all is
// well: long enough for a busy machine, short enough to notice a hang.
const patience = 20 * time.Second

// tempDir makes a directory of the story's own that every user may enter.
// t.TempDir is root's alone.
func tempDir(t *testing.T) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	// Unix sockets lie in here, and their paths have 107 bytes.
	dir, err := os.MkdirTemp(runDir, name[:min(len(name), 40)]+"-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// awaitFile waits until a file holds text.
func awaitFile(t *testing.T, name, text string) {
	t.Helper()
	sandbox.Await(t, patience, name, func() error {
		data, err := os.ReadFile(name)
		if err == nil && !strings.Contains(string(data), text) {
			err = fmt.Errorf("no %q in:\n%s", text, tail(string(data)))
		}
		return err
	})
}

var lastPort atomic.Uint32

// freePort returns an unused port. In a network namespace of our own
// these are counted, below the range that the kernel gives out itself.
func freePort() string {
	return fmt.Sprint(10000 + lastPort.Add(1))
}

// freeAddr returns an address to listen on: host with a port of its own.
func freeAddr(host string) string { return net.JoinHostPort(host, freePort()) }

func splitAddr(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	var errs []error
	for _, p := range parts {
		if !strings.Contains(text, p) {
			errs = append(errs, fmt.Errorf("no %q", p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%s: %v in:\n%s", what, err, text)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
