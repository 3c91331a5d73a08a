//go:build integration

package clients

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// The test binary runs twice: outside it builds what is tested, and then it is
// process 1 of namespaces of its own, where the stories are told. Every process
// of theirs ends with it.
const (
	insideEnv = "CALLHOME_CLIENTS_DIR" // what the outer one built, for the inner one
	runDir    = "/run/t"               // short, as the path of a Unix socket must be
)

func init() { runtime.LockOSThread() } // Pdeathsig is a matter of the thread

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		os.Exit(skips.All("the clients' stories: they need root for namespaces, users and sshd"))
	}
	if os.Getenv(insideEnv) == "" {
		code, err := outside()
		if err != nil {
			fmt.Println(err)
		}
		os.Exit(code)
	}
	if err := furnish(); err != nil {
		fmt.Println("furnishing the namespaces:", err)
		os.Exit(1)
	}
	if !given("test.parallel") {
		_ = flag.Set("test.parallel", "8") // stories wait more than they work
	}
	code := m.Run()
	skips.Print(os.Stdout)
	os.Exit(code)
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func outside() (int, error) {
	// What ends us ends the stories, and then us, with nothing left behind.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp("", "callhome-clients-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	// Callers of other users run what is in there.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	if err := build(ctx, dir); err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("telling the stories in namespaces: %w", err)
	}
	return 0, nil
}

// build makes the daemon, the C client in its two ways and a listener for the
// stock ssh.
func build(ctx context.Context, dir string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	c := filepath.Join(root, "clients", "c")
	ask := []string{"-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-D_XOPEN_SOURCE=700", "-g", "-I" + c, "programs/ask.c"}
	steps := [][]string{
		{"go", "build", "-o", dir + "/", "callhome/test/integration/clients/fdpass-listen"},
		{"make", "-s", "-C", c, "OUT=" + dir + "/c", "install", "DESTDIR=" + dir + "/root", "PREFIX=/opt/callhome"},
		append([]string{"cc", "-o", dir + "/ask"}, append(ask, dir+"/c/libcallhome.a")...),
		{"make", "-s", "-C", c, "OUT=" + dir + "/c-san", "CFLAGS=-O1 -g " + sanitizers},
		append([]string{"cc", "-o", dir + "/ask-san"}, append(append(ask, dir+"/c-san/libcallhome.a"), strings.Fields(sanitizers)...)...),
		append([]string{"cc", "-o", dir + "/json", "programs/json.c", "-std=c99", "-g", "-pthread", "-I" + c}, strings.Fields(sanitizers)...),
		{"cp", "programs/ask.py", filepath.Join(root, "clients", "python", "callhome.py"), filepath.Join(root, "packaging", "sshd_config"), dir},
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir + "/host_key"},
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir + "/user_key"},
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir + "/wrong_key"},
	}
	if bin := os.Getenv("CALLHOME_BIN_DIR"); bin != "" {
		steps = append(steps, []string{"cp", filepath.Join(bin, "callhome-mgr"), dir})
	} else {
		steps = append(steps, []string{"go", "build", "-tags", "urfave_cli_no_docs,urfave_cli_no_suggest", "-o", dir + "/", "callhome/cmd/callhome-mgr"})
	}
	for _, s := range steps {
		cmd := exec.CommandContext(ctx, s[0], s[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(s, " "), err, out)
		}
	}
	return nil
}

const sanitizers = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

// The users inside, and the groups that callhome-mgr knows.
const (
	netop    = 4830 // logs in with NETCONF
	stranger = 4831
	members  = 4840 // may call every method
	lookers  = 4841 // may call those that change nothing
)

// furnish puts a /run and the users in place, for us alone.
func furnish() error {
	built := os.Getenv(insideEnv)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, m := range []struct{ kind, at, options string }{{"proc", "/proc", ""}, {"tmpfs", "/run", "mode=0755"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	for _, dir := range []string{runDir + "/etc", "/run/sshd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, more string }{
		{"passwd", fmt.Sprintf("netop:x:%d:%d::/:/bin/sh\nstranger:x:%d:%d::/:/bin/sh\n", netop, netop, stranger, stranger)},
		{"shadow", "netop:NP:19000:0:99999:7:::\n"},
		{"group", fmt.Sprintf("netop:x:%d:\ncallhome:x:%d:\nlookers:x:%d:\n", netop, members, lookers)},
		{"resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"},
	} {
		if err := overlayFile(f.name, f.more); err != nil {
			return fmt.Errorf("/etc/%s: %w", f.name, err)
		}
	}
	// sshd wants keys and configuration in places that only root can write.
	for _, name := range []string{"host_key", "sshd_config"} {
		if err := copyFile(built+"/"+name, runDir+"/"+name, 0o600); err != nil {
			return err
		}
	}
	if err := copyFile(built+"/user_key.pub", runDir+"/authorized_keys", 0o644); err != nil {
		return err
	}
	return loopbackUp()
}

// overlayFile puts a copy of a file of /etc, with more, over it.
func overlayFile(name, more string) error {
	at, ours := "/etc/"+name, runDir+"/etc/"+name
	old := ""
	if name != "resolv.conf" {
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		old = string(data)
		if name == "group" { // the machine may have one of its own
			old = strings.ReplaceAll("\n"+old, "\ncallhome:", "\nformer-callhome:")[1:]
		}
	}
	if err := os.WriteFile(ours, []byte(old+more), 0o644); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return nil // a link to what is not here: then there is no such file, which is fine
	}
	return unix.Mount(ours, real, "", unix.MS_BIND, "")
}

func copyFile(from, to string, mode os.FileMode) error {
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

func loopbackUp() error {
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
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}
