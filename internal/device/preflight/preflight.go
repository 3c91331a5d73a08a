// Package preflight owns what can be known before a call home: whether this
// machine has all that sshd will need, and what is legal there and unwise. It
// backs `callhome-trigger --check` and the manager's check. It calls nobody but
// the manager and netconfd on their Unix sockets, and changes nothing but for
// sshd's privilege separation directory, which it makes as a call home would:
// without it sshd answers no other question.
package preflight

import (
	"fmt"
	"io"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"
)

// Finding is one thing that a check saw. Code is 0 for what is well or only
// unwise, else the exit status that a call home would end with.
type Finding struct {
	Level Level
	What  string
	Mend  string // the command or setting that mends it; "" where nothing needs it
	Code  int
}

// Level sorts findings.
type Level string

// The levels, as they are printed.
const (
	Good    Level = "ok"
	Warning Level = "warning"
	Missing Level = "MISSING"
)

// check is one row of the table: what it looks at, and what it found.
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
	{"login shells", checkShells},
	{"log", checkLog},
	{"manager", checkManager},
}

// Run makes all checks for s, prints a line for each finding, and returns the
// exit status: that of the first thing missing, else sysexits.OK.
func Run(w io.Writer, s *settings.Settings) int {
	m := look(s)
	code, warnings := sysexits.OK, 0
	for _, c := range checks {
		for _, f := range c.run(m) {
			fmt.Fprintf(w, "%-8s %-21s %s\n", f.Level, c.name, f.What)
			if f.Mend != "" {
				fmt.Fprintf(w, "%-8s %-21s -> %s\n", "", "", f.Mend)
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
		fmt.Fprintln(w, "A call home would fail: mend what is MISSING.")
	case warnings > 0:
		fmt.Fprintln(w, "A call home can be made; read the warnings.")
	default:
		fmt.Fprintln(w, "A call home can be made.")
	}
	return code
}

func good(format string, args ...any) []Finding {
	return []Finding{{Level: Good, What: fmt.Sprintf(format, args...)}}
}

func warn(mend, format string, args ...any) Finding {
	return Finding{Level: Warning, What: fmt.Sprintf(format, args...), Mend: mend}
}

func lacking(code int, mend, format string, args ...any) Finding {
	return Finding{Level: Missing, What: fmt.Sprintf(format, args...), Mend: mend, Code: code}
}
