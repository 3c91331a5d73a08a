package preflight

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// account is a line of passwd(5).
type account struct {
	name, home, shell string
	uid               int
}

// startup names the files that a shell runs for `shell -c command` under sshd,
// relative to the user's home.
var startup = map[string][]string{
	"bash": {".bashrc"}, // Debian's detects that sshd started it
	"zsh":  {".zshenv"},
	"csh":  {".cshrc"},
	"tcsh": {".tcshrc", ".cshrc"},
	"fish": {".config/fish/config.fish"},
}

// checkShells examines the users that can log in: those in AllowUsers, else root
// and the ordinary users with a shell. If this process is not root, only its own
// user can log in.
func checkShells(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	out := shellFindings(m, loginAccounts(m, accounts()))
	if out == nil {
		return good("no start-up file runs")
	}
	return out
}

func loginAccounts(m *machine, all []account) []account {
	allowed := allowedUsers(m.config)
	rootAllowed := !slices.Contains(m.config["permitrootlogin"], "no")
	var out []account
	for _, a := range all {
		switch {
		case m.uid != 0 && a.uid != m.uid, a.uid == 0 && !rootAllowed:
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

// maxNamed bounds how many files one line of the report names.
const maxNamed = 3

// shellFindings reports each shell that ends at once, and in one finding all
// shells that run start-up files.
func shellFindings(m *machine, users []account) []Finding {
	var out []Finding
	var files []string
	change := "" // an account whose shell the operator can change; never root
	for _, a := range users {
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
	fix := "have clients log in as a user with the shell /bin/sh, and name that in AllowUsers"
	switch {
	case m.uid != 0:
		fix = "chsh -s /bin/sh, where the account is for NETCONF alone"
	case change != "":
		fix += "; usermod -s /bin/sh " + change + ", where that account is for NETCONF alone"
	}
	what := strings.Join(files[:min(len(files), maxNamed)], ", ")
	if more := len(files) - maxNamed; more > 0 {
		what += " and " + strconv.Itoa(more) + " more"
	}
	return append(out, warn(fix, "login shells run %s before each session: the user's own code, which delays it", what))
}

func isOrdinary(a account) bool { return a.uid == 0 || a.uid >= 1000 && a.name != "nobody" }

// allowedUsers returns the names in AllowUsers, without patterns.
func allowedUsers(config map[string][]string) map[string]bool {
	users := make(map[string]bool)
	for _, line := range config["allowusers"] {
		for _, pattern := range strings.Fields(line) {
			name, _, _ := strings.Cut(pattern, "@")
			if !strings.ContainsAny(name, "*?!") {
				users[name] = true
			}
		}
	}
	return users
}

// accounts returns the users in passwd(5).
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
