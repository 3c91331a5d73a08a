package atomicfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesTheWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(Temporary(path), bytes.Repeat([]byte("half"), 1000), 0o644); err != nil {
		t.Fatal(err) // what a power cut left
	}
	for _, o := range []Options{{Mode: 0o600}, {Mode: 0o640, Sync: true}, {Mode: 0o444}, {Mode: 0o600}} {
		want := []byte(o.Mode.String())
		if err := Write(path, want, o); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != o.Mode {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, o.Mode)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if _, err := os.Lstat(Temporary(path)); !os.IsNotExist(err) {
			t.Errorf("the temporary file is left: %v", err)
		}
	}
}

func TestAnErrorLeavesTheFileAsItWas(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "state"), filepath.Join(dir, "other")
	for _, f := range []string{path, other} {
		if err := os.WriteFile(f, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, Temporary(path)); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("after"), Options{Mode: 0o600}); err == nil {
		t.Error("a symbolic link was followed")
	}
	for _, f := range []string{path, other} {
		if got, err := os.ReadFile(f); err != nil || string(got) != "before" {
			t.Errorf("%s has %q, %v", f, got, err)
		}
	}
	if err := Write(filepath.Join(dir, "none", "x"), nil, Options{Mode: 0o600}); err == nil {
		t.Error("a directory was created")
	}
}
