package preflight

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// account is a line of passwd(5).
type account struct {
	name, home, shell string
	uid               int
}

// startup names the files that a shell runs for `shell -c command` under sshd,
// relative to the user's home.
var startup = map[string][]string{
	"bash": {".bashrc"}, // Debian's finds out that sshd started it
	"zsh":  {".zshenv"},
	"csh":  {".cshrc"},
	"tcsh": {".tcshrc", ".cshrc"},
	"fish": {".config/fish/config.fish"},
}

// checkShells looks at the users that can log in: those AllowUsers names, else
// root and the ordinary ones with a shell. Without root's rights that is us.
func checkShells(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	out := shellFindings(m, mayLogIn(m, accounts()))
	if out == nil {
		return good("none runs start-up files")
	}
	return out
}

func mayLogIn(m *machine, all []account) []account {
	allowed := allowedUsers(m.config)
	rootMay := !slices.Contains(m.config["permitrootlogin"], "no")
	var out []account
	for _, a := range all {
		switch {
		case m.uid != 0 && a.uid != m.uid, a.uid == 0 && !rootMay:
		case len(allowed) > 0 && allowed[a.name], len(allowed) == 0 && isOrdinary(a) && !a.locked():
			out = append(out, a)
		}
	}
	return out
}

// locked reports whether the account's shell ends at once.
func (a account) locked() bool {
	base := filepath.Base(a.shell)
	return base == "nologin" || base == "false"
}

// maxNamed is how many files one line of the report names.
const maxNamed = 3

// shellFindings tells of shells that end at once one by one, and of all that run
// start-up files in one finding.
func shellFindings(m *machine, who []account) []Finding {
	var out []Finding
	var files []string
	change := "" // an account whose shell can be another
	for _, a := range who {
		if a.locked() {
			out = append(out, warn("usermod -s /bin/sh "+a.name, "user %s has the shell %s: it can log in, and the subsystem ends at once", a.name, a.shell))
			continue
		}
		for _, file := range startup[filepath.Base(a.shell)] {
			path := filepath.Join(a.home, file)
			if !exists(path) {
				continue
			}
			files = append(files, path)
			if a.uid != 0 && change == "" {
				change = a.name
			}
		}
	}
	if files == nil {
		return out
	}
	mend := "have clients log in as a user with the shell /bin/sh, and name that in AllowUsers"
	switch {
	case m.uid != 0:
		mend = "chsh -s /bin/sh, where the account is for NETCONF alone"
	case change != "":
		mend += "; usermod -s /bin/sh " + change + ", where that account is for NETCONF alone"
	}
	what := strings.Join(files[:min(len(files), maxNamed)], ", ")
	if more := len(files) - maxNamed; more > 0 {
		what += " and " + strconv.Itoa(more) + " more"
	}
	return append(out, warn(mend, "login shells run %s before a session; it costs time and is the user's own code", what))
}

func isOrdinary(a account) bool { return a.uid == 0 || a.uid >= 1000 && a.name != "nobody" }

// allowedUsers returns the names in AllowUsers, without patterns.
func allowedUsers(config map[string][]string) map[string]bool {
	users := make(map[string]bool)
	for _, line := range config["allowusers"] {
		for _, word := range strings.Fields(line) {
			name, _, _ := strings.Cut(word, "@")
			if !strings.ContainsAny(name, "*?!") {
				users[name] = true
			}
		}
	}
	return users
}

// accounts returns the users of this machine, as far as passwd(5) has them.
func accounts() []account {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return nil
	}
	defer f.Close()
	return readAccounts(f)
}

func readAccounts(r io.Reader) []account {
	var out []account
	for lines := bufio.NewScanner(r); lines.Scan(); {
		field := strings.Split(lines.Text(), ":")
		if len(field) < 7 {
			continue
		}
		uid, err := strconv.Atoi(field[2])
		if err != nil {
			continue
		}
		out = append(out, account{name: field[0], uid: uid, home: field[5], shell: field[6]})
	}
	return out
}

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
		return []Finding{warn("set --sshd-log auto where the caller does not read all of it", "standard error: a pipe that nobody reads blocks the session when it is full")}
	default:
		if err := appendable(dest); err != nil {
			mend := "set another --sshd-log, which this user can write"
			if errors.Is(err, fs.ErrNotExist) {
				mend = "make its directory, or set another --sshd-log"
			}
			return []Finding{lacking(accessCode(err), mend, "%s cannot be written: %v", dest, unwrappedPath(err))}
		}
		return good("%s", dest)
	}
}

// logDirFindings looks at the directory of the sessions' logs, which the first
// call home makes.
func logDirFindings(dir string) []Finding {
	err := creatable(dir)
	switch {
	case err == nil:
		return good("%s, one file a session", dir)
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS):
		return []Finding{lacking(sysexits.OSErr, "make way for the directory, or set --sshd-log", "%s cannot be written: %v", dir, unwrappedPath(err))}
	case exists("/dev/log"):
		return good("syslog, as %s cannot be written by this user", dir)
	}
	return []Finding{lacking(sysexits.NoPerm, "set --sshd-log to a file that this user can write", "%s cannot be written, and no syslog runs", dir)}
}

// creatable returns why no file can be made in dir, which may have to be made
// itself.
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

// accessCode is the exit status of a call home that may not write its log, or
// cannot.
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

func checkManager(m *machine) []Finding {
	conn, err := net.DialTimeout("unix", m.s.ManagerSocket, socketTime)
	if err == nil {
		conn.Close()
	}
	return managerFindings(m.s, err)
}

// managerFindings judges how connecting to the manager ended. Its socket is
// everybody's, so that it may not be used is its directory's fault.
func managerFindings(s *settings.Settings, err error) []Finding {
	socket := s.ManagerSocket
	denied := errors.Is(err, unix.EACCES)
	reach := "give " + filepath.Dir(socket) + " mode 0755 and this user the group callhome"
	switch {
	case err == nil:
		return good("answers at %s", socket)
	case s.Handover == settings.HandoverManager && denied:
		return []Finding{lacking(sysexits.NoPerm, reach+", or use --handover exec", "the one at %s may not be used by this user", socket)}
	case s.Handover == settings.HandoverManager:
		return []Finding{lacking(sysexits.Unavailable, "start callhome-mgr, or use --handover exec", "no manager answers at %s", socket)}
	case s.Handover == settings.HandoverAuto && denied:
		return []Finding{warn(reach, "the one at %s may not be used by this user; --handover auto does without it", socket)}
	}
	return good("none at %s; not needed for --handover %s", socket, s.Handover)
}
