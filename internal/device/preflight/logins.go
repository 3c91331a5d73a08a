package preflight

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"
)

// login is what a user of this machine can log in with, and what is wrong with it.
type login struct {
	account
	// expected: the operator has prepared this user, by a name in AllowUsers or a
	// file of keys, so its faults are reported where other users can log in too.
	expected bool
	with     []string // keys by fingerprint, and other methods
	// faults are what sshd skips. Where with is empty, they are why the user has no
	// session.
	faults []fault
}

// fault is one thing that keeps a user from a session, and how to correct it.
type fault struct{ what, fix string }

// maxAsked bounds for how many users sshd is asked for its settings, where they can
// differ between users.
const maxAsked = 16

// findLogins examines the users that the configuration admits: those that AllowUsers
// names, and otherwise those that have a key or are ordinary users. If this process
// is not root, only its own user can log in.
func (m *machine) findLogins(all []account) []login {
	if m.config == nil {
		return nil
	}
	var out []login
	asked := 0
	for _, a := range all {
		named, matched := matchesAny(m.config["allowusers"], a.name)
		switch {
		case m.uid != 0 && a.uid != m.uid:
			continue
		case m.uid == 0 && len(m.config["allowusers"]) > 0 && !matched:
			continue
		}
		config := m.config
		if m.perUser && asked < maxAsked {
			asked++
			if c := m.configOf(a.name); c != nil {
				config = c
			}
		}
		l := login{account: a, expected: named}
		l.examine(config)
		if len(l.with) > 0 || l.expected || m.uid != 0 || isOrdinary(a) && !a.locked() {
			out = append(out, l)
		}
	}
	return out
}

// configOf returns sshd's settings for a user, nil on error.
func (m *machine) configOf(name string) map[string][]string {
	dump, ok := ask(m.s, append([]string{"-T", "-C", "user=" + name + ",host=client.invalid,addr=192.0.2.1"}, m.s.Sshd.TestArgs()...)...)
	if !ok {
		return nil
	}
	return parseDump(dump)
}

// examine finds out what the user can log in with.
func (l *login) examine(config map[string][]string) {
	if why := denied(config, l.account); why != "" {
		l.faults = append(l.faults, fault{why, "change that setting, or have clients log in as another user; sshd_config(5)"})
		return
	}
	methods := first(config, "authenticationmethods") // "" and "any": each that is enabled
	each := methods == "" || methods == "any"
	if first(config, "pubkeyauthentication") != "no" && (each || strings.Contains(methods, "publickey")) {
		l.addKeys(config)
		l.addCertificates(config)
		if command := first(config, "authorizedkeyscommand"); command != "" && command != "none" {
			l.with = append(l.with, "keys of AuthorizedKeysCommand")
		}
	}
	enabled := first(config, "passwordauthentication") == "yes" || first(config, "kbdinteractiveauthentication") == "yes"
	if enabled && !strings.Contains(methods, "publickey") && (l.uid != 0 || first(config, "permitrootlogin") == "yes") && hasPassword(l.name) {
		l.with = append(l.with, "a password")
	}
	for _, f := range []fault{shellFault(l.account), lockedFault(l.name, usesPAM(config))} {
		if f != (fault{}) {
			l.expected = l.expected || len(l.with) > 0
			l.with, l.faults = nil, append([]fault{f}, l.faults...)
		}
	}
}

// usesPAM reports whether sshd asks PAM about accounts. An sshd that was built without
// PAM does not print the keyword.
func usesPAM(config map[string][]string) bool { return first(config, "usepam") == "yes" }

// lockedFault returns why sshd refuses a locked account, with whatever key: without
// PAM it looks at shadow(5) itself (OpenSSH's auth.c, LOCKED_PASSWD_PREFIX).
func lockedFault(name string, pam bool) fault {
	if pam || !strings.HasPrefix(password(name), "!") {
		return fault{}
	}
	return fault{"the account is locked: its password in /etc/shadow begins with !, and sshd does not use PAM", "usermod -p '*' " + word(name) + ", which leaves it without a password and not locked"}
}

// hasPassword reports whether the account has a password. It is true where that
// cannot be read.
func hasPassword(name string) bool {
	p := password(name)
	return p != "" && !strings.HasPrefix(p, "!") && !strings.HasPrefix(p, "*")
}

// password returns the account's field of shadow(5); "unknown" where that cannot be
// read.
func password(name string) string {
	const unknown = "unknown"
	data, err := os.ReadFile("/etc/shadow")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(data)) {
		if field := strings.Split(line, ":"); field[0] == name && len(field) > 1 {
			return field[1]
		}
	}
	return unknown
}

// shellFault returns why the user's shell ends each session, if it does.
func shellFault(a account) fault {
	switch {
	case a.locked():
		return fault{fmt.Sprintf("the shell %s ends each session at once", a.shell), "usermod -s /bin/sh " + word(a.name)}
	case a.shell != "" && !executable(a.shell):
		return fault{fmt.Sprintf("the shell %s cannot be executed, and sshd refuses the user", a.shell), "usermod -s /bin/sh " + word(a.name)}
	}
	return fault{}
}

// addCertificates adds the login with a user certificate.
func (l *login) addCertificates(config map[string][]string) {
	ca := first(config, "trustedusercakeys")
	if ca == "" || ca == "none" {
		return
	}
	data, err := os.ReadFile(ca)
	keys := publicKeys(string(data))
	if err != nil || len(keys) == 0 {
		return // checkUserCA reports a missing file
	}
	l.with = append(l.with, "certificates of the CA "+listed(keys))
}

