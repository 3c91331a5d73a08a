package preflight

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

func checkLog(m *machine) []Finding {
	switch dest := m.s.SshdLog; dest {
	case "auto":
		return logDirFindings(sshdexec.LogDir)
	case "syslog":
		if !exists("/dev/log") {
			return []Finding{lacking(sysexits.OSErr, "start syslog, or set --sshd-log", "/dev/log does not exist")}
		}
		return good("syslog")
	case "stderr":
		return []Finding{warn("set --sshd-log auto, unless the caller reads all of it", "standard error: a full pipe that no program reads blocks the session")}
	default:
		if err := appendable(dest); err != nil {
			fix := "set another --sshd-log, which this user can write"
			if errors.Is(err, fs.ErrNotExist) {
				fix = "create its directory, or set another --sshd-log"
			}
			return []Finding{lacking(accessCode(err), fix, "%s cannot be written: %v", dest, unwrappedPath(err))}
		}
		return good("%s", dest)
	}
}

// logDirFindings checks the directory of the session logs, which the first call
// home creates.
func logDirFindings(dir string) []Finding {
	err := creatable(dir)
	switch {
	case err == nil:
		return good("%s, one file a session", dir)
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS):
		return []Finding{lacking(sysexits.OSErr, "remove the file in its place, or set --sshd-log", "%s cannot be written: %v", dir, unwrappedPath(err))}
	case exists("/dev/log"):
		return good("syslog, as %s cannot be written by this user", dir)
	}
	return []Finding{lacking(sysexits.NoPerm, "set --sshd-log to a file that this user can write", "%s cannot be written, and no syslog runs", dir)}
}

// creatable returns why no file can be created in dir, or in the parent in which
// dir would be created.
func creatable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && dir != "/":
		return creatable(filepath.Dir(dir))
	case err != nil:
		return err
	case !info.IsDir():
		return unix.ENOTDIR
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}

// appendable returns why path cannot be written as a log.
func appendable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if dir := filepath.Dir(path); exists(dir) {
			return creatable(dir)
		}
		return err
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file, and anything else can block the session")
	}
	return unix.Access(path, unix.W_OK)
}

// accessCode is the exit status of a call home that cannot write its log.
func accessCode(err error) int {
	if errors.Is(err, fs.ErrPermission) {
		return sysexits.NoPerm
	}
	return sysexits.OSErr
}

func unwrappedPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
