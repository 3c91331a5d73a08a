// Package preflight owns the checks before a call home: whether this machine has
// what sshd needs, and which settings are allowed but unwise. `callhome-trigger
// --check` and `callhome-mgr check` use it. It never connects to a NETCONF
// client, and creates nothing but sshd's privilege separation directory, without
// which sshd -t fails.
package preflight

import (
	"fmt"
	"io"
	"strings"

	"callhome/internal/device/settings"
	"callhome/internal/printable"
	"callhome/internal/sysexits"
)

// Finding is one result of a check. Code is the exit status that a call home
// would end with, 0 unless Level is Missing. What and Fix may have text from outside,
// such as the target of a user's symbolic link: Run makes it printable.
type Finding struct {
	Level Level
	What  string
	Fix   string // the command or setting that corrects it; "" for none
	Code  int
}

// Level is the severity of a finding.
type Level string

// The levels, as they are printed.
const (
	Good    Level = "ok"
	Warning Level = "warning"
	Missing Level = "MISSING"
)

// check is one check and its name in the report.
type check struct {
	name string
	run  func(*machine) []Finding
}

var checks = []check{
	{"sshd", checkSshd},
	{"privilege separation", checkPrivsep},
	{"configuration", checkConfig},
	{"host keys", checkHostKeys},
	{"host certificates", checkHostCertificates},
	{"user CA", checkUserCA},
	{"subsystem", checkSubsystem},
	{"source", checkSource},
	{"keepalives", checkKeepalive},
	{"PAM", checkPAM},
	{"logins", checkLogins},
	{"hosts.deny", checkHostsAccess},
	{"login shells", checkShells},
	{"log", checkLog},
	{"manager", checkManager},
}

// Run runs all checks for s, prints a line for each finding, and returns the exit
// status: that of the first Missing finding, else sysexits.OK. With ownUsers a
// document names the users of its connections: that no other user can log in is
// then a warning.
func Run(w io.Writer, s *settings.Settings, ownUsers bool) int {
	m := inspect(s)
	m.ownUsers = ownUsers
	code, warnings := sysexits.OK, 0
	for _, c := range checks {
		for _, f := range c.run(m) {
			fmt.Fprintf(w, "%-8s %-21s %s\n", f.Level, c.name, printable.Quoted(f.What))
			if f.Fix != "" {
				fmt.Fprintf(w, "%-8s %-21s -> %s\n", "", "", printable.Quoted(f.Fix))
			}
			if f.Level == Missing && code == sysexits.OK {
				code = f.Code
			}
			if f.Level == Warning {
				warnings++
			}
		}
	}
	switch {
	case code != sysexits.OK:
		fmt.Fprintln(w, "A call home would fail: correct what is MISSING.")
	case warnings > 0:
		fmt.Fprintln(w, "A call home can be made; read the warnings.")
	default:
		fmt.Fprintln(w, "A call home can be made.")
	}
	return code
}

// word returns s as one word of a command in Fix, which a person may copy into a root
// shell. It has no backslash outside s, which Run doubles.
func word(s string) string {
	special := func(r rune) bool {
		return !strings.ContainsRune("/._+@%-", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

func good(format string, args ...any) []Finding {
	return []Finding{{Level: Good, What: fmt.Sprintf(format, args...)}}
}

func warn(fix, format string, args ...any) Finding {
	return Finding{Level: Warning, What: fmt.Sprintf(format, args...), Fix: fix}
}

func lacking(code int, fix, format string, args ...any) Finding {
	return Finding{Level: Missing, What: fmt.Sprintf(format, args...), Fix: fix, Code: code}
}
