//go:build integration

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"callhome/test/sandbox"
	"callhome/test/skips"
)

// The test binary runs three times, each time as the child of the one before:
// first on the machine itself, to build what is tested; then as process 1 of
// namespaces of its own, to furnish them; then there, to run the stories.
const (
	stageEnv     = "CALLHOME_TEST_STAGE"
	stageInit    = "init"
	stageTests   = "tests"
	stageDevices = "devices"           // a process with stand-ins, which a story starts
	workshopEnv  = "CALLHOME_TEST_DIR" // what the first stage made for the others
)

func TestMain(m *testing.M) {
	flag.Parse()
	if sandbox.Listing() {
		os.Exit(m.Run())
	}
	switch os.Getenv(stageEnv) {
	case stageInit:
		os.Exit(initMain())
	case stageTests:
		os.Exit(testsMain(m))
	case stageDevices:
		os.Exit(devicesMain())
	}
	if os.Geteuid() != 0 {
		os.Exit(skips.All("the whole integration suite: it needs root for namespaces, users and sshd"))
	}
	os.Exit(outerMain())
}

// outerMain builds, then runs process 1 and gives its exit status.
func outerMain() int {
	workshop, err := os.MkdirTemp("", "callhome-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(workshop)
	if err := build(filepath.Join(workshop, "bin")); err != nil {
		fmt.Println(err)
		return 1
	}
	trees := buildTrees(filepath.Join(workshop, "trees"))
	defer trees.Wait()
	emulated := buildEmulated(filepath.Join(workshop, emulatedDir))
	defer emulated.Wait()

	return sandbox.Enter(stageEnv+"="+stageInit, workshopEnv+"="+workshop)
}

// build makes the programs under test and the listener of the stock ssh.
func build(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	packages := []string{"callhome/test/integration/clients/fdpass-listen"}
	given := os.Getenv("CALLHOME_BIN_DIR")
	for _, program := range []string{"callhome-trigger", "callhome-mgr", "callhome-nms"} {
		if given == "" {
			packages = append(packages, "callhome/cmd/"+program)
		} else if err := sandbox.CopyFile(filepath.Join(given, program), filepath.Join(dir, program), 0o755); err != nil {
			return fmt.Errorf("CALLHOME_BIN_DIR: %w", err)
		}
	}
	for _, p := range packages {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags", "urfave_cli_no_docs", "-o", dir, p)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", p, err, out)
		}
	}
	return nil
}

// testsMain runs the stories and fails if a process of theirs is left.
func testsMain(m *testing.M) int {
	stopSyslog, err := startSyslog()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer stopSyslog()
	sandbox.Parallel()
	code := m.Run()
	skips.Print(os.Stdout)
	deadline := time.Now().Add(5 * time.Second)
	left := leftovers()
	for ; len(left) > 0 && time.Now().Before(deadline); left = leftovers() {
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range left {
		fmt.Printf("left over after the last story: %v\n", p)
		code = max(code, 1)
	}
	return code
}
