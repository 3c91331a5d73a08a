// Package sshdexec owns the step from a connected socket to `sshd -i`: the
// arguments, the environment, the descriptors, the signals and the log. Become
// replaces this process by sshd, Start runs sshd as a child. The trigger and the
// manager use it. It never reads or writes a byte of the socket.
//
// The comments name what stock sshd does in inetd mode, measured with OpenSSH
// 8.4 to 10.x.
package sshdexec

import (
	"fmt"
	"strconv"
	"strings"
)

// Command is the sshd to start and its command line. A field that is zero leaves
// the setting to sshd_config.
type Command struct {
	Sshd             string   // sshd(8) itself
	Config           string   // sshd_config(5); "" for the one that is built in
	HostKeys         []string // files, for -h
	HostCertificates []string // files, for -c

	// Subsystem is the shell command that serves the netconf subsystem. With it
	// every session is forced to that command: no shell, no exec and no other
	// subsystem runs.
	Subsystem string
	// SSHConnectionPort is the server port that Subsystem sees in
	// SSH_CONNECTION instead of the connection's own. Needs Subsystem.
	SSHConnectionPort uint16
	// Report is a command line that is executed before Subsystem, with Subsystem's
	// shell and command as its last arguments, which it executes in turn. A program
	// that does not exist is left out. sshd then writes the keys of the login to
	// $SSH_USER_AUTH. Needs Subsystem.
	Report    []string
	KeepAlive *KeepAlive
	// VersionAddendum stands behind sshd's version string.
	VersionAddendum string
	// Opaque becomes CALLHOME_OPAQUE in the session's environment, encoded by
	// EncodeOpaque.
	Opaque string
	DSCP   *int
	// Options are KEY=VALUE of sshd_config(5). They stand before all others,
	// and of two settings sshd takes the first.
	Options []string
	// Syslog lets sshd log to syslog instead of descriptor 2.
	Syslog bool
	// PAM is how sshd gets PAMService; Become and Start find it.
	PAM PAM
}

// KeepAlive is ClientAliveInterval (seconds; 0 for never) and
// ClientAliveCountMax of sshd_config(5).
type KeepAlive struct {
	Interval, CountMax int
}

// Check refuses values that sshd or a shell would misread. It opens nothing.
func (c *Command) Check() error {
	values := []struct{ what, value string }{
		{"sshd", c.Sshd}, {"sshd-config", c.Config}, {"subsystem", c.Subsystem}, {"version addendum", c.VersionAddendum},
	}
	for _, f := range append(append([]string(nil), c.HostKeys...), c.HostCertificates...) {
		values = append(values, struct{ what, value string }{"file", f})
	}
	for _, arg := range c.Report {
		values = append(values, struct{ what, value string }{"report", arg})
	}
	for _, v := range values {
		if hasControl(v.value) {
			return fmt.Errorf("%s %q holds a control character", v.what, v.value)
		}
	}
	if c.SSHConnectionPort != 0 && c.Subsystem == "" {
		return fmt.Errorf("ssh-connection-port %d needs a subsystem command: set --subsystem or --netconf-server", c.SSHConnectionPort)
	}
	for _, o := range c.Options {
		if err := CheckOption(o); err != nil {
			return err
		}
	}
	return nil
}

// maxOption bounds one KEY=VALUE, in bytes; the kernel takes 128 KiB an
// argument.
const maxOption = 8 << 10

// reserved options would undo what --subsystem enforces, or carry further
// options in their value.
var reserved = map[string]string{
	"match":     "a Match block belongs in the sshd_config",
	"include":   "an Include belongs in the sshd_config",
	"subsystem": "use --subsystem",
	"hostkey":   "use --host-key",
	// sshd takes the first ForceCommand: this one would replace that of --subsystem.
	"forcecommand": "use --subsystem, or the sshd_config",
}

// CheckOption refuses an option that is not KEY=VALUE of sshd_config(5), and
// the reserved ones.
func CheckOption(o string) error {
	key, value, ok := strings.Cut(o, "=")
	switch {
	case !ok || key == "" || strings.ContainsFunc(key, notAlphanumeric):
		return fmt.Errorf("sshd option %q is not KEY=VALUE with a keyword of sshd_config(5)", o)
	case len(o) > maxOption:
		return fmt.Errorf("sshd option %s has %d bytes; at most %d are passed on", key, len(o), maxOption)
	case strings.TrimSpace(value) == "":
		return fmt.Errorf("sshd option %s has no value", key)
	case hasControl(value):
		return fmt.Errorf("sshd option %s: its value holds a control character", key)
	}
	if why, ok := reserved[strings.ToLower(key)]; ok {
		return fmt.Errorf("sshd option %s cannot be set here: %s", key, why)
	}
	return nil
}

// withPAM returns c with the PAM service that this machine has for it.
func (c *Command) withPAM() *Command {
	d := *c
	d.PAM, _ = c.FindPAM()
	return &d
}

