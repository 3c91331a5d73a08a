package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// What the daemon was started with stays its own, whatever it starts: here a
// hook would have it.
func TestTheDaemonKeepsWhatItWasStartedWith(t *testing.T) {
	leaked, err := unix.Dup(0) // without CLOEXEC, as a shell leaks
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	t.Setenv(settings.DefaultsEnv, os.DevNull)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it stops at once
	dir := t.TempDir()
	status := run(ctx, []string{"callhome-mgr", "--socket", filepath.Join(dir, "s"), "run", "--state-dir", filepath.Join(dir, "state"),
		"--state-size", "0", "--group", "", "--log-file", filepath.Join(dir, "log")})
	if status != sysexits.OK {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("exit status %d\n%s", status, log)
	}
	if flags, err := unix.FcntlInt(uintptr(leaked), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}
