// Package atomicfile replaces files so that a reader sees the old content or the
// new one, never a part. The rooms that keep state or write files for sshd use it.
// It never creates directories.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Options of Write.
type Options struct {
	Mode os.FileMode
	// Sync has the data on disk before the name: after a power cut a file has the
	// old content or the new one, and not none.
	Sync bool
}

// Temporary returns the name under which Write writes path first. It is the same
// each time, so what a power cut or a kill left is used again: path must have one
// writer at a time.
func Temporary(path string) string {
	return filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
}

// Write replaces the file at path, or creates it. After an error the file is as it
// was. Errors name the file.
func Write(path string, data []byte, o Options) (err error) {
	f, err := os.OpenFile(Temporary(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(o.Mode)
	}
	if err == nil && o.Sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
