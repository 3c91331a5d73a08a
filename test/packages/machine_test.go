//go:build integration

package packages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a tree with systemd as process 1, in namespaces of its own, the
// network's too.
type machine struct {
	*tree
	name string
	pid  int // of systemd
}

// bare takes off what openTree mounted in the tree: systemd/boot makes its own.
func (d *tree) bare(t *testing.T) {
	t.Helper()
	for _, sub := range []string{"/run", "/dev", "/proc"} {
		if err := unix.Unmount(d.root+sub, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(d.root+"/story", 0o755); err != nil {
		t.Fatal(err)
	}
}

// boot starts a machine, which runs until the test's end.
func boot(t *testing.T, name, release string) *machine {
	t.Helper()
	m := &machine{tree: openTree(t, release), name: name}
	m.bare(t)
	if err := os.WriteFile(m.root+"/story/story", []byte(": > /story/up\nexec sleep infinity\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	group := controlGroup(t, name)
	defer group.Close()
	cmd := exec.Command("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child", "--mount-proc", "systemd/boot", m.root, "/story/story")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatalf("booting the %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, time.Minute, "the "+name+" is up", func() error {
		_, err := os.Stat(m.root + "/story/up")
		return err
	})
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err == nil {
		_, err = fmt.Sscan(string(children), &m.pid)
	}
	if err != nil {
		t.Fatalf("finding the systemd of the %s: %v", name, err)
	}
	return m
}

// controlGroup is a control group for a machine: two systemds cannot rule one.
func controlGroup(t *testing.T, name string) *os.File {
	t.Helper()
	all := t.TempDir()
	if err := unix.Mount("cgroup2", all, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mounting the control groups: %v", err)
	}
	dir := filepath.Join(all, fmt.Sprintf("callhome-%d-%s", time.Now().UnixNano(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("making a control group: %v", err)
	}
	t.Cleanup(func() {
		await(t, 10*time.Second, "the control group of the "+name+" is empty", func() error { return removeGroups(dir) })
		if err := unix.Unmount(all, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// removeGroups removes a control group with those below it.
func removeGroups(dir string) error {
	below, err := filepath.Glob(dir + "/*/cgroup.procs")
	for _, procs := range below {
		err = errors.Join(err, removeGroups(filepath.Dir(procs)))
	}
	return errors.Join(err, unix.Rmdir(dir))
}

// command is a bash script on the machine, in root's home.
func (m *machine) command(script string) *exec.Cmd {
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(m.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"/bin/bash", "-euo", "pipefail", "-c", "cd /root\n"+script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs it and returns all that it printed. What it leaves in the background
// may go on.
func (m *machine) try(script string) (string, error) {
	out, err := os.CreateTemp("", "")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := m.command(script)
	cmd.Stdin = strings.NewReader("y\n") // to apt, which asks before it purges
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	said, readErr := os.ReadFile(out.Name())
	return string(said), errors.Join(err, readErr)
}

// run runs it and must succeed.
func (m *machine) run(t *testing.T, script string) string {
	t.Helper()
	out, err := m.try(script)
	if err != nil {
		t.Fatalf("on the %s: %s: %v\n%s", m.name, script, err, out)
	}
	return out
}

// link connects two machines; each has its address in one network.
func link(t *testing.T, a, b *machine, addressA, addressB string) {
	t.Helper()
	say(t, "ip", "link", "add", "wire0", "netns", fmt.Sprint(a.pid), "type", "veth", "peer", "name", "wire0", "netns", fmt.Sprint(b.pid))
	for m, address := range map[*machine]string{a: addressA, b: addressB} {
		for _, link := range []string{"link set lo up", "address add " + address + " dev wire0", "link set wire0 up"} {
			say(t, "nsenter", append([]string{"--target", fmt.Sprint(m.pid), "--net", "ip"}, strings.Fields(link)...)...)
		}
	}
}

// talk is a program on a machine with which one talks.
type talk struct {
	in  io.WriteCloser
	out *os.File // what it said, a file
	end chan error
}

// talk starts the script.
func (m *machine) talk(t *testing.T, script string) *talk {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.command(script)
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("on the %s: %s: %v", m.name, script, err)
	}
	k := &talk{in: in, out: out, end: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		k.end <- cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		out.Close()
	})
	return k
}

// said is all that it has printed.
func (k *talk) said() string {
	data, err := os.ReadFile(k.out.Name())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// await waits until it has said the text.
func (k *talk) await(t *testing.T, text string) {
	t.Helper()
	await(t, 30*time.Second, fmt.Sprintf("it says %q", text), func() error {
		if said := k.said(); !strings.Contains(said, text) {
			return fmt.Errorf("it said %q", said[max(0, len(said)-2000):])
		}
		return nil
	})
}

// say sends a message of NETCONF 1.0.
func (k *talk) say(t *testing.T, message string) {
	t.Helper()
	if _, err := io.Copy(k.in, bytes.NewBufferString(message+"]]>]]>")); err != nil {
		t.Fatalf("saying %s: %v", message, err)
	}
}
