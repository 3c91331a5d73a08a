//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// probe is a program that stands in for a NETCONF server, or for sshd, and
// writes down what it was given: environment, descriptors, process. It then
// sends back what it receives, until the end.
type probe struct {
	t       *testing.T
	dir     string
	Command string
}

func newProbe(t *testing.T) *probe {
	t.Helper()
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // a session is its user's
		t.Fatal(err)
	}
	p := &probe{t: t, dir: dir, Command: filepath.Join(dir, "probe")}
	// The shell reads its status itself: while it starts another program it
	// has every signal blocked.
	writeFile(t, p.Command, fmt.Sprintf(`#!/bin/sh
cd %s || exit 1
while read -r line; do echo "$line"; done < /proc/$$/status > status
cat /proc/$$/environ > environ
cat /proc/self/fdinfo/0 > fdinfo
ls -l /proc/self/fd > fds
tr '\0' ' ' < /proc/$$/cmdline > cmdline
: > done
echo "probe speaks"
exec cat
`, dir), 0o755)
	return p
}

func (p *probe) read(name string) string {
	p.t.Helper()
	awaitFile(p.t, filepath.Join(p.dir, "done"), "")
	return readFile(p.t, filepath.Join(p.dir, name))
}

// Environ returns the environment, by name.
func (p *probe) Environ() map[string]string {
	p.t.Helper()
	env := make(map[string]string)
	for _, entry := range strings.Split(strings.TrimSuffix(p.read("environ"), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := env[name]; twice {
			p.t.Errorf("%s stands twice in the environment", name)
		}
		env[name] = value
	}
	return env
}

// Descriptors returns what was open, by number, but for the two that looking
// takes.
func (p *probe) Descriptors() map[string]string {
	p.t.Helper()
	open := make(map[string]string)
	for line := range strings.Lines(p.read("fds")) {
		left, to, ok := strings.Cut(strings.TrimSpace(line), " -> ")
		if !ok || strings.HasSuffix(to, "/fd") || strings.HasSuffix(to, p.Command) {
			continue
		}
		open[left[strings.LastIndexByte(left, ' ')+1:]] = to
	}
	return open
}

// Status returns a line of proc(5)'s status file.
func (p *probe) Status(key string) string {
	p.t.Helper()
	for line := range strings.Lines(p.read("status")) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	p.t.Fatalf("no %s in the probe's status", key)
	return ""
}
