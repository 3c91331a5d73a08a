//go:build integration

package packages

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// tree is a Debian system that is there for one story: a cached one below a
// layer that takes what is written.
type tree struct {
	lower, upper string
	root         string // where the two are one
}

// trees is the directory of the cached ones.
func trees() string {
	if dir := os.Getenv("CALLHOME_TREES"); dir != "" {
		return dir
	}
	return "/var/cache/callhome-test"
}

// openTree mounts a tree with a /proc, a /dev and an empty /run, as a device
// has them at boot.
func openTree(t *testing.T, name string) *tree {
	t.Helper()
	lower := filepath.Join(trees(), name)
	if _, err := os.Stat(lower + "/usr/sbin/sshd"); err != nil {
		skips.Story(t, fmt.Sprintf("no Debian %s tree in %s; make integration makes it", name, trees()))
	}
	base := t.TempDir()
	mount := func(source, target, kind string, flags uintptr, data string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(target, 0o755), unix.Mount(source, target, kind, flags, data)); err != nil {
			t.Fatalf("mounting %s: %v", target, err)
		}
	}
	mount("stories", base, "tmpfs", 0, "mode=0755")
	d := &tree{lower: lower, upper: base + "/upper", root: base + "/root"}
	if err := errors.Join(os.Mkdir(d.upper, 0o755), os.Mkdir(base+"/work", 0o755)); err != nil {
		t.Fatal(err)
	}
	mount("overlay", d.root, "overlay", 0, "lowerdir="+lower+",upperdir="+d.upper+",workdir="+base+"/work")
	mount("proc", d.root+"/proc", "proc", 0, "")
	mount("/dev", d.root+"/dev", "", unix.MS_BIND|unix.MS_REC, "")
	mount("run", d.root+"/run", "tmpfs", 0, "mode=0755")
	t.Cleanup(func() {
		if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return d
}

// command is a shell command in the tree.
func (d *tree) command(script string) *exec.Cmd {
	cmd := exec.Command("chroot", d.root, "/bin/sh", "-ec", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// run runs it and returns all that it printed.
func (d *tree) run(t *testing.T, script string) string {
	t.Helper()
	out, err := d.command(script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// file puts a file into the tree.
func (d *tree) file(t *testing.T, name, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(d.root+name, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// others writes such files, which are no package's: dpkg's own books, logs, and
// what the tools for users and groups keep of the file before.
var others = []string{"/var/lib/dpkg", "/var/log", "/var/cache", "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock"}

// changes is what is otherwise in the tree than in the cached one.
func (d *tree) changes(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(d.upper, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, d.upper)
		if slices.Contains(others, name) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if is, err := same(path, d.lower+name); err != nil {
			return err
		} else if is != "" && name != "" {
			found = append(found, name+": "+is)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("comparing the file system: %v", err)
	}
	return found
}

// same reports how a file of the upper layer differs from the lower one's, ""
// where it does not.
func same(upper, lower string) (string, error) {
	var a, b unix.Stat_t
	if err := unix.Lstat(upper, &a); err != nil {
		return "", err
	}
	whiteout := a.Mode&unix.S_IFMT == unix.S_IFCHR && a.Rdev == 0
	switch err := unix.Lstat(lower, &b); {
	case errors.Is(err, fs.ErrNotExist) && whiteout:
		return "", nil
	case errors.Is(err, fs.ErrNotExist):
		return "is new", nil
	case err != nil:
		return "", err
	case whiteout:
		return "is gone", nil
	case a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid:
		return fmt.Sprintf("mode %o of %d:%d, was %o of %d:%d", a.Mode, a.Uid, a.Gid, b.Mode, b.Uid, b.Gid), nil
	}
	read := os.ReadFile
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "", nil
	case unix.S_IFLNK:
		read = func(name string) ([]byte, error) {
			target, err := os.Readlink(name)
			return []byte(target), err
		}
	}
	first, err := read(upper)
	if err != nil {
		return "", err
	}
	second, err := read(lower)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(first, second) {
		return "has other contents", nil
	}
	return "", nil
}
