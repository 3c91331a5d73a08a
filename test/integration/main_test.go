//go:build integration

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// The test binary runs three times, each time as the child of the one before:
// first on the machine itself, to build what is tested; then as process 1 of
// namespaces of its own, to furnish them; then there, to tell the stories.
const (
	stageEnv    = "CALLHOME_TEST_STAGE"
	stageInit   = "init"
	stageTests  = "tests"
	workshopEnv = "CALLHOME_TEST_DIR" // what the first stage made for the others
)

// The main thread is the main goroutine's for good. It is the one that
// /proc/self shows and whose end counts for Pdeathsig, so no story may take it
// into another network namespace (atNetns).
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	switch os.Getenv(stageEnv) {
	case stageInit:
		os.Exit(initMain())
	case stageTests:
		os.Exit(testsMain(m))
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

	init := stage(stageInit, workshopEnv+"="+workshop)
	init.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := init.Start(); err != nil {
		fmt.Println("making the namespaces:", err)
		return 1
	}
	stop := forwardSignals(init.Process)
	defer stop()
	if err := init.Wait(); init.ProcessState.ExitCode() < 0 {
		fmt.Println("the namespaces:", err)
		return 1
	}
	return init.ProcessState.ExitCode()
}

// stage is this binary again, with the arguments it was called with.
func stage(name string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), stageEnv+"="+name), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// forwardSignals passes on what asks us to end, QUIT among them: with it `go
// test` asks for the stacks of a run that takes too long.
func forwardSignals(to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for s := range signals {
			_ = to.Signal(s)
		}
	}()
	return func() { signal.Stop(signals) }
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
		} else if err := copyFile(filepath.Join(given, program), filepath.Join(dir, program), 0o755); err != nil {
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

// testsMain tells the stories and then sees to it that nothing is left of them.
func testsMain(m *testing.M) int {
	stopSyslog, err := startSyslog()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer stopSyslog()
	if !wasSet("test.parallel") {
		// Stories wait more than they work.
		_ = flag.Set("test.parallel", "8")
	}
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

func wasSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}
