package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tree writes a proc(5) file system with those processes, by PID with their parent.
func tree(t *testing.T, parents map[int]int) Proc {
	t.Helper()
	p := Proc(t.TempDir())
	children := make(map[int]string)
	for pid, parent := range parents {
		children[parent] += strconv.Itoa(pid) + " "
	}
	for pid, parent := range parents {
		for name, text := range map[string]string{
			"stat": fmt.Sprintf("%d (sshd) (x) S %d%s %d%s\n", pid, parent, strings.Repeat(" 1", 17), 900+pid, strings.Repeat(" 0", 20)),
			"task/" + strconv.Itoa(pid) + "/children": children[pid],
		} {
			path := p.Path(pid, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

func TestProcessesAreFoundByTheirParents(t *testing.T) {
	p := tree(t, map[int]int{10: 1, 11: 10, 12: 10, 13: 11})
	if id, parent, err := p.Stat(13); err != nil || parent != 11 || id != (Identity{13, 913}) {
		t.Errorf("13 is %v below %d, %v", id, parent, err)
	}
	for _, tt := range []struct {
		top, pid int
		want     bool
	}{{10, 13, true}, {11, 13, true}, {12, 13, false}, {13, 13, false}, {10, 14, false}, {0, 13, false}, {1, 13, false}} {
		if got := p.Below(tt.top, tt.pid); got != tt.want {
			t.Errorf("%d is below %d: %v, want %v", tt.pid, tt.top, got, tt.want)
		}
	}
	children := p.Children(10)
	slices.Sort(children)
	byParent := p.byParent()[10]
	if !slices.Equal(children, []int{11, 12}) || len(byParent) != 2 || byParent[0] != (Identity{11, 911}) {
		t.Errorf("the children of 10 are %v, %v", children, byParent)
	}
}

// Whatever name a process sets, its parent and its start are the kernel's fields.
func FuzzStat(f *testing.F) {
	f.Add("sshd", 7, uint64(900))
	f.Add("a) S 1 1 (b", 7, uint64(900))
	f.Fuzz(func(t *testing.T, comm string, parent int, start uint64) {
		stat := fmt.Sprintf("1 (%s) S %d%s %d%s\n", comm, parent, strings.Repeat(" 1", 17), start, strings.Repeat(" 0", 30))
		gotParent, gotStart, err := parseStat([]byte(stat))
		if err != nil || gotParent != parent || gotStart != start {
			t.Errorf("%q: got parent %d, start %d, %v", stat, gotParent, gotStart, err)
		}
	})
}

func TestAMalformedStatIsAnError(t *testing.T) {
	for _, text := range []string{"", "1", ")", "1 (a) S", "1 (a) S x" + strings.Repeat(" 1", 30)} {
		if _, _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("stat %q is accepted", text)
		}
	}
}

func TestAnIdentityIsOneProcess(t *testing.T) {
	id, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := id.Open()
	if err != nil {
		t.Fatalf("our own process: %v", err)
	}
	f.Close()
	other := id
	other.StartTime++
	if f, err := other.Open(); err == nil {
		f.Close()
		t.Error("a process with the same PID and another start time was opened")
	}
}

// An error of EndTree is not proof that the process has ended.
func TestEndTreeSeparatesEndedFromUnknown(t *testing.T) {
	ended := Identity{PID: os.Getpid(), StartTime: 1}
	if err := ended.EndTree(); err != nil {
		t.Errorf("an ended process: %v", err)
	}
	if tree := ended.Tree(); tree != nil {
		t.Errorf("the tree of an ended process, whose PID another one has, is %v", tree)
	}
	if err := (Identity{PID: -1}).EndTree(); err == nil {
		t.Error("an invalid PID was ended")
	}
}

// A process below that ignores SIGTERM, in a session of its own, is ended with its
// tree.
func TestATreeEndsWhole(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", `setsid /bin/sh -c 'trap : TERM; echo $$; while :; do sleep 0.1; done' & wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var below int
	if _, err := fmt.Fscan(out, &below); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	stubborn, err := Identify(below)
	tree := id.Tree() // once: the sleep below comes and goes
	if err != nil || !slices.Contains(tree, stubborn) || tree[len(tree)-1] != id {
		t.Fatalf("the tree of %v is %v, without %v, %v", id, tree, stubborn, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := id.EndTree(); err != nil {
		t.Fatal(err)
	}
	<-done
	if !stubborn.Ended() || !id.Ended() {
		t.Error("a process of the tree still runs")
	}
}