// Args returns the arguments of sshd, argv[0] among them. It is pure.
func (c *Command) Args() []string {
	args := []string{c.Sshd, "-i"}
	if c.PAM == PAMByName {
		args[0] = PAMService
	}
	if !c.Syslog {
		// Without -e an inetd-mode sshd writes nothing to descriptor 2, not
		// even what is wrong with its configuration. -E is not the way: 9.8
		// and 9.9 then write log lines into the SSH stream.
		args = append(args, "-e")
	}
	return append(args, c.TestArgs()...)
}

// TestArgs returns the arguments that configure sshd, without -i and -e: for
// `sshd -t` and `sshd -T`.
func (c *Command) TestArgs() []string {
	config := c.Config
	if config == "" {
		config = "none"
	}
	args := []string{"-f", config}
	for _, k := range c.HostKeys {
		args = append(args, "-h", k)
	}
	for _, k := range c.HostCertificates {
		args = append(args, "-c", k)
	}
	for _, o := range c.options() {
		args = append(args, "-o", o)
	}
	return args
}

// options returns every -o, the operator's own first.
func (c *Command) options() []string {
	var out []string
	setEnv := ""
	for _, o := range c.Options {
		// sshd takes only the first SetEnv: CALLHOME_OPAQUE is added to it.
		if key, value, _ := strings.Cut(o, "="); c.Opaque != "" && strings.EqualFold(key, "SetEnv") {
			setEnv += value + " "
			continue
		}
		out = append(out, o)
	}
	if c.PAM == PAMByOption {
		out = append(out, "PAMServiceName="+PAMService)
	}
	// Some lines that show a session's stages have level VERBOSE.
	out = append(out, "LogLevel=VERBOSE")
	if c.Opaque != "" {
		out = append(out, "SetEnv="+setEnv+`"CALLHOME_OPAQUE=`+EncodeOpaque(c.Opaque)+`"`)
	}
	if c.Subsystem != "" {
		out = append(out, "Subsystem=netconf netconf", "ForceCommand="+c.forceCommand())
		if len(c.Report) > 0 {
			out = append(out, "ExposeAuthInfo=yes")
		}
	}
	if k := c.KeepAlive; k != nil {
		out = append(out, "ClientAliveInterval="+strconv.Itoa(k.Interval), "ClientAliveCountMax="+strconv.Itoa(k.CountMax))
	}
	if c.VersionAddendum != "" {
		out = append(out, "VersionAddendum="+c.VersionAddendum)
	}
	if c.DSCP != nil {
		// Without IPQoS sshd sets its own DSCP after the login.
		out = append(out, "IPQoS="+strconv.Itoa(*c.DSCP<<2))
	}
	if c.Config == "" {
		out = append(out, builtIn()...)
	}
	return out
}

// forceCommand returns the shell command that runs instead of the command that
// the client requests. sshd puts the requested one into SSH_ORIGINAL_COMMAND; for
// the netconf subsystem that is "netconf", and any other request is refused.
// ForceCommand is used because its text reaches the shell verbatim on every
// version (quoting in Subsystem changed in 9.5), and the inner sh because a
// login shell need not be a Bourne shell. Each step is an exec: one process
// remains.
func (c *Command) forceCommand() string {
	script := `[ "$SSH_ORIGINAL_COMMAND" = netconf ] || { echo "only the netconf subsystem is served here" >&2; exit 1; }; unset SSH_ORIGINAL_COMMAND; `
	if c.SSHConnectionPort != 0 {
		port := strconv.Itoa(int(c.SSHConnectionPort))
		script += `SSH_CONNECTION="${SSH_CONNECTION% *} ` + port + `" SSH_CLIENT="${SSH_CLIENT% *} ` + port + `"; export SSH_CONNECTION SSH_CLIENT; `
	}
	if len(c.Report) > 0 {
		report := make([]string, len(c.Report))
		for i, arg := range c.Report {
			report[i] = shellQuote(arg)
		}
		script += `[ ! -x ` + report[0] + ` ] || exec ` + strings.Join(report, " ") + ` /bin/sh -c ` + shellQuote("exec "+c.Subsystem) + `; `
	}
	return "exec /bin/sh -c " + shellQuote(script+"exec "+c.Subsystem)
}

// quoter ends the single quotes for a quote, and for a backslash: fish, unlike other
// shells, takes one before a quote or a backslash as an escape there.
var quoter = strings.NewReplacer(`'`, `'\''`, `\`, `'\\'`)

// shellQuote returns s as one argument for any POSIX shell, csh and fish.
func shellQuote(s string) string { return "'" + quoter.Replace(s) + "'" }

// EncodeOpaque returns s as it stands in CALLHOME_OPAQUE: control characters
// and the bytes " \ % are percent-encoded (RFC 3986 section 2.1), all others
// are unchanged. Some sshd from 8.4 on misread these bytes between the quotes of
// SetEnv.
func EncodeOpaque(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < ' ' || c == 0x7f || c == '"' || c == '\\' || c == '%' {
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func notAlphanumeric(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
}
