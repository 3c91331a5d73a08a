// Package sandbox gives a test program namespaces of its own: mounts, network,
// processes, host name and System V IPC. It owns how they are entered, how
// process 1 supervises, and the steps of furnishing that all suites share. The
// suites integration, clients, packages and docs use it; what a suite puts in
// its sandbox stays in the suite. It never changes the machine outside.
package sandbox

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"testing"
	"time"

	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// The main thread stays the main goroutine's: Pdeathsig follows the thread that
// started the child, and /proc/self shows the main thread.
func init() { runtime.LockOSThread() }

// Enter runs this test binary again as process 1 of new namespaces, with env
// added, and returns its exit status. It must be called from the main goroutine.
func Enter(env ...string) int {
	first := self(env)
	first.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := first.Start(); err != nil {
		fmt.Println("making the namespaces:", err)
		return 1
	}
	stop := forwardSignals(first.Process)
	defer stop()
	if err := first.Wait(); first.ProcessState.ExitCode() < 0 {
		fmt.Println("running the tests in namespaces:", err)
		return 1
	}
	return first.ProcessState.ExitCode()
}

// Supervise is for process 1: it runs this test binary again with env added,
// reaps orphans and returns the exit status of the tests. When process 1 exits,
// the kernel kills every process that is left.
func Supervise(env ...string) int {
	tests := self(env)
	if err := tests.Start(); err != nil {
		fmt.Println("starting the tests:", err)
		return 1
	}
	forwardSignals(tests.Process)
	signal.Ignore(unix.SIGPIPE)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			fmt.Println("waiting for the tests:", err)
			return 1
		case pid == tests.Process.Pid && status.Signaled():
			fmt.Println("the tests were ended by", status.Signal())
			return 1
		case pid == tests.Process.Pid:
			return status.ExitStatus()
		}
	}
}

// Command runs a program in namespaces of its own instead of a test binary. The
// program is process 1 and is killed with the test.
func Command(name string, args ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{"--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc",
		"setpriv", "--pdeathsig", "KILL", name}, args...)...)
}

func self(env []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// forwardSignals forwards the signals that end a run; with QUIT `go test` asks
// for the stacks of a run that exceeds its timeout.
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

// Mount makes the mounts private, so that the machine sees none of ours, and
// mounts the /proc of the namespace.
func Mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}

// Tmpfs mounts an empty file system on dir; it is gone with the namespace.
func Tmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting %s: %w", dir, err)
	}
	return nil
}

// Overlay mounts lower on target; what is written is kept below scratch.
func Overlay(lower, scratch, target string) error {
	upper, work := scratch+"/upper", scratch+"/work"
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", target, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mounting %s over %s: %w", lower, target, err)
	}
	return nil
}

// LoopbackUp brings up lo, which is down in a new network namespace.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// CopyFile copies a file and gives the new one a mode.
func CopyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Await polls until ready returns nil. After limit it fails the test with the
// last error of ready.
func Await(t *testing.T, limit time.Duration, what string, ready func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// Need skips the test where a program is not installed.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skips.Story(t, p+" is not installed")
		}
	}
}

// Listing reports whether `go test -list` runs, which needs no sandbox.
func Listing() bool { return flag.Lookup("test.list").Value.String() != "" }

// Parallel lets eight tests run at once unless -parallel is given: they wait
// more than they compute.
func Parallel() {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "8")
	}
}
