package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// openssh is an OpenSSH that is measured: the machine's own, or that of a tree of
// another Debian release, as the stories make them.
type openssh struct {
	tree string // "" for the machine's own
}

// opensshs returns the machine's own OpenSSH and those of all trees that have another
// one.
func opensshs() []openssh {
	cache := os.Getenv("CALLHOME_TREES")
	if cache == "" {
		cache = "/var/cache/callhome-test"
	}
	all := []openssh{{}}
	var seen [][]byte
	for _, tree := range append([]string{""}, treesIn(cache)...) {
		sshd, err := os.ReadFile(tree + "/usr/sbin/sshd")
		if err != nil || slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, sshd) }) {
			continue
		}
		seen = append(seen, sshd)
		if tree != "" {
			all = append(all, openssh{tree})
		}
	}
	return all
}

// treesIn returns the trees below dir. Half a tree has a name with a suffix.
func treesIn(dir string) (trees []string) {
	entries, _ := os.ReadDir(dir) // by name
	for _, e := range entries {
		if filepath.Ext(e.Name()) == "" {
			trees = append(trees, filepath.Join(dir, e.Name()))
		}
	}
	return trees
}

var versionOf = regexp.MustCompile(`OpenSSH_[^,\n]*`)

// version returns what sshd calls itself.
func (f *fixture) version() string {
	// Without -V, as before 9.2, the usage has it too.
	out, _ := f.inTree(exec.Command(f.command.Sshd, "-V")).CombinedOutput()
	if v := versionOf.FindString(string(out)); v != "" {
		return v
	}
	return "an unknown OpenSSH"
}

// has reports whether this OpenSSH has a key exchange: 8.4 lacks sntrup761.
func (f *fixture) has(kex string) bool {
	out, err := f.inTree(exec.Command("/usr/bin/ssh", "-Q", "kex")).Output()
	return err != nil || slices.Contains(strings.Fields(string(out)), kex)
}

// inTree has a command run in the fixture's tree, if it has one.
func (f *fixture) inTree(cmd *exec.Cmd) *exec.Cmd {
	if f.root == "" {
		return cmd
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Chroot, cmd.Dir = f.root, "/"
	return cmd
}

// mount puts an overlay of a tree at f.root, with /dev, /proc, /run and the programs
// at their own paths. All of it belongs to our mount namespace. f.root is no part of
// f.dir, which end removes.
func (f *fixture) mount(tree string) error {
	upper, work := f.path("upper"), f.path("work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	root, err := os.MkdirTemp("", "callhome-bench-tree-")
	if err != nil {
		return err
	}
	f.root = root
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+tree+",upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mounting %s: %w", tree, err)
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/run", here, f.dir} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mounting %s in %s: %w", dir, tree, err)
		}
	}
	for from, to := range map[string]string{"/etc/passwd": "/etc/passwd", "packaging/pam.d/callhome.deb": "/etc/pam.d/callhome"} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(root+to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// unmount undoes mount. It removes nothing but an empty directory.
func (f *fixture) unmount() {
	if f.root != "" {
		_ = unix.Unmount(f.root, unix.MNT_DETACH)
		_ = os.Remove(f.root)
	}
}
