//go:build integration

package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// daemon is a callhome-mgr of the story's own.
type daemon struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// startDaemon runs callhome-mgr with further environment and flags, and returns
// when it takes connections.
func startDaemon(t *testing.T, env []string, flags ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp(runDir, "d")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, socket: dir + "/mgr.sock", ended: make(chan struct{})}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--socket", d.socket, "run", "--state-dir", dir + "/state", "--read-group", "readers", "--log-level", "debug"}, flags...)
	d.cmd = exec.Command(os.Getenv(insideEnv)+"/callhome-mgr", args...)
	d.cmd.Env = append([]string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CALLHOME_DEFAULTS=/dev/null",
		"CALLHOME_SSHD_CONFIG=" + runDir + "/sshd_config", "CALLHOME_HOST_KEY=" + runDir + "/host_key", "CALLHOME_SUBSYSTEM=/bin/cat",
		"CALLHOME_SSHD_OPTION=UsePAM=no;AllowUsers=netop;AuthorizedKeysFile=" + runDir + "/authorized_keys",
	}, env...)
	d.cmd.Dir = "/"
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.ended
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/log")
			t.Logf("the log of callhome-mgr:\n%s", text)
		}
	})
	sandbox.Await(t, patience, "callhome-mgr", func() error {
		select {
		case <-d.ended:
			text, _ := os.ReadFile(dir + "/log")
			t.Fatalf("callhome-mgr ended: %s", text)
		default:
		}
		c, err := net.Dial("unix", d.socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	return d
}

// awaitEnd waits until the daemon has ended, and returns its exit status.
func (d *daemon) awaitEnd(t *testing.T) int {
	t.Helper()
	sandbox.Await(t, patience, "the end of callhome-mgr", func() error {
		select {
		case <-d.ended:
			return nil
		default:
			return fmt.Errorf("it runs")
		}
	})
	return d.cmd.ProcessState.ExitCode()
}

// awaitLog waits until the daemon has logged something.
func (d *daemon) awaitLog(t *testing.T, parts ...string) {
	t.Helper()
	sandbox.Await(t, patience, "the log of callhome-mgr", func() error {
		text, err := os.ReadFile(d.dir + "/log")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			found := 0
			for _, p := range parts {
				if strings.Contains(line, p) {
					found++
				}
			}
			if found == len(parts) {
				return nil
			}
		}
		return fmt.Errorf("no line with %q", parts)
	})
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	return fields[0] != "Z" && fields[0] != "X"
}