// denied returns which setting refuses a user, "" for none.
func denied(config map[string][]string, a account) string {
	if a.uid == 0 && first(config, "permitrootlogin") == "no" {
		return "PermitRootLogin is no"
	}
	if _, yes := matchesAny(config["denyusers"], a.name); yes {
		return "DenyUsers names the user"
	}
	if _, yes := matchesAny(config["allowusers"], a.name); len(config["allowusers"]) > 0 && !yes {
		return "AllowUsers does not name the user"
	}
	if len(config["denygroups"])+len(config["allowgroups"]) == 0 {
		return ""
	}
	groups := groupsOf(a)
	in := func(patterns []string) bool {
		return slices.ContainsFunc(groups, func(g string) bool { _, yes := matchesAny(patterns, g); return yes })
	}
	switch {
	case in(config["denygroups"]):
		return "DenyGroups names a group of the user"
	case len(config["allowgroups"]) > 0 && !in(config["allowgroups"]):
		return "AllowGroups names no group of the user"
	}
	return ""
}

// groupsOf returns the names of a user's groups.
func groupsOf(a account) []string {
	u, err := user.Lookup(a.name)
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var out []string
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			out = append(out, g.Name)
		}
	}
	return out
}

// matchesAny reports whether the values of AllowUsers and the like name a user or a
// group, by its name or by a pattern. A pattern's host is not examined.
func matchesAny(values []string, name string) (named, matched bool) {
	for _, line := range values {
		for _, pattern := range strings.Fields(line) {
			pattern, _, _ = strings.Cut(pattern, "@")
			quoted := strings.NewReplacer(`\`, `\\`, "[", `\[`).Replace(pattern) // sshd knows only * and ?
			ok, _ := path.Match(quoted, name)
			named = named || pattern == name
			matched = matched || ok
		}
	}
	return named, matched
}

// unknownNames returns the names in AllowUsers that are no users of this machine.
func unknownNames(config map[string][]string, all []account) []string {
	var out []string
	for _, name := range allowedNames(config) {
		known := func(a account) bool { return a.name == name }
		if !slices.ContainsFunc(all, known) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// checkLogins reports who can log in and with which keys.
func checkLogins(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	out := loginFindings(m.logins, unknownNames(m.config, m.accounts), strings.Join(m.config["allowusers"], " "))
	for i := range out {
		if m.ownUsers && out[i].Level == Missing {
			out[i].Level, out[i].Code = Warning, 0
			out[i].What += "; only the users of the configured clients log in"
		}
	}
	return out
}

// UsesPAM reports whether the sshd of s asks PAM about accounts; also true where sshd
// does not say.
func UsesPAM(s *settings.Settings) bool {
	dump, ok := ask(s, append([]string{"-T"}, s.Sshd.TestArgs()...)...)
	return !ok || usesPAM(parseDump(dump))
}

// UserFault returns why a user has no session on this machine whatever keys the user
// has, "" for no reason.
func UserFault(name string, pam bool) string {
	named := map[string][]string{"allowusers": {name}}
	all := lookUp(named, accounts())
	if len(unknownNames(named, all)) > 0 {
		return "it is no user of this machine"
	}
	for _, a := range all {
		if a.name == name {
			return cmp.Or(shellFault(a).what, lockedFault(name, pam).what)
		}
	}
	return ""
}

// Fingerprints returns the keys in lines of authorized_keys(5) as the report of the
// logins names them, at most a few.
func Fingerprints(lines []string) string { return listed(publicKeys(strings.Join(lines, "\n"))) }

// loginFindings makes the report of logins. unknown are the names in AllowUsers that
// are no users; allowed is the value of AllowUsers.
func loginFindings(logins []login, unknown []string, allowed string) []Finding {
	var out []Finding
	can := 0
	for _, l := range logins {
		if len(l.with) == 0 {
			continue
		}
		if can++; can <= maxNamed {
			out = append(out, good("%s, with %s", l.name, listed(l.with))...)
		}
	}
	if can > maxNamed {
		out = append(out, good("and %d more users", can-maxNamed)...)
	}
	report := func(fix, format string, args ...any) {
		if can > 0 {
			out = append(out, warn(fix, format, args...))
		} else {
			out = append(out, lacking(sysexits.NoPerm, fix, format, args...))
		}
	}
	for _, name := range unknown {
		report("useradd -m -s /bin/sh -p '*' "+word(name)+", or correct AllowUsers", "AllowUsers names %s, which is no user of this machine", name)
	}
	faulty := 0
	for _, l := range logins {
		if len(l.faults) == 0 || can > 0 && !l.expected {
			continue
		}
		if faulty++; faulty > maxNamed {
			break
		}
		effect := " cannot log in"
		if len(l.with) > 0 {
			effect = ""
		}
		for _, f := range l.faults {
			report(f.fix, "%s%s: %s", l.name, effect, f.what)
		}
	}
	if len(out) == 0 {
		what := "no user can log in"
		if allowed != "" {
			what += ": AllowUsers is " + allowed
		}
		report("create a user for NETCONF, with the NETCONF client's public key in ~/.ssh/authorized_keys", "%s", what)
	}
	return out
}

// listed joins names, at most maxNamed of them.
func listed(names []string) string {
	what := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		what += " and " + strconv.Itoa(more) + " more"
	}
	return what
}

// first returns the value of a keyword, "" where the dump lacks it.
func first(config map[string][]string, keyword string) string {
	if v := config[keyword]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// lookUp adds the users that AllowUsers names and that /etc/passwd lacks, as those of
// a directory service.
func lookUp(config map[string][]string, all []account) []account {
	for _, name := range unknownNames(config, all) {
		ctx, cancel := context.WithTimeout(context.Background(), socketTime)
		out, err := exec.CommandContext(ctx, "getent", "passwd", "--", name).Output()
		cancel()
		if err == nil {
			all = append(all, readAccounts(strings.NewReader(string(out)))...)
		}
	}
	return all
}
