package sshdexec

import (
	"os"
	"strings"
	"unicode"
)

// PAMService is the PAM service of call homes, where PAMFile is installed. It runs no
// motd script: sshd's own service runs all of them as root at every login, and the
// client waits (measured: one script that sleeps 2 s delays each login by 2 s).
const (
	PAMService = "callhome"
	PAMFile    = "/etc/pam.d/" + PAMService
)

// wrappers are libwrap's tables, hosts_access(5).
var wrappers = []string{"/etc/hosts.allow", "/etc/hosts.deny"}

// PAM is how sshd gets the name of its PAM service.
type PAM string

// The ways. Up to 9.7 sshd takes the name from its argv[0]; from 9.8 on from
// PAMServiceName, and argv[0] means nothing.
const (
	PAMDefault  PAM = "" // sshd's own service
	PAMByName   PAM = "argv[0]"
	PAMByOption PAM = "PAMServiceName"
)

// FindPAM returns how c's sshd gets PAMService, or PAMDefault with the reason why
// sshd's own service is used.
func (c *Command) FindPAM() (how PAM, why string) { return c.findPAM(PAMFile, wrappers) }

func (c *Command) findPAM(file string, wrappers []string) (how PAM, why string) {
	if _, err := os.Stat(file); err != nil {
		return PAMDefault, file + " is not installed"
	}
	var config []byte
	if c.Config != "" {
		config, _ = ReadFile(c.Config) // sshd reports an error
	}
	set := func(keyword string) string { return setting(c.Options, string(config), keyword) }
	if strings.EqualFold(set("UsePAM"), "no") {
		return PAMDefault, "UsePAM is no"
	}
	switch byOption, isSshd := inspect(c.Sshd); {
	case !isSshd:
		return PAMDefault, c.Sshd + " is not a program in ELF"
	case byOption:
		if name := set("PAMServiceName"); name != "" {
			return PAMDefault, "PAMServiceName is " + name
		}
		return PAMByOption, ""
	}
	// libwrap's rules name the daemon by argv[0], too: rules for sshd must hold.
	for _, table := range wrappers {
		if hasRules(table) {
			return PAMDefault, table + " has rules, and this sshd would look for them by the service's name"
		}
	}
	return PAMByName, ""
}

// setting returns the value of a keyword: that of the first option, else that of the
// first line of the configuration outside a Match block. Included files are not read.
func setting(options []string, config, keyword string) string {
	for _, o := range options {
		if key, value, _ := strings.Cut(o, "="); strings.EqualFold(key, keyword) {
			return strings.TrimSpace(value)
		}
	}
	for line := range strings.Lines(config) {
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == '=' || unicode.IsSpace(r) })
		switch {
		case len(fields) < 2:
		case strings.EqualFold(fields[0], "Match"):
			return ""
		case strings.EqualFold(fields[0], keyword):
			return strings.Trim(fields[1], `"`)
		}
	}
	return ""
}

// hasRules reports whether a table of libwrap has a line that is no comment.
func hasRules(table string) bool {
	data, err := ReadFile(table)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}
