//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"
	"callhome/test/skips"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// emulators are the programs of Debian's qemu-user, by Debian's architecture.
var emulators = map[string]string{
	"amd64":   "qemu-x86_64",
	"arm64":   "qemu-aarch64",
	"armhf":   "qemu-arm",
	"i386":    "env", // by the kernel: under qemu-i386 7.2 Go 1.26 fails at start (morestack on g0)
	"riscv64": "qemu-riscv64",
	"mips":    "qemu-mips",
	"mipsel":  "qemu-mipsel",
}

// architecture is one that packages are built for.
type architecture struct {
	name string   // Debian's
	env  []string // of go build
}

// architectures are those of packaging/build.
func architectures() (all []architecture, err error) {
	text, err := os.ReadFile("../../packaging/build")
	if err != nil {
		return nil, err
	}
	_, table, _ := strings.Cut(string(text), "\narchitectures='\n")
	table, _, _ = strings.Cut(table, "\n'\n")
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("packaging/build: no architecture in %q", line)
		}
		all = append(all, architecture{fields[0], strings.Split(fields[1], ",")})
	}
	if len(all) == 0 {
		return nil, errors.New("packaging/build has no architectures")
	}
	return all, nil
}

const (
	emulatedDir      = "emulated" // in the workshop
	emulatedStory    = "TestEveryArchitectureRuns"
	emulatedPatience = 15 * time.Minute // everything is compiled for each, beside the other stories
)

// buildEmulated compiles the device's programs for each architecture, while the other
// stories run and after them in the queue for the processor. For each a file in results
// has the error, or is empty.
func buildEmulated(results string) *sync.WaitGroup {
	var all sync.WaitGroup
	if !selected(emulatedStory) {
		return &all
	}
	list, err := architectures()
	if err == nil {
		err = os.MkdirAll(results, 0o755)
	}
	if err != nil {
		fmt.Println(err)
		return &all
	}
	all.Go(func() {
		for _, a := range list {
			result := ""
			if _, err := exec.LookPath(emulators[a.name]); err == nil {
				cmd := exec.Command("nice", "-n", "19", "go", "build", "-trimpath", "-ldflags=-s -w", "-tags", "urfave_cli_no_docs,urfave_cli_no_suggest,nethttpomithttp2",
					"-o", filepath.Join(results, a.name+".programs")+"/", "callhome/cmd/callhome-trigger", "callhome/cmd/callhome-mgr")
				cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux"), a.env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					result = fmt.Sprintf("building for %s: %v\n%s", a.name, err, out)
				}
			}
			file := filepath.Join(results, a.name)
			if err := errors.Join(os.WriteFile(file+".new", []byte(result), 0o644), os.Rename(file+".new", file)); err != nil {
				fmt.Println(err)
			}
		}
	})
	return &all
}

// emulate waits for an architecture's programs and returns a directory with scripts of
// their names that run them under qemu. sshd, which they execute, is the machine's own.
func emulate(t *testing.T, name string) string {
	t.Helper()
	emulator := emulators[name]
	if emulator == "" {
		t.Fatalf("packages are built for %s, and no emulator is named that it is tested with", name)
	}
	qemu, err := exec.LookPath(emulator)
	if err != nil {
		skips.Story(t, emulator+" is not installed (Debian package qemu-user)")
	}
	built := filepath.Join(os.Getenv(workshopEnv), emulatedDir, name)
	var result []byte
	sandbox.Await(t, emulatedPatience, "the programs for "+name, func() (err error) {
		result, err = os.ReadFile(built)
		return err
	})
	if len(result) > 0 {
		t.Fatalf("%s", result)
	}
	dir := filepath.Join(runDir, emulatedDir, name) // where the helper's user may go
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"callhome-trigger", "callhome-mgr"} {
		script := filepath.Join(dir, program)
		if err := sandbox.CopyFile(filepath.Join(built+".programs", program), script+".elf", 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, script, fmt.Sprintf("#!/bin/sh\nexec %s %s.elf \"$@\"\n", qemu, script), 0o755)
	}
	return dir
}

// The programs of every package do their work: the trigger makes a call, and the daemon
// keeps a connection, follows its configuration, finds the session again after a
// restart, and stops.
func TestEveryArchitectureRuns(t *testing.T) {
	t.Parallel()
	all, err := architectures()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all { // one at a time: an emulator costs as much as many programs
		t.Run(a.name, func(t *testing.T) {
			s := newStandingSite(t, "/bin/cat")
			s.programs = emulate(t, a.name)
			emulatedTrigger(t, s)
			emulatedManager(t, s)
		})
	}
}

func emulatedTrigger(t *testing.T, s *site) {
	l := listen(t, "127.0.0.1:0")
	call := s.Call(l.Addr())
	c := l.Accept()
	if banner := c.Banner(); !strings.HasPrefix(banner, "SSH-2.0-OpenSSH") {
		t.Errorf("the trigger's socket says %q", banner)
	}
	c.Close()
	if status := call.Exit(patience); status != 255 { // sshd's
		t.Errorf("sshd ended with %d", status)
	}
}

func emulatedManager(t *testing.T, s *site) {
	first, second := s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	k := s.Keep(document(persistent("first", s.At(first.Addr))), "--follow-config")
	k.AwaitServing(patience, "first")
	session := first.Session()
	session.echo("before the restart")
	replace(t, k.file, document(persistent("first", s.At(first.Addr)), persistent("second", s.At(second.Addr))))
	k.AwaitServing(patience, "second")
	for _, name := range []string{proto.EventAuthenticated, proto.EventSubsystem} {
		k.AwaitPublished(patience, "first", name, 1)
	}
	stop(k)
	k.begin()
	session.echo("after the restart")
	running := k.AwaitServing(patience, "first")
	if s := running.Stats; s != nil && (s.BytesReceived == 0 || s.BytesSent == 0) {
		t.Errorf("figures that are not known are shown as %+v", *s)
	}
	session.leave()
	k.AwaitPublished(patience, "first", proto.EventClosed, 1)
}

func stop(k *keeper) {
	k.manager.client.Close()
	k.Signal(unix.SIGTERM)
	k.MustExit(0)
}
