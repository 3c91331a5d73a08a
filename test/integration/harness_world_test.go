//go:build integration

package integration

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// Inside the namespaces everything that a story makes is below runDir. It is
// root's and so is the way to it, as sshd's StrictModes wants it, and it is
// short, as the path of a Unix socket must be. The tmpfs that it is on goes
// with the last process.
const (
	runDir    = "/run/callhome-test"
	binDir    = runDir + "/bin"
	syslogLog = runDir + "/syslog"
)

// The users inside: NETCONF users that differ by their login shell.
const (
	netop   = "netop"   // /bin/sh
	bashful = "bashful" // bash, with a .bashrc
	absent  = "absent"  // nologin
	locked  = "locked"  // /bin/sh, with the password "!" that useradd leaves
	starred = "starred" // /bin/sh, with the password "*"
)

// accounts are the lines of passwd(5) for them. Their password is one that nothing
// hashes to, or that of passwords: "!" locks an account.
var accounts = []string{
	netop + ":x:4830:4830::" + runDir + "/home/" + netop + ":/bin/sh",
	bashful + ":x:4831:4831::" + runDir + "/home/" + bashful + ":/bin/bash",
	absent + ":x:4832:4832::" + runDir + "/home/" + absent + ":/usr/sbin/nologin",
	locked + ":x:4833:4833::" + runDir + "/home/" + locked + ":/bin/sh",
	starred + ":x:4834:4834::" + runDir + "/home/" + starred + ":/bin/sh",
}

var passwords = map[string]string{locked: "!", starred: "*"}

// hosts are names for the stories about names; see reach_test.go.
const hosts = `127.0.0.1 localhost
::1 localhost
127.0.0.1 nms.example
192.0.2.3 dead-and-live.example
192.0.2.2 dead-and-live.example
2001:db8::3 dead6-live4.example
192.0.2.2 dead6-live4.example
192.0.2.3 all-dead.example
2001:db8::3 all-dead.example
127.0.0.1 both-refuse.example
::1 both-refuse.example
`

// initMain is process 1 of the namespaces: it furnishes them, starts the
// tests, reaps whatever is orphaned and ends with the tests' exit status. When
// it ends the kernel ends every process that is left.
func initMain() int {
	if err := furnish(os.Getenv(workshopEnv)); err != nil {
		fmt.Println("furnishing the namespaces:", err)
		return 1
	}
	return sandbox.Supervise(stageEnv + "=" + stageTests)
}

func furnish(workshop string) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"mounting /proc", sandbox.Mount},
		{"mounting /run", func() error { return sandbox.Tmpfs("/run") }},
		{"mounting /etc", func() error { return sandbox.Overlay("/etc", runDir+"/etc", "/etc") }},
		// netconfd writes to root's home whatever HOME says, and at its end
		// removes the default socket whatever socket it had.
		{"mounting /root", func() error { return sandbox.Overlay("/root", runDir+"/root", "/root") }},
		{"covering netconfd's socket", coverSocket},
		{"making /dev", makeDev},
		{"bringing lo up", sandbox.LoopbackUp},
		{"filling /run", func() error { return fillRun(workshop) }},
		{"filling /etc", func() error { return fillEtc("/etc") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	os.Setenv("HOME", runDir+"/home/root")
	return nil
}

// coverSocket keeps a netconfd of the machine's own its socket: what is a mount
// point cannot be removed here.
func coverSocket() error {
	const socket = "/tmp/ncxserver.sock"
	if _, err := os.Lstat(socket); err != nil {
		return nil // nothing to keep
	}
	cover := runDir + "/ncxserver.sock"
	if err := os.WriteFile(cover, nil, 0o600); err != nil {
		return err
	}
	return unix.Mount(cover, socket, "", unix.MS_BIND, "")
}

// makeDev puts a small /dev of our own over the machine's, so that /dev/log is
// ours and terminals are counted here.
func makeDev() error {
	dev := runDir + "/dev"
	if err := errors.Join(os.MkdirAll(dev+"/pts", 0o755), os.Mkdir(dev+"/shm", 0o777)); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile(dev+"/"+name, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, dev+"/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return err
	}
	for link, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, dev+"/"+link); err != nil {
			return err
		}
	}
	return unix.Mount(dev, "/dev", "", unix.MS_BIND|unix.MS_REC, "")
}

func fillRun(workshop string) error {
	for _, dir := range []string{binDir, runDir + "/home/root", "/run/sshd", "/run/netns"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	built, err := os.ReadDir(workshop + "/bin")
	if err != nil {
		return err
	}
	for _, f := range built {
		if err := sandbox.CopyFile(workshop+"/bin/"+f.Name(), binDir+"/"+f.Name(), 0o755); err != nil {
			return err
		}
	}
	for _, account := range accounts {
		f := strings.Split(account, ":")
		uid, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(f[5], 0o755), os.Chown(f[5], uid, uid)); err != nil {
			return err
		}
	}
	return os.WriteFile(runDir+"/home/"+bashful+"/.bashrc", []byte(`touch "$HOME/bashrc-ran"`+"\n"), 0o644)
}

// fillEtc adds the users, and for the machine's own tree the names and the
// files that a package would install.
func fillEtc(etc string) error {
	for _, account := range accounts {
		f := strings.Split(account, ":")
		for file, line := range map[string]string{"passwd": account, "shadow": f[0] + ":" + cmp.Or(passwords[f[0]], "NP") + ":19000:0:99999:7:::", "group": f[0] + ":x:" + f[3] + ":"} {
			if err := appendFile(etc+"/"+file, line+"\n"); err != nil {
				return err
			}
		}
	}
	if err := sandbox.CopyFile(filepath.Join("..", "..", "packaging", "pam.d", "callhome.deb"), etc+"/pam.d/callhome", 0o644); err != nil {
		return err
	}
	if etc != "/etc" {
		return nil
	}
	// A link to the machine's resolver would lead to a file that is not here.
	if err := os.Remove("/etc/resolv.conf"); err != nil && !os.IsNotExist(err) {
		return err
	}
	files := map[string]string{
		"hosts":       hosts,
		"resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	}
	for name, text := range files {
		if err := os.WriteFile("/etc/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/etc/callhome", 0o755); err != nil {
		return err
	}
	return sandbox.CopyFile(filepath.Join("..", "..", "packaging", "sshd_config"), "/etc/callhome/sshd_config", 0o644)
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
