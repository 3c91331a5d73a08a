package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenUnixReplacesOnlyALeftSocket(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, path string) // what is there
		err    string                          // a part of it; "" for none
	}{
		{"nothing there, not even the directory", func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"a socket without a listener", func(t *testing.T, path string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}, ""},
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket"},
		{"a link", func(t *testing.T, path string) {
			if err := os.Symlink("/etc/passwd", path); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			tt.before(t, path)
			was, _ := os.Lstat(path)
			l, err := ListenUnix(path, "test")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				if is, err := os.Lstat(path); err != nil || !os.SameFile(is, was) {
					t.Errorf("the file was replaced: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
				t.Errorf("got %v, %v", info.Mode(), err)
			}
			l.Close()
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the socket outlives its listener: %v", err)
			}
		})
	}
}

// In a directory that others may write to, such as /tmp, a link could name any file.
func TestListenUnixFollowsNoLinkForItsLock(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "s"), filepath.Join(dir, "other")
	if err := os.Symlink(other, path+".lock"); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenUnix(path, "test"); err == nil {
		l.Close()
		t.Error("the link was followed")
	}
	if _, err := os.Lstat(other); !os.IsNotExist(err) {
		t.Errorf("the file of the link was made: %v", err)
	}
}
