// Package provision owns the files that a configuration has for sshd: host keys,
// authorized keys, certificates, and passwords for a proxy. Package rollout writes
// and removes them with it when it applies a document. It never decides what a
// file holds, and never changes anything outside the given directory.
package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"callhome/internal/atomicfile"
	"callhome/internal/device/config"
)

// dirMode lets every user pass, and only the owner list: sshd reads a user's
// authorized keys with that user's rights, and StrictModes refuses a parent
// directory that others can write.
const dirMode = 0o711

// Write writes the files, all of them below dir, and creates the directories. Each
// file is written atomically with its mode; one that has the same content already
// is not touched. All belong to this process's user. dir is created too, its parent
// is not.
func Write(dir string, files []config.File) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	for _, f := range files {
		rel, err := below(dir, f.Path)
		if err != nil {
			return err
		}
		at := dir
		for _, part := range strings.Split(filepath.Dir(rel), string(filepath.Separator)) {
			if at = filepath.Join(at, part); at == dir {
				continue
			}
			if err := makeDir(at); err != nil {
				return err
			}
		}
		if err := writeFile(f); err != nil {
			return fmt.Errorf("writing %q: %w", f.Path, err)
		}
	}
	return nil
}

// Sweep removes every file below dir that is not in keep, and the directories
// without a file of keep. sshd reads some files only at a login, so keep must have
// those that a running session may need. A missing dir is no error.
func Sweep(dir string, keep []config.File) error {
	kept := make(map[string]bool)
	for _, f := range keep {
		if _, err := below(dir, f.Path); err != nil {
			return err
		}
		for p := f.Path; p != dir; p = filepath.Dir(p) {
			kept[p] = true
		}
	}
	var unused []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != dir && !kept[p] {
			unused = append(unused, p)
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing sshd's files below %q: %w", dir, err)
	}
	var errs []error
	for _, p := range unused {
		if err := os.RemoveAll(p); err != nil {
			errs = append(errs, fmt.Errorf("removing an unused file of sshd: %w", err))
		}
	}
	return errors.Join(errs...)
}

// below returns path relative to dir, which must contain it.
func below(dir, path string) (string, error) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsAbs(path) || !filepath.IsLocal(rel) || rel == "." || filepath.Clean(path) != path {
		return "", fmt.Errorf("writing %q: not below the directory %q", path, dir)
	}
	return rel, nil
}

// makeDir creates one directory, or sets the mode of an existing one. It refuses
// another kind of file and another user's directory: a symbolic link could lead
// outside.
func makeDir(path string) error {
	err := os.Mkdir(path, dirMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("creating a directory for sshd's files: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("creating a directory for sshd's files: %w", err)
	}
	if !info.IsDir() || !owned(info) {
		return fmt.Errorf("creating a directory for sshd's files: %q is not a directory of this user; remove it or set another directory", path)
	}
	if info.Mode().Perm() != dirMode { // the umask, or an older version
		if err := os.Chmod(path, dirMode); err != nil {
			return fmt.Errorf("creating a directory for sshd's files: %w", err)
		}
	}
	return nil
}

func writeFile(f config.File) error {
	if same(f) {
		return nil
	}
	return atomicfile.Write(f.Path, f.Data, atomicfile.Options{Mode: f.Mode})
}

// same reports whether the file exists with f's content, mode and owner.
func same(f config.File) bool {
	info, err := os.Lstat(f.Path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != f.Mode || !owned(info) || info.Size() != int64(len(f.Data)) {
		return false
	}
	data, err := os.ReadFile(f.Path)
	return err == nil && slices.Equal(data, f.Data)
}

// owned reports whether a file belongs to this process's user.
func owned(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
