package process

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheEndsOfManyProcessesAreReported(t *testing.T) {
	exits, err := NewExits()
	if err != nil {
		t.Fatal(err)
	}
	defer exits.Close()
	const processes = 40
	ended := make(chan int, processes)
	for range processes {
		cmd := exec.Command("/bin/cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		id, err := Identify(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := exits.Await(id, func() {
			_ = cmd.Wait()
			ended <- cmd.ProcessState.ExitCode()
		}); err != nil {
			t.Fatal(err)
		}
		in.Close()
	}
	for range processes {
		if status := <-ended; status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
}

func TestExitsRefuseWhatTheyCannotWaitFor(t *testing.T) {
	exits, err := NewExits()
	if err != nil {
		t.Fatal(err)
	}
	if err := exits.Await(Identity{PID: os.Getpid(), StartTime: 1}, nil); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a process that has ended: %v", err)
	}
	own, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := exits.Await(own, func() { t.Error("we have ended") }); err != nil {
		t.Error(err)
	}
	if err := exits.Close(); err != nil {
		t.Error(err)
	}
	if err := exits.Await(own, nil); err == nil {
		t.Error("a closed Exits waits")
	}
}
