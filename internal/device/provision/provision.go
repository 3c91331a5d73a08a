// Package provision owns the files that sshd needs of a configuration: host
// keys, authorized keys, certificates, passwords for a proxy. The manager calls
// it before it calls home, and after a reload. It decides nothing about what
// is in them, and touches nothing outside the directory it is given.
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

	"callhome/internal/device/config"
)

// dirMode lets every user through and nobody list what is there: sshd reads a
// user's authorized keys with that user's rights, and StrictModes wants no
// directory above them to be writable by others.
const dirMode = 0o711

// Write makes the files, all of them below dir, and the directories that they
// need. A file is there whole or not at all, with its mode from the beginning;
// one that is there already with the same content is left alone. Everything
// belongs to this process's user. dir itself is made too, its parent is not.
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
			return fmt.Errorf("writing %s: %w", f.Path, err)
		}
	}
	return nil
}

// Sweep removes every file below dir that is not in keep, and the directories
// that are empty then. sshd reads some of them at a login only, so what a
// running session may need must be in keep. A dir that is not there is no
// error.
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
	var gone []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != dir && !kept[p] {
			gone = append(gone, p)
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for what is not needed any more: %w", err)
	}
	var errs []error
	for _, p := range gone {
		if err := os.RemoveAll(p); err != nil {
			errs = append(errs, fmt.Errorf("removing what is not needed any more: %w", err))
		}
	}
	return errors.Join(errs...)
}

// below returns path relative to dir, which must contain it.
func below(dir, path string) (string, error) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsAbs(path) || !filepath.IsLocal(rel) || rel == "." || filepath.Clean(path) != path {
		return "", fmt.Errorf("writing %q: it is not below %s", path, dir)
	}
	return rel, nil
}

// makeDir makes one directory, or makes one that is there what it should be.
// What is no directory, or somebody else's, was not made by us.
func makeDir(path string) error {
	err := os.Mkdir(path, dirMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making a directory for sshd's files: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("making a directory for sshd's files: %w", err)
	}
	if !info.IsDir() || !ours(info) {
		return fmt.Errorf("making a directory for sshd's files: %s is not a directory of callhome-mgr", path)
	}
	if info.Mode().Perm() != dirMode { // the umask, or an older version
		if err := os.Chmod(path, dirMode); err != nil {
			return fmt.Errorf("making a directory for sshd's files: %w", err)
		}
	}
	return nil
}

// temporary is how a file begins that is not whole yet. No path in a
// configuration has it.
const temporary = ".new-"

func writeFile(f config.File) error {
	if same(f) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.Path), temporary) // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails when all went well
	_, err = tmp.Write(f.Data)
	err = errors.Join(err, tmp.Chmod(f.Mode), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.Path)
}

// same reports whether the file is there as it should be.
func same(f config.File) bool {
	info, err := os.Lstat(f.Path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != f.Mode || !ours(info) || info.Size() != int64(len(f.Data)) {
		return false
	}
	data, err := os.ReadFile(f.Path)
	return err == nil && slices.Equal(data, f.Data)
}

// ours reports whether a file belongs to this process's user.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
