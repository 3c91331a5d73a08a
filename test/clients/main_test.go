//go:build integration

package clients

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"
	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// The test binary runs twice: outside it builds what is tested, and then it is
// process 1 of namespaces of its own, where the stories run. Every process
// of theirs ends with it.
const (
	insideEnv = "CALLHOME_CLIENTS_DIR" // what the outer one built, for the inner one
	runDir    = "/run/t"               // short, as the path of a Unix socket must be
)

func TestMain(m *testing.M) {
	flag.Parse()
	if sandbox.Listing() {
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
	sandbox.Parallel()
	code := m.Run()
	skips.Print(os.Stdout)
	os.Exit(code)
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
	stop() // from here on Enter forwards the signals
	return sandbox.Enter(insideEnv + "=" + dir), nil
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
		{"cp", "programs/ask.py", "programs/read.py", filepath.Join(root, "clients", "python", "callhome.py"), filepath.Join(root, "packaging", "sshd_config"), dir},
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
	outsider = 4831
	members  = 4840 // may call every method
	readers  = 4841 // may call those that change nothing
)

// furnish puts a /run and the users in place, for us alone.
func furnish() error {
	built := os.Getenv(insideEnv)
	if err := errors.Join(sandbox.Mount(), sandbox.Tmpfs("/run")); err != nil {
		return err
	}
	for _, dir := range []string{runDir + "/etc", "/run/sshd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, more string }{
		{"passwd", fmt.Sprintf("netop:x:%d:%d::/:/bin/sh\noutsider:x:%d:%d::/:/bin/sh\n", netop, netop, outsider, outsider)},
		{"shadow", "netop:NP:19000:0:99999:7:::\n"},
		{"group", fmt.Sprintf("netop:x:%d:\ncallhome:x:%d:\nreaders:x:%d:\n", netop, members, readers)},
		{"resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"},
	} {
		if err := overlayFile(f.name, f.more); err != nil {
			return fmt.Errorf("/etc/%s: %w", f.name, err)
		}
	}
	// sshd wants keys and configuration in places that only root can write.
	for _, name := range []string{"host_key", "sshd_config"} {
		if err := sandbox.CopyFile(built+"/"+name, runDir+"/"+name, 0o600); err != nil {
			return err
		}
	}
	if err := sandbox.CopyFile(built+"/user_key.pub", runDir+"/authorized_keys", 0o644); err != nil {
		return err
	}
	return sandbox.LoopbackUp()
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
	target, err := filepath.EvalSymlinks(at)
	if err != nil {
		return nil // a link to what is not here: then there is no such file, which is fine
	}
	return unix.Mount(ours, target, "", unix.MS_BIND, "")
}
