package preflight

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// account is a line of passwd(5).
type account struct {
	name, home, shell string
	uid, gid          int
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

// checkShells examines the shells of the users that can log in.
func checkShells(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	var users []account
	for _, l := range m.logins {
		if len(l.with) > 0 {
			users = append(users, l.account)
		}
	}
	out := shellFindings(m, users)
	if out == nil {
		return good("no start-up file runs")
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

// shellFindings reports in one finding all shells that run start-up files.
func shellFindings(m *machine, users []account) []Finding {
	var files []string
	change := "" // an account whose shell the operator can change; never root
	for _, a := range users {
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
		return nil
	}
	fix := "have clients log in as a user with the shell /bin/sh, and name that in AllowUsers"
	switch {
	case m.uid != 0:
		fix = "chsh -s /bin/sh, where the account is for NETCONF alone"
	case change != "":
		fix += "; usermod -s /bin/sh " + word(change) + ", where that account is for NETCONF alone"
	}
	return []Finding{warn(fix, "login shells run %s before each session: the user's own code, which delays it", listed(files))}
}

func isOrdinary(a account) bool { return a.uid == 0 || a.uid >= 1000 && a.name != "nobody" }

// allowedNames returns the names in AllowUsers, without patterns.
func allowedNames(config map[string][]string) []string {
	var out []string
	for _, line := range config["allowusers"] {
		for _, pattern := range strings.Fields(line) {
			if name, _, _ := strings.Cut(pattern, "@"); !strings.ContainsAny(name, "*?!") {
				out = append(out, name)
			}
		}
	}
	return out
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
		gid, err := strconv.Atoi(field[3])
		if err != nil {
			continue
		}
		out = append(out, account{name: field[0], uid: uid, gid: gid, home: field[5], shell: field[6]})
	}
	return out
}
