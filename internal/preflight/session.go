package preflight

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"callhome/internal/settings"
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
// root and the ordinary ones with a shell.
func checkShells(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return []Finding{warn("", "cannot tell: %v", err)}
	}
	defer f.Close()
	allowed := allowedUsers(m.config)
	var out []Finding
	for _, a := range readAccounts(f) {
		named := allowed[a.name]
		if !named && (len(allowed) > 0 || !isOrdinary(a)) {
			continue
		}
		out = append(out, shellFindings(a, named)...)
	}
	if out == nil {
		return good("none runs start-up files")
	}
	return out
}

func shellFindings(a account, named bool) []Finding {
	base := filepath.Base(a.shell)
	if base == "nologin" || base == "false" {
		if !named {
			return nil
		}
		return []Finding{warn("usermod -s /bin/sh "+a.name, "user %s has the shell %s: it can log in, and the subsystem ends at once", a.name, a.shell)}
	}
	var out []Finding
	for _, file := range startup[base] {
		if path := filepath.Join(a.home, file); exists(path) {
			out = append(out, warn("usermod -s /bin/sh "+a.name, "user %s: %s runs %s before every session; it costs time and is the user's own code", a.name, a.shell, path))
		}
	}
	return out
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
		dir := sshdexec.LogDir
		for !exists(dir) && dir != "/" {
			dir = filepath.Dir(dir)
		}
		if unix.Access(dir, unix.W_OK) != nil {
			if exists("/dev/log") {
				return good("syslog, as %s cannot be written by this user", sshdexec.LogDir)
			}
			return []Finding{lacking(sysexits.NoPerm, "set --sshd-log to a file that this user can write", "%s cannot be written, and no syslog runs", sshdexec.LogDir)}
		}
		return good("%s, one file a session", sshdexec.LogDir)
	case "syslog":
		if !exists("/dev/log") {
			return []Finding{lacking(sysexits.OSErr, "start syslog, or set --sshd-log", "/dev/log is not there")}
		}
		return good("syslog")
	case "stderr":
		return []Finding{warn("set --sshd-log auto where the caller does not read all of it", "standard error: a pipe that nobody reads blocks the session when it is full")}
	default:
		if unix.Access(filepath.Dir(dest), unix.W_OK) != nil {
			return []Finding{lacking(sysexits.NoPerm, "make its directory, or set another --sshd-log", "%s cannot be written", dest)}
		}
		return good("%s", dest)
	}
}

func checkManager(m *machine) []Finding {
	conn, err := net.Dial("unix", m.s.ManagerSocket)
	if err == nil {
		conn.Close()
		return good("answers at %s", m.s.ManagerSocket)
	}
	if m.s.Handover == settings.HandoverManager {
		return []Finding{lacking(sysexits.Unavailable, "start callhome-mgr, or use --handover exec", "no manager answers at %s", m.s.ManagerSocket)}
	}
	return good("none at %s; not needed for --handover %s", m.s.ManagerSocket, m.s.Handover)
}
