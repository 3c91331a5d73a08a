package provision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"callhome/internal/device/config"
)

func write(t *testing.T, dir string, files ...config.File) {
	t.Helper()
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
}

// found returns every file and directory below dir with its mode.
func found(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, p)
		out = append(out, rel+" "+info.Mode().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func file(path string, mode fs.FileMode, text string) config.File {
	return config.File{Path: path, Mode: mode, Data: []byte(text)}
}

// The modes satisfy sshd's StrictModes, a user's uid can read its keys, and only the
// owner can read a private key.
func TestWriteSetsModesThatSshdAccepts(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "ssh")
	write(t, dir, file(dir+"/e1/host_key_0", 0o600, "private"), file(dir+"/e1/keys/netconf", 0o644, "public"))
	want := []string{". drwx--x--x", "e1 drwx--x--x", "e1/host_key_0 -rw-------", "e1/keys drwx--x--x", "e1/keys/netconf -rw-r--r--"}
	if got := found(t, dir); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if data, err := os.ReadFile(dir + "/e1/host_key_0"); err != nil || string(data) != "private" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestWriteReplacesWholeFilesOnly(t *testing.T) {
	dir := t.TempDir()
	key := dir + "/e1/host_key_0"
	write(t, dir, file(key, 0o600, "old"))
	reader, err := os.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	inode := func() uint64 {
		info, err := os.Stat(key)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	before := inode()
	write(t, dir, file(key, 0o600, "old"))
	if inode() != before {
		t.Error("a file that was right is another one now")
	}
	write(t, dir, file(key, 0o600, "new"))
	old := make([]byte, 8)
	n, _ := reader.Read(old)
	if string(old[:n]) != "old" {
		t.Errorf("who had the file open reads %q", old[:n])
	}
	if data, _ := os.ReadFile(key); string(data) != "new" {
		t.Errorf("now it holds %q", data)
	}
	for name, spoil := range map[string]func() error{
		"too open":        func() error { return os.Chmod(key, 0o644) },
		"a symbolic link": func() error { return errors.Join(os.Remove(key), os.Symlink("/etc/passwd", key)) },
		"gone":            func() error { return os.Remove(key) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		write(t, dir, file(key, 0o600, "new"))
		info, err := os.Lstat(key)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: then %v, %v", name, info.Mode(), err)
		}
	}
	if text, err := os.ReadFile("/etc/passwd"); err != nil || strings.HasPrefix(string(text), "new") {
		t.Errorf("what the link named: %v", err)
	}
}

func TestWriteStaysBelowItsDirectory(t *testing.T) {
	top := t.TempDir()
	dir := top + "/ssh"
	for _, path := range []string{top + "/elsewhere", dir + "/../elsewhere", dir + "/e1/../../elsewhere", dir, "e1/key", ""} {
		if err := Write(dir, []config.File{file(path, 0o600, "x")}); err == nil {
			t.Errorf("%q was written", path)
		}
		if err := Sweep(dir, []config.File{file(path, 0o600, "x")}); err == nil {
			t.Errorf("%q was kept", path)
		}
	}
	if _, err := os.Stat(top + "/elsewhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file outside: %v", err)
	}
	// A symbolic link in place of a directory is refused.
	if err := errors.Join(os.Mkdir(top+"/theirs", 0o755), os.Symlink(top+"/theirs", dir+"/e1")); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, []config.File{file(dir+"/e1/key", 0o600, "x")}); err == nil {
		t.Error("written through a link")
	}
}

func TestSweepRemovesUnusedFiles(t *testing.T) {
	dir := t.TempDir()
	a, b, user := file(dir+"/e1/host_key_0", 0o600, "a"), file(dir+"/e2/host_key_0", 0o600, "b"), file(dir+"/e1/keys/netconf", 0o644, "k")
	write(t, dir, a, b, user)
	if err := os.WriteFile(dir+"/e1/.new-key", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir, []config.File{a}); err != nil {
		t.Fatal(err)
	}
	if got, want := found(t, dir), []string{". drwx--x--x", "e1 drwx--x--x", "e1/host_key_0 -rw-------"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if err := Sweep(dir, nil); err != nil || len(found(t, dir)) != 1 {
		t.Errorf("left are %q, %v", found(t, dir), err)
	}
	if err := Sweep(dir+"/nothing", nil); err != nil {
		t.Error(err)
	}
}
